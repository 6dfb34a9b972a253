"""Choosing tokens from logits."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from origin.engine.sampling import Sampler, Sampling

LOGITS = torch.tensor([0.0, 1.0, 3.0, 2.0])


def picks(count: int, **fields: Any) -> list[int]:
    """So many tokens from one sampler."""
    sampler = Sampler(Sampling(**fields), choice=0)
    return [sampler.pick(LOGITS) for _ in range(count)]


def test_temperature_0_takes_the_largest() -> None:
    """Greedy."""
    assert picks(3) == [2, 2, 2]


def test_draws_follow_the_softmax() -> None:
    """At temperature 1 tokens come as often as their probabilities say."""
    counts = Counter(picks(4000, temperature=1, seed=1))
    expected = LOGITS.softmax(0)
    for token in range(4):
        assert counts[token] / 4000 == pytest.approx(float(expected[token]), abs=0.03)


def test_top_p_keeps_the_fewest_that_reach_it() -> None:
    """The two most probable tokens hold 0.87: a `top_p` of 0.8 needs both, one of 0.6 only one."""
    assert set(picks(200, temperature=1, top_p=0.8, seed=1)) == {2, 3}
    assert set(picks(200, temperature=1, top_p=0.6, seed=1)) == {2}


def test_top_k_keeps_k() -> None:
    """Only the k most probable tokens are drawn."""
    assert set(picks(300, temperature=2, top_k=3, seed=1)) == {1, 2, 3}


@pytest.mark.parametrize("temperature", [1e-6, 1e-300])
def test_temperature_near_0_is_greedy(temperature: float) -> None:
    """A tiny temperature overflows nothing."""
    assert picks(5, temperature=temperature, seed=1) == [2] * 5


def test_presence_penalty_counts_once() -> None:
    """Each token seen loses the same, however often it was seen."""
    assert picks(5, presence_penalty=1.5) == [2, 3, 2, 2, 2]


def test_frequency_penalty_adds_up() -> None:
    """Each time a token is seen it loses more."""
    assert picks(6, frequency_penalty=0.6) == [2, 2, 3, 2, 3, 2]


def test_bias_is_added() -> None:
    """A bias lifts or bans a token, and the logits handed in stay as they are."""
    before = LOGITS.clone()
    assert picks(2, logit_bias={0: 100}) == [0, 0]
    assert picks(2, logit_bias={2: -100}) == [3, 3]
    assert torch.equal(LOGITS, before)


def test_seed_and_choice_fix_the_draws() -> None:
    """One seed and choice, one sequence; another choice, another; large and negative seeds too."""
    for seed in (0, -(2**63), 2**63 - 1):
        sampling = Sampling(temperature=2, seed=seed)
        first, again, other = (Sampler(sampling, choice=choice) for choice in (0, 0, 1))
        drawn = [[sampler.pick(LOGITS) for _ in range(40)] for sampler in (first, again, other)]
        assert drawn[0] == drawn[1]
        assert drawn[0] != drawn[2]


def test_global_random_state_is_left_alone() -> None:
    """Sampling neither reads nor moves torch's global generator."""
    torch.manual_seed(3)
    before = torch.get_rng_state()
    picks(10, temperature=1)
    assert torch.equal(torch.get_rng_state(), before)
