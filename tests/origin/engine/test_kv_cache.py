"""The cache of keys and values, under real models of random weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
import transformers as hf
from torch.utils._python_dispatch import TorchDispatchMode

from origin.engine.kv_cache import KvBlock, KvCache, KvLayout, UnsupportedCacheError

VOCABULARY = 199
CUTS = (0, 16, 32, 64, 96, 128, 192, 100_000)
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
GROUPED = SHAPE | {"num_key_value_heads": 2}
FULL = (None, None, None)
MODELS: dict[str, tuple[Callable[[], Any], tuple[int | None, ...]]] = {
    "llama": (lambda: hf.LlamaConfig(**GROUPED), FULL),
    "mistral": (lambda: hf.MistralConfig(**GROUPED, sliding_window=24), (24, 24, 24)),
    "qwen3": (
        lambda: hf.Qwen3Config(
            **GROUPED, head_dim=16, use_sliding_window=True, sliding_window=40, max_window_layers=1
        ),
        (None, 40, 40),
    ),
    "gemma3": (
        lambda: hf.Gemma3TextConfig(
            **GROUPED,
            head_dim=16,
            sliding_window=24,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        ),
        (24, None, 24),
    ),
    "gpt2": (
        lambda: hf.GPT2Config(
            vocab_size=VOCABULARY, n_positions=512, n_embd=64, n_layer=3, n_head=4
        ),
        FULL,
    ),
    "gpt_neox": (lambda: hf.GPTNeoXConfig(**(SHAPE | {"rotary_pct": 0.25})), FULL),
    "phi": (lambda: hf.PhiConfig(**GROUPED), FULL),
}
RANDOM = torch.Generator().manual_seed(7)
PROMPT: list[int] = torch.randint(0, VOCABULARY, (200,), generator=RANDOM).tolist()
# Begins as PROMPT does.
SIBLING: list[int] = PROMPT[:140] + torch.randint(0, VOCABULARY, (77,), generator=RANDOM).tolist()


@pytest.fixture(autouse=True)
def _inference() -> Iterable[None]:
    """As an engine runs a model: no gradients, a constant number of threads."""
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield


@cache
def model_of(name: str, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> Any:
    """A model of random weights."""
    with torch.inference_mode(mode=False):
        torch.manual_seed(1)
        config = MODELS[name][0]()
        # Ends nowhere, whatever the model's own end token is.
        config.bos_token_id = config.eos_token_id = config.pad_token_id = None
        config._attn_implementation = attention
        make: Any = hf.AutoModelForCausalLM.from_config
        return make(config).eval().to(dtype)


def read(model: Any, past: hf.Cache, ids: Sequence[int]) -> torch.Tensor:
    """The logits after `ids`, shape [vocabulary]."""
    out = model(input_ids=torch.tensor([list(ids)]), past_key_values=past, use_cache=True)
    assert out.past_key_values is past
    logits: torch.Tensor = out.logits[0, -1]
    return logits


def prefill(
    model: Any, ids: Sequence[int], parts: Sequence[KvBlock] = ()
) -> tuple[KvCache, list[KvBlock], torch.Tensor]:
    """Read what follows `parts` cut as ever: the cache, the blocks read, the logits."""
    past = KvCache(KvLayout.of(model), [(part, part.tokens) for part in parts])
    blocks = []
    logits = torch.empty(0)
    while past.tokens < len(ids):
        start = past.tokens
        end = min(len(ids), next(cut for cut in CUTS if cut > start))
        logits = read(model, past, ids[start:end])
        blocks.append(past.block(start, end))
    return past, blocks, logits


def decode(
    model: Any, past: KvCache, logits: torch.Tensor, *, count: int = 16, reserved: int = 1
) -> torch.Tensor:
    """The logits before and after each of `count` greedy tokens, shape [count + 1, vocabulary]."""
    past.reserve(reserved)
    all_logits = [logits]
    for _ in range(count):
        all_logits.append(read(model, past, [int(all_logits[-1].argmax())]))
    return torch.stack(all_logits)


def digest(block: KvBlock) -> str:
    """A hash of all bits of a block."""
    sha = hashlib.sha256()
    for tensor in (tensor for pair in block.layers for tensor in pair):
        sha.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def storages(tensors: Iterable[torch.Tensor]) -> int:
    """The bytes of distinct storages."""
    return sum(
        {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values()
    )


def held(past: KvCache) -> list[torch.Tensor]:
    """Every tensor any layer of a cache refers to."""
    found: list[torch.Tensor] = []
    for layer in past.layers:
        for value in vars(layer).values():
            of_layer = value if isinstance(value, tuple) else (value,)
            found += [item for item in of_layer if isinstance(item, torch.Tensor)]
    return found


def same(block: KvBlock, other: KvBlock) -> bool:
    """Whether two blocks hold the same bits."""
    return digest(block) == digest(other) and block.tokens == other.tokens


class Recorder(hf.DynamicCache):
    """The oracle: transformers' own cache, which also notes what it was given."""

    def __init__(self, config: Any) -> None:
        super().__init__(config=config)
        self.given: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = {}

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Note a copy."""
        self.given.setdefault(layer_idx, []).append((key_states.clone(), value_states.clone()))
        return super().update(key_states, value_states, layer_idx, *args)


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]  # theirs
    """Counts the tensor operations done inside."""

    count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", MODELS)
def test_layout(name: str) -> None:
    """A layout says which layers slide, of a model as of its config."""
    windows = MODELS[name][1]
    assert KvLayout.of(model_of(name)) == KvLayout(windows)
    assert KvLayout.of(MODELS[name][0]()).slides == any(windows)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (hf.T5Config, "it has an encoder"),
        (hf.MambaConfig, "layer 0 is neither full nor sliding attention"),
        (hf.Qwen3NextConfig, "layer 0 is neither full nor sliding attention"),
        (hf.DeepseekV4Config, "transformers has no cache for its layers"),
        (
            lambda: hf.OpenAIGPTLMHeadModel(hf.OpenAIGPTConfig(n_layer=1, n_embd=12)),
            "its forward pass takes no keys and values",
        ),
        (
            lambda: hf.RwkvForCausalLM(
                hf.RwkvConfig(num_hidden_layers=2, hidden_size=8, vocab_size=9)
            ),
            "its forward pass takes no keys and values",
        ),
    ],
)
def test_layout_refuses_what_is_not_kv_alone(make: Callable[[], Any], reason: str) -> None:
    """Recurrent, encoding and unknown models are refused by name of the obstacle."""
    with pytest.raises(UnsupportedCacheError) as caught:
        KvLayout.of(make())
    assert caught.value.reason == reason


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_warm_is_cold_bit_by_bit(name: str, dtype: torch.dtype) -> None:
    """Resumed from another prompt's blocks, a prompt has the bits it has from the beginning."""
    model = model_of(name, dtype)
    _, blocks, _ = prefill(model, SIBLING)
    for length in (130, 200):
        ids = PROMPT[:length]
        cold, _, logits = prefill(model, ids)
        expected = decode(model, cold, logits)
        for known, reserved in ((1, 1), (3, 300), (5, 1), (5, 64)):
            warm, _, logits = prefill(model, ids, blocks[:known])
            actual = decode(model, warm, logits, reserved=reserved)
            assert torch.equal(actual, expected), (length, known, reserved)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", MODELS)
