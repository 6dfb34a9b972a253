"""The parts of semantic match as the settings name them, and what is said where one is missing."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from origin.app import _matcher
from origin.semantic import loading
from origin.semantic.calibration import DEFAULT_CALIBRATION
from origin.semantic.loading import MissingError, load_decider, load_matcher
from origin.semantic.local_index import LocalIndex
from origin.semantic.matcher import Matcher
from origin.semantic.vector_set_index import VectorSetIndex
from origin.semantic.verifier import DEFAULT_MODEL, Verifier
from origin.settings import Settings, SettingsError, load_settings
from tests.support.redis_servers import KINDS, redis_server

NOBODY = "redis://127.0.0.1:1"


def settings(**changes: Any) -> Settings:
    """Settings of an origin, with `changes`."""
    return load_settings({}, Path("/nowhere"), secret="0123456789abcdef" * 2, **changes)


def index_of(matcher: Matcher) -> object:
    """Its index, after it was closed."""
    asyncio.run(matcher.close())
    return matcher._index


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    """By the variable, with what to set it to."""
    folder = tmp_path / "none"
    with pytest.raises(SettingsError, match=rf"ENCORE_SEMANTIC_MODEL: {folder} .*; name a "):
        load_decider(settings(semantic_model=str(folder)))


def test_a_verifier_of_another_encoder_is_refused(tmp_path: Path) -> None:
    """Its scores would mean nothing."""
    other = tmp_path / "verifier.json"
    own = Verifier.load().encoder
    other.write_text(DEFAULT_MODEL.read_text().replace(own, "another"))
    with pytest.raises(SettingsError, match=r"ENCORE_SEMANTIC_VERIFIER: .* trained for another"):
        load_decider(settings(semantic_verifier=other))


def test_a_calibration_of_another_verifier_is_refused(tmp_path: Path) -> None:
    """Its thresholds are of other scores."""
    other = tmp_path / "calibration.json"
    own = Verifier.load().version
    other.write_text(DEFAULT_CALIBRATION.read_text().replace(own, "another"))
    with pytest.raises(SettingsError, match=r"ENCORE_SEMANTIC_CALIBRATION: .*verifier another"):
        load_decider(settings(semantic_calibration=other))


def test_what_ships_goes_together() -> None:
    """Encoder, verifier and calibration of one training."""
    encoder, verifier, calibration = load_decider(settings())
    assert encoder.identity == verifier.encoder == calibration.encoder
    assert verifier.version == calibration.verifier


@pytest.mark.parametrize("kind", KINDS)
def test_questions_are_searched_in_redis_where_it_can(kind: str, tmp_path: Path) -> None:
    """In vector sets of Redis 8, or a Cluster of it; else in this process."""
    can = kind == "redis8" or (kind == "cluster" and "redis8" in KINDS)
    with redis_server(kind, tmp_path) as url:
        index = index_of(load_matcher(settings(), url))
    assert isinstance(index, VectorSetIndex if can else LocalIndex)


@pytest.mark.parametrize(("wanted", "kind"), [("local", LocalIndex), ("redis", VectorSetIndex)])
def test_a_stated_index_is_taken_unasked(wanted: str, kind: type) -> None:
    """No Redis is needed to know."""
    matcher = load_matcher(settings(semantic_index=wanted), NOBODY)
    assert isinstance(index_of(matcher), kind)


def test_without_an_answer_from_redis_questions_stay_here(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The origin starts, and says so."""
    assert isinstance(index_of(load_matcher(settings(), NOBODY)), LocalIndex)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "kept in this process's memory" in caplog.text


@pytest.mark.parametrize("changes", [{"semantic": "off"}, {"l1": "off"}])
def test_none_is_loaded_where_it_is_off(
    changes: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor where nothing is kept that could be matched."""
    monkeypatch.setitem(sys.modules, "origin.semantic.loading", None)  # importing it is an error
    assert _matcher(settings(**changes), NOBODY) is None


@pytest.mark.parametrize("semantic", ["on", "auto"])
def test_it_is_loaded_where_it_can_be(semantic: str) -> None:
    """The packages are here."""
    matcher = _matcher(settings(semantic=semantic, semantic_index="local"), NOBODY)
    assert matcher is not None
    index_of(matcher)


def lack_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where encore[local] is not installed."""
    monkeypatch.setitem(sys.modules, "origin.semantic.loading", None)


def lack_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the packaged model is not."""

    def refuse(*_: object) -> Matcher:
        raise MissingError("there is no model")

    monkeypatch.setattr(loading, "load_matcher", refuse)


@pytest.mark.parametrize("lack", [lack_packages, lack_model])
def test_what_is_missing_ends_on_and_is_a_warning_of_auto(
    lack: Callable[[pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An origin that must match does not start without; one that may does."""
    lack(monkeypatch)
    with pytest.raises(SettingsError, match=r"^ENCORE_SEMANTIC=on: .*; install encore\[local\]$"):
        _matcher(settings(semantic="on"), NOBODY)
    assert _matcher(settings(), NOBODY) is None
    assert "no semantic match: " in caplog.text
