"""What is fuzzed: a function of bytes for each parser, which raises where a promise is broken.

Each calls a parser as its callers do. The errors that it documents are fine; any other is a crash.
What it accepts must have the properties named here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from types import MappingProxyType

from origin.purge_requests import read_purge_request
from origin.warm_requests import written
from shared import control_document, counts, envelope, json_text
from shared.control_document import ControlDocument, ControlError, Policy, canonical_for
from shared.controls import parse_controls, parse_directives
from shared.embeddings import elements
from shared.envelope import EnvelopeError
from shared.errors import ClientError, EncoreError, UpstreamError
from shared.freshness import decide
from shared.keys import authenticate, key_rings
from shared.normalisation import PROFILES, form
from shared.requests import Endpoint, streaming, validate
from shared.sse import DONE, SSEParser
from shared.storability import request_storability, storability
from shared.streams import Assembler, chunks, event_stream
from shared.templates import TemplateError, match, parse_template
from shared.veto import conflicts, read
from shared.wire import accepts_gzip
from tests.fuzz.origin_targets import ORIGIN_SEEDS, ORIGIN_TARGETS, SECRET

Target = Callable[[bytes], None]
_KEYS = key_rings(SECRET)
_TEMPLATES = [
    parse_template("t@1", "Analyze {address:address} at {price:money}"),
    parse_template("u@1", "How many {what:text} in {year:integer}?"),
]
_ENVELOPE = envelope.Envelope(
    header=envelope.Header(
        key="a" * 64,
        tenant="t",
        generation_started_ms=1,
        created_ms=2,
        fresh_until_ms=3,
        stale_until_ms=4,
        error_until_ms=5,
        etag="e",
        model="m",
        fingerprint="f",
        segments={"json": 4},
    ),
    payload=b"gzip",
)
_CONTROL_HEADERS = (
    *("cache-control", "encore-ttl", "encore-tags", "encore-semantic", "encore-bucket"),
    *("encore-class", "encore-scope"),
)


def requests(data: bytes) -> None:
    """A body is refused with a ClientError, or has one key under each profile, whatever its form.

    Written down anew and read again it has the same one.
    """
    try:
        fields = json_text.parse_object(data)
    except ClientError:
        return
    again = json_text.parse_object(json_text.dumps(fields))
    assert again == fields
    for endpoint in Endpoint:
        try:
            request = validate(endpoint, fields)
            streaming(fields)
        except ClientError:
            continue
        request_storability(request)
        elements(endpoint, fields)
        for profile in PROFILES:
            document = ControlDocument(tenant="t", revision=0, policy=Policy(normalisation=profile))
            forms = [
                canonical_for(document, endpoint=endpoint, controls=parse_controls({}), fields=each)
                for each in (fields, again)
            ]
            assert forms[0] == forms[1]


def answers(data: bytes) -> None:
    """What an upstream says, plain: kept or not, and cut into a stream only without loss."""
    try:
        answer = json_text.parse_object(data)
    except ClientError:
        return
    request = validate(
        Endpoint.CHAT, {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    )
    if storability(request, answer) is None:
        assembler = Assembler(Endpoint.CHAT)
        for chunk in chunks(Endpoint.CHAT, answer):
            assembler.feed(chunk)
        read = Assembler(Endpoint.CHAT)
        for event in SSEParser().feed(event_stream(Endpoint.CHAT, answer, include_usage=False)):
            if event.data != DONE:
                read.feed(json_text.parse_object(event.data.encode()))
        assert read.answer() == assembler.answer()


def events(data: bytes) -> None:
    """A stream has the same events however it is cut; their chunks add up or are refused."""
    whole = SSEParser()
    try:
        found = [*whole.feed(data), *whole.close()]
    except UpstreamError:
        return
    places = sorted({0, len(data), *(byte % (len(data) + 1) for byte in data[:8])})
    cut = SSEParser()
    pieces = [event for a, b in pairwise(places) for event in cut.feed(data[a:b])]
    assert [*pieces, *cut.close()] == found
    assembler = Assembler(Endpoint.CHAT)
    for event in found:
        try:
            assembler.feed(json_text.parse_object(event.data.encode()))
        except (ClientError, UpstreamError):
            return
    assembler.answer()


def envelopes(data: bytes) -> None:
    """An envelope is refused, or it is what its parts make."""
    for decode in (envelope.decode, lambda d: envelope.decode_prefix(d)[0], envelope.decode_header):
        try:
            found = decode(data)
        except EnvelopeError:
            continue
        header = found.header if isinstance(found, envelope.Envelope) else found
        assert envelope.decode_header(envelope.header_json(header)) == header
        decide(header, header.created_ms, parse_directives(None))
        if isinstance(found, envelope.Envelope):
            assert envelope.encode(found) == data


def headers(data: bytes) -> None:
    """What a client asks of the cache is read or refused; who it is, told or refused."""
    values = data.decode("latin-1").split("\n")
    given = dict(zip(_CONTROL_HEADERS, values, strict=False))
    try:
        controls = parse_controls(given)
    except ClientError:
        pass
    else:
        assert parse_controls(given) == controls
    accepts_gzip(values[0])
    try:
        client = authenticate(_KEYS, values[0], development=False)
    except ClientError:
        return
    assert client.tenant in values[0]


def normalisation(data: bytes) -> None:
    """A profile's form of any text has itself for its form."""
    text = data.decode(errors="replace")
    for profile in PROFILES:
        once = form(profile, text)
        assert form(profile, once) == once, profile
    for template in _TEMPLATES:
        match(template, text)


