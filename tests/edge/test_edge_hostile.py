"""Junk in KV and junk from clients: what it must never become is an error of the edge's own.

A thousand of each kind; HOSTILE_INPUTS=10000 in the environment makes it ten thousand. The dice are
seeded.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from shared.control_document import canonical_for
from shared.controls import parse_controls
from shared.errors import ClientError
from shared.json_text import parse_object
from shared.keys import cache_key
from shared.requests import Endpoint, streaming, validate
from tests.edge.lab import Lab, Planted
from tests.edge.local_edge import StartEdge
from tests.edge.stack import (
    CHAT,
    KEYS,
    Stack,
    content,
    error_of,
    is_hit,
    stacked,
    status,
)
from tests.support.engines import MODEL

COUNT = int(os.environ.get("HOSTILE_INPUTS", "1000"))
BATCH = 500
THREADS = 6
UNDECODABLE = "encore-edge; fwd=miss; stored; detail=kv-undecodable"
Metadata = dict[str, Any]


@pytest.fixture(scope="module")
def hostile(start_edge: StartEdge, lab_config: Path) -> Iterator[Stack]:
    """A stack whose KV can be filled with junk."""
    with stacked(start_edge, config=lab_config) as stack:
        yield stack


def key_of(stack: Stack, text: str) -> str:
    """The cache key of a chat request."""
    form = canonical_for(
        stack.document(),
        endpoint=Endpoint.CHAT,
        controls=parse_controls({}),
        fields={"model": MODEL, "messages": [{"role": "user", "content": text}]},
    )
    return cache_key(KEYS, form.canonical)


def any_json(dice: Random, depth: int = 3) -> Any:
    """Some JSON value, small."""
    match dice.randrange(8 if depth else 6):
        case 0:
            return None
        case 1:
            return dice.random() < 0.5
        case 2:
            return dice.choice((0, -1, 2**53, 1e300, -0.5, dice.getrandbits(40)))
        case 3 | 4:
            return "".join(chr(dice.choice((dice.randrange(128), 0xE9, 0x1F600))) for _ in "123")
        case 5:
            return dice.choice(("k", "t", "seg", "json", "constructor", "__proto__", ""))
        case 6:
            return [any_json(dice, depth - 1) for _ in range(dice.randrange(4))]
        case _:
            return {any_text(dice): any_json(dice, depth - 1) for _ in range(dice.randrange(4))}


def any_text(dice: Random) -> str:
    """A name that may mean something."""
    return dice.choice(("v", "k", "t", "g", "seg", "__proto__", "toString", "length", "\x00", "é"))


def broken_metadata(dice: Random, metadata: Metadata) -> Any:
    """An entry's metadata that is not one any more."""
    name = dice.choice(list(metadata))
    match dice.randrange(6):
        case 0:
            return {field: value for field, value in metadata.items() if field != name}
        case 1:
            return metadata | {"unknown": any_json(dice)}
        case 2:
            return metadata | {"k": f"{dice.getrandbits(256):064x}"}
        case 3:
            return metadata | {"t": "other"}
        case 4:
            return [metadata]
        case _:
            return metadata | {name: {"": any_json(dice)}}


def broken(dice: Random, name: str, value: bytes, metadata: Metadata) -> Planted:
    """Something else under the name of an entry."""
    junk = dice.randbytes(dice.choice((0, 1, 7, 200, len(value), 5000)))
    match dice.randrange(6):
        case 0:
            return Planted(name=name, value=junk)
        case 1:
            return Planted(name=name, value=junk, metadata=any_json(dice))
        case 2:
            return Planted(
                name=name, value=junk + b"\0" * (len(junk) == len(value)), metadata=metadata
            )
        case 3:
            return Planted(name=name, value=value[: dice.randrange(len(value))], metadata=metadata)
        case 4:
            return Planted(name=name, value=value + junk + b"\0", metadata=metadata)
        case _:
            return Planted(name=name, value=value, metadata=broken_metadata(dice, metadata))


def all_of(stack: Stack, texts: list[str]) -> list[httpx.Response]:
    """The answers to all of them, some at a time."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(stack.ask, texts))


def real_entry(stack: Stack, lab: Lab) -> tuple[bytes, Metadata]:
    """(value, metadata) of an entry that is whole."""
    stack.ask("a whole entry")
    found = lab.value(f"e:acme:{key_of(stack, 'a whole entry')}") or (b"", "null")
    stack.hit("a whole entry")
    found = lab.value(f"e:acme:{key_of(stack, 'a whole entry')}") or (b"", "null")
    return found[0], json.loads(found[1])


@pytest.mark.timeout(60 + COUNT // 10)
def test_junk_in_kv_is_a_counted_miss_and_is_replaced(hostile: Stack) -> None:
    """Random bytes, broken metadata, truncated values, another key's header: all the same."""
    lab = Lab(edge=hostile.edge)
    dice = Random(3)  # noqa: S311 - seeded on purpose
    value, metadata = real_entry(hostile, lab)
    for start in range(0, COUNT, BATCH):
        texts = [f"junk {i}" for i in range(start, min(start + BATCH, COUNT))]
        keys = [key_of(hostile, text) for text in texts]
        lab.plant(broken(dice, f"e:acme:{key}", value, metadata | {"k": key}) for key in keys)
        lab.forget()
        answers = all_of(hostile, texts)
        assert {answer.status_code for answer in answers} == {200}
        members = Counter(status(answer).split(", ")[-1] for answer in answers)
        assert members == {UNDECODABLE: len(texts)}
        lab.writes(at_least=len(texts))
        again = all_of(hostile, texts)
        assert all(map(is_hit, again))
        assert list(map(content, again)) == list(map(content, answers))
    hostile.flush()
    assert hostile.counted()["troubles"]["kv-undecodable"] == COUNT
    assert "Traceback" not in hostile.edge.log()


