"""Entries sealed at rest: what KV holds, what is served of it, and what damage costs."""

from __future__ import annotations

import gzip
import http.client
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from pydantic import SecretStr

from origin.encryption import open_segment, seal, unsealed
from origin.settings import Settings
from shared.control_document import Policy
from shared.envelope import SEGMENT_JSON, Envelope, Header, decode_header, header_json
from shared.keys import key_ring, key_rings, make_api_key
from tests.edge.lab import Lab
from tests.edge.local_edge import ROOT, StartEdge
from tests.edge.projects import Projects
from tests.edge.stack import (
    API_KEY,
    CHAT,
    KEYS,
    OTHER_API_KEY,
    SECRET,
    Stack,
    client_of,
    content,
    documents_at_edge,
    is_hit,
    leave_document,
    stacked,
    status,
    until,
)
from tests.support.control import control_store
from tests.support.engines import MODEL, chat_answer

OLD_SECRET = "the secret that was there before it"
TEXT = "sealed away and read by nobody"
UNDECODABLE = "encore-edge; fwd=miss; stored; detail=kv-undecodable"
USAGE = {"stream_options": {"include_usage": True}}
FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "streamed": {"stream": True},
    "streamed with usage": {"stream": True, **USAGE},
}


@pytest.fixture(scope="module")
def sealing(start_edge: StartEdge, lab_config: Path) -> Iterator[Stack]:
    """A stack whose tenants are encrypted, and whose KV can be looked at."""
    control = control_store(API_KEY, OTHER_API_KEY, policy=Policy(encrypted=True))
    with stacked(start_edge, config=lab_config, control=control) as stack:
        yield stack


def sealed_at(stack: Stack, text: str, **fields: Any) -> tuple[str, Envelope]:
    """(name, entry) of what KV holds of a request."""
    short = stack.hit(text, **fields).headers["encore-key"]
    lab = Lab(edge=stack.edge)
    (name,) = lab.names(f"e:acme:{short}")
    value, metadata = lab.value(name) or (b"", "")
    return name, Envelope(header=decode_header(metadata), payload=value)


def fill(stack: Stack, text: str) -> tuple[str, Envelope]:
    """Let KV have the answer; see `sealed_at`."""
    stack.end_minute()
    stack.ask(text)
    return sealed_at(stack, text)


def put(stack: Stack, name: str, header: Header, payload: bytes) -> None:
    """Put an entry, whatever it is, in the place of what is there."""
    Lab(edge=stack.edge).put(name, payload, header_json(header).decode())


