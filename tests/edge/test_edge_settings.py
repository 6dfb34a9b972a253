"""The Worker's settings: what is refused, and by which name. Pure, so CPython reads them here."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from tests.edge.local_edge import ROOT

_GOOD = {"ENCORE_SECRET": "s" * 32, "ENCORE_ORIGIN_URL": "https://origin.example.com/"}


@pytest.fixture
def edge_settings(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, imported under the bare name that it has in the Worker."""
    monkeypatch.syspath_prepend(str(ROOT / "worker"))
    return importlib.import_module("edge_settings")


def test_defaults(edge_settings: Any) -> None:
    """Production, 125 s, 1 MiB cached, 32 MiB accepted."""
    settings = edge_settings.read_settings(_GOOD.get)
    assert settings.origin_url == "https://origin.example.com"
    assert settings.development is False
    assert settings.origin_timeout_s == 125
    assert (settings.max_cached_body_bytes, settings.max_body_bytes) == (1 << 20, 32 << 20)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ENCORE_SECRET", ""),
        ("ENCORE_SECRET", "s" * 31),
        ("ENCORE_SECRET", "s" * 32 + "\n"),
        ("ENCORE_ORIGIN_URL", ""),
        ("ENCORE_ORIGIN_URL", "origin.example.com"),
        ("ENCORE_ORIGIN_URL", "ftp://origin.example.com"),
        ("ENCORE_ORIGIN_URL", "http://[::1"),
        ("ENCORE_ORIGIN_URL", "http://[origin.example.com]"),
        ("ENCORE_ORIGIN_URL", "https://user:ssss@origin.example.com"),
        ("ENCORE_ORIGIN_URL", "https://origin.example.com/?a=b"),
        ("ENCORE_ORIGIN_URL", "https://origin.example.com/#a"),
        ("ENCORE_CORS_ORIGINS", "app.example.com"),
        ("ENCORE_CORS_ORIGINS", "https://app.example.com, http://[::1"),
        ("ENCORE_MODE", "test"),
        ("ENCORE_ORIGIN_TIMEOUT_S", "0"),
        ("ENCORE_ORIGIN_TIMEOUT_S", "soon"),
        ("ENCORE_ORIGIN_TIMEOUT_S", "nan"),
        ("ENCORE_ORIGIN_TIMEOUT_S", "inf"),
        ("ENCORE_MAX_BODY_BYTES", "0"),
        ("ENCORE_MAX_BODY_BYTES", "0.5"),
        ("ENCORE_MAX_BODY_BYTES", "-1"),
        ("ENCORE_MAX_BODY_BYTES", "1e6"),
        ("ENCORE_MAX_BODY_BYTES", "9" * 5000),
        ("ENCORE_MAX_BODY_BYTES", "1048575"),
        ("ENCORE_MAX_CACHED_BODY_BYTES", "0.5"),
        ("ENCORE_MAX_CACHED_BODY_BYTES", "²"),
    ],
)
def test_wrong_setting_is_named(edge_settings: Any, name: str, value: str) -> None:
    """The message begins with the variable and never has the secret."""
    with pytest.raises(edge_settings.SettingsError, match=r"^ENCORE_") as refusal:
        edge_settings.read_settings((_GOOD | {name: value}).get)
    assert name in str(refusal.value)
    assert "ssss" not in str(refusal.value)
