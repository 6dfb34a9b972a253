"""What a run of `encore warm` has done, on disk beside the file, so that another can go on.

A header names who was asked for whom (`encore-warm 1 URL TENANT`), then a line for each request
that is done has the SHA-256 of its line in the file. A line that was edited is another one. The
journal is synced in batches: after a kill some requests are made again, and are hits.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

SYNC_EVERY = 64
_DIGEST_BYTES = 16
_LINE_BYTES = _DIGEST_BYTES * 2 + 1


class JournalError(Exception):
    """The journal is not one of this run; the text says why."""


class Journal:
    """The requests that are done. Its owner closes it, or removes it when all are."""

    def __init__(self, path: Path, *, run: str, resume: bool) -> None:
        """Go on with the one of this `run`, or begin a new one. Raises JournalError, OSError."""
        self._path = path
        self._done: set[bytes] = set()
        self._unsynced = 0
        header = f"encore-warm 1 {run}\n".encode()
        if resume and path.exists():
            self._read(header)
            self._file: BinaryIO = path.open("ab")
        else:
            self._file = path.open("wb")
            self._file.write(header)
            self.sync()

    def __len__(self) -> int:
        return len(self._done)

    def __contains__(self, line: bytes) -> bool:
        return _digest(line) in self._done

    def add(self, line: bytes) -> None:
        """Note that a line of the file is done."""
        self._file.write(_digest(line).hex().encode() + b"\n")
        self._unsynced += 1
        if self._unsynced >= SYNC_EVERY:
            self.sync()

    def sync(self) -> None:
        """Make durable what was noted."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._unsynced = 0

    def close(self) -> None:
        """Sync, and let go of the file."""
        self.sync()
        self._file.close()

    def remove(self) -> None:
        """Forget all of it: everything is done."""
        self._file.close()
        self._path.unlink(missing_ok=True)

    def _read(self, header: bytes) -> None:
        with self._path.open("r+b") as file:
            if file.readline() != header:
                raise JournalError(
                    f"{self._path} is of another address or tenant, or no journal: leave out "
                    "--resume to begin anew"
                )
            end = file.tell()
            while len(line := file.read(_LINE_BYTES)) == _LINE_BYTES:
                try:
                    self._done.add(bytes.fromhex(line.decode("ascii").rstrip("\n")))
                except ValueError:
                    break
                end += _LINE_BYTES
            file.truncate(end)  # a kill may have cut the last line


def _digest(line: bytes) -> bytes:
    return hashlib.sha256(line).digest()[:_DIGEST_BYTES]
