"""The vectors of embedding answers: float32 once, and from then on the same in either encoding.

An upstream says a vector in decimals or as base64; what is kept is its float32. Written as JSON
numbers these are the exact float32 values (the shortest decimals that read back as the same
double), written as base64 their little-endian bytes, as OpenAI does both.

Invariant: the plain answer about one input that `by_input` makes begins, as compact JSON, with
`_BEFORE_VECTOR`, so that `assemble` copies vectors as text and parses no number.
"""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any

from origin.engine.contract import Engine, Event, Finished
from origin.engine.upstream_json import garbage
from shared import json_text
from shared.embeddings import Element
from shared.errors import InternalError, UpstreamError
from shared.requests import EmbeddingRequest, Request

_BEFORE_VECTOR = b'{"object":"list","data":[{"object":"embedding","index":0,"embedding":'


def by_input(finished: Finished, inputs: Sequence[Element]) -> list[dict[str, Any]]:
    """The plain answer about each input alone, its vector as float32 values.

    `finished` is of one run for all the inputs. Raises UpstreamError where it does not have one
    vector of finite float32 values for each.
    """
    answer = finished.answer
    rest = {name: answer[name] for name in answer if name not in ("object", "data", "usage")}
    tokens = _tokens_by_input(finished, inputs)
    said = _in_order(answer.get("data"), len(inputs))
    made = []
    for place, datum in enumerate(said):
        vector = _floats(_float32(datum.get("embedding")))
        first = {"object": "embedding", "index": 0, "embedding": vector}
        others = {name: value for name, value in datum.items() if name not in first}
        usage = answer.get("usage") if len(inputs) == 1 else None
        if tokens is not None and not isinstance(usage, dict):
            usage = {"prompt_tokens": tokens[place], "total_tokens": tokens[place]}
        about = {"object": "list", "data": [first | others], **rest}
        made.append(about if usage is None else about | {"usage": usage})
    return made


def without_encoding(request: EmbeddingRequest) -> EmbeddingRequest:
    """The request as an engine is asked it: for JSON numbers, whatever its client wants to read."""
    fields = {name: request.fields[name] for name in request.fields if name != "encoding_format"}
    return replace(request, fields=fields, encoding_format=None)


async def single_vector_events(
    engine: Engine, request: Request, *, tenant: str
) -> AsyncGenerator[Event, None]:
    """Run a request for the embedding of one input, its vector as float32 values.

    What is no such vector comes as it was said, and is not to be stored.
    """
    assert isinstance(request, EmbeddingRequest)  # noqa: S101 - of its callers: no other has inputs
    async with aclosing(engine.run(without_encoding(request), tenant=tenant)) as events:
        async for event in events:
            if isinstance(event, Finished):
                try:
                    answer = by_input(event, request.inputs)[0]
                except UpstreamError:
                    yield replace(event, unstorable="not_float32")
                else:
                    yield replace(event, answer=answer)
            else:
                yield event


def with_base64(answer: dict[str, Any]) -> dict[str, Any]:
    """A plain answer with its vectors as base64. What is no vector of numbers stays as it is."""
    data = answer.get("data")
    return answer if not isinstance(data, list) else {**answer, "data": list(map(_encoded, data))}


def assemble(about: Sequence[bytes], places: Sequence[int]) -> bytes:
    """The plain answer to a request, compact JSON, from those about each of its inputs alone.

    `about` are answers as `by_input` makes them, of different inputs, all in the encoding that is
    asked for; `places` says which of them each input of the request has. Tokens are counted for
    each input of the request. All else is as in the first answer.
    """
    vectors, rests = zip(*map(_apart, about), strict=True)
    rows = b",".join(
        b'{"object":"embedding","index":%d,"embedding":%b}' % (index, vectors[place])
        for index, place in enumerate(places)
    )
    counts = [_prompt_tokens(rest) or 0 for rest in rests]
    used = sum(counts[place] for place in places)
    rest = {name: rests[0][name] for name in rests[0] if name not in ("object", "data")}
    rest["usage"] = {"prompt_tokens": used, "total_tokens": used}
    return b'{"object":"list","data":[%b],%b' % (rows, json_text.dumps(rest)[1:])


def _apart(plain: bytes) -> tuple[bytes, dict[str, Any]]:
    """(the vector's text, the answer without it) of an answer about one input."""
    start = len(_BEFORE_VECTOR)
    quoted = plain[start : start + 1] == b'"'
    end = plain.find(b'"' if quoted else b"]", start + 1) + 1
    if not plain.startswith(_BEFORE_VECTOR) or not end:
        raise InternalError("A stored vector is not written as expected.")
    return plain[start:end], json.loads(b"%bnull%b" % (_BEFORE_VECTOR, plain[end:]))


def _in_order(data: Any, count: int) -> list[dict[str, Any]]:
    """The data in the order of the inputs: by `index`, or as they come where none has one."""
    if not isinstance(data, list) or len(data) != count:
        raise garbage(f"it does not have {count} vectors")
    if not all(isinstance(datum, dict) for datum in data):
        raise garbage("its data are no objects")
    indices = [datum.get("index") for datum in data]
    if any(index is not None for index in indices):
        by_index = dict(zip(map(str, indices), data, strict=True))
        if by_index.keys() != set(map(str, range(count))):
            raise garbage("its vectors are not numbered as the inputs are")
        return [by_index[str(index)] for index in range(count)]
    return data


def _float32(vector: Any) -> bytes:
    """Little-endian float32 of what an upstream says. Raises UpstreamError for no vector."""
    try:
        if isinstance(vector, str):
            data = base64.b64decode(vector, validate=True)
        else:
            if not {int, float}.issuperset(map(type, vector)):
                raise TypeError
            data = struct.pack(f"<{len(vector)}f", *vector)
        finite = bool(data) and all(map(math.isfinite, _floats(data)))
    except (struct.error, OverflowError, TypeError, ValueError):
        finite = False
    if not finite:
        raise garbage("what should be a vector is none of finite float32 values")
    return data


def _floats(data: bytes) -> list[float]:
    return list(struct.unpack(f"<{len(data) // 4}f", data))


def _encoded(datum: Any) -> Any:
    if not isinstance(datum, dict) or not isinstance(datum.get("embedding"), list):
        return datum
    try:
        data = _float32(datum["embedding"])
    except UpstreamError:
        return datum
    return {**datum, "embedding": base64.b64encode(data).decode()}


def _tokens_by_input(finished: Finished, inputs: Sequence[Element]) -> Sequence[int] | None:
    """How many tokens each input has; None where nothing is known of them.

    Exact where the engine says it for each. Else the sum is what the engine says for all, of which
    each has a share by its length: in tokens where the inputs are such, else in UTF-8 bytes.
    """
    if finished.input_tokens is not None:
        return finished.input_tokens
    total = _prompt_tokens(finished.answer)
    if total is None:
        return None
    lengths = [len(part.encode() if isinstance(part, str) else part) for part in inputs]
    whole = sum(lengths)
    ends = [total * length // whole for length in accumulate(lengths)]
    return [end - start for start, end in pairwise((0, *ends))]


def _prompt_tokens(answer: Mapping[str, Any]) -> int | None:
    usage = answer.get("usage")
    count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return count if type(count) is int and count >= 0 else None
