"""The batcher, in front of an encoder that stops and fails when told to."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import pytest

from origin.semantic.batcher import Batcher
from origin.semantic.encoder import Encoder, EncoderError, Encoding
from tests.support.encoders import encoder

LONG_S = 60.0


class Stepped:
    """An encoder that notes each run, waits for `go` in it, and raises `fault` if there is one."""

    def __init__(self) -> None:
        self.runs: list[list[str]] = []
        self.began = threading.Semaphore(0)
        self.go = threading.Event()
        self.fault: Exception | None = None
        self.vector = np.full(4, 0.5, np.float32)

    def encode(self, texts: Sequence[str]) -> list[Encoding | None]:
        """Ten states for each text; "long" is past the window."""
        self.runs.append(list(texts))
        self.began.release()
        assert self.go.wait(LONG_S)
        if self.fault is not None:
            raise self.fault
        found = (None if text == "long" else made(text) for text in texts)
        return [e and replace(e, vector=self.vector) for e in found]


def made(text: str) -> Encoding:
    """An encoding that tells its text by its first id."""
    return Encoding(
        vector=np.full(4, 0.5, np.float32),
        ids=np.arange(len(text), len(text) + 10, dtype=np.int32),
        states=np.zeros((10, 4), np.float32),
    )


@pytest.fixture
def stepped() -> Stepped:
    """An encoder that waits."""
    return Stepped()


@pytest.fixture
async def batcher(stepped: Stepped) -> AsyncIterator[Batcher]:
    """In front of `stepped`, closed at the end."""
    batcher = Batcher(cast("Encoder", stepped))
    yield batcher
    stepped.go.set()
    await batcher.close()


async def busy(batcher: Batcher, stepped: Stepped) -> asyncio.Task[Encoding | None]:
    """A call whose run has begun."""
    task = asyncio.create_task(batcher.encode("first", LONG_S))
    await asyncio.to_thread(stepped.began.acquire)
    return task


async def asked(batcher: Batcher, *texts: str) -> list[asyncio.Task[Encoding | None]]:
    """Calls that wait."""
    tasks = [asyncio.create_task(batcher.encode(text, LONG_S)) for text in texts]
    await asyncio.sleep(0)
    return tasks


async def test_what_waits_runs_together(batcher: Batcher, stepped: Stepped) -> None:
    """In one run, each text once, and each caller gets its own."""
    first = await busy(batcher, stepped)
    others = await asked(batcher, "ab", "abc", "ab", "long")
    assert batcher.waiting == 4
    stepped.go.set()
    found = await asyncio.gather(first, *others)
    assert stepped.runs == [["first"], ["ab", "abc", "long"]]
    assert [e if e is None else int(e.ids[0]) for e in found] == [5, 2, 3, 2, None]
    assert batcher.waiting == 0


async def test_a_run_is_bounded(batcher: Batcher, stepped: Stepped) -> None:
    """By texts and by characters: who comes next does not wait for everybody."""
    first = await busy(batcher, stepped)
    many = await asked(batcher, *(str(number) for number in range(20)), "x" * 5000, "y")
    stepped.go.set()
    await asyncio.gather(first, *many)
    assert [len(run) for run in stepped.runs] == [1, 16, 5, 1]


async def test_deadline(batcher: Batcher, stepped: Stepped) -> None:
    """A late call raises and is not run; others are."""
    first = await busy(batcher, stepped)
    (other,) = await asked(batcher, "other")
    with pytest.raises(TimeoutError):
        await batcher.encode("late", 0.01)
    assert batcher.waiting == 1
    stepped.go.set()
    await asyncio.gather(first, other)
    assert stepped.runs == [["first"], ["other"]]


async def test_deadline_within_a_run(batcher: Batcher, stepped: Stepped) -> None:
    """The call raises in time; its run ends and is remembered."""
    late = asyncio.create_task(batcher.encode("late", 0.05))
    await asyncio.to_thread(stepped.began.acquire)
    with pytest.raises(TimeoutError):
        await late
    stepped.go.set()
    assert await batcher.encode("next", LONG_S) is not None
    assert await batcher.encode("late", LONG_S) is not None
    assert stepped.runs == [["late"], ["next"]]


async def test_cancelled_work_is_dropped(batcher: Batcher, stepped: Stepped) -> None:
    """Before it runs."""
    first = await busy(batcher, stepped)
    gone, stays = await asked(batcher, "gone", "stays")
    gone.cancel()
    stepped.go.set()
    await asyncio.gather(first, stays)
    assert stepped.runs == [["first"], ["stays"]]
    assert gone.cancelled()


async def test_full_queue(stepped: Stepped) -> None:
    """Refuses, and takes again once there is room: what was given up leaves it."""
    batcher = Batcher(cast("Encoder", stepped), queue_limit=2)
    first = await busy(batcher, stepped)
    gone, stays = await asked(batcher, "gone", "stays")
    with pytest.raises(EncoderError, match="busy: 2"):
        await batcher.encode("refused", LONG_S)
    gone.cancel()
    await asyncio.wait([gone])
    (taken,) = await asked(batcher, "taken")
    stepped.go.set()
    await asyncio.gather(first, stays, taken)
    await batcher.close()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (EncoderError("died"), "died"),
        (RuntimeError("of a prompt"), "the encoder failed (RuntimeError)"),
    ],
)
async def test_failure_and_recovery(
    batcher: Batcher, stepped: Stepped, fault: Exception, said: str
) -> None:
    """All of a failing run get our error, in our words; the next run is as if nothing had been."""
    stepped.fault = fault
    first = await busy(batcher, stepped)
    others = await asked(batcher, "a", "b")
    stepped.go.set()
    failed = await asyncio.gather(first, *others, return_exceptions=True)
    assert [type(error) for error in failed] == [EncoderError] * 3
    assert [str(error) for error in failed] == [said] * 3
    stepped.fault = None
    assert await batcher.encode("a", LONG_S) is not None


@pytest.mark.parametrize("number", [np.nan, np.inf, 0, 1])
async def test_what_is_no_unit_vector_is_a_failure(
    batcher: Batcher, stepped: Stepped, number: float
) -> None:
    """It is not remembered either."""
    stepped.go.set()
    stepped.vector = np.full(4, number, np.float32)
    with pytest.raises(EncoderError, match="unit"):
        await batcher.encode("a", LONG_S)
    stepped.vector = np.full(4, 0.5, np.float32)
    assert await batcher.encode("a", LONG_S) is not None


async def test_close(batcher: Batcher, stepped: Stepped) -> None:
    """Ends the run in progress, fails what waits and what comes later."""
    first = await busy(batcher, stepped)
    (waits,) = await asked(batcher, "waits")
    closing = asyncio.create_task(batcher.close())
    await asyncio.sleep(0)
    stepped.go.set()
    await closing
    assert await first is not None
    with pytest.raises(EncoderError, match="closed"):
        await waits
    with pytest.raises(EncoderError, match="closed"):
        await batcher.encode("later", LONG_S)


async def test_remembers_what_was_used_last(stepped: Stepped) -> None:
    """Within its bytes: room for two here. What is past the window is not kept."""
    stepped.go.set()
    batcher = Batcher(cast("Encoder", stepped), memory_bytes=2000)
    for text in ("a", "b", "a", "c", "a", "b", "long", "long"):
        await batcher.encode(text, LONG_S)
    assert stepped.runs == [["a"], ["b"], ["c"], ["b"], ["long"], ["long"]]
    await batcher.close()


async def test_in_front_of_the_model() -> None:
    """Many calls at once give what the encoder gives for each text alone."""
    batcher = Batcher(encoder())
    texts = [f"What does the house at {number} Oak Street cost?" for number in range(40)]
    found = await asyncio.gather(*(batcher.encode(text, LONG_S) for text in texts))
    for text, encoding in zip(texts, found, strict=True):
        (alone,) = encoder().encode([text])
        assert encoding is not None
        assert alone is not None
        assert np.abs(encoding.vector - alone.vector).max() < 1e-4
    await batcher.close()
