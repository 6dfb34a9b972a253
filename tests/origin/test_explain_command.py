"""The screen of `encore explain`, by what the origin may say."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from origin.explain_command import SHOWN_CANONICAL_CHARACTERS, _shown

NEAR = {"text": "[bold]How warm?", "similarity": 0.97, "score": None, "why": "the score"}
TOLD: dict[str, Any] = {
    "endpoint": "chat",
    "tenant": "acme",
    "answered_by": "l1",
    "short_key": "0123456789abcdef",
    "strategy": "exact",
    "in_key": ["model", "messages"],
    "left_out": ["user"],
    "unstorable": None,
    "tiers": [
        {
            "tier": "l1",
            "would": "hit",
            "why": "fresh",
            "entry": {"age_s": 7, "answered_by": None, "segments": {"json": 1}},
        },
        {
            "tier": "semantic",
            "would": "miss",
            "why": "refused",
            "neighbours": [
                NEAR | {"verdict": "served"},
                NEAR
                | {
                    "verdict": "vetoed",
                    "conflicts": [{"rule": "number", "asked": "3", "known": ""}],
                },
                NEAR | {"verdict": "unsure"},
            ],
        },
    ],
    "canonical": "x" * (SHOWN_CANONICAL_CHARACTERS + 1),
}


def screen(told: dict[str, Any]) -> str:
    """What it prints."""
    console = Console(file=io.StringIO(), width=120)
    for part in _shown(told):
        console.print(part)
    out: Any = console.file
    return str(out.getvalue())


def test_entry_and_neighbours_are_shown() -> None:
    """With the reason of each refusal; what is quoted is no markup."""
    said = screen(TOLD)
    assert "answered from Redis" in said
    assert "left out: user" in said
    entry = said.partition("Entry in Redis")[2].partition("Nearest questions")[0]
    assert "answered by" not in entry  # it has no value
    assert "age s" in entry
    assert '{"json": 1}' in entry
    assert "refused: number: 3 / -" in said
    assert "refused: the score" in said
    assert said.count("[bold]How warm?") == 3
    assert "0.970" in said
    assert f"… ({SHOWN_CANONICAL_CHARACTERS + 1} characters; --json has all)" in said


def test_what_nobody_answers_is_said() -> None:
    """Such as `only-if-cached` without an entry."""
    told = TOLD | {"answered_by": None, "short_key": None, "canonical": "{}", "tiers": []}
    said = screen(told)
    assert "answered not at all" in said
    assert "key none" in said
    assert "--json has all" not in said
