"""What origins tell each other of a flight, damaged on its way or another's, is not had."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from origin.relay import _ABOUT, _WISHES, _Checked
from origin.stores.lease_contract import FIRST_PIECE

KEY, FLIGHT = "a" * 64, "f" * 32
OURS = _Checked(KEY, FLIGHT)


@given(piece=st.binary(max_size=200), number=st.sampled_from((_WISHES, _ABOUT, 2, 3, 1 << 20)))
def test_piece_is_had_as_it_was_told(piece: bytes, number: int) -> None:
    """Whatever it is."""
    assert OURS.open(number, OURS.seal(number, piece)) == piece


@given(piece=st.binary(max_size=200), data=st.data())
def test_one_bit_is_noticed(piece: bytes, data: st.DataObject) -> None:
    """Wherever it is, in the checksum too."""
    sealed = bytearray(OURS.seal(FIRST_PIECE, piece))
    bit = data.draw(st.integers(0, 8 * len(sealed) - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ValueError, match="damaged"):
        OURS.open(FIRST_PIECE, bytes(sealed))


@pytest.mark.parametrize(
    ("reader", "number"),
    [
        (_Checked("b" * 64, FLIGHT), FIRST_PIECE),
        (_Checked(KEY, "e" * 32), FIRST_PIECE),
        (OURS, FIRST_PIECE + 1),
        (OURS, _WISHES),
    ],
)
def test_anothers_piece_is_noticed(reader: _Checked, number: int) -> None:
    """Another key's, another flight's, another number's."""
    with pytest.raises(ValueError, match="damaged"):
        reader.open(number, OURS.seal(FIRST_PIECE, b"piece"))


@pytest.mark.parametrize("short", [b"", b"abc"])
def test_too_little_is_no_piece(short: bytes) -> None:
    """Less than a checksum."""
    with pytest.raises(ValueError, match="damaged"):
        OURS.open(FIRST_PIECE, short)
