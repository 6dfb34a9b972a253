"""Lines of a log: requests in three forms, and what is none."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from origin.planning import log
from origin.planning.log import Bad, LogError, Reading, Row, are_prompts, numbered, opened, said
from shared.controls import Controls, Directives
from shared.errors import ClientError
from shared.requests import Endpoint

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


def read(*lines: object, prompts: bool | None = None) -> tuple[list[Row], Bad]:
    """(rows, bad lines) of these; what is not bytes is written as JSON."""
    raw = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    return rows(io.BytesIO(b"\n".join(raw)), prompts=prompts)


def rows(lines: BinaryIO, *, prompts: bool | None = None) -> tuple[list[Row], Bad]:
    """(rows, bad lines) of a file."""
    bad = Bad()
    told = numbered(lines, bad)
    if prompts is None:
        prompts, told = are_prompts(told)
    reading = Reading(tenant="acme", model="asked", prompts=prompts)
    found = []
    for number, line in told:
        try:
            found.append(reading.row(number, line))
        except ClientError as error:
            bad.add(number, said(error))
    return found, bad


def one(line: object) -> Row:
    """The one row of a line that is one."""
    found, bad = read(line)
    assert not bad.count, bad.lines
    return found[0]


def why_not(line: object) -> str:
    """What is said of a line that is no request."""
    found, bad = read({"body": CHAT}, line)
    assert len(found) == 1
    ((number, why),) = bad.lines
    assert number == 2
    return why


def test_a_row_in_full() -> None:
    """Says whose it is, where and when, what controls the cache, and what it took."""
    row = one(
        {
            "time": 1_790_000_000.5,
            "tenant": "other",
            "location": "fra",
            "endpoint": "/v1/completions",
            "body": {"model": "m", "prompt": "go"},
            "headers": {"Cache-Control": "no-cache", "Encore-TTL": "60", "Authorization": "x"},
            "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8},
            "latency": 3,
        }
    )
    assert row.number == 1
    assert row.time_ms == 1_790_000_000_500
    assert (row.tenant, row.location, row.endpoint) == ("other", "fra", Endpoint.COMPLETIONS)
    assert row.controls == Controls(directives=Directives(no_cache=True), ttl_s=60)
    assert row.fields == {"model": "m", "prompt": "go"}
    assert row.tokens == (3, 5)


@pytest.mark.parametrize(
    ("body", "endpoint"),
    [
        (CHAT, Endpoint.CHAT),
        ({"model": "m", "prompt": "go"}, Endpoint.COMPLETIONS),
        ({"model": "m", "input": "text"}, Endpoint.EMBEDDINGS),
    ],
)
def test_a_body_alone_tells_its_endpoint(body: dict[str, Any], endpoint: Endpoint) -> None:
    """And may have its time beside its fields, which it is none of."""
    row = one({**body, "timestamp": "2026-11-22T02:00:00Z"})
    assert (row.endpoint, row.fields, row.tenant) == (endpoint, body, "acme")
    assert row.time_ms == 1_795_312_800_000


@pytest.mark.parametrize(
    ("told", "time_ms"),
    [
        (1_790_000_000, 1_790_000_000_000),
        (1_790_000_000_123, 1_790_000_000_123),
        ("2026-11-22T02:00:00+01:00", 1_795_309_200_000),
        ("2026-11-22 02:00:00.250", 1_795_312_800_250),
        (None, None),
    ],
)
def test_times(told: object, time_ms: int | None) -> None:
    """Are seconds, milliseconds, or ISO 8601, in UTC where that says nothing."""
    assert one({"body": CHAT, "time": told}).time_ms == time_ms


def test_a_list_of_prompts() -> None:
    """Is told by its first lines; a line may be the JSON of a text."""
    found, bad = read(b"How warm is it?", b"", b'"two\\nlines"', b"{a brace}", b'"so" he "said"')
    texts = [row.fields["messages"][0]["content"] for row in found]
    assert texts == ["How warm is it?", "two\nlines", "{a brace}", '"so" he "said"']
    assert found[0].fields["model"] == "asked"
    assert [row.number for row in found] == [1, 3, 4, 5]
    assert not bad.count


@pytest.mark.parametrize(("prompts", "count"), [(True, 0), (False, 1)])
def test_what_a_line_is_can_be_said(*, prompts: bool, count: int) -> None:
    """Then nothing is found out."""
    _, bad = read(b"plain text", prompts=prompts)
    assert bad.count == count


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"body": ', "JSON"),
        (b"text among requests", "JSON"),
        (b'{"model": "m", "model": "m"}', "Duplicate key 'model'"),
        (b"\xff", "UTF-8"),
        ({"model": "m"}, "body"),
        ({"body": [1]}, "body"),
        ({"body": CHAT, "endpoint": "/v1/images"}, "endpoint"),
        ({"body": CHAT, "endpoint": ["x"]}, "endpoint"),
        ({"body": CHAT, "tenant": "No Name"}, "tenant"),
        ({"body": CHAT, "tenant": 1}, "tenant"),
        ({"body": CHAT, "location": 1}, "location"),
        ({"body": CHAT, "time": "yesterday"}, "time"),
        ({"body": CHAT, "time": -1}, "time"),
        ({"body": CHAT, "time": 1e30}, "time"),
        ({"body": CHAT, "time": True}, "time"),
        ({"body": CHAT, "headers": "x"}, "headers"),
        ({"body": CHAT, "headers": {"Encore-TTL": 5}}, "headers.encore-ttl"),
        ({"body": CHAT, "headers": {"Encore-TTL": "soon"}}, "Encore-TTL"),
    ],
)
def test_what_is_no_request_is_named_by_its_line(line: object, why: str) -> None:
    """And what is wrong with it; the others are read."""
    assert why in why_not(line)


@pytest.mark.parametrize("usage", [None, 3, {}, {"prompt_tokens": "3"}, {"prompt_tokens": -1}])
def test_usage_that_makes_no_sense_says_nothing(usage: object) -> None:
    """Tokens are estimated then."""
    assert one({"body": CHAT, "usage": usage}).tokens is None


def test_a_line_that_is_too_long_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without being read whole."""
    monkeypatch.setattr(log, "MAX_LINE_BYTES", 200)
    found, bad = read({"body": CHAT}, b"x" * 1000, {"body": CHAT})
    assert [row.number for row in found] == [1, 3]
    assert bad.lines == [(2, "longer than 200 bytes")]


