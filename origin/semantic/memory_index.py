"""Entries of a semantic index in this process's memory, searched by brute force.

    (tenant, partition) ──> matrix, float32 [capacity, dims]     a row an entry, rows in use dense
                            ends, int64 [capacity]               when each entry is over, Unix ms
                            rows, forms                          text, key and form of each

A search is one product of matrix and vector, exact, some 0.5 µs a row of 384 numbers on one core
where caches hold it: meant for up to 20,000 entries of one partition (15 ms of the event loop at
100,000). An entry that goes leaves its row to the last one, so that rows stay dense.

Bounded by `max_entries` over all tenants. Beyond it goes first what has not been proposed for
longest: neither added, nor found by its form, nor the nearest of a search. What is asked for again
and again stays, whatever its end; an entry that nothing comes near is of no use.

Nothing here waits, so that calls from one event loop never see half a change.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from origin.semantic.index import Candidate, Entry, Vector

MAX_ENTRIES = 100_000
"""Some 150 MiB of vectors of 384 numbers, and texts."""
Number = TypeVar("Number", np.float32, np.int64)
_NOT_FOUND = -2.0
"""Below any cosine."""


@dataclass(slots=True, eq=False)
class _Row:
    partition: _Partition
    place: int
    tenant: str
    key: str
    form: str
    text: str
    expires_ms: int
    private: bool
    stamp: int

    def candidate(self, similarity: float) -> Candidate:
        return Candidate(
            key=self.key, text=self.text, similarity=similarity, expires_ms=self.expires_ms
        )


class _Partition:
    def __init__(self, name: tuple[str, str], dims: int) -> None:
        self.name = name
        self.rows: list[_Row] = []
        self.forms: dict[str, _Row] = {}
        self._matrix: NDArray[np.float32] = np.empty((1, dims), dtype=np.float32)
        self._ends_ms: NDArray[np.int64] = np.empty(1, dtype=np.int64)

    def append(self, row: _Row, vector: Vector) -> None:
        row.place = len(self.rows)
        if row.place == len(self._matrix):
            self._resize(2 * row.place)
        self._matrix[row.place] = vector
        self._ends_ms[row.place] = row.expires_ms
        self.rows.append(row)
        self.forms[row.form] = row

    def remove(self, row: _Row) -> None:
        last = self.rows.pop()
        if last is not row:
            self._matrix[row.place] = self._matrix[last.place]
            self._ends_ms[row.place] = self._ends_ms[last.place]
            self.rows[row.place] = last
            last.place = row.place
        del self.forms[row.form]
        if 4 * len(self.rows) < len(self._matrix) and self.rows:
            self._resize(2 * len(self.rows))

    def nearest(self, vector: Vector, count: int, now_ms: int) -> list[tuple[float, _Row]]:
        """(cosine, row) of at most `count` rows that are not over, the nearest first."""
        used = len(self.rows)
        cosines = self._matrix[:used] @ vector
        cosines[self._ends_ms[:used] <= now_ms] = _NOT_FOUND
        places = (
            np.argpartition(cosines, used - count)[used - count :]
            if count < used
            else np.arange(used)
        )
        places = places[np.argsort(-cosines[places], kind="stable")]
        found = zip(cosines[places].tolist(), places.tolist(), strict=True)
        return [(cosine, self.rows[place]) for cosine, place in found if cosine > _NOT_FOUND]

    def _resize(self, capacity: int) -> None:
        self._matrix = _resized(self._matrix, capacity, len(self.rows))
        self._ends_ms = _resized(self._ends_ms, capacity, len(self.rows))


def _resized(array: NDArray[Number], capacity: int, used: int) -> NDArray[Number]:
    resized: NDArray[Number] = np.empty((capacity, *array.shape[1:]), dtype=array.dtype)
    resized[:used] = array[:used]
    return resized


class MemoryIndex:
    """What `SemanticIndex` says, without waiting. `dims` is the length of every vector."""

    def __init__(self, *, dims: int, max_entries: int = MAX_ENTRIES) -> None:
        self.dims = dims
        self.max_entries = max_entries
        self.stamp = 0
        """Told of each entry when it is added; see `keep_since`."""
        self._rows: OrderedDict[tuple[str, str], _Row] = OrderedDict()
        """By tenant and key; the one proposed last is at the end."""
        self._partitions: dict[tuple[str, str], _Partition] = {}

    def add(self, entry: Entry, *, private: bool = False) -> None:
        """See SemanticIndex.add. Raises ValueError where the vector has another length."""
        if len(entry.vector) != self.dims:
            raise ValueError(f"a vector of {len(entry.vector)} numbers, not {self.dims}")
        name = (entry.tenant, entry.partition)
        self.remove(entry.tenant, [entry.key])
        partition = self._partitions.get(name)
        if partition is not None and entry.form in partition.forms:
            self._remove(partition.forms[entry.form])
        partition = self._partitions.setdefault(name, partition or _Partition(name, self.dims))
        row = _Row(
            partition=partition,
            place=0,
            tenant=entry.tenant,
            key=entry.key,
            form=entry.form,
            text=entry.text,
            expires_ms=entry.expires_ms,
            private=private,
            stamp=self.stamp,
        )
        partition.append(row, entry.vector)
        self._rows[row.tenant, row.key] = row
        while len(self._rows) > self.max_entries:
            self._remove(next(iter(self._rows.values())))

    def find(self, tenant: str, partition: str, form: str, *, now_ms: int) -> Candidate | None:
        """See SemanticIndex.find."""
        there = self._partitions.get((tenant, partition))
        row = there and there.forms.get(form)
        if not row or row.expires_ms <= now_ms:
            return None
        self._rows.move_to_end((tenant, row.key))
        return row.candidate(1.0)

    def search(
        self, tenant: str, partition: str, vector: Vector, *, count: int, now_ms: int
    ) -> list[Candidate]:
        """See SemanticIndex.search."""
        there = self._partitions.get((tenant, partition))
        found = there.nearest(vector, count, now_ms) if there and count > 0 else []
        if found:
            self._rows.move_to_end((tenant, found[0][1].key))
        return [row.candidate(cosine) for cosine, row in found]

    def remove(self, tenant: str, keys: Sequence[str]) -> None:
        """See SemanticIndex.remove."""
        for key in keys:
            row = self._rows.get((tenant, key))
            if row is not None:
                self._remove(row)

    def clear(self, tenant: str | None = None) -> None:
        """See SemanticIndex.clear."""
        self._remove_all([row for row in self._rows.values() if tenant in (None, row.tenant)])

    def sweep(self, now_ms: int) -> None:
        """See SemanticIndex.sweep. Some 5 ms for 100,000 entries."""
        self._remove_all([row for row in self._rows.values() if row.expires_ms <= now_ms])

    def keep_since(
        self, stamp: int, *, besides: Container[tuple[str | None, str | None]] = ()
    ) -> None:
        """Drop what was added before `self.stamp` was `stamp`.

        But for what is private, and `besides`: entries by tenant and key.
        """
        self._remove_all(
            [
                row
                for name, row in self._rows.items()
                if row.stamp < stamp and not row.private and name not in besides
            ]
        )

    def count(self, tenant: str | None = None) -> int:
        """See SemanticIndex.count."""
        if tenant is None:
            return len(self._rows)
        return sum(row.tenant == tenant for row in self._rows.values())

    def _remove_all(self, rows: Sequence[_Row]) -> None:
        for row in rows:
            self._remove(row)

    def _remove(self, row: _Row) -> None:
        del self._rows[row.tenant, row.key]
        row.partition.remove(row)
        if not row.partition.rows:
            del self._partitions[row.partition.name]
