"""What applications and other origin processes tell through Redis: channels and a stream.

Key layout:
- `PREFIX:invalidate`, a channel: events, each heard by every process that listens then.
- `PREFIX:ctl:changed`, a channel: tenants whose documents were replaced (`redis_control`).
- `PREFIX:invalidations`, a stream: events in the field `event`, each taken by one process. What is
  done is removed.
- `PREFIX:invalidations:refused`, a stream: events that cannot be applied, the last 1,000 or so.
- `PREFIX:invalidations:heard:ID`, a text: when an event that failed was heard first, with the
  event's id and a checksum. It ends a day after the last try.

The stream has one consumer group with one consumer, by whose name all processes ask: an event is
given to who asks first, and given again once nobody has confirmed it for `CLAIM_S`. So a process
that dies leaves nothing behind to be cleaned up.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from origin.stores.contract import StoreError
from origin.stores.redis_control import changed_channel
from origin.stores.redis_store import (
    DEFAULT_TIMEOUT_S,
    RedisClient,
    outages_told,
    redis_client,
    stream_rows,
)

MAX_WAIT_S = 2.0
DEFAULT_MAX_CONNECTIONS = 4
CLAIM_S = 10.0
SILENCE_S = 5.0
"""After that long a listener asks whether the connection lives, and gives it up after as long."""
EVENTS_A_READ = 100
HEARD_LIFE_S = 86_400
MAX_REFUSED = 1000
GROUP = CONSUMER = "encore"

# KEYS: stream. ARGV: group, id.
_DONE = """
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
redis.call('XDEL', KEYS[1], ARGV[2])
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Heard:
    """What came by a channel. `listening` is said at first, and whenever something may be missed.

    `text` is an event's, or the tenant whose document has changed.
    """

    kind: Literal["listening", "changed", "event"]
    text: bytes = b""


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """An entry of the stream. `text` is None where it has no event."""

    id: str
    text: bytes | None


class RedisEvents:
    """Channels and stream on one `redis.asyncio` client, which it owns."""

    def __init__(
        self, client: RedisClient, *, prefix: str = "encore", claim_s: float = CLAIM_S
    ) -> None:
        self._client = client
        self.channel = f"{prefix}:invalidate"
        self.stream = f"{prefix}:invalidations"
        self._changed = changed_channel(prefix)
        self.refused = f"{self.stream}:refused"
        self._claim_ms = round(claim_s * 1000)
        self._claim_from = "0-0"
        self._done = client.register_script(_DONE)

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        prefix: str = "encore",
        timeout_s: float = DEFAULT_TIMEOUT_S,
        claim_s: float = CLAIM_S,
    ) -> Self:
        """Build them on `url`; see `redis_client`."""
        client = redis_client(
            url, timeout_s=timeout_s, max_connections=DEFAULT_MAX_CONNECTIONS, wait_s=MAX_WAIT_S
        )
        return cls(client, prefix=prefix, claim_s=claim_s)

    async def hear(self) -> AsyncGenerator[Heard, None]:
        """What comes by the channels from now on, until the connection is lost: StoreError."""
        with outages_told():
            if not isinstance(self._client, Redis):  # it must know a node to listen to
                await self._client.initialize()
            async with self._client.pubsub() as pubsub:
                await pubsub.subscribe(self.channel, self._changed)
                is_asked = False
                while True:
                    message = await pubsub.get_message(timeout=SILENCE_S)
                    if message is None:
                        if is_asked:
                            raise StoreError("Redis: silent")
                        await pubsub.ping()
                        is_asked = True
                        continue
                    is_asked = False
                    if message["type"] == "subscribe":
                        # The client connects anew by itself, and says no more of it than this.
                        yield Heard(kind="listening")
                    elif message["type"] == "message":
                        is_event = message["channel"] == self.channel.encode()
                        yield Heard(kind="event" if is_event else "changed", text=message["data"])

    async def take(self, wait_s: float) -> Sequence[Event]:
        """Events that nobody was given yet; waits for the first up to `wait_s`, `MAX_WAIT_S`.

        Raises StoreError.
        """
        wait_ms = max(1, round(min(wait_s, MAX_WAIT_S) * 1000))
        with outages_told():
            try:
                found = await self._take(wait_ms)
            except ResponseError as exc:
                if not str(exc).startswith("NOGROUP"):
                    raise
                # At first, and where Redis has lost what it had: from the beginning.
                with contextlib.suppress(ResponseError):  # another process was first
                    await self._client.xgroup_create(self.stream, GROUP, id="0", mkstream=True)
                found = await self._take(wait_ms)
            return _events(stream_rows(found))

    async def claim(self) -> Sequence[Event]:
        """Events that somebody was given and nobody has confirmed for long. Raises StoreError."""
        with outages_told():
            try:
                answer: Any = await self._client.xautoclaim(
                    self.stream,
                    GROUP,
                    CONSUMER,
                    min_idle_time=self._claim_ms,
                    start_id=self._claim_from,
                    count=EVENTS_A_READ,
                )
            except ResponseError as exc:
                if str(exc).startswith("NOGROUP"):
                    return []
                raise
            # All in turn: those that fail each time must not keep the others from theirs.
            self._claim_from = answer[0].decode()
            return _events(answer[1])

    async def failed(self, event: Event, heard_ms: int) -> None:
        """Keep in mind when an event that is to be tried again was heard first.

        Raises StoreError.
        """
        with outages_told():
            await self._client.set(
                self._heard_name(event), _noted(event, heard_ms), ex=HEARD_LIFE_S
            )

    async def heard_ms(self, events: Sequence[Event]) -> Mapping[str, int]:
        """By id, when those of the events that failed were heard first. Raises StoreError."""
        pipeline = self._client.pipeline(transaction=False)
        for event in events:
            pipeline.get(self._heard_name(event))
        heard_ms: dict[str, int] = {}
        with outages_told():
            for event, noted in zip(
                events, await pipeline.execute() if events else (), strict=True
            ):
                told = (noted or b"").split(b" ")
                # A time that was damaged would have the purge forgotten.
                if len(told) == 3 and noted == _noted(event, at_ms := int(told[1])):
                    heard_ms[event.id] = at_ms
        return heard_ms

    async def done(self, event: Event) -> None:
        """Confirm an event: nobody is given it again. Raises StoreError."""
        with outages_told():
            await self._done(keys=[self.stream], args=[GROUP, event.id])

    async def refuse(self, event: Event) -> None:
        """Put an event aside, and confirm it. Raises StoreError."""
        with outages_told():
            await self._client.xadd(
                self.refused,
                {"id": event.id, "event": event.text or b""},
                maxlen=MAX_REFUSED,
            )
        await self.done(event)

    async def close(self) -> None:
        """Free connections. Closing twice is fine."""
        with outages_told():
            await self._client.aclose()

    def _heard_name(self, event: Event) -> str:
        return f"{self.stream}:heard:{event.id}"

    async def _take(self, wait_ms: int) -> Any:
        return await self._client.xreadgroup(
            GROUP, CONSUMER, {self.stream: ">"}, count=EVENTS_A_READ, block=wait_ms
        )


def _noted(event: Event, heard_ms: int) -> bytes:
    told = f"{event.id} {heard_ms}".encode()
    return told + b" %08x" % zlib.crc32(told)


def _events(rows: Sequence[Any]) -> list[Event]:
    # What was removed from the stream without being confirmed comes as nothing (Redis 6.2).
    return [
        Event(id=row[0].decode(), text=row[1].get(b"event"))
        for row in rows
        if row and row[0] is not None and row[1] is not None
    ]
