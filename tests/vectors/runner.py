"""Replays the golden vectors, on CPython and on Pyodide alike.

A file `tests/vectors/NAME.json` is a list of `{"name", "input", "expected"}`; the function of that
name in `RUNNERS` makes an output from an input, and the output must be the expected one to the type
(1 is neither 1.0 nor true). An `EncoreError` becomes `{"error": {"status", "param", "code"}}`: its
words may differ between Python versions. To add a file, write it and add its function here.

Imports the standard library and `shared` only, so that the edge's runtime can execute it too.
"""

from __future__ import annotations

import base64
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.cache_headers import (
    append_status,
    entry_headers,
    forward_status,
    hit_status,
    server_timing,
)
from shared.canonical import canonical
from shared.control_document import (
    ControlError,
    Purge,
    canonical_for,
    new_document,
    objection,
    purged,
)
from shared.control_document import decode as decode_control
from shared.control_document import encode as encode_control
from shared.controls import Controls, parse_controls, parse_directives
from shared.embeddings import elements, keyed_fields, wants_base64
from shared.envelope import (
    Envelope,
    EnvelopeError,
    Header,
    SemanticSource,
    TokenCounts,
    associated_data,
    decode,
    decode_header,
    encode,
    segment_for,
)
from shared.errors import EncoreError
from shared.freshness import Lifetimes, Serve, decide, expiry, usable_on_error
from shared.json_text import parse_object
from shared.keys import (
    authenticate,
    cache_key,
    edge_bearer,
    encryption_key,
    key_id,
    key_ring,
    key_rings,
    make_api_key,
    ring_of_edge,
    tag_digest,
    tenant_of,
)
from shared.normalisation import normalise
from shared.requests import Endpoint, validate
from shared.sse import SSEParser
from shared.storability import exact_only, storability
from shared.streams import Assembler, chunks, event_stream, rebuildable
from shared.templates import TemplateError, register, templated

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FOLDER = Path(__file__).parent


def check_vectors(texts: Mapping[str, str] | None = None) -> list[str]:
    """Replay the vector files in `texts` (file name → content), by default all that are here.

    Returns one line for each failure. A file without a function, or the reverse, is one.
    """
    if texts is None:
        texts = {path.name: path.read_text("utf-8") for path in sorted(FOLDER.glob("*.json"))}
    failures = [f"{name}: no such file" for name in RUNNERS.keys() - texts.keys()]
    for name, text in texts.items():
        run = RUNNERS.get(name)
        if run is None:
            failures.append(f"{name}: no function replays it")
            continue
        for case in json.loads(text):
            output = _output(run, case["input"])
            if _spelt(output) != _spelt(case["expected"]):
                failures.append(f"{name}: {case['name']}: got {_spelt(output)}")
    return failures


def run_requests(case: Any) -> Any:
    """Parse and validate a body (`body` as text, or `base64`) at an `endpoint`."""
    request = validate(Endpoint(case["endpoint"]), parse_object(_bytes(case, "body")))
    return {
        "fields": request.fields,
        "extra": sorted(request.extra),
        "stream": request.stream,
        "include_usage": request.include_usage,
    }


def run_embeddings(case: Any) -> Any:
    """Take a `body` of embeddings (text) apart: its inputs, what is keyed, the form of answer."""
    fields = parse_object(_bytes(case, "body"))
    base64_wanted = wants_base64(Endpoint.EMBEDDINGS, fields)
    return {
        "elements": elements(Endpoint.EMBEDDINGS, fields),
        "keyed": keyed_fields(Endpoint.EMBEDDINGS, fields),
        "segment": segment_for(stream=False, include_usage=False, base64=base64_wanted),
    }


def run_sse(case: Any) -> Any:
    """Parse a stream (`text`, or `base64`) whole and byte by byte."""
    stream = _bytes(case, "text")
    whole, single = SSEParser(), SSEParser()
    events = whole.feed(stream)
    if events != [event for byte in stream for event in single.feed(bytes([byte]))]:
        return "the events depend on the pieces"
    ends = whole.close()
    return {
        "events": [[event.event, event.data, event.id] for event in events],
        "end": [event.data for event in ends],
    }


def run_streams(case: Any) -> Any:
    """Assemble `chunks`, or write the event streams of an `answer`."""
    endpoint = Endpoint(case["endpoint"])
    if "chunks" in case:
        assembler = Assembler(endpoint)
        for chunk in case["chunks"]:
            assembler.feed(chunk)
        return {"answer": assembler.answer(), "unstorable": assembler.unstorable}
    answer = case["answer"]
    return {
        "rebuildable": rebuildable(endpoint, answer),
        "chunks": len(chunks(endpoint, answer)),
        "sse": event_stream(endpoint, answer, include_usage=False).decode(),
        "sse+usage": event_stream(endpoint, answer, include_usage=True).decode(),
    }


