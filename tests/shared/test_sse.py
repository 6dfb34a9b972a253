"""Event streams are read the same however they are cut, and what is written is read back."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.errors import UpstreamError
from shared.sse import DONE_EVENT, SSEEvent, SSEParser, encode_event
from tests.vectors.runner import FOLDER, _bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CASES = json.loads((FOLDER / "sse.json").read_text("utf-8"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_events_do_not_depend_on_the_pieces(
    case: dict[str, Any], cuts: Callable[[bytes], Iterator[list[bytes]]]
) -> None:
    """Every case gives the same events under every cutting."""
    expected = [tuple(event) for event in case["expected"]["events"]]
    for pieces in cuts(_bytes(case["input"], "text")):
        parser = SSEParser()
        events = [event for piece in pieces for event in parser.feed(piece)]
        assert [(event.event, event.data, event.id) for event in events] == expected
        assert [event.data for event in parser.close()] == case["expected"]["end"]


@given(st.lists(st.binary(max_size=30)), st.integers(1, 9))
def test_any_bytes_are_read_alike_in_any_pieces(parts: list[bytes], size: int) -> None:
    """Cutting random bytes otherwise gives the same events, or refuses them too."""
    stream = b"\r".join(b"data:" + part + b"\n" for part in parts)
    assert _read([stream]) == _read([stream[i : i + size] for i in range(0, len(stream), size)])


@pytest.mark.parametrize("line", [b"data: a\xffb", b"event: \xc3", b"id: \xed\xa0\x80"])
def test_what_is_not_utf8_is_refused(line: bytes) -> None:
    """Bytes that were damaged on their way must not become another answer."""
    with pytest.raises(UpstreamError, match="not UTF-8"):
        SSEParser().feed(line + b"\ndata: x\n\n")


def _read(pieces: list[bytes]) -> list[SSEEvent] | None:
    parser = SSEParser()
    try:
        return [event for piece in pieces for event in parser.feed(piece)]
    except UpstreamError:
        return None


def test_an_event_is_delivered_with_its_last_byte() -> None:
    """A bare CR ends the line at once: nothing waits for a line feed that may never come."""
    parser = SSEParser()
    assert parser.feed(b"data: a\r\r") == [SSEEvent(data="a")]
    assert parser.feed(b"\n") == []
    assert parser.feed(b"data: b\n\n") == [SSEEvent(data="b")]


def test_the_sentinel_is_spelt_as_openai_spells_it() -> None:
    """Streams end in `data: [DONE]` and a blank line."""
    assert DONE_EVENT == b"data: [DONE]\n\n"


@given(st.text(st.characters(exclude_categories=["Cs"])))
@example("a\r\nb\rc\n\nd")
def test_what_is_written_is_read_back(data: str) -> None:
    """One event, its data with each end of a line as a line feed."""
    parser = SSEParser()
    (event,) = [*parser.feed(encode_event(data.encode())), *parser.close()]
    assert event.data == "\n".join(re.split("\r\n|\r|\n", data))


@pytest.mark.parametrize("unit", [b"x", b"data: xxxxxxxxxx\n", b": xxxxxxxxxxxxxxxxxxxxxxxxxx"])
def test_memory_is_bounded(unit: bytes) -> None:
    """An event that never ends is the upstream's fault, whether in one line or in many."""
    parser = SSEParser(limit_bytes=100)
    with pytest.raises(UpstreamError) as caught:
        sum(len(parser.feed(unit)) for _ in range(200))
    assert caught.value.status == 502


def test_the_limit_is_for_one_event() -> None:
    """Any number of small events passes."""
    parser = SSEParser(limit_bytes=100)
    assert sum(len(parser.feed(b"data: 0123456789\n\n")) for _ in range(100)) == 100
