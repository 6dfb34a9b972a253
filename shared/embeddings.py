"""Embedding requests, input by input: what is keyed, and which encoding is asked for.

By OpenAI's documentation the vector of an input depends on that input, the model and `dimensions`
alone, and `encoding_format` only says how it is written. So every input has the key of the request
that asks for it alone, in whichever encoding, and its entry serves both.

A field that OpenAI does not document may change that: Jina's `late_chunking` reads all inputs as
one text, vLLM's `embed_dtype` and Voyage's `output_dtype` change what base64 holds. A request with
such a field is one whole, and every field takes part in its key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from shared.canonical import UNKEYED
from shared.checks import one_of
from shared.requests import MAX_INPUTS, Endpoint

Element = str | Sequence[int]
"""One input: a text, or an array of token ids."""

_DOCUMENTED = frozenset({"model", "input", "dimensions", "encoding_format", "user"})
_check_encoding = one_of("float", "base64")


def elements(endpoint: Endpoint, fields: Mapping[str, Any]) -> Sequence[Element] | None:
    """The inputs of a request that is answered input by input; None where it is one whole.

    The fields need not be valid: that an input has an entry proves it to be.
    """
    if endpoint is not Endpoint.EMBEDDINGS or not _is_separable(fields):
        return None
    given = fields.get("input")
    if isinstance(given, str) or _are_tokens(given):
        return [given]
    if type(given) is not list or not 0 < len(given) <= MAX_INPUTS:
        return None
    # Of one kind: a mixture is not valid, though each input for itself may be.
    if all(type(member) is str for member in given) or all(map(_are_tokens, given)):
        return given
    return None


def keyed_fields(endpoint: Endpoint, fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that an embedding request's key is made of; `fields` itself for any other."""
    parts = elements(endpoint, fields)
    if parts is None:
        return fields
    kept = {name: value for name, value in fields.items() if name != "encoding_format"}
    if len(parts) == 1:
        kept["input"] = parts[0]
    return kept


def wants_base64(endpoint: Endpoint, fields: Mapping[str, Any]) -> bool:
    """Whether vectors are to be written as base64. Raises ClientError naming the field.

    False for a request that is one whole: its answer is kept as it came.
    """
    encoding = fields.get("encoding_format")
    if encoding is None or elements(endpoint, fields) is None:
        return False
    _check_encoding(encoding, "encoding_format")
    return bool(encoding == "base64")


def _is_separable(fields: Mapping[str, Any]) -> bool:
    return all(
        name in _DOCUMENTED or name in UNKEYED or value is None for name, value in fields.items()
    )


def _are_tokens(value: Any) -> TypeGuard[list[int]]:
    return type(value) is list and bool(value) and type(value[0]) is int
