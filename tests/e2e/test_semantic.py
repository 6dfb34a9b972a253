"""Questions in other words, asked of `encore origin` processes with the shipped decision."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.origins import Echo, Origin, Said, echo, origin, said_in
from tests.support.redis_servers import programs, redis_server

KINDS = [kind for kind in ("bundled", "redis8") if kind in programs()]
QUESTION = "Analyze this property: 123 Main St, 3BR/2BA, $450k"
PARAPHRASES = (
    "Analyze this property: 123 Main Street, 3 bedroom 2 bath, $450,000",
    "Please analyze: 123 Main St, 3BR/2BA, asking $450k",
)
NEAR_MISSES = (
    "Analyze this property: 124 Main St, 3BR/2BA, $450k",
    "Analyze this property: 123 Main St, 4BR/2BA, $450k",
    "Analyze this property: 123 Main St, 3BR/2BA, $540k",
    "Analyze this property: 123 Main Ave, 3BR/2BA, $450k",
)


class Two:
    """Two origins on one Redis, and the key of a tenant."""

    def __init__(self, folder: Path, upstream: Echo, redis_url: str, exits: ExitStack) -> None:
        self.upstream = upstream
        self.origins: list[Origin] = []
        for number in range(2):
            own = folder / str(number)
            own.mkdir()
            one = origin(own, upstream, REDIS_URL=redis_url, ENCORE_SEMANTIC="on")
            self.origins.append(exits.enter_context(one))
        self.api_key = self.origins[0].command("keys", "create", "acme")
        for each in self.origins:
            each.start()

    def ask(self, which: int, question: str, **headers: str) -> Said:
        """Ask one of them."""
        response = self.origins[which].ask(self.api_key, question, stream=False, **headers)
        return said_in(response)


@pytest.fixture(scope="module", params=KINDS)
def two(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    """The processes, for a kind of Redis: an index in each of them, or vector sets."""
    with ExitStack() as exits:
        folder = tmp_path_factory.mktemp("semantic")
        url = exits.enter_context(redis_server(request.param, folder / "redis"))
        upstream = exits.enter_context(echo())
        yield Two(folder, upstream, url, exits)


def matched(two: Two, which: int, question: str, scope: str) -> Said:
    """Ask, only for what is cached, until semantic match has it."""
    deadline_s = time.monotonic() + 20
    while True:
        response = two.origins[which].ask(
            two.api_key, question, encore_scope=scope, cache_control="only-if-cached"
        )
        if response.status_code == 200:
            return said_in(response)
        assert response.status_code == 504, response.text
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


@pytest.mark.parametrize("paraphrase", PARAPHRASES)
def test_a_paraphrase_is_answered_by_any_replica(two: Two, paraphrase: str) -> None:
    """What one origin was told the other one knows; the answer says so."""
    scope = f"replica-{len(paraphrase)}"
    first = two.ask(0, QUESTION, encore_scope=scope)
    for which in (1, 0):
        said = matched(two, which, paraphrase, scope)
        assert (said.question, said.number) == (QUESTION, first.number)
        assert 'detail="semantic; similarity=0.' in said.status
        assert said.key != first.key


@pytest.mark.parametrize("near_miss", NEAR_MISSES)
def test_a_near_miss_is_generated(two: Two, near_miss: str) -> None:
    """Whatever its cosine."""
    two.ask(0, QUESTION, encore_scope="near")
    matched(two, 0, PARAPHRASES[0], "near")
    assert two.ask(0, near_miss, encore_scope="near").question == near_miss


def test_a_purge_ends_what_was_promoted(two: Two) -> None:
    """By the command, of a tag of its source."""
    two.ask(0, QUESTION, encore_scope="purged", encore_tags="listing")
    old = matched(two, 0, PARAPHRASES[0], "purged")
    two.origins[0].command("purge", "acme", "--tag", "listing")
    new = two.ask(1, PARAPHRASES[0], encore_scope="purged")
    assert (new.question, new.number > old.number) == (PARAPHRASES[0], True)


def test_a_policy_switches_it_off_and_on(two: Two) -> None:
    """What was promoted is a miss meanwhile."""
    two.ask(0, QUESTION, encore_scope="policy")
    matched(two, 0, PARAPHRASES[0], "policy")
    two.origins[0].command("policy", "acme", "--semantic", "off")
    refused = two.origins[1].ask(
        two.api_key, PARAPHRASES[0], encore_scope="policy", cache_control="only-if-cached"
    )
    assert refused.status_code == 504
    two.origins[0].command("policy", "acme", "--semantic", "strict")
    assert matched(two, 1, PARAPHRASES[0], "policy").question == QUESTION


def test_a_restarted_origin_knows_what_was_asked(two: Two) -> None:
    """It reads the index anew."""
    first = two.ask(1, QUESTION, encore_scope="restart")
    matched(two, 1, PARAPHRASES[0], "restart")
    two.origins[0].kill()
    two.origins[0].start()
    assert matched(two, 0, PARAPHRASES[1], "restart").number == first.number