def run_storability(case: Any) -> Any:
    """Say why the `answer` to a `request` may not be stored, and whether it is exact only."""
    request = validate(Endpoint(case["endpoint"]), case["request"])
    return {
        "reason": storability(request, case["answer"]),
        "exact_only": exact_only(case["answer"]),
    }


def run_canonical(case: Any) -> Any:
    """Write the canonical form of a `body` (text)."""
    return canonical(
        tenant=case["tenant"],
        scope=case["scope"],
        endpoint=case["endpoint"],
        bucket=case["bucket"],
        fields=parse_object(_bytes(case, "body")),
        profile=case.get("profile"),
        content_class=case.get("class"),
    ).decode()


def run_keys(case: Any) -> Any:
    """Derive from a `secret`: its ring, and what the case's other fields make with it.

    `identify` needs none; an `authorization` or a `bearer` is shown to it and the `previous` one.
    """
    if "identify" in case:
        return key_id(case["identify"])
    ring = key_ring(case["secret"])
    rings = key_rings(case["secret"], case.get("previous"))
    if "authorization" in case:
        return asdict(authenticate(rings, case["authorization"], development=False))
    if "bearer" in case:
        found = ring_of_edge(rings, case["bearer"])
        return None if found is None else found.id
    if "encrypted_tenant" in case:
        return encryption_key(ring, case["encrypted_tenant"]).hex()
    if "canonical" in case:
        return cache_key(ring, case["canonical"].encode())
    if "tag" in case:
        return tag_digest(ring, case["tenant"], case["tag"])
    if "random" in case:
        return make_api_key(ring, case["tenant"], bytes.fromhex(case["random"]))
    if "api_key" in case:
        return tenant_of(ring, case["api_key"], development=case["development"])
    names = ("cache", "api", "edge", "encryption", "tag")
    derived = {name: getattr(ring, name).hex() for name in names}
    return {"id": ring.id, **derived, "edge_bearer": edge_bearer(ring)}


def run_envelope(case: Any) -> Any:
    """Encode a `header` and a `payload`, or decode an `envelope` (base64) or a header's `text`."""
    try:
        if "text" in case:
            return asdict(decode_header(case["text"]))
        if "envelope" in case:
            read = decode(base64.b64decode(case["envelope"]))
            names = read.header.segments
            segments = {
                name: base64.b64encode(read.segment(name) or b"").decode() for name in names
            }
            return {"header": asdict(read.header), "segments": segments}
        envelope = Envelope(
            header=_header(case["header"]), payload=base64.b64decode(case["payload"])
        )
        return {
            "envelope": base64.b64encode(encode(envelope)).decode(),
            "associated_data": associated_data(envelope.header, "json").hex(),
        }
    except EnvelopeError as exc:
        return {"refused": str(exc)}


def run_control_document(case: Any) -> Any:
    """Read a `document` of `acme`, and say what it makes of a `body`, a `header` or a `purge`.

    Or make a `new` one. Documents are written in full, headers as those of `Header`.
    """
    if "new" in case:
        return encode_control(new_document(case["new"], case["now_ms"])).decode()
    try:
        document = decode_control(_bytes(case, "document"), "acme")
        if "purge" in case:
            named: dict[str, Any] = {name: tuple(value) for name, value in case["purge"].items()}
            purge = Purge(**named) if named else Purge(everything=True)
            return encode_control(purged(document, purge, case["now_ms"])).decode()
    except ControlError as exc:
        return {"refused": str(exc)}
    if "body" in case:
        return canonical_for(
            document,
            endpoint=Endpoint(case["endpoint"]),
            controls=Controls(scope=case["scope"], bucket=case["bucket"]),
            fields=parse_object(_bytes(case, "body")),
        ).canonical.decode()
    if "header" in case:
        return objection(document, _header(case["header"]))
    return encode_control(document).decode()


def run_encryption(case: Any) -> Any:
    """Derive what a segment is sealed with: key id, key and additional data.

    The case also holds what goes in (`gzip`, base64), the `nonce` (hex) and what comes out
    (`sealed`, base64), for who has AES-GCM: `tests/origin/test_encryption.py`.
    """
    ring = key_ring(case["secret"])
    header = decode_header(case["header"])
    return {
        "id": ring.id,
        "key": encryption_key(ring, header.tenant).hex(),
        "associated_data": associated_data(header, case["segment"]).hex(),
    }


