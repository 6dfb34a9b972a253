"""The golden vectors, on CPython."""

from __future__ import annotations

import json

from tests.vectors.runner import FOLDER, check_vectors


def test_the_vectors_hold() -> None:
    """Every case of every vector file gives what it says."""
    assert check_vectors() == []


def test_a_wrong_expectation_is_reported() -> None:
    """The runner sees a difference of type alone: 1 is not 1.0."""
    texts = {path.name: path.read_text("utf-8") for path in FOLDER.glob("*.json")}
    cases = json.loads(texts["requests.json"])
    case = next(case for case in cases if case["expected"].get("fields", {}).get("temperature"))
    case["expected"]["fields"]["temperature"] = 1.0
    (failure,) = check_vectors(texts | {"requests.json": json.dumps(cases)})
    assert failure.startswith(f"requests.json: {case['name']}")


def test_a_file_nobody_replays_is_reported() -> None:
    """A vector file without a function fails, and so does a function without its file."""
    failures = check_vectors({"novel.json": "[]"})
    assert "novel.json: no function replays it" in failures
    assert "sse.json: no such file" in failures
