"""A log from its lines to requests in the order of time, keyed by other processes where it is long.

Keying takes longer than the replay, and lines do not depend on one another: so they go to a process
of their own in chunks, and come back in order. Only a few chunks are under way at a time.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice

from origin.planning.keying import Asked, Keyed, Keying, Rules
from origin.planning.log import Bad

CHUNK_LINES = 500
CHUNK_BYTES = 4 << 20
"""A chunk ends with the line that passes one of the two."""
CHUNKS_ALONE = 10
"""So many are keyed in this process: for a short log another one takes longer to begin."""
MAX_PROCESSES = 2
_Chunk = tuple[list[Keyed], list[tuple[int, str]]]


@dataclass(kw_only=True, slots=True)
class LogFacts:
    """What a log is, whatever the settings."""

    requests: int = 0
    untimed: int = 0
    out_of_order: int = 0
    estimated: int = 0
    """Rows whose tokens are estimated."""
    unpriced: int = 0
    first_ms: int = 0
    last_ms: int = 0


def asked(
    lines: Iterator[tuple[int, bytes]],
    keying: Keying,
    facts: LogFacts,
    bad: Bad,
    *,
    interval_ms: float,
    processes: int | None = None,
) -> Generator[Asked, None, None]:
    """The requests of a log; `facts` and `bad` are told of what goes by.

    Time never goes back: a request that is earlier than the one before it counts as of its time.
    One that has no time comes `interval_ms` after the one before. Close it where it is not read to
    its end. `processes` are others than this one; by default as many as cores are left, if few.
    """
    now_ms = 1.0  # at 0 nothing has been made
    if processes is None:
        processes = min(MAX_PROCESSES, (os.cpu_count() or 1) - 1)
    for keyed, wrong in _chunks(lines, keying, processes):
        for number, why in wrong:
            bad.add(number, why)
        for time_ms, is_estimated, one in keyed:
            if time_ms is None:
                facts.untimed += 1
                now_ms += interval_ms if facts.requests else 0
            elif time_ms < now_ms:
                facts.out_of_order += 1
            else:
                now_ms = time_ms
            at_ms = int(now_ms)
            facts.first_ms = facts.first_ms if facts.requests else at_ms
            facts.last_ms = at_ms
            facts.requests += 1
            facts.estimated += is_estimated
            facts.unpriced += one.usd is None
            yield Asked(at_ms, *one[1:])


def _chunks(lines: Iterator[tuple[int, bytes]], keying: Keying, processes: int) -> Iterator[_Chunk]:
    alone = CHUNKS_ALONE if processes > 0 else None
    for _ in range(alone) if alone is not None else iter(int, 1):
        chunk = _next_chunk(lines)
        if not chunk:
            return
        yield keying.all_keyed(chunk)
    # Not a fork: the progress bar has a thread of its own.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        processes, mp_context=context, initializer=_begin, initargs=(keying.rules,)
    )
    try:
        pending: deque[Future[_Chunk]] = deque()
        while True:
            while len(pending) < 2 * processes + 1:
                chunk = _next_chunk(lines)
                if not chunk:
                    break
                pending.append(pool.submit(_key, chunk))
            if not pending:
                return
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _next_chunk(lines: Iterator[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    chunk, size_bytes = [], 0
    for each in islice(lines, CHUNK_LINES):
        chunk.append(each)
        size_bytes += len(each[1])
        if size_bytes >= CHUNK_BYTES:
            break
    return chunk


_keying: Keying


def _begin(rules: Rules) -> None:
    """Make ready a process that keys."""
    global _keying  # noqa: PLW0603 - the pool gives its processes no other place
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    _keying = Keying(rules)


def _key(chunk: list[tuple[int, bytes]]) -> _Chunk:
    return _keying.all_keyed(chunk)
