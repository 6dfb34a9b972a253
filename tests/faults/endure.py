"""What a fault is, how it is endured under traffic, and the row that is told of it."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

from tests.faults.ledger import Ledger
from tests.faults.system import System
from tests.faults.traffic import Traffic

LASTS_S = float(os.environ.get("FAULT_S", "1"))
"""How long a fault lasts, in seconds; `FAULT_S=30` tries harder."""
QUIET_S = 0.5
"""How long all must be well to count as such."""
RECOVERS_S = 10.0
"""Of robustness, not of speed: machines are shared."""
GOOD = ("hit", "generated", "purge", "without Redis", "stale-if-error")
HEAD = ("Fault", "What is done", "Requests", "Hits", "Generated", "Failures", "Well after")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A fault, and what it may cost. No trial may cost a violation, or what was acknowledged.

    `failures` are those that may come of it, each with a status and a code, without which a
    request may fail in none. Connections may break at `may_break`, `edge` or `origin`.
    """

    does: str
    fault: Callable[[System], AbstractContextManager[object]]
    failures: frozenset[str] = frozenset()
    may_break: tuple[str, ...] = ()
    lasts_s: float = LASTS_S
    recovers_s: float = RECOVERS_S
    keeps_jobs: bool = True


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was measured, from the beginning of a fault to when all was well again."""

    fault: str
    does: str
    counts: Counter[str]
    recovered_s: float

    def cells(self) -> tuple[str, ...]:
        """As in a table under `HEAD`."""
        failures = {name: number for name, number in self.counts.items() if name not in GOOD}
        generated = sum(self.counts[name] for name in GOOD[1:] if name != "purge")
        told = ", ".join(f"{name} ({number})" for name, number in sorted(failures.items()))
        return (
            self.fault,
            self.does,
            str(self.counts.total()),
            str(self.counts["hit"]),
            str(generated),
            told or "none",
            f"{self.recovered_s:.1f} s",
        )


def hold(
    traffic: Traffic,
    fault: AbstractContextManager[object],
    *,
    name: str,
    does: str,
    note: Callable[[Row], None],
    during: Callable[[float], object] = lambda _since_s: time.sleep(LASTS_S),
    recovers_s: float = RECOVERS_S,
    within: AbstractContextManager[object] | None = None,
) -> Row:
    """Let a fault happen under traffic, and hold the system to its recovery; note the row.

    `during` is done while it lasts, and is told when it began; `within` encloses it all, while
    requests still come. Raises AssertionError for a violation or a recovery that takes too long.
    """
    with traffic.running():
        traffic.recovery_s(time.monotonic(), quiet_s=QUIET_S)
        with within or nullcontext():
            began_s = time.monotonic()
            with fault:
                during(began_s)
            recovered_s = traffic.recovery_s(time.monotonic(), quiet_s=QUIET_S)
    row = Row(fault=name, does=does, counts=traffic.counts(began_s), recovered_s=recovered_s)
    note(row)
    assert recovered_s < recovers_s
    return row


def endure(running: System, name: str, trial: Trial, note: Callable[[Row], None]) -> Traffic:
    """Hold the system through a trial, what was acknowledged too, and to the failures it names."""
    traffic = Traffic(running.clients(may_break=trial.may_break))
    ledger = Ledger(running)

    @contextmanager
    def kept() -> Iterator[None]:
        ledger.act()
        yield
        ledger.check(jobs=trial.keeps_jobs)

    def during(began_s: float) -> None:
        ledger.act()
        time.sleep(max(0.0, began_s + trial.lasts_s - time.monotonic()))

    row = hold(
        traffic,
        trial.fault(running),
        name=name,
        does=trial.does,
        note=note,
        during=during,
        recovers_s=trial.recovers_s,
        within=kept(),
    )
    breaks = {"ReadError", "RemoteProtocolError", "ConnectError", "ReadTimeout"}
    allowed = trial.failures | (breaks if trial.may_break else set())
    assert set(row.counts) - set(GOOD) <= allowed, row.counts
    return traffic


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table of rows of `Row.cells`."""
    lines = [HEAD, ("---",) * len(HEAD), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
