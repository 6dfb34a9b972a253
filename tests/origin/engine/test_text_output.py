"""Text that may be shown: whole characters, nothing of a stop string."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from origin.engine.text_output import Detokenizer, StopFilter


def decode_bytes(ids: Sequence[int]) -> str:
    """A decoder whose tokens are bytes."""
    return bytes(ids).decode(errors="replace")


def decode_fallback(ids: Sequence[int]) -> str:
    """A decoder that shows one replacement character for every byte of a run that is not UTF-8."""
    try:
        return bytes(ids).decode()
    except UnicodeDecodeError:
        return "".join(chr(i) if i < 128 else "\N{REPLACEMENT CHARACTER}" for i in ids)


def decode_words(ids: Sequence[int]) -> str:
    """A decoder that, as SentencePiece's, strips the space that begins a text."""
    return "".join(f" w{i}" for i in ids).removeprefix(" ")


def shown(stops: Sequence[str], pieces: Sequence[str]) -> tuple[str, bool]:
    """What a filter gives out for these pieces in all, and whether it stopped."""
    stop_filter = StopFilter(stops)
    text = ""
    for piece in pieces:
        text += stop_filter.feed(piece)
        if stop_filter.stopped:
            return text, True
    return text + stop_filter.flush(), False


def naive(stops: Sequence[str], text: str) -> tuple[str, bool]:
    """The oracle: read character by character until a stop string ends the text."""
    for end in range(1, len(text) + 1):
        met = [stop for stop in stops if text[:end].endswith(stop)]
        if met:
            return text[: end - len(max(met, key=len))], True
    return text, False


@given(st.text(max_size=20))
def test_bytes_come_out_as_whole_characters(text: str) -> None:
    """Byte tokens add up to the text, one whole character at a time."""
    detokenizer = Detokenizer(decode_bytes)
    pieces = [detokenizer.feed(byte) for byte in text.encode()]
    # A replacement character in the text itself may be waited on at its very end.
    held = len(text) - len(text.rstrip("\N{REPLACEMENT CHARACTER}"))
    assert text.startswith("".join(pieces))
    assert len("".join(pieces)) >= len(text) - held
    assert all(len(piece) <= 1 + held for piece in pieces) or held


@given(st.binary(max_size=30))
def test_invalid_bytes_never_take_text_back(content: bytes) -> None:
    """Whatever the bytes, what was given out begins the decoded text."""
    detokenizer = Detokenizer(decode_bytes)
    text = "".join(detokenizer.feed(byte) for byte in content)
    assert decode_bytes(list(content)).startswith(text)


@given(st.text(alphabet="aé日🙂", max_size=12))
def test_byte_fallback_comes_out_as_whole_characters(text: str) -> None:
    """The same with a decoder that shows several replacements for one character."""
    detokenizer = Detokenizer(decode_fallback)
    assert "".join(detokenizer.feed(byte) for byte in text.encode()) == text


def test_spaces_between_words_are_kept() -> None:
    """A decoder that strips a leading space loses none between tokens."""
    detokenizer = Detokenizer(decode_words)
    assert [detokenizer.feed(token) for token in (1, 2, 3)] == ["w1", " w2", " w3"]


def test_context_keeps_the_space_after_the_prompt() -> None:
    """With the prompt as context the first token keeps its space, and the prompt is not shown."""
    detokenizer = Detokenizer(decode_words, context=[7, 8])
    assert [detokenizer.feed(token) for token in (1, 2)] == [" w1", " w2"]


@given(
    st.lists(st.text(alphabet="ab", min_size=1, max_size=4), max_size=4),
    st.lists(st.text(alphabet="abc", max_size=4), max_size=8),
)
def test_stops_equal_the_naive_reading(stops: list[str], pieces: list[str]) -> None:
    """However the text is cut, it ends where reading it character by character would end it."""
    assert shown(stops, pieces) == naive(stops, "".join(pieces))


@pytest.mark.parametrize(
    ("stops", "pieces", "given_out"),
    [
        (["END"], ["one E", "ND two"], ["one ", ""]),
        (["END"], ["one E", "N", "D"], ["one ", "", ""]),
        (["END"], ["EN", "EN", "D"], ["", "EN", ""]),
        (["abcd", "bc"], ["a", "b", "c"], ["", "", "a"]),
        ([], ["any", "thing"], ["any", "thing"]),
    ],
)
def test_text_is_held_back_no_longer_than_needed(
    stops: list[str], pieces: list[str], given_out: list[str]
) -> None:
    """What cannot begin a stop string is given out at once."""
    stop_filter = StopFilter(stops)
    assert [stop_filter.feed(piece) for piece in pieces] == given_out
