"""When a refresh may begin. Pure, so CPython reads it here."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from tests.edge.local_edge import ROOT

KEY = "a key"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, imported under the bare name that it has in the Worker."""
    monkeypatch.syspath_prepend(str(ROOT / "worker"))
    return importlib.import_module("refreshes")


def pause_s(refreshes: Any, now_s: float) -> float:
    """How long after `now_s` the next refresh may begin, by tenths of a second. It has then."""
    for tenths in range(1000):
        if refreshes.begin(KEY, now_s + tenths / 10):
            return tenths / 10
    raise AssertionError("never")


def test_one_at_a_time(module: Any) -> None:
    """Of each key; one that was ended by the platform does not stand in the way for ever."""
    refreshes = module.Refreshes()
    assert refreshes.begin(KEY, 100.0)
    assert refreshes.begin("another", 100.0)
    assert pause_s(refreshes, 100.0) == module.IN_FLIGHT_S


@pytest.mark.parametrize(("end", "wanted_s"), [("found_newer", 60.0), ("failed", 10.0)])
def test_pause_after_one(module: Any, end: str, wanted_s: float) -> None:
    """It begins where the refresh has ended."""
    refreshes = module.Refreshes()
    refreshes.begin(KEY, 100.0)
    getattr(refreshes, end)(KEY, 105.0)
    assert pause_s(refreshes, 105.0) == wanted_s


def test_pause_grows_while_the_entry_is_being_made(module: Any) -> None:
    """To a bound; it begins anew with the next entry."""
    refreshes, now_s, pauses = module.Refreshes(), 100.0, []
    refreshes.begin(KEY, now_s)
    for _ in range(8):
        refreshes.found_none(KEY, now_s)
        pauses.append(pause_s(refreshes, now_s))
        now_s += pauses[-1]
    assert pauses == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    refreshes.found_newer(KEY, now_s)
    now_s += pause_s(refreshes, now_s)
    refreshes.found_none(KEY, now_s)
    assert pause_s(refreshes, now_s) == 0.2


def test_keys_that_are_asked_for_are_remembered(module: Any) -> None:
    """Whatever the number of others, of which the eldest are forgotten."""
    refreshes = module.Refreshes()
    refreshes.begin(KEY, 100.0)
    for i in range(2 * module.MAX_KEYS):
        refreshes.begin(f"key {i}", 100.0)
        assert not refreshes.begin(KEY, 100.0)
    assert refreshes.begin("key 0", 100.0)
