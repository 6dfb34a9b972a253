"""Near-misses and paraphrases over many domains."""

from __future__ import annotations

import pytest

from shared.veto import veto
from tests.shared.veto.pair_lists import Pair, pairs_of

_PAIRS = [*pairs_of("pairs_first.txt"), *pairs_of("pairs_second.txt")]


def _name(pair: Pair) -> str:
    return f"{pair.kind}: {pair.b}"


@pytest.mark.parametrize("pair", [pair for pair in _PAIRS if not pair.same], ids=_name)
def test_a_near_miss_is_seen(pair: Pair) -> None:
    """Texts that ask for different things conflict."""
    assert veto(pair.a, pair.b)


@pytest.mark.parametrize("pair", [pair for pair in _PAIRS if pair.same], ids=_name)
def test_a_paraphrase_passes(pair: Pair) -> None:
    """Texts that ask for the same in other words do not."""
    assert veto(pair.a, pair.b) == ()