def test_only_the_first_bad_lines_are_kept() -> None:
    """All are counted."""
    _, bad = read({"body": CHAT}, *[b"{"] * 50)
    assert (bad.count, len(bad.lines)) == (50, Bad.SHOWN)


@given(st.lists(st.binary(max_size=60), max_size=30))
def test_any_bytes_are_read_to_their_end(lines: list[bytes]) -> None:
    """A line is a request, bad, or empty."""
    found, bad = read(*lines)
    filled = [line for line in b"\n".join(lines).split(b"\n") if line.strip()]
    assert len(found) + bad.count <= len(filled)


def test_a_packed_log_is_unpacked(tmp_path: Path) -> None:
    """Whatever it is called."""
    path = tmp_path / "log"
    path.write_bytes(gzip.compress(json.dumps({"body": CHAT}).encode()))
    with opened(path, io.BytesIO()) as (lines, _):
        assert len(rows(lines)[0]) == 1


def test_a_log_that_is_cut_off_says_so(tmp_path: Path) -> None:
    """What was there before is read."""
    path = tmp_path / "log.gz"
    lines_told = b"".join(json.dumps({"body": CHAT, "n": n}).encode() + b"\n" for n in range(9999))
    path.write_bytes(gzip.compress(lines_told)[:-100])
    found: list[tuple[int, bytes]] = []
    with opened(path, io.BytesIO()) as (lines, _), pytest.raises(LogError):
        found.extend(numbered(lines, Bad()))
    assert len(found) > 100


def test_stdin_is_a_log(tmp_path: Path) -> None:
    """Packed or not."""
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress(json.dumps({"body": CHAT}).encode()))
    with packed.open("rb") as stdin, opened(Path("-"), stdin) as (lines, _):
        assert len(rows(lines)[0]) == 1
