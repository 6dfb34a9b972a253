"""What a client may ask of the cache, all of it in request headers.

`Cache-Control` request directives of RFC 9111 section 5.2.1 and RFC 5861 section 4, applied by analogy
to POST, and the `Encore-*` headers. Nothing in a prompt or body controls the cache.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from shared.errors import ClientError

MAX_TAGS = 16
MAX_DELTA_S = 2**31
"""Larger deltas count as this (RFC 9111 section 1.2.2)."""

_DIRECTIVE = re.compile(
    r'\s*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)\s*(?:=\s*("[^"]*"|[^\s,"]*))?\s*(?:,|$)'
)
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}", re.ASCII)
_CLASS = re.compile(r"[a-z][a-z0-9_-]{0,31}", re.ASCII)
_SCOPE = re.compile(r"[\x21-\x7e]{1,128}", re.ASCII)
_DIGITS = re.compile(r"[0-9]{1,18}", re.ASCII)
_THRESHOLD = re.compile(r"[01](?:\.[0-9]{1,6})?", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class Directives:
    """Request directives. `max_stale_s` is -1 for `max-stale` without a value: any staleness."""

    no_cache: bool = False
    no_store: bool = False
    only_if_cached: bool = False
    max_age_s: int | None = None
    max_stale_s: int | None = None
    min_fresh_s: int | None = None
    stale_if_error_s: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Controls:
    """Everything a request's headers ask of the cache."""

    directives: Directives = Directives()
    ttl_s: int | None = None
    tags: tuple[str, ...] = ()
    semantic_off: bool = False
    semantic_threshold: float | None = None
    bucket: int = 0
    content_class: str | None = None
    scope: str = ""


_NO_DIRECTIVES = Directives()
_NO_CONTROLS = Controls()


def parse_directives(cache_control: str | None) -> Directives:
    """Read a `Cache-Control` request header.

    Unknown directives are ignored. A delta that is not a number counts as 0, the cautious reading
    (RFC 9111 section 4.2.1); for `max-stale` and `stale-if-error` that accepts no staleness.
    """
    if not cache_control:
        return _NO_DIRECTIVES
    found: dict[str, str] = {}
    for name, value in _DIRECTIVE.findall(cache_control):
        found.setdefault(name.lower(), value.strip('"'))
    return Directives(
        no_cache="no-cache" in found,
        no_store="no-store" in found,
        only_if_cached="only-if-cached" in found,
        max_age_s=_delta(found, "max-age"),
        max_stale_s=-1 if found.get("max-stale") == "" else _delta(found, "max-stale"),
        min_fresh_s=_delta(found, "min-fresh"),
        stale_if_error_s=_delta(found, "stale-if-error"),
    )


def parse_controls(headers: Mapping[str, str]) -> Controls:
    """Read the controls of a request. Header names are lower case.

    Raises ClientError 400 naming the header where an `Encore-*` header is malformed.
    """
    directives = parse_directives(headers.get("cache-control"))
    if not any(name.startswith("encore-") for name in headers):
        return _NO_CONTROLS if directives is _NO_DIRECTIVES else Controls(directives=directives)
    semantic = headers.get("encore-semantic", "").strip().lower()
    threshold = None
    if semantic not in ("", "off"):
        if not _THRESHOLD.fullmatch(semantic) or float(semantic) > 1:
            raise _malformed("Encore-Semantic", "'off' or a similarity from 0 to 1")
        threshold = float(semantic)
    return Controls(
        directives=directives,
        ttl_s=_number(headers, "Encore-TTL", MAX_DELTA_S),
        tags=_tags(headers.get("encore-tags", "")),
        semantic_off=semantic == "off",
        semantic_threshold=threshold,
        bucket=_number(headers, "Encore-Bucket", 9999) or 0,
        content_class=_matching(headers, "Encore-Class", _CLASS, "1 to 32 of a-z 0-9 _ -"),
        scope=_matching(headers, "Encore-Scope", _SCOPE, "1 to 128 visible ASCII characters") or "",
    )


def _delta(found: Mapping[str, str], name: str) -> int | None:
    value = found.get(name)
    if value is None:
        return None
    if not _DIGITS.fullmatch(value):
        return MAX_DELTA_S if value.isascii() and value.isdigit() else 0
    return min(int(value), MAX_DELTA_S)


def _number(headers: Mapping[str, str], name: str, limit: int) -> int | None:
    value = headers.get(name.lower())
    if value is None:
        return None
    value = value.strip()
    if not _DIGITS.fullmatch(value) or int(value) > limit:
        raise _malformed(name, f"an integer from 0 to {limit}")
    return int(value)


def _matching(
    headers: Mapping[str, str], name: str, pattern: re.Pattern[str], wanted: str
) -> str | None:
    value = headers.get(name.lower())
    if value is None:
        return None
    if not pattern.fullmatch(value.strip()):
        raise _malformed(name, wanted)
    return value.strip()


def _tags(value: str) -> tuple[str, ...]:
    tags = tuple(dict.fromkeys(tag.strip() for tag in value.split(",") if tag.strip()))
    if len(tags) > MAX_TAGS or not all(_TAG.fullmatch(tag) for tag in tags):
        raise _malformed(
            "Encore-Tags", f"at most {MAX_TAGS} tags of 1 to 64 of A-Z a-z 0-9 . _ : / -, by comma"
        )
    return tags


def _malformed(name: str, wanted: str) -> ClientError:
    return ClientError(f"The header {name} must be {wanted}.", param=name, code="invalid_header")
