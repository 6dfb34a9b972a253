"""Train the demo model: make the text, train a tokenizer and a tiny Llama, save a checkpoint.

    python -m origin.engine.demo.train --out origin/engine/demo/checkpoint --minutes 20

The text comes from `text.py` alone. A seed fixes the text, the tokenizer and the order of training;
the weights repeat exactly only for the same number of steps, threads, processor and torch version.
The loss counts answers in full and questions lightly: a question's address is chance and cannot be
learned, copying it into the answer can. Half precision on disk, float32 when trained.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from origin.engine.demo import DEMO_CHECKPOINT, text

if TYPE_CHECKING:
    from collections.abc import Iterator

VOCABULARY: Final = 1024
CONTEXT_TOKENS: Final = 2048
BEGIN, SYSTEM, USER, ASSISTANT, END, PAD = (
    "<|begin|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|end|>",
    "<|pad|>",
)
CHAT_TEMPLATE: Final = (
    "{{- '<|begin|>' -}}"
    "{%- for message in messages -%}"
    "{%- if message['role'] not in ['system', 'user', 'assistant'] -%}"
    "{{- raise_exception('roles are system, user and assistant') -}}"
    "{%- endif -%}"
    "{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)
_QUESTION_WEIGHT: Final = 0.05
_PLAIN_SHARE: Final = 0.1
_STEP_TOKENS: Final = 6144


def train_tokenizer(seed: int) -> Tokenizer:
    """A byte-level BPE of `VOCABULARY` entries whose digits stand alone, so that numbers copy."""
    rng = random.Random(seed)  # noqa: S311 -- made-up text, not secrets
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    specials = [BEGIN, SYSTEM, USER, ASSISTANT, END, PAD]
    tokenizer.train_from_iterator(
        (content for _ in range(12_000) for _, content in text.conversation(rng)),
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=[AddedToken(token, special=True) for token in specials],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, tokenizer.token_to_id(BEGIN))]
    )
    return tokenizer


def sample(tokenizer: Tokenizer, rng: random.Random) -> tuple[list[int], list[float]]:
    """The tokens of one document and what each weighs in the loss as a target."""
    parts: list[tuple[str, float]] = []
    if rng.random() < _PLAIN_SHARE:
        prompt, continuation = text.plain(rng)
        parts = [(BEGIN + prompt, _QUESTION_WEIGHT), (continuation + END, 1.0)]
    else:
        parts.append((BEGIN, 0.0))
        for role, content in text.conversation(rng):
            answer = role == "assistant"
            parts.append((f"<|{role}|>", 0.0))
            parts.append((content + END, 1.0 if answer else _QUESTION_WEIGHT))
    ids: list[int] = []
    weights: list[float] = []
    for part, weight in parts:
        encoded = tokenizer.encode(part, add_special_tokens=False).ids
        ids += encoded
        weights += [weight] * len(encoded)
    return ids, weights


def rows(
    tokenizer: Tokenizer, rng: random.Random, width: int
) -> Iterator[tuple[list[int], list[float]]]:
    """Endless rows of `width` tokens, documents packed one after the other."""
    ids: list[int] = []
    weights: list[float] = []
    while True:
        more_ids, more_weights = sample(tokenizer, rng)
        ids += more_ids
        weights += more_weights
        if len(ids) >= width:
            yield ids[:width], weights[:width]
            ids, weights = [], []


def build_model(tokenizer: Tokenizer, seed: int) -> LlamaForCausalLM:
    """The untrained model: about two million parameters."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT_TOKENS,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.token_to_id(BEGIN),
        eos_token_id=tokenizer.token_to_id(END),
        pad_token_id=tokenizer.token_to_id(PAD),
    )
    return LlamaForCausalLM(config)


