"""What the operator tells the Worker, in `[vars]` and secrets. Read once an isolate, frozen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from shared.keys import MIN_SECRET_CHARACTERS, KeyRing, key_ring

_MODES = ("production", "development")


class SettingsError(Exception):
    """A variable is missing or wrong: the Worker answers nothing but 500s that name it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EdgeSettings:
    """Sizes in bytes, durations in seconds."""

    keys: KeyRing
    origin_url: str
    development: bool
    origin_timeout_s: float
    max_cached_body_bytes: int
    max_body_bytes: int


def read_settings(variable: Callable[[str], str | None]) -> EdgeSettings:
    """Read the settings through `variable`, which gives a variable's text or None.

    Raises SettingsError naming the variable, never a secret's value.
    """
    mode = variable("ENCORE_MODE") or "production"
    if mode not in _MODES:
        raise SettingsError(f"ENCORE_MODE must be one of {', '.join(_MODES)}, not {mode!r}")
    origin_url = variable("ENCORE_ORIGIN_URL")
    if not origin_url:
        raise SettingsError("ENCORE_ORIGIN_URL is not set: the origin's base URL")
    parts = urlsplit(origin_url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise SettingsError(f"ENCORE_ORIGIN_URL must be an http(s) URL, not {origin_url!r}")
    secret = variable("ENCORE_SECRET")
    if not secret:
        raise SettingsError("ENCORE_SECRET is not set: `wrangler secret put ENCORE_SECRET`")
    if len(secret) < MIN_SECRET_CHARACTERS:
        raise SettingsError(f"ENCORE_SECRET needs at least {MIN_SECRET_CHARACTERS} characters")
    return EdgeSettings(
        keys=key_ring(secret),
        origin_url=origin_url.rstrip("/"),
        development=mode == "development",
        origin_timeout_s=_number(variable, "ENCORE_ORIGIN_TIMEOUT_S", 120.0),
        max_cached_body_bytes=int(_number(variable, "ENCORE_MAX_CACHED_BODY_BYTES", 1 << 20)),
        max_body_bytes=int(_number(variable, "ENCORE_MAX_BODY_BYTES", 32 << 20)),
    )


def _number(variable: Callable[[str], str | None], name: str, default: float) -> float:
    text = variable(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise SettingsError(f"{name} must be a number above 0, not {text!r}")
    return value