def test_tokens_are_those_of_transformers(name: str, attention: str) -> None:
    """Greedy tokens of a cut and resumed prompt are `generate`'s, with its cache and with ours."""
    model = model_of(name, attention=attention)
    options = {"max_new_tokens": 24, "do_sample": False, "eos_token_id": None}
    inputs = {"input_ids": torch.tensor([PROMPT]), "attention_mask": torch.ones(1, len(PROMPT))}
    expected = model.generate(**inputs, **options)[0, len(PROMPT) :]
    _, blocks, _ = prefill(model, SIBLING)
    past, _, logits = prefill(model, PROMPT, blocks[:4])
    assert decode(model, past, logits, count=23).argmax(-1).tolist() == expected.tolist()
    ours = KvCache(KvLayout.of(model))
    again = model.generate(**inputs, **options, past_key_values=ours)[0, len(PROMPT) :]
    assert again.tolist() == expected.tolist()


@pytest.mark.parametrize("name", ["llama", "mistral", "gemma3"])
def test_a_block_is_what_the_model_gave(name: str) -> None:
    """A block holds all K/V of its tokens, in layers that have let go of them too."""
    model = model_of(name)
    oracle = Recorder(model.config)
    ends = [*(cut for cut in CUTS if 0 < cut < len(PROMPT)), len(PROMPT)]
    for start, end in pairwise([0, *ends]):
        read(model, oracle, PROMPT[start:end])
    _, blocks, _ = prefill(model, PROMPT)
    assert [block.tokens for block in blocks] == [e - s for s, e in pairwise([0, *ends])]
    for index, block in enumerate(blocks):
        for layer, (keys, values) in enumerate(block.layers):
            assert torch.equal(keys, oracle.given[layer][index][0])
            assert torch.equal(values, oracle.given[layer][index][1])


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_a_block_never_changes(name: str) -> None:
    """Whatever is done with the caches it came from and went into."""
    model = model_of(name)
    source, blocks, logits = prefill(model, SIBLING)
    before = [digest(block) for block in blocks]
    decode(model, source.fork(), logits)
    source.crop(-20)
    decode(model, source, logits, count=40)
    for known in (1, 4):
        warm, _, logits = prefill(model, PROMPT, blocks[:known])
        decode(model, warm.fork(), logits)
        decode(model, warm, logits, count=80)
    assert [digest(block) for block in blocks] == before