def templates(data: bytes) -> None:
    """A pattern is refused by name, or a text matches it with every slot, the same each time."""
    pattern, _, text = data.decode(errors="replace").partition("\n")
    try:
        template = parse_template("t@1", pattern)
    except TemplateError:
        return
    found = match(template, text)
    assert found == match(template, text)
    assert found is None or set(found) == {slot.name for slot, _ in template.slots}


def veto(data: bytes) -> None:
    """Conflicts of two texts are those of the two swapped; a text has none with itself."""
    one, _, other = data.decode(errors="replace").partition("\n")
    a, b = read(one), read(other)
    found = {(each.rule, each.a, each.b) for each in conflicts(a, b)}
    assert {(each.rule, each.b, each.a) for each in conflicts(b, a)} == found
    assert conflicts(a, read(one)) == ()


def documents(data: bytes) -> None:
    """A control document, a flush of counters, a purge, a warm-up: read or refused by name."""
    try:
        document = control_document.decode(data, "t")
    except ControlError:
        pass
    else:
        assert control_document.decode(control_document.encode(document), "t") == document
    with contextlib.suppress(ValueError):
        counts.parse(data)
    for parse in (read_purge_request, lambda text: written(json_text.parse_object(text))):
        with contextlib.suppress(EncoreError):
            parse(data)


TARGETS: Mapping[str, Target] = MappingProxyType(
    {
        target.__name__: target
        for target in (
            requests,
            answers,
            events,
            envelopes,
            headers,
            normalisation,
            templates,
            veto,
            documents,
        )
    }
    | dict(ORIGIN_TARGETS)
)
SEEDS: Mapping[str, tuple[bytes, ...]] = MappingProxyType(
    {
        "requests": (
            b'{"model":"m","messages":[{"role":"user","content":"What is 2+2?"}],"n":1,"seed":9}',
            (
                b'{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"x"}]}],'
                b'"tools":[{"type":"function","function":{"name":"f","parameters":{"a":{}}}}]}'
            ),
            (
                b'{"model":"m","prompt":["a",[1,2]],"stream":true,"stream_options":'
                b'{"include_usage":true}}'
            ),
            b'{"model":"m","input":["a","b"],"encoding_format":"base64"}',
            b'{"model":"\\ud83d\\ude00","messages":[]}',
        ),
        "answers": (
            (
                b'{"id":"1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,'
                b'"message":{"role":"assistant","content":"Hi","refusal":null},"logprobs":null,'
                b'"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1}}'
            ),
        ),
        "events": (
            (
                b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
                b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
                b"data: [DONE]\n\n"
            ),
            b"\xef\xbb\xbfevent: x\r\nid: 1\r\n: comment\rdata\r\n\r\n",
        ),
        "envelopes": (
            envelope.encode(_ENVELOPE),
            envelope.header_json(_ENVELOPE.header),
            envelope.header_json(
                replace(
                    _ENVELOPE.header,
                    tags=("0" * 12,),
                    encryption="k1",
                    origin_only=True,
                    source=envelope.SemanticSource(
                        similarity=0.5, key="b" * 64, calibration="0123456789ab/strict"
                    ),
                )
            ),
        ),
        "headers": (
            b'no-cache, max-age="5", max-stale, stale-if-error=1\n60\na,b:c\n0.97\n1\nfaq\nuser-1',
            b"Bearer sk-encore-acme-aaaaaaaaaaaaaaaaaaaaaaaa-aaaaaaaaaaaaaaaa",
        ),
        "normalisation": (
            b"Please analyze: 123 Main Street, 3 bedroom 2 bath, asking $450k",
            "Could you tell me: «Grüße» “x” ﬁ \uff11\uff12\u200b?".encode(),
        ),
        "templates": (
            b"Analyze {address:address} at {price:money}\nAnalyze 12 Main St at $450k",
            b"{{a}} {n:text(5)}, {d:date} or {e:enum(a|ab)}\n{a} abc, 2 May 2026 or ab",
        ),
        "veto": (
            b"How many users in 2023 at $1.5m?\nHow many users before 2024 at 1,500k EUR?",
            b"Send `x == y` from Alice to Bob\nSend `x != y` from Bob to Alice, not in Java",
        ),
        "documents": (
            control_document.encode(ControlDocument(tenant="t", revision=1)),
            b'{"tags":["a"],"older_than_s":5}',
            b'{"body":{"model":"m","messages":[]},"headers":{"Encore-TTL":"1"}}',
        ),
    }
    | dict(ORIGIN_SEEDS)
)
