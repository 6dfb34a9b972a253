"""The envelope: what is encoded is decoded, and nothing else is."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.envelope import (
    MAGIC,
    MAX_HEADER_BYTES,
    MAX_TAGS,
    SEGMENTS,
    Envelope,
    EnvelopeError,
    Header,
    SemanticSource,
    TokenCounts,
    associated_data,
    decode,
    decode_header,
    decode_prefix,
    encode,
    header_json,
)

KEY = "0123456789abcdef" * 4
HEADER = Header(
    key=KEY,
    tenant="acme",
    generation_started_ms=1000,
    created_ms=2000,
    fresh_until_ms=3000,
    stale_until_ms=4000,
    error_until_ms=5000,
    etag="9f86d081884c7d65",
    model="demo",
    fingerprint="transformers:1",
    segments={"json": 3, "sse": 4, "sse+usage": 5},
)
ENVELOPE = Envelope(header=HEADER, payload=b"JSNssseUUUUU")

DIGESTS = st.text("0123456789abcdef", min_size=12, max_size=12)
TEXTS = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20)
NAMES = st.text(st.characters(min_codepoint=0x23, max_codepoint=0x7E), min_size=1, max_size=20)
COUNTS = st.integers(0, 2**53 - 1)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@st.composite
def envelopes(draw: st.DrawFn) -> Envelope:
    """Any envelope that can be built."""
    start, made, fresh = sorted(draw(st.lists(COUNTS, min_size=3, max_size=3)))
    later = st.integers(fresh, 2**53 - 1)
    names = draw(st.permutations(sorted(SEGMENTS)))[: draw(st.integers(1, 3))]
    segments = {
        name: draw(st.binary(min_size=1, max_size=20)) for name in dict.fromkeys([*names, "json"])
    }
    source = st.builds(
        SemanticSource,
        similarity=st.floats(0, 1, exclude_min=True),
        key=st.just(KEY),
        calibration=NAMES,
    )
    header = Header(
        key=KEY,
        tenant=draw(NAMES),
        generation_started_ms=start,
        created_ms=made,
        fresh_until_ms=fresh,
        stale_until_ms=draw(later),
        error_until_ms=draw(later),
        etag=draw(NAMES),
        model=draw(TEXTS),
        answered_by=draw(st.none() | TEXTS),
        fingerprint=draw(NAMES),
        tokens=TokenCounts(prompt=draw(COUNTS), completion=draw(COUNTS)),
        segments={name: len(data) for name, data in segments.items()},
        tags=tuple(draw(st.lists(DIGESTS, max_size=MAX_TAGS))),
        source=draw(st.none() | source),
        encryption=draw(st.none() | NAMES),
        origin_only=draw(st.booleans()),
    )
    return Envelope(header=header, payload=b"".join(segments.values()))


@given(envelopes())
def test_what_is_encoded_is_decoded(envelope: Envelope) -> None:
    """Whole, by its prefix, and by its header alone, with segments in their order."""
    data = encode(envelope)
    read = decode(data)
    assert read == envelope
    assert list(read.header.segments) == list(envelope.header.segments)
    header, start = decode_prefix(data[: 8 + MAX_HEADER_BYTES])
    assert header == envelope.header
    assert data[start:] == envelope.payload
    assert decode_header(header_json(header).decode()) == header
    assert encode(read) == data


@given(envelopes())
def test_a_header_survives_javascript(envelope: Envelope) -> None:
    """JSON.parse and JSON.stringify turn 1.0 into 1, which is all that may change in between."""
    header = envelope.header
    fields = json.loads(header_json(header), parse_float=lambda x: 1 if x == "1.0" else float(x))
    read = decode_header(json.dumps(fields, ensure_ascii=False, separators=(",", ":")))
    assert header_json(read) == header_json(header)
    assert associated_data(read, "json") == associated_data(header, "json")


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda data: MAGIC + data))
def test_arbitrary_bytes_raise_nothing_but_envelope_errors(data: bytes) -> None:
    """Junk is a miss that is counted, never another exception."""
    with pytest.raises(EnvelopeError):
        decode(data)


@given(envelopes(), st.data())
def test_damaged_bytes_are_refused_or_make_an_envelope(
    envelope: Envelope, draw: st.DataObject
) -> None:
    """Cut, extended or with one byte changed: EnvelopeError, or something that is whole."""
    data = bytearray(encode(envelope))
    match draw.draw(st.sampled_from(["cut", "extend", "change"])):
        case "cut":
            del data[draw.draw(st.integers(0, len(data) - 1)) :]
        case "extend":
            data += draw.draw(st.binary(min_size=1, max_size=5))
        case _:
            data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
            try:
                read = decode(bytes(data))
            except EnvelopeError:
                return
            assert len(encode(read)) <= len(data)
            return
    with pytest.raises(EnvelopeError):
        decode(bytes(data))


@given(envelopes(), st.data())
def test_a_header_with_any_other_value_is_refused_or_legal(
    envelope: Envelope, draw: st.DataObject
) -> None:
    """Any field, known or not, replaced by any JSON: refused, or it is what we would write."""
    fields = json.loads(header_json(envelope.header))
    name = draw.draw(st.sampled_from([*"vktgcfsehmpuaTox", "seg", "zz"]))
    fields[name] = draw.draw(JSON)
    try:
        header = decode_header(json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace"))
    except EnvelopeError:
        return
    assert json.loads(header_json(header)) == fields


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"v":1', '"v":2'),
        ('"v":1', '"v":1.0'),
        ('"v":1', '"v":true'),
        ('"v":1', '"v":1,"v":1'),
        ('"v":1', '"v":1,"zz":null'),
        ('"v":1', '"v":1,"T":[]'),
        ('"v":1', '"v":1,"T":null'),
        ('"v":1', '"v":1,"T":{"000000000000":1}'),
        ('"v":1', '"v":1,"o":null'),
        ('"v":1', '"v":1,"o":0'),
        ('"v":1', '"v":1,"o":[1e999,"x","y"]'),
        ('"v":1', '"v":1,"x":null'),
        ('"v":1', '"v":1,"a":null'),
        ('"v":1', '"v":1,"a":1'),
        ('"v":1', '"v":1,"a":["demo"]'),
        ('"v":1', '"v":1,"a":"\\ud800"'),
        ('"v":1', '"v":1,"a":"x","a":"x"'),
        ('["json",3],', '["json",1],["json",3],'),
        ('["json",3],', '["json",3,0],'),
        ('[["json",3],["sse",4],["sse+usage",5]]', '{"json":3,"sse":4,"sse+usage":5}'),
        ("[0,0]", '"00"'),
        ("[0,0]", "[0,0,0]"),
        ("[0,0]", "[false,0]"),
    ],
)
def test_a_header_we_would_not_have_written_is_refused(old: str, new: str) -> None:
    """Another spelling could be another meaning."""
    text = header_json(HEADER).decode()
    assert old in text
    with pytest.raises(EnvelopeError):
        decode_header(text.replace(old, new))


def test_a_similarity_of_one_survives_javascript() -> None:
    """Written as 1 it is 1.0 again, and authenticates what it did before."""
    source = SemanticSource(similarity=1.0, key=KEY, calibration="1")
    header = replace(HEADER, source=source)
    text = header_json(header).decode()
    read = decode_header(text.replace("1.0", "1"))
    assert read.source == source
    assert header_json(read).decode() == text


@given(st.sampled_from([*"vktgcfsehmpu", "seg"]))
def test_a_header_that_lacks_a_field_is_refused(name: str) -> None:
    """Nothing is guessed."""
    fields = json.loads(header_json(HEADER))
    del fields[name]
    with pytest.raises(EnvelopeError):
        decode_header(json.dumps(fields))


@pytest.mark.parametrize(
    "encoded",
    [
        header_json(HEADER).decode().encode("utf-16"),
        header_json(HEADER).decode().encode("utf-32-be"),
        b"\xef\xbb\xbf" + header_json(HEADER),
        header_json(HEADER).replace(b"demo", b"\xed\xa0\xbd"),
        header_json(HEADER).replace(b"demo", b"\xff"),
        header_json(HEADER).replace(b"1000", b"1" * 900),
        header_json(HEADER) + b" " * MAX_HEADER_BYTES,
        header_json(HEADER) + header_json(HEADER),
    ],
)
def test_a_header_is_utf8_and_small(encoded: bytes) -> None:
    """What json alone would read, or choke on, is refused."""
    with pytest.raises(EnvelopeError):
        decode_header(encoded)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"key": KEY[:-1]}, "key"),
        ({"key": KEY.upper()}, "key"),
        ({"key": KEY.encode()}, "key"),
        ({"tenant": ""}, "tenant"),
        ({"tenant": None}, "tenant"),
        ({"etag": 'a"b'}, "etag"),
        ({"etag": "a\r\nb"}, "etag"),
        ({"model": "a\0"}, "model"),
        ({"model": "\ud83d"}, "model"),
        ({"fingerprint": None}, "fingerprint"),
        ({"answered_by": "a\0"}, "answered by"),
        ({"answered_by": "\ud83d"}, "answered by"),
        ({"answered_by": b"a"}, "answered by"),
        ({"generation_started_ms": -1}, "times"),
        ({"generation_started_ms": True}, "times"),
        ({"created_ms": 2000.0}, "times"),
        ({"created_ms": 3001}, "times"),
        ({"stale_until_ms": 2999}, "times"),
        ({"error_until_ms": 2999}, "times"),
        ({"error_until_ms": 2**53}, "times"),
        ({"segments": {}}, "segments"),
        ({"segments": {"sse": 1}}, "segments"),
        ({"segments": {"json": 0}}, "segments"),
        ({"segments": {"json": True}}, "segments"),
        ({"segments": {"json": 1, "html": 1}}, "segments"),
        ({"tags": ("0" * 12,) * 17}, "tags"),
        ({"tags": ("0" * 11,)}, "tags"),
        ({"tags": (12,)}, "tags"),
        ({"encryption": ""}, "encryption"),
    ],
)
def test_an_invalid_header_cannot_be_built(changes: dict[str, Any], said: str) -> None:
    """The error names the field."""
    with pytest.raises(EnvelopeError, match=said):
        replace(HEADER, **changes)


@pytest.mark.parametrize("similarity", [0.0, -0.5, 1.0000001, float("nan"), float("inf"), 1, True])
def test_a_similarity_is_a_float_up_to_one(similarity: float) -> None:
    """Nothing that JSON or JavaScript would change."""
    with pytest.raises(EnvelopeError, match="similarity"):
        SemanticSource(similarity=similarity, key=KEY, calibration="1")


def test_the_largest_usual_header_fits() -> None:
    """16 tags, the longest tenant, long names, a source and encryption: below KV's limit."""
    header = replace(
        HEADER,
        tenant="t" * 32,
        model="m" * 96,
        answered_by="a" * 96,
        fingerprint="f" * 64,
        etag="e" * 32,
        generation_started_ms=10**13,
        created_ms=10**13,
        fresh_until_ms=10**13,
        stale_until_ms=10**13,
        error_until_ms=10**13,
        tags=("0" * 12,) * MAX_TAGS,
        tokens=TokenCounts(prompt=10**6, completion=10**6),
        source=SemanticSource(similarity=0.9876543210123456, key=KEY, calibration="c" * 16),
        encryption="1a2b3c4d",
        segments=dict.fromkeys(sorted(SEGMENTS), 25 * 2**20),
    )
    assert len(header_json(header)) <= MAX_HEADER_BYTES