@pytest.mark.parametrize("name", ["llama", "mistral", "gemma3"])
def test_sizes_are_those_of_storages(name: str) -> None:
    """Blocks hold just their own bytes; a cache says what it holds, spare room included."""
    model = model_of(name)
    past, blocks, logits = prefill(model, PROMPT)
    for block in blocks:
        tensors = [tensor for pair in block.layers for tensor in pair]
        assert all(t.is_contiguous() for t in tensors)
        assert block.size_bytes == storages(tensors) == sum(t.nbytes for t in tensors)
        assert block.size_bytes == block.tokens * past.token_bytes
    assert past.size_bytes == storages(held(past))
    decode(model, past, logits, count=70)
    assert past.size_bytes == storages(held(past)) > past.tokens * past.token_bytes // 3
    waiting = KvCache(KvLayout.of(model), [(blocks[0], blocks[0].tokens)])
    assert waiting.size_bytes == 0


def test_nothing_is_copied_before_the_first_pass() -> None:
    """Blocks are taken by reference, and a fork shares what there is."""
    model = model_of("gemma3")
    past, blocks, _ = prefill(model, PROMPT)
    layout = KvLayout.of(model)
    with Operations() as operations:  # type: ignore[no-untyped-call]  # theirs
        waiting = KvCache(layout, [(block, block.tokens) for block in blocks])
        waiting.fork()
        past.fork()
        waiting.reserve(100)
    assert operations.count == 0
    assert waiting.tokens == len(PROMPT)


def test_decoding_does_not_copy_the_sequence() -> None:
    """The buffer of a full layer moves seldom, and a block of decoded tokens can be had."""
    model = model_of("llama")
    past, _, _ = prefill(model, PROMPT)
    past.reserve()
    moves, before = 0, 0
    for token in PROMPT[:150]:
        read(model, past, [token])
        keys = past.layers[0].keys
        assert keys is not None
        moves += keys.untyped_storage().data_ptr() != before
        before = keys.untyped_storage().data_ptr()
    assert moves <= 4
    expected, _, _ = prefill(model, PROMPT + PROMPT[:150])
    block, other = past.block(200, 350), expected.block(200, 350)
    for pair, other_pair in zip(block.layers, other.layers, strict=True):
        for tensor, wanted in zip(pair, other_pair, strict=True):
            torch.testing.assert_close(tensor, wanted)


def test_room_that_is_reserved_is_made_at_once() -> None:
    """A buffer with room for what is to come does not move."""
    model = model_of("gpt2")
    past, _, _ = prefill(model, PROMPT)
    past.reserve(150)
    pointers: set[int] = set()
    for token in PROMPT[:150]:
        read(model, past, [token])
        pointers.update(t.untyped_storage().data_ptr() for t in held(past))
    assert len(pointers) == 2 * len(past.layers)


@pytest.mark.parametrize("prompt_tokens", [10, 200])
def test_a_sliding_layer_stays_small(prompt_tokens: int) -> None:
    """However long the answer, it holds its window and one step."""
    model = model_of("mistral")
    past, _, logits = prefill(model, PROMPT[:prompt_tokens])
    decode(model, past, logits, count=250)
    most = 128 * past.token_bytes
    assert past.size_bytes <= most
    with pytest.raises(ValueError, match="layer 0 does not hold positions 0 to 5"):
        past.block(0, 5)


@pytest.mark.parametrize("reserved", [0, 1])
@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_forks_do_not_meet(name: str, reserved: int) -> None:
    """Each goes on as a cache of its own would, though one forgets what the other has."""
    model = model_of(name)
    past, _, _ = prefill(model, PROMPT[:100])
    alone, _, _ = prefill(model, PROMPT[:100])
    if reserved:
        past.reserve(reserved)
        alone.reserve(reserved)
    for each in (past, alone):
        read(model, each, PROMPT[100:108])
    twin = past.fork()
    past.crop(-4)
    for token in (3, 5, 8):
        read(model, past, [token])
    twin_logits = [read(model, twin, [token]) for token in PROMPT[108:112]]
    alone_logits = [read(model, alone, [token]) for token in PROMPT[108:112]]
    assert torch.equal(torch.stack(twin_logits), torch.stack(alone_logits))
    assert same(twin.block(100, 112), alone.block(100, 112)) or name == "gemma3"
    assert past.tokens == 107


