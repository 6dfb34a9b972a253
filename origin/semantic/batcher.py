"""The asynchronous front of an encoder: concurrent requests share runs, on one thread.

Nothing is delayed to fill a batch: whatever waits when the thread is free runs together. Each
call has a deadline of its own; what is late or cancelled is dropped before it runs. What was read
lately is remembered, for a decision reads the matched entry's text again and again.

Invariants: a job is in `_waiting` or in the running batch, never both; only the event loop touches
jobs and memory, only the thread touches the encoder.
"""

from __future__ import annotations

import asyncio
import sys
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from origin.semantic.encoder import Encoder, EncoderError, Encoding

if TYPE_CHECKING:
    from collections.abc import Sequence

_BATCH_TEXTS: Final = 16
_BATCH_CHARACTERS: Final = 4096
"""A run takes no more once it has so many: it lasts some 60 ms then, and others wait for it."""
_MEMORY_BYTES: Final = 64 * 2**20
_UNIT: Final = 0.01
"""How far from 1 the square of a vector's length is at most."""
_OVERHEAD_BYTES: Final = 512
"""What Python needs for a remembered text beside its characters and its arrays."""


@dataclass(eq=False, frozen=True)
class _Job:
    text: str
    done: asyncio.Future[Encoding | None]


class Batcher:
    """Encodes for many tasks of one event loop. Call `close` at the end."""

    def __init__(
        self, encoder: Encoder, *, queue_limit: int = 256, memory_bytes: int = _MEMORY_BYTES
    ) -> None:
        self.encoder = encoder
        self._queue_limit = queue_limit
        self._waiting: dict[_Job, None] = {}  # in order
        self._memory = _Memory(memory_bytes)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="encore-encoder")
        self._driver: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def waiting(self) -> int:
        """Texts that wait for their run."""
        return len(self._waiting)

    async def encode(self, text: str, timeout_s: float) -> Encoding | None:
        """The encoding, or None where the text is past the window.

        Raises TimeoutError after `timeout_s`, EncoderError where the encoder failed, the queue is
        full or `close` was called.
        """
        if (remembered := self._memory.get(text)) is not None:
            return remembered
        if self._closed:
            raise EncoderError("the encoder is closed")
        if self.waiting >= self._queue_limit:
            raise EncoderError(f"the encoder is busy: {self.waiting} texts wait")
        job = _Job(text, asyncio.get_running_loop().create_future())
        self._waiting[job] = None
        if self._driver is None or self._driver.done():
            self._driver = asyncio.create_task(self._drive())
        try:
            async with asyncio.timeout(timeout_s):
                return await job.done
        finally:
            self._waiting.pop(job, None)

    async def close(self) -> None:
        """Fail what waits and wait for the run in progress. May be called twice."""
        self._closed = True
        for job in self._waiting:
            _fail(job, "the encoder is closed")
        self._waiting.clear()
        if self._driver is not None:
            await self._driver
        self._executor.shutdown()

    async def _drive(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := self._next_batch():
            texts = list(dict.fromkeys(job.text for job in batch))
            try:
                encodings = await loop.run_in_executor(self._executor, self._encode, texts)
            except EncoderError as error:
                for job in batch:
                    _fail(job, str(error))
                continue
            by_text = dict(zip(texts, encodings, strict=True))
            for text, encoding in by_text.items():
                if encoding is not None:
                    self._memory.put(text, encoding)
            for job in batch:
                if not job.done.done():
                    job.done.set_result(by_text[job.text])

    def _next_batch(self) -> list[_Job]:
        batch: list[_Job] = []
        characters = 0
        while self._waiting and len(batch) < _BATCH_TEXTS and characters < _BATCH_CHARACTERS:
            job = next(iter(self._waiting))
            del self._waiting[job]
            if not job.done.done():  # else its caller was cancelled this moment
                batch.append(job)
                characters += len(job.text)
        return batch

    def _encode(self, texts: Sequence[str]) -> list[Encoding | None]:
        try:
            encodings = self.encoder.encode(texts)
            is_sound = len(encodings) == len(texts) and all(map(_is_sound, encodings))
        except EncoderError:
            raise
        except Exception as error:  # callers know one error; the next run may succeed
            # Its kind alone: its words may quote the text, and this is logged.
            raise EncoderError(f"the encoder failed ({type(error).__name__})") from error
        if not is_sound:  # or it would be remembered, and indexed
            raise EncoderError("the encoder gave no unit vectors")
        return encodings


def _is_sound(encoding: Encoding | None) -> bool:
    """Whether it is a vector of unit length, which one with a NaN is not, or none."""
    return encoding is None or abs(float(encoding.vector @ encoding.vector) - 1) < _UNIT


def _fail(job: _Job, why: str) -> None:
    if not job.done.done():
        job.done.set_exception(EncoderError(why))


class _Memory:
    """The encodings used last, by text, within a number of bytes."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._used_bytes = 0
        self._encodings: OrderedDict[str, Encoding] = OrderedDict()

    def get(self, text: str) -> Encoding | None:
        encoding = self._encodings.get(text)
        if encoding is not None:
            self._encodings.move_to_end(text)
        return encoding

    def put(self, text: str, encoding: Encoding) -> None:
        if text in self._encodings:
            return
        self._encodings[text] = encoding
        self._used_bytes += _size_bytes(text, encoding)
        while self._used_bytes > self._limit_bytes:
            self._used_bytes -= _size_bytes(*self._encodings.popitem(last=False))


def _size_bytes(text: str, encoding: Encoding) -> int:
    return sys.getsizeof(text) + encoding.size_bytes + _OVERHEAD_BYTES
