"""Requests through the rules of the cache: which tier answers, and what that costs."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from origin.lifetimes import Tiers
from origin.planning.keying import Asked
from origin.planning.l1 import ENTRY_BYTES
from origin.planning.replay import CacheReplay, Replay
from origin.planning.tally import Setting, Tally
from shared.controls import Controls, Directives
from shared.freshness import Lifetimes
from shared.requests import Endpoint

T = 1_790_000_000_000
MINUTE, HOUR, DAY = 60, 3600, 86_400
LIFETIMES = Lifetimes(
    ttl_s=HOUR, stale_while_revalidate_s=10 * MINUTE, stale_if_error_s=DAY, max_ttl_s=30 * DAY
)
NO_CACHE = Controls(directives=Directives(no_cache=True))


def setting(**changes: Any) -> Setting:
    """An hour, exact, all to KV."""
    given: dict[str, Any] = {
        "ttl_s": HOUR,
        "normalisation": "exact",
        "admit_after": 1,
        "semantic": "off",
    }
    return Setting(**(given | changes))


def ask(at_s: float = 0, key: int = 8, **changes: Any) -> Asked:
    """A request so many seconds after the beginning."""
    given: dict[str, Any] = {
        "time_ms": T + round(at_s * 1000),
        "tenant": "acme",
        "location": "fra",
        "endpoint": Endpoint.CHAT,
        "model": "m",
        "controls": Controls(),
        "keys": ((key,),),
        "is_batch": False,
        "bypass": None,
        "prompt_tokens": 10,
        "completion_tokens": 100,
        "usd": 0.5,
        "fields": {},
    }
    return Asked(**(given | changes))


def replayed(*asked: Asked, tiers: Tiers | None = None, **changes: Any) -> CacheReplay:
    """What these came to."""
    generation_s = changes.pop("generation_s", 0)
    replay = Replay(
        [setting(**changes)],
        lifetimes=LIFETIMES,
        tiers=tiers or Tiers(),
        generation_ms=generation_s * 1000,
    )
    replay.add_all(asked)
    return replay.caches[0]


def outcomes(*asked: Asked, **options: Any) -> dict[str, float]:
    """How many of these each tier answered."""
    found = replayed(*asked, **options).tally.outcomes
    return {name: count for name, count in found.items() if count}


def test_a_repeat_is_answered_at_the_edge() -> None:
    """Elsewhere too: it reads what was written."""
    assert outcomes(ask(), ask(1), ask(2, location="sin")) == {"model": 1, "edge": 2}


def test_what_a_location_has_not_seen_yet_the_origin_has() -> None:
    """Where it looked in vain within the minute before."""
    asked = [
        ask(0, controls=Controls(directives=Directives(no_store=True)), location="sin"),
        ask(
            1, key=8, location="sin", controls=Controls(directives=Directives(only_if_cached=True))
        ),
        ask(2),
        ask(3, location="sin"),
        ask(61, location="sin"),
    ]
    assert outcomes(*asked) == {"bypass": 1, "refused": 1, "model": 1, "l1": 1, "edge": 1}


def test_admission_leaves_the_first_ones_to_the_origin() -> None:
    """Nothing is written before."""
    cache = replayed(*(ask(n) for n in range(5)), admit_after=3)
    assert (cache.tally.outcomes["l1"], cache.tally.outcomes["edge"]) == (2, 2)
    assert cache.tally.kv_writes == 1


def test_an_entry_is_over_when_it_is_over() -> None:
    """Fresh for an hour, stale for ten minutes more, with a refresh behind the answer."""
    assert outcomes(ask(), ask(HOUR + 11 * MINUTE)) == {"model": 2}
    cache = replayed(ask(), ask(HOUR + MINUTE), ask(HOUR + 2 * MINUTE), ask(2 * HOUR))
    tally = cache.tally
    assert tally.outcomes["model"] == 1
    assert tally.hits == 3
    assert (tally.stale, tally.refreshes) == (2, 1)  # KV's is stale until it gets the new one
    assert tally.refreshed.usd == 0.5


def test_who_comes_while_it_is_made_joins() -> None:
    """And is counted as no hit; then it is one, at a location that looked in vain the origin's."""
    asked = [ask(), ask(1), ask(1.5, location="sin"), ask(2), ask(3, location="sin")]
    assert outcomes(*asked, generation_s=2) == {"model": 1, "joined": 2, "edge": 1, "l1": 1}


def test_no_cache_makes_it_anew() -> None:
    """For the others, too."""
    cache = replayed(ask(), ask(59 * MINUTE, controls=NO_CACHE), ask(100 * MINUTE))
    assert cache.tally.outcomes["model"] == 2
    assert cache.tally.hits == 1


@pytest.mark.parametrize("changes", [{"bypass": "web_search"}, {"bypass": "too-large"}])
def test_what_is_not_stored_is_never_a_hit(changes: dict[str, Any]) -> None:
    """Each costs a generation."""
    cache = replayed(ask(**changes), ask(1, **changes))
    assert cache.tally.outcomes["bypass"] == 2
    assert (cache.tally.l1_writes, cache.tally.kv_writes) == (0, 0)
    assert cache.tally.spent.usd == 1.0


def test_a_wish_for_less_is_kept_for_less() -> None:
    """And 0 seconds are nothing; what lives for less than a minute is not written to KV."""
    short = Controls(ttl_s=5 * MINUTE)
    assert outcomes(ask(controls=short), ask(16 * MINUTE)) == {"model": 2}
    nothing = Controls(ttl_s=0)
    assert outcomes(ask(controls=nothing), ask(1)) == {"model": 2}


