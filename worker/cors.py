"""Cross-origin requests of browser pages (https://fetch.spec.whatwg.org/#http-cors-protocol).

Off unless the operator names the pages' origins. Cookies play no part: the API key is all there is,
so credentials are not allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from shared.wire import FORWARDED_RESPONSE_HEADERS, PASSED_METHODS, PASSED_RESPONSE_HEADERS

ANY = "*"
_MAX_AGE_S = 7200
_EXPOSED = ", ".join(sorted({*FORWARDED_RESPONSE_HEADERS, *PASSED_RESPONSE_HEADERS}))


def allowed_origin(origins: AbstractSet[str], headers: Mapping[str, str]) -> str | None:
    """The value of `Access-Control-Allow-Origin` for a request, or None where there is to be none.

    `origins` are those that may read answers, `*` for any.
    """
    origin = headers.get("origin")
    if origin is None or not origins:
        return None
    if ANY in origins:
        return ANY
    return origin if origin in origins else None


def answer_headers(allowed: str) -> dict[str, str]:
    """What is added to an answer that a page may read."""
    return {
        "access-control-allow-origin": allowed,
        "access-control-expose-headers": _EXPOSED,
        "vary": "origin",
    }


def preflight_headers(allowed: str, headers: Mapping[str, str]) -> dict[str, str]:
    """The answer to a preflight. Any header may be sent: what is not known here is dropped."""
    return {
        "access-control-allow-origin": allowed,
        "access-control-allow-methods": ", ".join(PASSED_METHODS),
        "access-control-allow-headers": headers.get("access-control-request-headers", "*"),
        "access-control-max-age": str(_MAX_AGE_S),
        "vary": "origin, access-control-request-headers",
    }