def test_a_header_too_large_is_refused_when_written() -> None:
    """KV would refuse it later; what is measured is bytes, not characters."""
    room = MAX_HEADER_BYTES - len(header_json(replace(HEADER, model="")))
    assert len(header_json(replace(HEADER, model="m" * room))) == MAX_HEADER_BYTES
    for model in ("m" * (room + 1), "é" * (room // 2 + 1)):
        with pytest.raises(EnvelopeError, match="at most 1024"):
            encode(replace(ENVELOPE, header=replace(HEADER, model=model)))


def test_segments_are_found_in_the_payload() -> None:
    """By offset and length, or not at all."""
    assert [ENVELOPE.segment(name) for name in ("json", "sse", "sse+usage", "html")] == [
        b"JSN",
        b"ssse",
        b"UUUUU",
        None,
    ]
    assert HEADER.segment_range("sse") == (3, 4)


def test_a_payload_is_as_long_as_the_header_says() -> None:
    """Neither cut nor extended."""
    for payload in (ENVELOPE.payload[:-1], ENVELOPE.payload + b"x"):
        with pytest.raises(EnvelopeError, match="payload"):
            Envelope(header=HEADER, payload=payload)


def test_an_entry_expires_with_its_last_use() -> None:
    """The later of the two stale windows."""
    assert HEADER.expires_ms == 5000
    assert replace(HEADER, stale_until_ms=6000).expires_ms == 6000


def test_associated_data_binds_header_and_segment() -> None:
    """Another key, tenant, time or segment name authenticates nothing."""
    others = [
        associated_data(replace(HEADER, key=KEY[::-1]), "json"),
        associated_data(replace(HEADER, tenant="other"), "json"),
        associated_data(replace(HEADER, error_until_ms=5001), "json"),
        associated_data(replace(HEADER, answered_by="other"), "json"),
        associated_data(HEADER, "sse"),
    ]
    assert associated_data(HEADER, "json") not in others


def test_the_model_that_answered_is_kept_where_it_is_another() -> None:
    """And takes no room where it is the one that was asked for."""
    other = replace(HEADER, answered_by="modèle-2026")
    assert decode_header(header_json(other)).answered_by == "modèle-2026"
    assert decode_header(header_json(HEADER)).answered_by is None
    assert "a" not in json.loads(header_json(HEADER))