def run_controls(case: Any) -> Any:
    """Read the controls in request headers: those that are not as by default."""
    controls = asdict(parse_controls(case))
    default = asdict(Controls())
    directives, plain = controls.pop("directives"), default.pop("directives")
    return {
        **{name: value for name, value in directives.items() if value != plain[name]},
        **{name: value for name, value in controls.items() if value != default[name]},
    }


def run_freshness(case: Any) -> Any:
    """Decide on an entry, or say when one expires that is made with these `lifetimes`.

    `entry_ms` are an entry's created, fresh-until, stale-until and error-until.
    """
    if "lifetimes" in case:
        return expiry(Lifetimes(**case["lifetimes"]), case["ttl_s"], case["created_ms"])
    created_ms, fresh_until_ms, stale_until_ms, error_until_ms = case["entry_ms"]
    header = Header(
        key="0" * 64,
        tenant="acme",
        generation_started_ms=created_ms,
        created_ms=created_ms,
        fresh_until_ms=fresh_until_ms,
        stale_until_ms=stale_until_ms,
        error_until_ms=error_until_ms,
        etag="e",
        model="m",
        fingerprint="f",
        segments={"json": 1},
    )
    now_ms = case["now_ms"]
    directives = parse_directives(case["cache_control"])
    decision = decide(header, now_ms, directives)
    return {
        "decision": type(decision).__name__,
        **asdict(decision),
        "usable_on_error": usable_on_error(header, now_ms, directives),
    }


def run_cache_headers(case: Any) -> Any:
    """Write one kind of header by the name of its function."""
    match case:
        case {"hit": [cache, ttl_s, detail]}:
            return hit_status(cache, Serve(age_s=0, ttl_s=ttl_s), detail)
        case {"forward": [cache, reason, named]}:
            return forward_status(cache, reason, **named)
        case {"append": [received, member]}:
            return append_status(received, member)
        case {"timing": durations_ms}:
            return server_timing(durations_ms)
    served = None if case["age_s"] is None else Serve(age_s=case["age_s"], ttl_s=1)
    return entry_headers(_header(case["header"]), served)


def run_normalisation(case: Any) -> Any:
    """Normalise a chat's `text`, or a completion's `prompt`, under a `profile`."""
    if "prompt" in case:
        return normalise(case["profile"], Endpoint.COMPLETIONS, {"prompt": case["prompt"]})[
            "prompt"
        ]
    fields = {"messages": [{"role": "user", "content": case["text"]}]}
    return normalise(case["profile"], Endpoint.CHAT, fields)["messages"][0]["content"]


def run_templates(case: Any) -> Any:
    """Hold a message's `content` against `patterns`, or refuse those."""
    fields = {"messages": [{"role": "user", "content": case["content"]}]}
    try:
        changed = templated(register(case["patterns"]), Endpoint.CHAT, fields)
    except TemplateError as exc:
        return {"refused": str(exc)}
    return None if changed is None else changed["messages"][0]["content"]


RUNNERS: dict[str, Callable[[Any], Any]] = {
    "cache_headers.json": run_cache_headers,
    "canonical.json": run_canonical,
    "control_document.json": run_control_document,
    "controls.json": run_controls,
    "embeddings.json": run_embeddings,
    "encryption.json": run_encryption,
    "envelope.json": run_envelope,
    "freshness.json": run_freshness,
    "keys.json": run_keys,
    "normalisation.json": run_normalisation,
    "requests.json": run_requests,
    "sse.json": run_sse,
    "storability.json": run_storability,
    "streams.json": run_streams,
    "templates.json": run_templates,
}


def _output(run: Callable[[Any], Any], given: Any) -> Any:
    try:
        return run(given)
    except EncoreError as exc:
        return {"error": {"status": exc.status, "param": exc.param, "code": exc.code}}


def _header(fields: Mapping[str, Any]) -> Header:
    given: dict[str, Any] = {**fields}
    given["tokens"] = TokenCounts(**given.get("tokens", {}))
    given["tags"] = tuple(given.get("tags", ()))
    if given.get("source") is not None:
        given["source"] = SemanticSource(**given["source"])
    return Header(**given)


def _bytes(case: Mapping[str, Any], text_field: str) -> bytes:
    if "base64" in case:
        return base64.b64decode(case["base64"])
    text: str = case[text_field]
    return text.encode()


def _spelt(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
