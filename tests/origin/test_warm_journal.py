"""What is done survives; what is not whole, or of another run, does not count."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from origin.warm_journal import SYNC_EVERY, Journal, JournalError

RUN = "http://edge acme"


def test_what_was_done_is_known_to_the_next_run(tmp_path: Path) -> None:
    """And only that; an edited line is another one."""
    path = tmp_path / "journal"
    first = Journal(path, run=RUN, resume=False)
    first.add(b"one")
    first.close()
    again = Journal(path, run=RUN, resume=True)
    assert len(again) == 1
    assert b"one" in again
    assert b"One" not in again
    again.add(b"two")
    again.close()
    with closing(Journal(path, run=RUN, resume=True)) as last:
        assert len(last) == 2


def test_a_new_run_begins_anew(tmp_path: Path) -> None:
    """Nothing is done before."""
    path = tmp_path / "journal"
    for _ in range(2):
        journal = Journal(path, run=RUN, resume=False)
        assert len(journal) == 0
        journal.add(b"one")
        journal.close()


@pytest.mark.parametrize("text", ["", "encore-warm 1 http://other acme\n", '{"body": {}}\n'])
def test_another_runs_journal_is_refused(tmp_path: Path, text: str) -> None:
    """So is what is none, and both are left as they are."""
    path = tmp_path / "journal"
    path.write_text(text)
    with pytest.raises(JournalError, match="--resume"):
        Journal(path, run=RUN, resume=True)
    assert path.read_text() == text


def test_it_is_synced_in_batches(tmp_path: Path) -> None:
    """Not before, for each one costs; what is not synced is asked again after a kill."""
    path = tmp_path / "journal"
    journal = Journal(path, run=RUN, resume=False)
    for number in range(SYNC_EVERY):
        assert len(path.read_bytes().splitlines()) == 1
        journal.add(b"%d" % number)
    assert len(path.read_bytes().splitlines()) == 1 + SYNC_EVERY
    journal.remove()
    assert not path.exists()


@given(cut=st.integers(0, 100))
def test_a_torn_end_is_cut_off(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    """Wherever a kill cut it: the lines before count, and those that are added later."""
    path = tmp_path_factory.mktemp("torn") / "journal"
    journal = Journal(path, run=RUN, resume=False)
    for line in (b"one", b"two", b"three"):
        journal.add(line)
    journal.close()
    whole = path.read_bytes()
    header = whole.index(b"\n") + 1
    path.write_bytes(whole[: header + min(cut, len(whole) - header)])
    torn = Journal(path, run=RUN, resume=True)
    assert len(torn) == min(cut // 33, 3)
    torn.add(b"four")
    torn.close()
    with closing(Journal(path, run=RUN, resume=True)) as again:
        assert b"four" in again
        assert len(again) == len(torn) + 1