@pytest.mark.parametrize("reserved", [0, 1])
@pytest.mark.parametrize("name", MODELS)
def test_cropped_is_never_read(name: str, reserved: int) -> None:
    """Having forgotten its last pass, a cache goes on as if that had not been."""
    model = model_of(name)
    past, _, _ = prefill(model, PROMPT[:100])
    other, _, _ = prefill(model, PROMPT[:100])
    if reserved:
        past.reserve(reserved)
        other.reserve(reserved)
    read(model, past, SIBLING[-30:])
    past.crop(-30)
    past.crop(0)
    assert past.tokens == 100
    assert torch.equal(read(model, past, PROMPT[100:110]), read(model, other, PROMPT[100:110]))


def test_keep_closes_up() -> None:
    """The first and last tokens stay; keys of the last ones are moved layer by layer."""
    model = model_of("llama")
    past, _, _ = prefill(model, PROMPT[:100])
    whole = past.block(64, 100)
    start = prefill(model, PROMPT[:100])[1][0]
    past.keep(4, 20, moved=lambda layer, keys: keys + layer)
    assert past.tokens == 24
    for layer, (keys, values) in enumerate(past.block(0, 24).layers):
        assert torch.equal(keys[:, :, :4], start.layers[layer][0][:, :, :4])
        assert torch.equal(keys[:, :, 4:], whole.layers[layer][0][:, :, 16:] + layer)
        assert torch.equal(values[:, :, 4:], whole.layers[layer][1][:, :, 16:])
    assert past.size_bytes == 24 * past.token_bytes == storages(held(past))
    read(model, past, [1])
    assert past.tokens == 25


def test_keep_refuses_what_it_cannot() -> None:
    """Sliding layers have no first tokens to keep; nobody keeps more than there is."""
    past, _, _ = prefill(model_of("gemma3"), PROMPT[:100])
    with pytest.raises(UnsupportedCacheError, match="window of its own"):
        past.keep(4, 8)
    past, _, _ = prefill(model_of("llama"), PROMPT[:10])
    with pytest.raises(ValueError, match="no 4 first and 8 last in 10 tokens"):
        past.keep(4, 8)


def test_halves_of_a_block() -> None:
    """Head and tail are copies that make up the whole."""
    _, blocks, _ = prefill(model_of("gemma3"), PROMPT[:100])
    block = blocks[2]
    head, tail = block.head(10), block.tail(10)
    assert (head.tokens, tail.tokens) == (10, block.tokens - 10)
    assert head.size_bytes + tail.size_bytes == block.size_bytes
    joined = KvBlock(
        tuple(
            (torch.cat([hk, tk], dim=2), torch.cat([hv, tv], dim=2))
            for (hk, hv), (tk, tv) in zip(head.layers, tail.layers, strict=True)
        )
    )
    assert same(joined, block)
    with pytest.raises(ValueError, match="no tokens 0 to 33 in a block of 32"):
        block.head(33)


@pytest.mark.parametrize("name", MODELS)
def test_a_part_of_a_block_will_do(name: str) -> None:
    """The first tokens of a block continue as the sequence they are of, but for rounding."""
    model = model_of(name)
    _, blocks, _ = prefill(model, SIBLING)
    past = KvCache(KvLayout.of(model), [(blocks[0], 16), (blocks[1], 16), (blocks[2], 21)])
    assert past.tokens == 53
    warm = read(model, past, PROMPT[53:90])
    torch.testing.assert_close(warm, prefill(model, PROMPT[:90])[2], rtol=1e-4, atol=1e-5)


def test_what_does_not_fit_is_refused() -> None:
    """Parts of another model, more tokens than a block has, and batches."""
    model = model_of("llama")
    past, blocks, _ = prefill(model, PROMPT[:40])
    layout = KvLayout.of(model)
    with pytest.raises(ValueError, match="17 tokens of a block of 16 tokens"):
        KvCache(layout, [(blocks[0], 17)])
    with pytest.raises(ValueError, match="3 layers do not fit a cache of 1 layers"):
        KvCache(KvLayout((None,)), [(blocks[0], 16)])
    with pytest.raises(ValueError, match="one sequence, not of 2"):
        model(input_ids=torch.tensor([[1], [2]]), past_key_values=KvCache(layout))
    with pytest.raises(ValueError, match="negative number"):
        past.crop(3)
    with pytest.raises(ValueError, match="cannot forget its last 41 tokens"):
        past.crop(-41)
    with pytest.raises(ValueError, match="cannot forget its last 1 tokens"):
        KvCache(layout, [(blocks[0], 16)]).crop(-1)
