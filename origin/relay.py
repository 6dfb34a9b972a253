"""Single-flight across processes: one of them generates, the others relay what it says.

A flight in each process remains the mechanism for the requests there (`origin.flights`). `Relay`
gives such a flight its events: those of the engine where this process holds the lease of the key,
else those that the holder says, read from its stream.

Invariants
1. What cannot be had from other processes is generated here: whatever fails of the leases costs a
   generation, and no request.
2. A process follows a flight only if that may answer each of its requests (`Part.accepts`). All
   that an entry is known by travels with the lease.
3. Who leads stops only when nobody listens here and nobody follows.
4. If the leader dies, the generation begins anew, here or where the lease was taken meanwhile. Who
   was passed nothing on yet does not notice; who was is told (`Restarted`).
5. What belongs to a tenant that wants encryption at rest goes through the stream sealed. All else
   that goes from process to process has a checksum: what was damaged on its way is not had.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from origin.encryption import FlightCipher
from origin.engine.contract import Chunk, Event, Finished
from origin.engine.turns import step_aside
from origin.flights import Flight, FlightEvent, Landed, Restarted
from origin.stores.contract import StoreError
from origin.stores.lease_contract import FIRST_PIECE, Lease, Leases
from shared import json_text
from shared.envelope import Header, decode_header, encode, header_json
from shared.errors import ClientError, UpstreamError
from shared.freshness import is_failure
from shared.keys import KeyRings, short_key

BATCH_S = 0.03
"""How long what is said waits to be told to followers, in one batch."""
BEAT_S = 0.25
"""How often a leader is heard of, and hears of followers. A first one waits for it."""
FOLLOWER_BEAT_S = 1.0
"""How often a follower is heard of."""
MAX_SAID_BYTES = 8 << 20
"""A flight that says more, compressed, goes on for its own process alone."""
_CHUNKS, _ENTRY, _ANSWER, _ERROR, _STOPPED = b"c", b"e", b"a", b"x", b"s"
_ABOUT, _WISHES = -1, -2
"""What is no piece has these for its number."""
log = logging.getLogger(__name__)


class _LostError(Exception):
    """The flight that is followed says no more, and has not ended."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """What this process brings to a flight.

    `to_be` and `revision` are what its own generation, `run`, is known by; `insist` wants that one.
    `accepts` judges another's, `serves` a stored entry, for all who wait; `wishes` are theirs.
    `read` reads an entry, None for one that cannot be.
    """

    to_be: Header
    revision: int
    insist: bool
    run: Callable[[], AsyncGenerator[Event, None]]
    accepts: Callable[[Header, int], bool]
    serves: Callable[[Header], bool]
    read: Callable[[bytes], Awaitable[Landed | None]]
    wishes: Callable[[], bytes]


class Relay:
    """One per process. `sleep` lets seconds pass; a test may decide otherwise."""

    def __init__(
        self,
        leases: Leases,
        keys: KeyRings,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._leases = leases
        self._keys = keys
        self._sleep = sleep

    async def events(self, flight: Flight, part: Part) -> AsyncGenerator[FlightEvent, None]:
        """What `flight` says, wherever it is generated. Raises EncoreError."""
        insist = part.insist
        gone = ""
        while True:
            try:
                lease, is_ours = await self._acquired(flight.key, part, insist=insist)
                if is_ours:
                    cipher = self._cipher(part.to_be, lease)
                    flight.leader = Leader(self._leases, lease, flight, cipher, self._sleep)
                    # Stored after it was looked for, before the lease was free.
                    landed = None if lease.entry is None else await part.read(lease.entry)
                    if landed is None or landed.entry is None:
                        break
                    if not _becomes(flight, landed.entry.header, part):
                        break
                    yield landed
                    return
                if lease.flight == gone:
                    # What it said was evicted before its lease ran out.
                    await self._sleep(BEAT_S)
                    continue
                checked = _Checked(lease.key, lease.flight)
                header, revision = _read_about(checked.open(_ABOUT, lease.about))
                if not part.accepts(header, revision):
                    insist = True
                    continue
                flight.become(header, revision, is_elsewhere=True)
                step_aside()
                async with aclosing(self._said(flight, lease, header, part)) as events:
                    async for event in events:
                        yield event
            except _LostError:
                gone = lease.flight
                log.info("flight %s: its leader is gone", short_key(flight.key))
                flight.become(part.to_be, part.revision, is_elsewhere=False)
                yield Restarted()
            except (StoreError, ValueError, LookupError, TypeError, zlib.error) as exc:
                log.warning("flight %s: alone: %s", short_key(flight.key), type(exc).__name__)
                flight.become(part.to_be, part.revision, is_elsewhere=False)
                yield Restarted()
                break
            else:
                return
        async with aclosing(part.run()) as generated:
            async for event in generated:
                yield event

    async def _acquired(self, key: str, part: Part, *, insist: bool) -> tuple[Lease, bool]:
        """(lease, whether it is ours). Raises StoreError."""
        name = secrets.token_hex(16)
        about = b"%d %s" % (part.revision, header_json(part.to_be))
        about = _Checked(key, name).seal(_ABOUT, about)
        try:
            lease = await self._leases.acquire(key, name, about, insist=insist)
        except asyncio.CancelledError:
            # Perhaps it was given: nobody else shall wait for it to run out.
            given = Lease(key=key, flight=name, token=0, about=about)
            cipher = self._cipher(part.to_be, given)
            end = cipher.seal(FIRST_PIECE, _STOPPED)
            await _tried(self._leases.end(given, FIRST_PIECE, end))
            raise
        return lease, lease.flight == name

    async def _said(
        self, flight: Flight, lease: Lease, header: Header, part: Part
    ) -> AsyncGenerator[FlightEvent, None]:
        """What the leader says, to its end. Raises _LostError, StoreError and its EncoreError."""
        cipher = self._cipher(header, lease)
        inflate = zlib.decompressobj()
        number, now_s = FIRST_PIECE, asyncio.get_running_loop().time
        following = _Following(self._leases, lease, part.wishes)
        try:
            flight.on_ask = following.hurry
            while True:
                left_s = await following.beat()
                if left_s is None:
                    raise _LostError
                # A millisecond later than the death of its leader there is nothing to wait for.
                until_s = now_s() + min(FOLLOWER_BEAT_S, left_s + 0.001)
                while (wait_s := until_s - now_s()) > 0:
                    pieces = await self._leases.read(lease, number - 1, wait_s=wait_s)
                    opened: list[bytes] = []
                    for there, sealed in pieces:
                        if there != number:
                            raise _LostError
                        opened.append(cipher.open(number, sealed))
                        number += 1
                    if opened and opened[-1] == _STOPPED:
                        raise _LostError  # before any of it is passed on
                    for piece in opened:
                        kind, said = piece[:1], piece[1:]
                        if kind == _CHUNKS:
                            for payload in json.loads(inflate.decompress(said)):
                                yield Chunk(payload=payload)
                        else:
                            ending = await _ending(kind, said, part)
                            entry = ending.entry if isinstance(ending, Landed) else None
                            if (
                                entry is not None
                                and _is_found(entry.header, header)
                                and not _becomes(flight, entry.header, part)
                            ):
                                raise _LostError  # its leader has found what may not answer here
                            yield ending
                            return
                    if not pieces:
                        break
        finally:
            flight.on_ask = lambda: None
            await following.end()

    def _cipher(self, header: Header, lease: Lease) -> FlightCipher | _Checked:
        if header.encryption is None:
            return _Checked(lease.key, lease.flight)
        ring = self._keys.by_id(header.encryption)
        if ring is None:
            raise ValueError("sealed under a secret that does not count")
        return FlightCipher(ring, header.tenant, lease.key, lease.flight)


class _Checked:
    """What is `FlightCipher` to what is secret: it tells a piece of this flight and number."""

    def __init__(self, key: str, flight: str) -> None:
        self._seed = zlib.crc32(f"{key} {flight}".encode())

    def seal(self, number: int, piece: bytes) -> bytes:
        """The piece, with its checksum."""
        return zlib.crc32(piece, self._seed + number & 0xFFFFFFFF).to_bytes(4, "big") + piece

    def open(self, number: int, sealed: bytes) -> bytes:
        """The piece. Raises ValueError."""
        piece = sealed[4:]
        if self.seal(number, piece) != sealed:
            raise ValueError("damaged")
        return piece


class _Following:
    """A flight of this process as one that follows another's: it is heard of, with its wishes."""

    def __init__(self, leases: Leases, lease: Lease, wishes: Callable[[], bytes]) -> None:
        self._leases = leases
        self._lease = lease
        self._wishes = wishes
        self._told = b""
        self._name = secrets.token_hex(8)
        self._turn = asyncio.Lock()  # what is told last is the newest
        self._tasks: set[asyncio.Task[None]] = set()

    async def beat(self) -> float | None:
        """Say all wishes; see Leases.follow. Raises StoreError."""
        async with self._turn:
            self._told = self._wishes()
            checked = _Checked(self._lease.key, self._lease.flight)
            wishes = checked.seal(_WISHES, self._told)
            return await self._leases.follow(self._lease, self._name, wishes)

    def hurry(self) -> None:
        """Say what is wished now before the next beat: the leader may be about to end."""
        if not self._tasks and self._wishes() != self._told:
            task = asyncio.create_task(self._tell())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def end(self) -> None:
        """Be known as a follower no more. Raises nothing."""
        for task in self._tasks:
            task.cancel()
        await _tried(self._leases.leave(self._lease, self._name))

    async def _tell(self) -> None:
        while self._wishes() != self._told:
            await _tried(self.beat())