def test_kv_holds_nothing_that_can_be_read(sealing: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither text nor gzip; the header says so, and the origin's store holds the same bytes."""
    monkeypatch.setattr(sealing.engine, "whole", chat_answer(TEXT))
    name, entry = fill(sealing, "what KV holds")
    header = entry.header
    assert header.encryption == KEYS.id
    stored = Lab(edge=sealing.edge).value(name) or (b"", "")
    for readable in (TEXT.encode(), b"what KV holds", b"\x1f\x8b\x08", b"choices"):
        assert readable not in stored[0] + stored[1].encode()
    offset = 0
    for segment, length in header.segments.items():
        plain = open_segment(key_rings(SECRET), entry, segment) or b""
        assert TEXT.encode() in gzip.decompress(plain)
        assert length == len(plain) + 12 + 16
        offset += length
    assert offset == len(stored[0])
    (redis,) = (e for key, (e, _) in sealing.store._entries.items() if key == header.key)
    assert redis.endswith(entry.payload)


@pytest.mark.parametrize("form", FORMS)
def test_hit_is_the_answer_that_was_sealed(sealing: Stack, form: str) -> None:
    """Byte for byte the gzip of the origin, inflated for a client that cannot read it."""
    text = f"hit {form}"
    _, entry = fill(sealing, text)
    segment = {"plain": "json", "streamed": "sse", "streamed with usage": "sse+usage"}[form]
    member = open_segment(key_rings(SECRET), entry, segment) or b""
    body = {"model": MODEL, "messages": [{"role": "user", "content": text}], **FORMS[form]}
    for accepted, wanted in (("gzip", member), ("identity", gzip.decompress(member))):
        connection = http.client.HTTPConnection(urlsplit(sealing.edge.url).netloc)
        headers = {"authorization": f"Bearer {API_KEY}", "accept-encoding": accepted}
        connection.request("POST", CHAT, json.dumps(body), headers)
        response = connection.getresponse()
        wire = response.read()
        connection.close()
        assert response.headers["cache-status"].startswith("encore-edge; hit")
        assert response.headers.get("content-encoding") == ("gzip" if accepted == "gzip" else None)
        assert wire == wanted


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("accepted", ["gzip", "identity"])
def test_miss_is_answered_in_clear(sealing: Stack, form: str, accepted: str) -> None:
    """What the origin sends sealed leaves the edge opened."""
    text = f"miss {form} {accepted}"
    first = sealing.ask(text, {"accept-encoding": accepted}, **FORMS[form])
    assert "Answer" in first.text
    assert "encore-edge; fwd=miss" in status(first)
    hit = sealing.hit(text)
    assert content(hit) in first.text


Damage = Callable[[Envelope, Envelope], tuple[Header, bytes]]


def _flipped(entry: Envelope, position: int) -> tuple[Header, bytes]:
    payload = bytearray(entry.payload)
    payload[position] ^= 1
    return entry.header, bytes(payload)


def _with(entry: Envelope, **changes: Any) -> tuple[Header, bytes]:
    return replace(entry.header, **changes), entry.payload


def _json_bytes(entry: Envelope) -> int:
    return entry.header.segments[SEGMENT_JSON]


def _exchanged(entry: Envelope) -> tuple[Header, bytes]:
    """The other segments' bytes in the place of each, with lengths that fit."""
    names = list(entry.header.segments)
    turned = [*names[1:], names[0]]
    pieces = [entry.segment(name) or b"" for name in turned]
    lengths = {name: len(piece) for name, piece in zip(names, pieces, strict=True)}
    return replace(entry.header, segments=lengths), b"".join(pieces)


DAMAGES: dict[str, Damage] = {
    "nonce": lambda one, _: _flipped(one, 0),
    "ciphertext": lambda one, _: _flipped(one, 20),
    "tag": lambda one, _: _flipped(one, _json_bytes(one) - 1),
    "zeros": lambda one, _: (one.header, bytes(len(one.payload))),
    "another key's segments": lambda one, two: (
        replace(two.header, key=one.header.key),
        two.payload,
    ),
    "another key's ciphertext": lambda one, two: (
        replace(one.header, segments=two.header.segments),
        two.payload,
    ),
    "another key's entry": lambda _, two: (two.header, two.payload),
    "segments exchanged": lambda one, _: _exchanged(one),
    "later expiry": lambda one, _: _with(
        one,
        stale_until_ms=one.header.stale_until_ms + 1,
        error_until_ms=one.header.error_until_ms + 1,
    ),
    "later start": lambda one, _: _with(
        one, generation_started_ms=one.header.generation_started_ms - 1
    ),
    "another model": lambda one, _: _with(one, model="other"),
    "tags": lambda one, _: _with(one, tags=("0123456789ab",)),
    "another secret's id": lambda one, _: _with(one, encryption=key_ring(OLD_SECRET).id),
    "an id of nothing": lambda one, _: _with(one, encryption="none"),
    "truncated": lambda one, _: (one.header, one.payload[:-1]),
    "shorter than a nonce": lambda one, _: (
        replace(one.header, segments={SEGMENT_JSON: 5}),
        one.payload[:5],
    ),
    "gzip in clear, said to be sealed": lambda one, _: (
        replace(
            unsealed(key_rings(SECRET), one).header,
            encryption=one.header.encryption,
        ),
        unsealed(key_rings(SECRET), one).payload,
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_does_not_open_is_a_miss_and_replaced(sealing: Stack, damage: str) -> None:
    """It says kv-undecodable, the answer is right, and the next one is a hit again."""
    text = f"damaged {damage}"
    name, one = fill(sealing, text)
    answer = content(sealing.hit(text))
    _, two = fill(sealing, text + " the other")
    header, payload = DAMAGES[damage](one, two)
    assert (header, payload) != (one.header, one.payload)
    put(sealing, name, header, payload)
    sealing.end_minute()
    miss = sealing.ask(text)
    assert miss.status_code == 200
    assert status(miss).endswith(UNDECODABLE)
    assert content(miss) == answer
    assert content(sealing.hit(text)) == answer


def test_damage_of_one_segment_leaves_the_others(sealing: Stack) -> None:
    """Each is opened alone."""
    name, entry = fill(sealing, "one segment")
    header, payload = _flipped(entry, _json_bytes(entry) + 20)
    put(sealing, name, header, payload)
    assert is_hit(sealing.ask("one segment"))
    assert status(sealing.ask("one segment", stream=True)).endswith("detail=kv-undecodable")


def test_streamed_damage_is_a_miss(sealing: Stack) -> None:
    """The same for streams: nothing of it has been sent."""
    name, entry = fill(sealing, "damaged stream")
    put(sealing, name, entry.header, bytes(len(entry.payload)))
    sealing.end_minute()
    miss = sealing.ask("damaged stream", stream=True)
    assert status(miss).endswith(UNDECODABLE)
    assert miss.text.endswith("data: [DONE]\n\n")
    sealing.hit("damaged stream", stream=True)


def test_damage_is_counted(sealing: Stack) -> None:
    """As undecodable, of this tenant."""
    sealing.flush()
    before = sealing.counted()["troubles"]["kv-undecodable"]
    name, entry = fill(sealing, "counted")
    put(sealing, name, entry.header, bytes(len(entry.payload)))
    sealing.ask("counted")
    sealing.flush()
    assert sealing.counted()["troubles"]["kv-undecodable"] == before + 1


def test_entry_in_clear_is_a_miss_once_the_policy_is_encrypted(sealing: Stack) -> None:
    """It says not-encrypted; what takes its place is sealed."""
    api_key = make_api_key(KEYS, "switching", bytes(15))
    headers = {"authorization": f"Bearer {api_key}"}
    control = control_store(api_key)
    sealing.control._documents |= control._documents
    documents_at_edge(sealing.edge, control)
    lab = Lab(edge=sealing.edge)
    sealing.ask("switching", headers)
    clear = sealing.hit("switching", headers)
    (name,) = lab.names("e:switching:")
    assert b"\x1f\x8b\x08" in (lab.value(name) or (b"", ""))[0]
    later = sealing.revise("switching", policy=Policy(encrypted=True))
    assert leave_document(sealing.edge, later).is_success
    for directive in ("max-stale", "no-cache"):
        sealing.end_minute()
        miss = sealing.ask("switching", headers | {"cache-control": directive})
        assert not is_hit(miss)
    sealing.hit("switching", headers)
    value, metadata = lab.value(name) or (b"", "")
    assert b"\x1f\x8b\x08" not in value
    assert decode_header(metadata).encryption == KEYS.id
    # Whoever puts the old one back changes nothing.
    lab.put(name, *clear_entry(value, metadata))
    miss = sealing.ask("switching", headers)
    assert status(miss).endswith("detail=not-encrypted")
    assert content(miss) != content(clear)


def clear_entry(value: bytes, metadata: str) -> tuple[bytes, str]:
    """The same entry, not sealed."""
    sealed = Envelope(header=decode_header(metadata), payload=value)
    plain = unsealed(key_rings(SECRET), sealed)
    return plain.payload, header_json(plain.header).decode()


def test_sealed_entry_is_served_once_the_policy_is_not(sealing: Stack) -> None:
    """It was sealed for more than is asked now."""
    api_key = make_api_key(KEYS, "relaxing", bytes(15))
    headers = {"authorization": f"Bearer {api_key}"}
    control = control_store(api_key, policy=Policy(encrypted=True))
    sealing.control._documents |= control._documents
    documents_at_edge(sealing.edge, control)
    sealing.ask("relaxing", headers)
    sealed = sealing.hit("relaxing", headers)
    later = sealing.revise("relaxing", policy=Policy())
    assert leave_document(sealing.edge, later).is_success
    hit = sealing.ask("relaxing", headers)
    assert is_hit(hit)
    assert hit.json() == sealed.json()


def test_replacing_the_secret_keeps_what_was_sealed(
    start_edge: StartEdge, lab_config: Path
) -> None:
    """Origin first, then edge: entries come over without a generation; both secrets' are read."""
    old_ring, rings = key_ring(OLD_SECRET), key_rings(SECRET, OLD_SECRET)
    api_key = make_api_key(old_ring, "acme", bytes(15))
    control = control_store(api_key, policy=Policy(encrypted=True))
    # The edge still has the old secret alone.
    before = stacked(
        start_edge,
        config=lab_config,
        control=control,
        informed=False,
        settings=Settings(secret=SecretStr(SECRET), previous_secret=SecretStr(OLD_SECRET)),
        ENCORE_SECRET=OLD_SECRET,
    )
    with before as stack, client_of(stack.edge, api_key) as client:
        old = replace(stack, client=client)
        old.ask("kept")
        until(lambda: old.ask("kept"), is_hit)
        _, sealed = sealed_at(old, "kept")
        assert sealed.header.encryption == old_ring.id
        answer = content(old.ask("kept"))
        runs = old.engine.runs

        edge = start_edge(
            lab_config,
            variables={
                "ENCORE_SECRET": SECRET,
                "ENCORE_PREVIOUS_SECRET": OLD_SECRET,
                "ENCORE_ORIGIN_URL": stack.origin_url,
            },
        )
        with client_of(edge, api_key) as new_client:
            new = replace(stack, edge=edge, client=new_client)
            assert leave_document(edge, new.document()).is_success
            assert content(new.ask("kept")) == answer
            name, moved = sealed_at(new, "kept")
            assert moved.header.encryption == rings.current.id
            assert moved.header.key != sealed.header.key
            assert moved.header.expires_ms == sealed.header.expires_ms
            assert new.engine.runs == runs
            # One that was sealed under the old secret is opened by it.
            plain = unsealed(rings, moved)
            resealed = seal(plain, old_ring)
            put(new, name, resealed.header, resealed.payload)
            for form in FORMS.values():
                hit = new.ask("kept", **form)
                assert is_hit(hit)
                assert answer in hit.text
            # One sealed under a secret that never was is not.
            foreign = seal(plain, key_ring("x" * 32))
            put(new, name, foreign.header, foreign.payload)
            new.end_minute()
            miss = new.ask("kept")
            assert status(miss).endswith(UNDECODABLE)
            assert content(miss) == answer
        edge.stop()


_WORKER = """
import base64
import json
import runtime
from workers import Response, WorkerEntrypoint
from vector_text import TEXT

class Default(WorkerEntrypoint):
    async def fetch(self, request):
        return Response(json.dumps([await _opened(case) for case in json.loads(TEXT)]))

async def _opened(case):
    given, derived = case["input"], case["expected"]
    sealed = base64.b64decode(given["sealed"])
    key, data = bytes.fromhex(derived["key"]), bytes.fromhex(derived["associated_data"])
    async def open_(key, sealed, data):
        try:
            opened = await runtime.decrypt(key, runtime.to_buffer(sealed), data)
            return base64.b64encode(runtime.to_bytes(opened)).decode()
        except runtime.PlatformError:
            return None
    broken = bytes([sealed[0] ^ 1]) + sealed[1:]
    return [
        await open_(key, sealed, data),
        await open_(key, broken, data),
        await open_(key, sealed, data + b"x"),
        await open_(bytes(32), sealed, data),
        await open_(key, sealed[:12], data),
        await open_(key, b"", data),
    ]
"""


def test_webcrypto_opens_the_golden_vectors(projects: Projects, start_edge: StartEdge) -> None:
    """As `cryptography` sealed them; and nothing that differs in a bit."""
    cases = json.loads((ROOT / "tests/vectors/encryption.json").read_text("utf-8"))
    config = projects.make(_WORKER)
    folder = config.parent
    shutil.copytree(ROOT / "shared", folder / "shared", dirs_exist_ok=True)
    shutil.copy(ROOT / "worker/runtime.py", folder / "worker/runtime.py")
    text = json.dumps(cases)
    (folder / "worker/vector_text.py").write_text(f"TEXT = {text!r}\n", "utf-8")
    edge = start_edge(config)
    outcome = httpx.get(edge.url, timeout=60).json()
    edge.stop()
    assert outcome == [[case["input"]["gzip"], *[None] * 5] for case in cases]
