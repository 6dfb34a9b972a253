"""What `encore plan` predicts beside what happens: one log, replayed and really asked.

It is the beginning of the log that `encore plan --generate 1000000` makes. PLAN_ROWS says how much
of it, `-s` shows the figures: `PLAN_ROWS=2000 pytest -s tests/edge/test_plan.py`.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from itertools import islice
from typing import Any

import httpx
import pytest

from origin.lifetimes import NO_TIERS
from origin.planning.generate import LogPlan, generated, line_of
from origin.planning.keying import Keying, Rules
from origin.planning.log import Bad, Reading
from origin.planning.reading import LogFacts, asked
from origin.planning.replay import Replay
from origin.planning.tally import HITS, Setting, Tally
from origin.prices import Prices
from shared.control_document import Policy, encode
from shared.keys import make_api_key
from tests.edge.local_edge import StartEdge
from tests.edge.stack import CHAT, KEYS, Stack, origin_settings, stacked, status
from tests.support.control import control_store, document_of
from tests.support.engines import MODEL

ROWS = int(os.environ.get("PLAN_ROWS", "300"))
LOG = LogPlan(requests=1_000_000)
POINTS = 1.0
PROFILES = {f"tenant-{n}": ("exact", "text")[n % 2] for n in range(1, LOG.tenants + 1)}
API_KEYS = {
    tenant: make_api_key(KEYS, tenant, bytes([n] * 15)) for n, tenant in enumerate(PROFILES)
}


def log() -> list[dict[str, Any]]:
    """The first rows, asked of the one model that there is."""
    told = list(islice(generated(LOG), ROWS))
    for row in told:
        row["body"]["model"] = MODEL
    return told


def predicted(told: list[dict[str, Any]], normalisation: str) -> Tally:
    """What a replay makes of them under the settings of the stack."""
    configured = origin_settings()
    setting = Setting(
        ttl_s=configured.ttl_s,
        normalisation=normalisation,
        admit_after=configured.admit_after,
        semantic="off",
    )
    replay = Replay([setting], lifetimes=configured.lifetimes, tiers=NO_TIERS, generation_ms=0)
    rules = Rules(
        ring=KEYS,
        profiles=replay.profiles,
        reading=Reading(tenant="none", model=MODEL),
        prices=Prices(),
        max_body_bytes=configured.max_cached_body_bytes,
        answer_tokens=100,
    )
    bad, lines = Bad(), enumerate(map(line_of, told), 1)
    replay.add_all(asked(lines, Keying(rules), LogFacts(), bad, interval_ms=1, processes=0))
    assert not bad.count
    return replay.caches[0].tally


def really_asked(stack: Stack, told: list[dict[str, Any]]) -> dict[str, Counter[str]]:
    """By profile what really answers them, one after another."""
    outcomes: dict[str, Counter[str]] = {profile: Counter() for profile in PROFILES.values()}
    for row in told:
        headers = {"authorization": f"Bearer {API_KEYS[row['tenant']]}", **row.get("headers", {})}
        path = row.get("endpoint", CHAT)
        response = stack.client.post(path, json=row["body"], headers=headers)
        assert response.status_code == 200, response.text
        outcomes[PROFILES[row["tenant"]]][outcome_of(response)] += 1
    return outcomes


def outcome_of(response: httpx.Response) -> str:
    """The tier that answered."""
    origin, _, edge = status(response).rpartition("encore-edge")
    if edge.startswith("; hit"):
        return "edge"
    if "; hit" in origin:
        return "l1"
    return "bypass" if "fwd=bypass" in edge else "model"


def test_the_predicted_hit_rate_is_that_of_a_real_run(start_edge: StartEdge) -> None:
    """Within one point, through edge and origin, of the tenants of each profile."""
    told = log()
    control = control_store()
    for tenant, api_key in API_KEYS.items():
        document = document_of(api_key, policy=Policy(normalisation=PROFILES[tenant]))
        control._documents[tenant] = (document.revision, encode(document))
    with stacked(start_edge, control=control) as stack:
        by_profile = really_asked(stack, told)
    for profile, really in by_profile.items():
        own = [row for row in told if PROFILES[row["tenant"]] == profile]
        tally = predicted(own, profile)
        hits = sum(really[name] for name in HITS)
        rate = hits / (hits + really["model"])
        said = f"{len(own)} requests, {profile}: predicted {tally.hit_rate:.4f}, really {rate:.4f}"
        sys.stdout.write(f"\n{said}\n{tally.outcomes}, really {dict(really)}\n")
        assert 0.05 < rate < 0.95
        assert tally.hit_rate == pytest.approx(rate, abs=POINTS / 100)
        assert really["bypass"] == tally.outcomes["bypass"]