class Leader:
    """Says to other processes what a flight of this one says, and holds its lease meanwhile.

    What a store does not take is said again, until the lease has run out: then the flight goes on
    for this process alone.
    """

    def __init__(
        self,
        leases: Leases,
        lease: Lease,
        flight: Flight,
        cipher: FlightCipher | _Checked,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self.token = lease.token
        self._leases = leases
        self._lease = lease
        self._flight = flight
        self._cipher = cipher
        self._sleep = sleep
        self._deflate = zlib.compressobj(1)
        self._number = FIRST_PIECE
        self._taken = 0
        self._piece = b""
        """Piece `number`, not known to have arrived. It holds chunks up to `taken`."""
        self._size_bytes = 0
        self._wishes: Sequence[bytes] = ()
        self._mute = False
        self._is_heard = True
        self._turn = asyncio.Lock()
        self._tasks = {asyncio.create_task(self._beat())}

    def deserted(self) -> None:
        """Stop the flight, whose last waiter here has left, unless somebody follows."""
        task = asyncio.create_task(self._stop_if_alone())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def gather(self) -> Sequence[bytes]:
        """Say all there is to say before the end, and return what followers wish."""
        await self._say()
        return self._wishes

    async def end(self) -> None:
        """Tell of the flight's end and give the lease back. Raises nothing."""
        flight = self._flight
        if not flight.stopped:
            while not self._mute and self._is_anything_unsaid() and await self._say():
                pass
        async with self._turn:
            for task in self._tasks - {asyncio.current_task()}:
                task.cancel()
            if self._mute:
                return
            if flight.stopped or self._is_anything_unsaid():
                kind, said = _STOPPED, b""
            else:
                kind, said = _end_of(flight)
            await self._end(kind, said)

    async def _end(self, kind: bytes, said: bytes) -> None:
        self._mute = True
        # Behind a piece that may not have arrived: a gap ends it for followers, too.
        self._number += bool(self._piece)
        sealed = self._cipher.seal(self._number, kind + said)
        await _tried(self._leases.end(self._lease, self._number, sealed))

    async def _beat(self) -> None:
        waited_s = 0.0
        while not self._mute:
            step_s = BATCH_S if self._wishes else BEAT_S
            await self._sleep(step_s)
            waited_s += step_s
            if waited_s >= BEAT_S or self._is_anything_unsaid():
                waited_s = 0.0
                is_said = await self._say()
                if not (is_said and self._wishes):
                    await self._stop_if_alone()

    async def _stop_if_alone(self) -> None:
        flight = self._flight
        async with self._turn:
            if not flight.is_deserted:
                return
            # Nobody here may join what is about to end: whoever comes asks for the lease.
            flight.is_leaving = True
            try:
                self._mute = self._mute or await self._leases.stop(self._lease)
            except StoreError as exc:
                log.warning("L1: %s", exc)
                self._mute = True
            flight.is_leaving = False
            if self._mute and flight.is_deserted:
                flight.stop()

    def _is_anything_unsaid(self) -> bool:
        return bool(self._piece) or self._taken < len(self._flight.chunks)

    async def _say(self) -> bool:
        """Say what is new; whether it arrived."""
        async with self._turn:
            if self._mute:
                return False
            self._pack()
            if self._size_bytes > MAX_SAID_BYTES:
                log.warning("flight %s: too long to be shared", short_key(self._lease.key))
                await self._end(_STOPPED, b"")
                return False
            try:
                told = await self._leases.say(self._lease, self._number, self._piece)
                checked = _Checked(self._lease.key, self._lease.flight)
                wishes = told and [checked.open(_WISHES, wish) for wish in told]
            except (StoreError, ValueError) as exc:
                if self._is_heard:  # once, not at every beat
                    log.warning("flight %s: not told: %s", short_key(self._lease.key), exc)
                self._is_heard = False
                return False
            self._is_heard = True
            if wishes is None:
                log.warning("flight %s: its lease has run out", short_key(self._lease.key))
                self._mute = True
                return False
            self._wishes = wishes
            self._number += bool(self._piece)
            self._piece = b""
            return True

    def _pack(self) -> None:
        chunks = self._flight.chunks[self._taken :]
        if self._piece or not chunks:
            return
        said = self._deflate.compress(json_text.dumps(chunks))
        said += self._deflate.flush(zlib.Z_SYNC_FLUSH)
        self._taken += len(chunks)
        self._piece = self._cipher.seal(self._number, _CHUNKS + said)
        self._size_bytes += len(self._piece)


def _is_found(header: Header, to_be: Header) -> bool:
    """Whether the entry that ended a flight was not made by it, but stored before."""
    return header.source is not None or header.generation_started_ms < to_be.generation_started_ms


def _becomes(flight: Flight, header: Header, part: Part) -> bool:
    """Whether an entry that began before the flight may be its answer. It is known by that then.

    Who joins between this and the end of the flight must be told what the answer really is.
    """
    if not part.serves(header):
        return False
    flight.become(header, flight.document.revision, is_elsewhere=True)
    return True


def _read_about(about: bytes) -> tuple[Header, int]:
    """(header, revision). Raises ValueError."""
    revision, header = about.split(b" ", 1)
    return decode_header(header), int(revision)


def _end_of(flight: Flight) -> tuple[bytes, bytes]:
    """(kind, piece) of how a flight ended."""
    if flight.entry is not None:
        return _ENTRY, encode(flight.entry)
    if flight.finished is not None:
        finished = [flight.finished.answer, flight.finished.unstorable]
        return _ANSWER, json_text.dumps(finished)
    error = flight.error
    names = ("message", "status", "type", "param", "code", "retry_after_s")
    said = json.dumps({name: getattr(error, name, None) for name in names})
    return (_STOPPED, b"") if error is None else (_ERROR, said.encode())


async def _ending(kind: bytes, said: bytes, part: Part) -> FlightEvent:
    """The end of a flight that was followed. Raises _LostError where it was stopped, its error."""
    if kind == _ENTRY:
        landed = await part.read(said)
        if landed is None:
            raise _LostError
        return landed
    if kind == _ANSWER:
        answer, unstorable = json.loads(said)
        return Landed(finished=Finished(answer=answer, unstorable=unstorable), entry=None)
    if kind == _ERROR:
        fields: dict[str, Any] = json.loads(said)
        raise (UpstreamError if is_failure(fields["status"]) else ClientError)(**fields)
    raise _LostError


async def _tried(call: Awaitable[object]) -> None:
    """Do what may as well be left to run out."""
    try:
        await call
    except StoreError as exc:
        log.warning("L1: %s", exc)
