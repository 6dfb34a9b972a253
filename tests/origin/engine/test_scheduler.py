"""Whose pass comes next: by the order of what jobs do, never by time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator, Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from origin.engine.contract import Chunk, Event
from origin.engine.scheduler import Job, Scheduler, Turn
from shared.errors import ClientError, EncoreError, InternalError

TIMEOUT_S = 30


class Client:
    """A job that reads a prompt of some blocks, then says some tokens; and who listens to it.

    `log` is told every pass of every job, in order: of the one thread, so no lock.
    """

    def __init__(self, name: str, log: list[str], *, blocks: int, tokens: int) -> None:
        self.name = name
        self.log = log
        self.blocks = blocks
        self.tokens = tokens
        self.heard: list[Event | EncoreError] = []
        self.closed = threading.Event()
        self.has_begun = threading.Event()
        self.go: Callable[[], object] = lambda: None
        self.job: Job | None = None

    def steps(self) -> Generator[Event | Turn, None, None]:
        """The job's own part."""
        try:
            for _ in range(self.blocks):
                yield Turn.PREFILL
                self.has_begun.set()
                self.go()
                self.log.append(self.name.upper())
            for at in range(self.tokens):
                yield Turn.DECODE
                self.go()
                self.log.append(self.name)
                yield Chunk(payload={"at": at})
        finally:
            self.closed.set()

    def join(self, scheduler: Scheduler) -> None:
        """Enter and start."""
        self.job = scheduler.enter(self.heard.append)
        scheduler.start(self.job, self.steps())

    def ended(self) -> None:
        """Wait until it holds nothing."""
        assert self.closed.wait(TIMEOUT_S)


@contextlib.contextmanager
def running(concurrency: int, limit: int = 100) -> Iterator[Scheduler]:
    """A scheduler, closed after the block."""
    scheduler = Scheduler(concurrency=concurrency, limit=limit, context=contextlib.nullcontext)
    try:
        yield scheduler
    finally:
        scheduler.close()


def start_together(scheduler: Scheduler, *clients: Client) -> None:
    """Let all of them be there before any of them begins."""
    gate = threading.Event()
    scheduler.do(lambda: gate.wait(TIMEOUT_S))
    for client in clients:
        client.join(scheduler)
    gate.set()


def settle(scheduler: Scheduler) -> None:
    """Wait until the round under way is over."""
    is_over = threading.Event()
    scheduler.do(is_over.set)
    assert is_over.wait(TIMEOUT_S)


def test_long_prompt_freezes_nobody() -> None:
    """Between two tokens of an answer there is one block of another's prompt at most."""
    log: list[str] = []
    short = Client("s", log, blocks=1, tokens=4)
    long = Client("l", log, blocks=6, tokens=2)
    with running(2) as scheduler:
        start_together(scheduler, short, long)
        long.ended()
    assert "".join(log) == "SsLsLsLsLLLll"


def test_prompts_are_read_in_order_and_whole() -> None:
    """So that the second finds what the first has read."""
    log: list[str] = []
    clients = [Client(name, log, blocks=3, tokens=1) for name in "abc"]
    with running(3) as scheduler:
        start_together(scheduler, *clients)
        for client in clients:
            client.ended()
    assert "".join(log) == "AAAaBBBbCCCc"


def test_decoding_jobs_take_turns() -> None:
    """A token each."""
    log: list[str] = []
    clients = [Client(name, log, blocks=0, tokens=3) for name in "abc"]
    with running(3) as scheduler:
        start_together(scheduler, *clients)
        for client in clients:
            client.ended()
    assert "".join(log) == "abc" * 3


def test_only_so_many_run_at_once() -> None:
    """The next begins where one has ended."""
    log: list[str] = []
    clients = [Client(name, log, blocks=0, tokens=2) for name in "abc"]
    with running(2) as scheduler:
        start_together(scheduler, *clients)
        for client in clients:
            client.ended()
    assert "".join(log) == "ababcc"


def test_too_many_are_refused() -> None:
    """Those that have entered count, started or not; those that have left do not."""
    with running(1, limit=2) as scheduler:
        first, _ = scheduler.enter(print), scheduler.enter(print)
        with pytest.raises(InternalError) as caught:
            scheduler.enter(print)
        assert (caught.value.status, caught.value.code) == (503, "overloaded")
        scheduler.leave(first)
        scheduler.leave(first)
        assert scheduler.jobs == 1
        scheduler.enter(print)


def test_failure_is_of_one_job_alone(caplog: pytest.LogCaptureFixture) -> None:
    """It is told as a 500 without its words, an error of ours as it is; others go on."""
    log: list[str] = []
    bad, refused = (Client(name, log, blocks=1, tokens=2) for name in "br")
    good = Client("g", log, blocks=1, tokens=5)

    def fail() -> None:
        raise ValueError("secret".upper())

    def refuse() -> None:
        raise ClientError("No.")

    bad.go, refused.go = fail, refuse
    with running(3) as scheduler:
        start_together(scheduler, bad, refused, good)
        for client in (bad, refused, good):
            client.ended()
    assert log == ["G"] + ["g"] * 5
    assert [type(error) for error in bad.heard + refused.heard] == [InternalError, ClientError]
    assert len(good.heard) == 5
    assert "ValueError" in caplog.text
    assert "SECRET" not in caplog.text


