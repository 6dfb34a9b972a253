"""What a client may ask of the cache, all of it in request headers.

`Cache-Control` request directives of RFC 9111 section 5.2.1 and RFC 5861 section 4, applied by
analogy to POST, and the `Encore-*` headers. Nothing in a prompt or body controls the cache.

A `Cache-Control` that makes no sense is read with caution, as RFC 9111 wants. An `Encore-*` header
that makes no sense is refused: what it meant to keep apart or to forbid cannot be guessed.
Reading takes time linear in the headers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from shared.envelope import MAX_TAGS
from shared.errors import ClientError

MAX_DELTA_S = 2**31
"""Larger deltas count as this (RFC 9111 section 1.2.2)."""

_SPACES = " \t"
# A quoted string, or what would be one if it ended. Taking both keeps the search linear.
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*(")?', re.DOTALL)
TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}")
TAG_WORDS = "1 to 64 of A-Z a-z 0-9 . _ : / -"
CONTENT_CLASS = re.compile(r"[a-z][a-z0-9_-]{0,31}")
CONTENT_CLASS_WORDS = "1 to 32 of a-z 0-9 _ -"
_SCOPE = re.compile(r"[\x21-\x7e]{1,128}")
_DIGITS = re.compile(r"[0-9]+")
_BUCKET = re.compile(r"[0-9]{1,4}")
_SEMANTIC = re.compile(r"off|0(?:\.[0-9]{1,6})?|1(?:\.0{1,6})?", re.IGNORECASE)


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

    def refuses(self, similarity: float) -> bool:
        """Whether the answer to a question that is this similar is not wanted."""
        if self.semantic_off:
            return True
        return self.semantic_threshold is not None and similarity < self.semantic_threshold


_ENCORE_HEADERS = frozenset(
    {
        "encore-bucket",
        "encore-class",
        "encore-scope",
        "encore-semantic",
        "encore-tags",
        "encore-ttl",
    }
)
_NO_DIRECTIVES = Directives()
_NO_CONTROLS = Controls()


def parse_directives(cache_control: str | None) -> Directives:
    """Read a `Cache-Control` request header (several lines of it joined by commas).

    Unknown directives are ignored, of repeated ones the first counts, and a delta that is not a
    number counts as 0, the cautious reading (RFC 9111 section 4.2.1): no age is young enough for
    `max-age`, no staleness is accepted, and `min-fresh` still wants a fresh answer.
    """
    if not cache_control:
        return _NO_DIRECTIVES
    found: dict[str, str | None] = {}
    for member in _members(cache_control):
        name, equals, value = member.partition("=")
        value = value.strip(_SPACES)
        if len(value) >= 2 and value[0] == value[-1] == '"':
            value = value[1:-1]
        found.setdefault(name.strip(_SPACES).lower(), value if equals else None)
    return Directives(
        no_cache="no-cache" in found,
        no_store="no-store" in found,
        only_if_cached="only-if-cached" in found,
        max_age_s=_delta(found, "max-age"),
        max_stale_s=-1 if found.get("max-stale", "") is None else _delta(found, "max-stale"),
        min_fresh_s=_delta(found, "min-fresh"),
        stale_if_error_s=_delta(found, "stale-if-error"),
    )


def parse_controls(headers: Mapping[str, str]) -> Controls:
    """Read the controls of a request. Header names are lower case.

    Raises ClientError 400 naming the header where an `Encore-*` header is malformed.
    """
    directives = parse_directives(headers.get("cache-control"))
    if _ENCORE_HEADERS.isdisjoint(headers):
        return _NO_CONTROLS if directives is _NO_DIRECTIVES else Controls(directives=directives)
    semantic = _matching(headers, "Encore-Semantic", _SEMANTIC, "'off' or a similarity from 0 to 1")
    off = semantic is not None and semantic.lower() == "off"
    ttl = _matching(headers, "Encore-TTL", _DIGITS, "a whole number of seconds")
    bucket = _matching(headers, "Encore-Bucket", _BUCKET, "an integer from 0 to 9999")
    return Controls(
        directives=directives,
        ttl_s=None if ttl is None else _seconds(ttl),
        tags=_tags(headers.get("encore-tags", "")),
        semantic_off=off,
        semantic_threshold=None if semantic is None or off else float(semantic),
        bucket=int(bucket or 0),
        content_class=_matching(headers, "Encore-Class", CONTENT_CLASS, CONTENT_CLASS_WORDS),
        scope=_matching(headers, "Encore-Scope", _SCOPE, "1 to 128 visible ASCII characters") or "",
    )


def _members(text: str) -> list[str]:
    """The members of a comma-separated list; a comma in a quoted string ends none."""
    if '"' in text:
        text = _QUOTED.sub(lambda m: m[0].replace(",", " ") if m[1] else m[0], text)
    return text.split(",")


def _delta(found: Mapping[str, str | None], name: str) -> int | None:
    if name not in found:
        return None
    value = found[name]
    return _seconds(value) if value and _DIGITS.fullmatch(value) else 0


def _seconds(digits: str) -> int:
    return MAX_DELTA_S if len(digits) > 18 else min(int(digits), MAX_DELTA_S)


def _matching(
    headers: Mapping[str, str], name: str, pattern: re.Pattern[str], wanted: str
) -> str | None:
    value = headers.get(name.lower())
    if value is None:
        return None
    value = value.strip(_SPACES)
    if pattern.fullmatch(value) is None:
        raise _malformed(name, wanted)
    return value


def _tags(value: str) -> tuple[str, ...]:
    named = (tag.strip(_SPACES) for tag in value.split(","))
    tags = tuple(dict.fromkeys(filter(None, named)))
    if len(tags) > MAX_TAGS or not all(TAG.fullmatch(tag) for tag in tags):
        raise _malformed("Encore-Tags", f"at most {MAX_TAGS} tags of {TAG_WORDS}, by comma")
    return tags


def _malformed(name: str, wanted: str) -> ClientError:
    return ClientError(f"The header {name} must be {wanted}.", param=name, code="invalid_header")
