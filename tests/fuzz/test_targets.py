"""The fuzzer's targets for a moment: their seeds, what hypothesis makes of them, and any bytes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import SEEDS, TARGETS

SEEDED = st.sampled_from([(name, seed) for name, seeds in SEEDS.items() for seed in seeds])


def test_each_target_has_seeds() -> None:
    """From which a fuzzer finds its way in."""
    assert set(SEEDS) == set(TARGETS)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_keep_the_promises(name: str) -> None:
    """As they are, and cut off anywhere."""
    for seed in SEEDS[name]:
        for end in range(len(seed) + 1):
            TARGETS[name](seed[:end])


@settings(max_examples=300)
@given(seeded=SEEDED, data=st.data())
def test_spoilt_seeds_keep_them_too(seeded: tuple[str, bytes], data: st.DataObject) -> None:
    """Pieces replaced, repeated and left out."""
    name, seed = seeded
    start = data.draw(st.integers(0, len(seed)))
    end = data.draw(st.integers(start, len(seed)))
    piece = data.draw(st.one_of(st.binary(max_size=8), st.just(seed[start:end] * 2)))
    TARGETS[name](seed[:start] + piece + seed[end:])


@settings(max_examples=200)
@given(name=st.sampled_from(sorted(TARGETS)), text=st.text())
def test_any_text_does(name: str, text: str) -> None:
    """Surrogates apart, which are no bytes."""
    TARGETS[name](text.encode(errors="replace"))
