"""What the operator tells the Worker, in `[vars]` and secrets. Read once an isolate, frozen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from shared.keys import KeyRings, check_secret, key_rings

MAX_CONTROL_MEMO_S = 30
MAX_WARM_OPERATIONS = 200
_MODES = ("production", "development")


class SettingsError(Exception):
    """A variable or binding is missing or wrong: the Worker answers 500s and logs its name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EdgeSettings:
    """Sizes in bytes, durations in seconds.

    `cors_origins` are the origins of browser pages that may read answers, `*` for any; none by
    default. `control_memo_s` is how long a tenant's control document is used without a look at KV.
    `warm_operations` bounds what one run of the cron trigger fetches and writes; 0 turns it off.
    """

    keys: KeyRings
    origin_url: str
    development: bool
    origin_timeout_s: float
    max_cached_body_bytes: int
    max_body_bytes: int
    cors_origins: frozenset[str]
    control_memo_s: float
    warm_operations: int


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
    parts = _parts(origin_url)
    is_base = parts.scheme in ("http", "https") and parts.netloc
    # A path is put behind it, and no request may be made of a URL with a user in it.
    if not is_base or not set("@?#").isdisjoint(origin_url):
        raise SettingsError(
            "ENCORE_ORIGIN_URL must be an http(s) URL without user, query and fragment, "
            f"not {origin_url.rpartition('@')[2]!r}"
        )
    secret = variable("ENCORE_SECRET")
    if not secret:
        raise SettingsError("ENCORE_SECRET is not set: `wrangler secret put ENCORE_SECRET`")
    previous = variable("ENCORE_PREVIOUS_SECRET") or None
    for name, value in (("ENCORE_SECRET", secret), ("ENCORE_PREVIOUS_SECRET", previous)):
        try:
            if value is not None:
                check_secret(value)
        except ValueError as exc:
            raise SettingsError(f"{name}: {exc}") from None
    try:
        keys = key_rings(secret, previous)
    except ValueError as exc:
        raise SettingsError(f"ENCORE_PREVIOUS_SECRET: {exc}") from None
    max_cached_body_bytes = _size_bytes(variable, "ENCORE_MAX_CACHED_BODY_BYTES", 1 << 20)
    max_body_bytes = _size_bytes(variable, "ENCORE_MAX_BODY_BYTES", 32 << 20)
    if max_cached_body_bytes > max_body_bytes:
        raise SettingsError(
            f"ENCORE_MAX_CACHED_BODY_BYTES ({max_cached_body_bytes}) must not exceed "
            f"ENCORE_MAX_BODY_BYTES ({max_body_bytes})"
        )
    return EdgeSettings(
        keys=keys,
        origin_url=origin_url.rstrip("/"),
        development=mode == "development",
        origin_timeout_s=_seconds(variable, "ENCORE_ORIGIN_TIMEOUT_S", 125.0),
        max_cached_body_bytes=max_cached_body_bytes,
        max_body_bytes=max_body_bytes,
        cors_origins=_origins(variable("ENCORE_CORS_ORIGINS") or ""),
        control_memo_s=_number(variable, "ENCORE_CONTROL_MEMO_S", 30, MAX_CONTROL_MEMO_S),
        warm_operations=_number(variable, "ENCORE_WARM_OPERATIONS", 40, MAX_WARM_OPERATIONS),
    )


def _parts(url: str) -> SplitResult:
    """The parts of a URL, empty where it is none (brackets around what is no address)."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def _origins(text: str) -> frozenset[str]:
    origins = [origin.strip() for origin in text.split(",") if origin.strip()]
    for origin in origins:
        parts = _parts(origin)
        if origin not in {"*", f"{parts.scheme}://{parts.netloc}"}:
            raise SettingsError(
                "ENCORE_CORS_ORIGINS must be origins like https://app.example.com, by comma, or *, "
                f"not {origin!r}"
            )
    return frozenset(origins)


def _number(variable: Callable[[str], str | None], name: str, default: int, most: int) -> int:
    text = variable(name)
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) <= most):
        raise SettingsError(f"{name} must be a whole number from 0 to {most}, not {text!r}")
    return int(text)


def _seconds(variable: Callable[[str], str | None], name: str, default: float) -> float:
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


def _size_bytes(variable: Callable[[str], str | None], name: str, default: int) -> int:
    text = variable(name)
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 18 and int(text) > 0):
        raise SettingsError(f"{name} must be a whole number of bytes above 0, not {text!r}")
    return int(text)
