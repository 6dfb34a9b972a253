"""Engines on real models: the demo checkpoint, and a random GPT-2 that has no chat template."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from origin.engine.transformers_engine import TransformersEngine


@pytest.fixture(scope="session")
def demo() -> Iterator[TransformersEngine]:
    """The demo model's engine."""
    torch.set_num_threads(1)
    engine = TransformersEngine.load()
    yield engine
    asyncio.run(engine.close())


@pytest.fixture(scope="session")
def gpt2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 of random weights whose tokens are single bytes, in a window of 64 tokens."""
    folder = tmp_path_factory.mktemp("models") / "tiny-gpt2"
    save_tokenizer(folder)
    torch.manual_seed(1)
    config = GPT2Config(
        vocab_size=257,
        n_positions=64,
        n_embd=32,
        n_layer=2,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chatting Llama of random weights whose tokens are single bytes."""
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    save_tokenizer(folder, "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[a]")
    torch.manual_seed(2)
    config = LlamaConfig(
        vocab_size=257,
        max_position_embeddings=4096,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=0,
        eos_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def save_tokenizer(folder: Path, chat_template: str | None = None) -> None:
    """A tokenizer of single bytes, token 0 its end of text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        [],
        trainers.BpeTrainer(
            vocab_size=257,
            special_tokens=["<|endoftext|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    wrapped = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # transformers' own
        tokenizer_object=tokenizer, bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    )
    wrapped.chat_template = chat_template
    wrapped.save_pretrained(folder)


@pytest.fixture(scope="session")
def gpt2(gpt2_folder: Path) -> Iterator[TransformersEngine]:
    """The engine of the random GPT-2."""
    engine = TransformersEngine.load(gpt2_folder)
    yield engine
    asyncio.run(engine.close())