@pytest.mark.parametrize("passes", range(6))
def test_who_is_left_makes_at_most_the_pass_under_way(passes: int) -> None:
    """At every step of its way; others go on."""
    log: list[str] = []
    leaver = Client("l", log, blocks=3, tokens=5)
    other = Client("o", log, blocks=1, tokens=6)
    with running(2) as scheduler:

        def go() -> None:
            if log.count("l") + log.count("L") == passes:
                assert leaver.job is not None
                scheduler.leave(leaver.job)

        leaver.go = go
        start_together(scheduler, leaver, other)
        leaver.ended()
        other.ended()
        settle(scheduler)
        assert scheduler.jobs == 0
    assert log.count("l") + log.count("L") == passes + 1
    assert len(other.heard) == 6


def test_who_leaves_the_queue_never_begins() -> None:
    """And the next one does."""
    log: list[str] = []
    first, second, third = (Client(name, log, blocks=1, tokens=1) for name in "abc")
    gate = threading.Event()
    first.go = lambda: gate.wait(TIMEOUT_S)
    with running(1) as scheduler:
        for client in (first, second, third):
            client.join(scheduler)
        assert second.job is not None
        scheduler.leave(second.job)
        gate.set()
        third.ended()
    assert "".join(log) == "AaCc"


@pytest.mark.parametrize("passes", range(6))
def test_closing_ends_all(passes: int) -> None:
    """What runs, what waits and what has only entered end with a 503; nothing is let in after."""
    log: list[str] = []
    clients = [Client(name, log, blocks=2, tokens=5) for name in "abc"]
    entered: list[Event | EncoreError] = []
    reached, go_on = threading.Event(), threading.Event()

    def go() -> None:
        if len(log) == passes:
            reached.set()
            assert go_on.wait(TIMEOUT_S)

    with running(2) as scheduler:
        for client in clients:
            client.go = go
        scheduler.enter(entered.append)
        start_together(scheduler, *clients)
        assert reached.wait(TIMEOUT_S)
        closing = threading.Thread(target=scheduler.close)
        closing.start()
        while not scheduler._is_closing:
            pass
        go_on.set()
        closing.join()
        assert len(log) == passes + 1
        ends = [client.heard[-1] for client in clients] + entered
        for end in ends:
            assert isinstance(end, InternalError)
            assert (end.status, end.code) == (503, "shutting_down")
        assert scheduler.jobs == 0
        with pytest.raises(InternalError):
            scheduler.enter(print)


def test_who_starts_after_the_end_is_told() -> None:
    """It has been told once already that it is over."""
    with running(1) as scheduler:
        heard: list[Event | EncoreError] = []
        job = scheduler.enter(heard.append)
        scheduler.close()
        with pytest.raises(InternalError):
            scheduler.start(job, Client("a", [], blocks=1, tokens=1).steps())
        scheduler.leave(job)
        assert scheduler.jobs == 0


def test_errand_that_fails_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """What is done between passes is done on the thread."""
    names: list[str] = []

    def fail() -> None:
        names.append(threading.current_thread().name)
        raise ValueError("secret".upper())

    client = Client("a", [], blocks=1, tokens=1)
    with running(1) as scheduler:
        scheduler.do(fail)
        client.join(scheduler)
        client.ended()
    assert names == ["encore-engine"]
    assert "SECRET" not in caplog.text


@settings(max_examples=50, deadline=None)
@given(
    concurrency=st.integers(1, 4),
    sizes=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=8),
)
def test_whatever_comes(concurrency: int, sizes: list[tuple[int, int]]) -> None:
    """All that was asked for is done, in order, and between two tokens at most one block."""
    log: list[str] = []
    clients = [
        Client(chr(97 + at), log, blocks=blocks, tokens=tokens)
        for at, (blocks, tokens) in enumerate(sizes)
    ]
    with running(concurrency) as scheduler:
        start_together(scheduler, *clients)
        for client in clients:
            client.ended()
    done = "".join(log)
    for client in clients:
        own = [at for at, name in enumerate(done) if name.lower() == client.name]
        assert "".join(done[at] for at in own) == (
            client.name.upper() * client.blocks + client.name * client.tokens
        )
        said = [at for at in own if done[at].islower()]
        for one, next_ in pairwise(said):
            between = done[one + 1 : next_]
            assert sum(name.isupper() for name in between) <= 1
            assert all(between.count(name) <= 2 for name in between)
    blocks = [name for name in done if name.isupper()]
    assert blocks == sorted(blocks)
