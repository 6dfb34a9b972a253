"""Reading an upstream's JSON: only what could be written again, and errors in their two shapes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from shared.errors import UpstreamError
from shared.json_text import dumps, is_too_deep

_HUGE_EXPONENT = re.compile(r"\d[eE]\+?\d{3}")
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


def parse(text: bytes) -> dict[str, Any]:
    """Read a JSON object as the upstream wrote it, or raise UpstreamError if it is none.

    Numbers, strings and depths that could not be written again are refused too.
    """
    try:
        decoded = text.decode()
        if is_too_deep(decoded):  # it could be read here, and not be written deeper in the stack
            raise garbage("it is nested too deeply")
        parse_float = _finite if _HUGE_EXPONENT.search(decoded) else None
        value = json.loads(decoded, parse_constant=_finite, parse_float=parse_float)
        if _SURROGATE_ESCAPE.search(decoded):
            dumps(value)
    except ValueError:
        raise garbage("it is not JSON") from None
    if not isinstance(value, dict):
        raise garbage("it is not a JSON object")
    return value


def error_fields(payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the error of a payload, in OpenAI's shape or vLLM's older flat one; {} for none."""
    error = payload.get("error")
    if isinstance(error, dict):
        return error or {"message": None}
    if isinstance(error, str) and error:
        return {"message": error}
    return payload if payload.get("object") == "error" else {}


def garbage(why: str) -> UpstreamError:
    """The error that an answer which cannot be read is."""
    return UpstreamError(f"The upstream's answer cannot be read: {why}.", code="upstream_garbage")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("not finite")
    return value