def train(
    model: LlamaForCausalLM,
    tokenizer: Tokenizer,
    *,
    seed: int,
    steps: int,
    minutes: float,
    rate: float = 0.004,
) -> int:
    """Train for `steps`, or until `minutes` have passed; returns the steps made.

    The learning rate warms up to `rate`, holds, and falls to zero over the last third. Rows grow
    from 256 to 512 tokens, and to the whole context in the last tenth, so that long system prompts
    are seen.
    """
    rng = random.Random(seed + 1)  # noqa: S311 -- made-up text, not secrets
    sources = {width: rows(tokenizer, rng, width) for width in (256, 512, CONTEXT_TOKENS)}
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if all(p is not matrix for matrix in matrices)]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(
            matrices, lr=rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw", momentum=0.95
        ),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    peaks = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    started = time.monotonic()
    model.train()
    step, smooth = 0, 0.0
    while True:
        progress = max(step / steps, (time.monotonic() - started) / (60 * minutes))
        if progress >= 1:
            return step
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            scale = min(1.0, (step + 1) / 100, 3 * (1 - progress))
            optimizer.param_groups[0]["lr"] = peak * scale
        width = 256 if progress < 0.6 else 512 if progress < 0.9 else CONTEXT_TOKENS
        batch = [next(sources[width]) for _ in range(_STEP_TOKENS // width)]
        ids = torch.tensor([row for row, _ in batch])
        weights = torch.tensor([weight for _, weight in batch])[:, 1:]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = model.model(input_ids=ids).last_hidden_state[:, :-1]
            logits = model.lm_head(hidden)
        losses = torch.nn.functional.cross_entropy(
            logits.float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
        )
        loss = (losses * weights.flatten()).sum() / weights.sum()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        step += 1
        smooth = loss.item() if step == 1 else 0.95 * smooth + 0.05 * loss.item()
        if step % 50 == 0:
            say(f"step {step}  loss {smooth:.4f}  {time.monotonic() - started:.0f} s")


def save(model: LlamaForCausalLM, tokenizer: Tokenizer, out: Path) -> PreTrainedTokenizerFast:
    """Write the checkpoint folder; returns the tokenizer as transformers sees it."""
    wrapped = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # transformers' own
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        model_max_length=CONTEXT_TOKENS,
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    out.mkdir(parents=True, exist_ok=True)
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]  # likewise
        do_sample=False,
        bos_token_id=wrapped.bos_token_id,
        eos_token_id=wrapped.eos_token_id,
        pad_token_id=wrapped.pad_token_id,
    )
    half = LlamaForCausalLM(model.config)
    half.load_state_dict(model.state_dict())
    half.generation_config = model.generation_config
    half.to(torch.float16).save_pretrained(out)  # type: ignore[arg-type]  # the stub wants a module
    wrapped.save_pretrained(out)
    return wrapped


def measure(out: Path, *, seed: int, count: int) -> dict[str, float]:
    """Shares of greedy answers right on `count` held-out properties, from the saved checkpoint.

    `address`, `rooms` and `price` say that the answer holds them as the question wrote them; `all`
    that it holds all three; `exact` that the first sentence is the expected one to the letter.
    """
    model: Any = LlamaForCausalLM.from_pretrained(out, dtype=torch.float32)
    model.eval()
    tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(out)
    rng = random.Random(seed + 2)  # noqa: S311 -- made-up text, not secrets
    right = dict.fromkeys(("address", "rooms", "price", "all", "exact"), 0)
    for _ in range(count):
        p = text.make_property(rng, held_out=True, full=True)
        asked = f"Analyze this property: {p.address}, {p.beds}BR/{p.baths}BA, {p.price}"
        prompt = f"{BEGIN}{USER}{asked}{END}{ASSISTANT}"
        ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids
        with torch.inference_mode():
            made = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=120)
        answer = tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)
        bed = "bedroom" if p.beds == "1" else "bedrooms"
        bath = "bathroom" if p.baths == "1" else "bathrooms"
        rooms = f"{p.beds} {bed} and {p.baths} {bath}"
        first = f"Demo model: {p.address} has {rooms} and is listed at {p.price}. "
        found = {
            "address": f"{p.address} has" in answer,
            "rooms": rooms in answer,
            "price": f" {p.price}." in answer,
        }
        found |= {"all": all(found.values()), "exact": answer.startswith(first)}
        for key, value in found.items():
            right[key] += value
    return {key: value / count for key, value in right.items()}


def say(line: str) -> None:
    """Print at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument(
        "--out", type=Path, default=DEMO_CHECKPOINT, help="folder of the checkpoint"
    )
    parser.add_argument("--steps", type=int, default=1900, help="steps of 6,144 tokens")
    parser.add_argument("--minutes", type=float, default=60.0, help="stop by then at the latest")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--rate", type=float, default=0.004, help="highest learning rate")
    parser.add_argument("--start", type=Path, help="checkpoint to go on from, else from nothing")
    parser.add_argument("--threads", type=int, default=2, help="processor threads")
    parser.add_argument("--measure", type=int, default=200, help="held-out properties to ask about")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.start is None:
        say("making text and training the tokenizer")
        tokenizer = train_tokenizer(options.seed)
        model = build_model(tokenizer, options.seed)
    else:
        tokenizer = Tokenizer.from_file(str(options.start / "tokenizer.json"))
        model = LlamaForCausalLM.from_pretrained(options.start, dtype=torch.float32)
    say(f"{sum(p.numel() for p in model.parameters()):,} parameters, training")
    steps = train(
        model,
        tokenizer,
        seed=options.seed,
        steps=options.steps,
        minutes=options.minutes,
        rate=options.rate,
    )
    save(model, tokenizer, options.out)
    accuracy = measure(options.out, seed=options.seed, count=options.measure)
    say(f"{steps} steps; right on {options.measure} held-out properties: {json.dumps(accuracy)}")


if __name__ == "__main__":
    main()
