"""Streams that end at once, and no waiting."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream tells one state; a change rules at once."""
    monkeypatch.setattr("origin.dashboard.live.STREAM_S", 0)
    monkeypatch.setattr("origin.dashboard.live.TICK_S", 0)
    monkeypatch.setattr("origin.control.MEMO_S", 0)
    monkeypatch.setattr("origin.audit.FOLD_S", 0.001)
