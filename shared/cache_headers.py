"""Response headers a cache speaks through: `Cache-Status` (RFC 9211), `Age` and ours.

Names are lower case, as HTTP/2 and ASGI have them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from shared.envelope import Header
from shared.freshness import Serve
from shared.keys import short_key
from shared.wire import PRIVATE

EDGE = "encore-edge"
ORIGIN = "encore-origin"
Forwarded = Literal["miss", "stale", "request", "bypass"]

_TOKEN = re.compile(r"[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*", re.ASCII)


def hit_status(cache: str, served: Serve, detail: str | None = None) -> str:
    """This cache's member of `Cache-Status` for an answer it had. A negative ttl says stale."""
    return f"{cache}; hit; ttl={served.ttl_s}{_detail(detail)}"


def forward_status(
    cache: str,
    reason: Forwarded,
    *,
    status: int | None = None,
    stored: bool = False,
    collapsed: bool = False,
    detail: str | None = None,
) -> str:
    """This cache's member of `Cache-Status` for an answer it had to ask for.

    `status` is what the next tier answered where the client gets another status: an entry served
    after a failure is `fwd=stale; fwd-status=502`, no hit.
    """
    member = f"{cache}; fwd={reason}"
    if status is not None:
        member += f"; fwd-status={status}"
    if stored:
        member += "; stored"
    if collapsed:
        member += "; collapsed"
    return member + _detail(detail)


def append_status(received: str | None, member: str) -> str:
    """`Cache-Status` with this cache's member last: the cache nearest the origin comes first."""
    return f"{received}, {member}" if received else member


def source_detail(header: Header) -> str | None:
    """What the hit's `detail` says of an entry that answered another question first."""
    if header.source is None:
        return None
    # Rounded down: 1 is said of nothing else.
    return f"semantic; similarity={int(header.source.similarity * 1000) / 1000:.3f}"


def entry_headers(header: Header, served: Serve | None) -> dict[str, str]:
    """Headers of every answer that has an entry; `served` where it came out of a cache.

    The entity tag is weak: one entry has several forms (plain, streamed), which say the same.
    """
    headers = {
        "cache-control": PRIVATE,
        "encore-key": short_key(header.key),
        "etag": f'W/"{header.etag}"',
    }
    if served is not None:
        headers["age"] = str(served.age_s)
    return headers


def server_timing(durations_ms: Mapping[str, float]) -> str:
    """`Server-Timing` from part names (tokens) to milliseconds."""
    return ", ".join(f"{name};dur={value:.1f}" for name, value in durations_ms.items())


def _detail(detail: str | None) -> str:
    if detail is None:
        return ""
    if _TOKEN.fullmatch(detail):
        return f"; detail={detail}"
    quoted = "".join(c if " " <= c <= "~" else "?" for c in detail)
    quoted = quoted.replace("\\", "\\\\").replace('"', '\\"')
    return f'; detail="{quoted}"'