def bytes_of_hit(stack: Stack, text: str, encoding: str) -> bytes:
    """The body of a hit, opened by a strict reader where it comes as gzip.

    Raises an error of gzip or of httpx where it is no whole one.
    """
    body = {"model": MODEL, "messages": [{"role": "user", "content": text}]}
    headers = {"accept-encoding": encoding}
    with stack.client.stream("POST", CHAT, json=body, headers=headers) as response:
        assert response.status_code == 200
        assert is_hit(response)
        raw = b"".join(response.iter_raw())
    return gzip.decompress(raw) if encoding == "gzip" else raw


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_flipped_bits_cannot_be_read_as_another_answer(hostile: Stack, encoding: str) -> None:
    """The Worker never reads a body. Its gzip has a checksum, for whoever inflates it."""
    lab = Lab(edge=hostile.edge)
    dice = Random(5)  # noqa: S311 - seeded on purpose
    value, metadata = real_entry(hostile, lab)
    right = bytes_of_hit(hostile, "a whole entry", encoding)
    name = f"e:acme:{metadata['k']}"
    refused = 0
    for _ in range(50):
        flipped = bytearray(value)
        flipped[dice.randrange(dict(metadata["seg"])["json"])] ^= 1 << dice.randrange(8)
        lab.plant([Planted(name=name, value=bytes(flipped), metadata=metadata)])
        try:
            assert bytes_of_hit(hostile, "a whole entry", encoding) == right
        except (OSError, EOFError, zlib.error, httpx.HTTPError):
            refused += 1
    lab.plant([Planted(name=name, value=value, metadata=metadata)])
    assert refused > 25


BODIES: list[tuple[str, Metadata]] = [
    (
        Endpoint.CHAT,
        {
            "model": MODEL,
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
            ],
            "temperature": 0.5,
            "seed": 7,
            "stop": ["\n"],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
            "response_format": {"type": "json_object"},
        },
    ),
    (Endpoint.COMPLETIONS, {"model": MODEL, "prompt": ["Say", "this"], "max_tokens": 5}),
    (Endpoint.EMBEDDINGS, {"model": MODEL, "input": ["this"], "encoding_format": "float"}),
]


def changed(dice: Random, value: Any) -> Any:
    """The value with something in it replaced, left out or added."""
    if dice.random() < 0.3 or not value or not isinstance(value, dict | list):
        return any_json(dice)
    if isinstance(value, list):
        place = dice.randrange(len(value))
        return [*value[:place], changed(dice, value[place]), *value[place + dice.randrange(2) :]]
    name = dice.choice(list(value))
    match dice.randrange(4):
        case 0:
            return {field: member for field, member in value.items() if field != name}
        case 1:
            return value | {any_text(dice): any_json(dice)}
        case _:
            return value | {name: changed(dice, value[name])}


def hostile_body(dice: Random, fields: Metadata) -> bytes:
    """A body that is none, or is one no longer, or still is."""
    whole = json.dumps(fields).encode()
    match dice.randrange(6):
        case 0:
            return dice.randbytes(dice.randrange(300))
        case 1:
            return whole[: dice.randrange(len(whole))]
        case 2:
            flipped = bytearray(whole)
            flipped[dice.randrange(len(whole))] ^= 1 << dice.randrange(8)
            return bytes(flipped)
        case 3:
            place = dice.randrange(len(whole))
            odd = (
                b"NaN",
                b"\\ud800",
                b"\xff",
                b"1e999",
                b"[" * 2000,
                b'"model":1,',
                b"\0",
                b"9" * 5000,
            )
            return whole[:place] + dice.choice(odd) + whole[place:]
        case _:
            return json.dumps(changed(dice, fields)).encode()


def is_valid(endpoint: Endpoint, body: bytes) -> bool:
    """Whether it is a request, as CPython reads it."""
    try:
        fields = parse_object(body)
        streaming(fields)
        validate(endpoint, fields)
    except ClientError:
        return False
    return True


@pytest.mark.timeout(60 + COUNT // 10)
def test_junk_bodies_are_the_clients_errors(hostile: Stack) -> None:
    """Each is refused by name, as CPython would, or answered by the origin."""
    dice = Random(7)  # noqa: S311 - seeded on purpose
    sent = [(path, hostile_body(dice, fields)) for path, fields in dice.choices(BODIES, k=COUNT)]

    def send(one: tuple[str, bytes]) -> httpx.Response:
        return hostile.client.post(one[0], content=one[1])

    with ThreadPoolExecutor(THREADS) as pool:
        answers = list(pool.map(send, sent))
    seen: Counter[int] = Counter()
    for (path, body), answer in zip(sent, answers, strict=True):
        seen[answer.status_code] += 1
        if is_valid(Endpoint(path), body):
            assert answer.status_code in (200, 404), (body, answer.text)
        else:
            assert answer.status_code == 400, (body, answer.text)
        if answer.status_code != 200:
            error_of(answer)
    assert min(seen[200], seen[400]) > COUNT / 50, seen
    assert "Traceback" not in hostile.edge.log()