def test_a_refresh_lives_no_longer_than_what_it_replaces() -> None:
    """Five minutes again, and ten more that are stale."""
    short = Controls(ttl_s=5 * MINUTE)
    assert outcomes(ask(controls=short), ask(6 * MINUTE), ask(20 * MINUTE))["model"] == 1
    assert outcomes(ask(controls=short), ask(6 * MINUTE), ask(22 * MINUTE))["model"] == 2


TIERS = Tiers.parse(
    '{"models": {"m": {"sliding": true}}, "classes": {"own": {"sensitivity": "internal"}}}'
)


def test_what_is_internal_stays_at_the_origin() -> None:
    """Nothing of it is written to KV."""
    own = Controls(content_class="own")
    cache = replayed(*(ask(n, controls=own) for n in range(3)), tiers=TIERS)
    assert cache.tally.outcomes["l1"] == 2
    assert cache.tally.kv_writes == 0


def test_a_class_that_no_tier_names_is_not_stored() -> None:
    """What it was meant to forbid cannot be guessed."""
    unknown = Controls(content_class="odd")
    assert outcomes(ask(controls=unknown), ask(1, controls=unknown), tiers=TIERS) == {"model": 2}


def test_what_slides_is_fresh_anew() -> None:
    """A hit at the origin in the last half of its life moves its end."""
    own = Controls(content_class="own")
    asked = [ask(minute * MINUTE, controls=own) for minute in (0, 40, 80, 120, 160)]
    assert outcomes(*asked, tiers=TIERS) == {"model": 1, "l1": 4}
    still = Tiers.parse('{"classes": {"own": {"sensitivity": "internal"}}}')
    assert outcomes(*asked, tiers=still) == {"model": 3, "l1": 2}


def test_inputs_of_a_batch_count_by_their_share() -> None:
    """They are looked up one by one, at the origin alone."""
    cache = replayed(
        ask(keys=((8,),)),
        ask(1, keys=((8, 16, 24, 32),), is_batch=True),
    )
    tally = cache.tally
    assert (tally.outcomes["l1"], tally.outcomes["model"]) == (0.25, 1.75)
    assert tally.requests == 2
    assert tally.kv_reads == 1
    assert tally.saved.usd == 0.125


def test_what_is_saved_and_spent() -> None:
    """Tokens, money, reads, writes, bytes."""
    cache = replayed(ask(), ask(1), ask(2), ask(3, key=16))
    tally = cache.tally
    assert (tally.saved.prompt, tally.saved.completion, tally.saved.usd) == (20, 200, 1.0)
    assert (tally.spent.usd, tally.usd_without) == (1.0, 2.0)
    assert (tally.kv_reads, tally.kv_writes) == (4, 2)
    assert (tally.l1_reads, tally.l1_writes) == (2, 2)
    assert 2 * ENTRY_BYTES < cache.l1.peak_bytes < 2 * ENTRY_BYTES + 4000
    assert tally.hit_rate == 0.5
    assert tally.net_usd == pytest.approx(1.0 - 4 * 0.5e-6 - 2 * 5e-6)


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 2), st.integers(0, 30 * MINUTE)), max_size=60
    )
)
def test_within_their_lifetime_all_repeats_are_hits(told: list[tuple[int, int, int]]) -> None:
    """Of whatever location, and nothing else is."""
    at_s, asked = 0, []
    for key, location, pause_s in told:
        at_s += pause_s
        asked.append(ask(at_s, key=8 * key, location=str(location)))
    tally = replayed(*asked, ttl_s=30 * DAY).tally
    keys = Counter(key for key, _, _ in told)
    assert tally.hits == sum(keys.values()) - len(keys)
    assert tally.refreshes == 0


def test_settings_stand_side_by_side() -> None:
    """Those of another profile go by other keys."""
    replay = Replay(
        [setting(), setting(ttl_s=MINUTE), setting(normalisation="text")],
        lifetimes=LIFETIMES,
        tiers=Tiers(),
        generation_ms=0,
    )
    assert replay.profiles == ("exact", "text")
    replay.add_all(
        [
            ask(keys=((8,), (8,))),
            ask(50 * MINUTE, keys=((16,), (8,))),
            ask(51 * MINUTE, keys=((8,), (8,))),
        ]
    )
    assert [cache.tally.hits for cache in replay.caches] == [1, 0, 2]


def sampled(memory_bytes: int) -> Tally:
    """The tally of 20,000 requests for 5,000 keys, in so much memory."""
    replay = Replay(
        [setting(ttl_s=DAY)],
        lifetimes=LIFETIMES,
        tiers=Tiers(),
        generation_ms=0,
        memory_bytes=memory_bytes,
    )
    for number in range(20_000):
        key = (number * number % 5003) * 0x9E3779B97F4A7C15 % 2**64
        replay.add(ask(number, key=key >> 7 | (key & 127) << 57))
    return replay.caches[0].tally


def test_in_less_memory_the_shares_are_estimated() -> None:
    """From some of the keys."""
    whole, part = sampled(1 << 30), sampled(200_000)
    assert part.l1_writes > 0
    assert whole.requests == 20_000
    assert part.requests == pytest.approx(20_000, rel=0.1)
    assert part.hit_rate == pytest.approx(whole.hit_rate, abs=0.03)
