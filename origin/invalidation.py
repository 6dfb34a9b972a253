"""Purges that applications ask for by event, and word of what other origin processes have changed.

Events come by a channel, to every process that listens, and by a stream, each to one of them
(`origin.stores.redis_events`); they say what `POST /cache/purge` does, with a `tenant`.

Invariants
1. An event of the stream is confirmed once its purge is durable, or once it is known to be none.
   What fails meanwhile is tried again, by whichever process is there.
2. No purge rests on what is heard: without it a process knows of a change `MEMO_S` later
   (`origin.control`).
3. Nothing that is heard ends the listening, and no event's text is logged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import aclosing, suppress

from origin.audit import Actor
from origin.control import Control
from origin.failures import describe
from origin.metrics import INVALIDATION_EVENTS
from origin.purge_requests import MAX_REQUEST_BYTES, purge_of, read_purge_request
from origin.stores.contract import StoreError
from origin.stores.redis_events import RedisEvents
from shared.control_document import ControlError
from shared.errors import ClientError, EncoreError
from shared.keys import KeyRings

WAIT_S = 1.0
CLAIM_INTERVAL_S = 5.0
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
log = logging.getLogger(__name__)


class Invalidation:
    """One per process. `claim_interval_s` is how often it looks for what others left undone."""

    def __init__(
        self,
        events: RedisEvents,
        control: Control,
        keys: KeyRings,
        *,
        claim_interval_s: float = CLAIM_INTERVAL_S,
    ) -> None:
        self._events = events
        self._control = control
        self._keys = keys
        self._claim_interval_s = claim_interval_s
        self._claim_after_s = 0.0

    async def listen(self) -> None:
        """Act on what the channels say, until cancelled; connects anew where Redis went away."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                async with aclosing(self._events.hear()) as heard:
                    async for each in heard:
                        pause_s = FIRST_PAUSE_S
                        match each.kind:
                            case "listening":
                                await self._control.refresh_all()
                            case "changed":
                                with suppress(EncoreError):  # told to who asks for it
                                    await self._control.refresh(each.text.decode(errors="replace"))
                            case "event":
                                await self._apply(each.text, "channel")
            except StoreError as exc:
                log.warning("events are not heard now: %s", exc)
            except Exception as exc:  # noqa: BLE001 - nothing heard may end the listening
                log.error("listening for events: %s", describe(exc))  # noqa: TRY400
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def consume(self) -> None:
        """Act on what comes by the stream, until cancelled."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                await self._consume_some()
                pause_s = FIRST_PAUSE_S
                continue
            except StoreError as exc:
                log.warning("events are not read now: %s", exc)
            except Exception as exc:  # noqa: BLE001 - nothing read may end the reading
                log.error("reading events: %s", describe(exc))  # noqa: TRY400
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _consume_some(self) -> None:
        events = await self._events.take(WAIT_S)
        heard_ms: Mapping[str, int] = {}
        now_s = asyncio.get_running_loop().time()
        if now_s >= self._claim_after_s:
            self._claim_after_s = now_s + self._claim_interval_s
            claimed = await self._events.claim()
            heard_ms = await self._events.heard_ms(claimed)
            events = [*events, *claimed]
        if not events:
            return
        now_ms = await self._control.now_ms()
        for event in events:
            # Who has been purged since it was heard first is not purged again by the next try.
            first_ms = heard_ms.get(event.id, now_ms)
            outcome = await self._apply(event.text, "stream", first_ms)
            if outcome == "bad":
                await self._events.refuse(event)
            elif outcome != "failed":
                await self._events.done(event)
            else:
                with suppress(StoreError):  # then they may be purged once more
                    await self._events.failed(event, first_ms)

    async def _apply(self, text: bytes | None, source: str, heard_ms: int | None = None) -> str:
        """What became of an event, heard now or at `heard_ms`. Raises nothing."""
        try:
            outcome = await self._purge(text or b"", source, heard_ms)
        except (ClientError, ControlError, ValueError) as exc:
            kept = f"; it is in {self._events.refused}" if source == "stream" else ""
            log.warning("an event of the %s is no purge: %s%s", source, _why(exc), kept)
            outcome = "bad"
        except (StoreError, EncoreError) as exc:
            log.warning("an event of the %s is not applied: %s", source, describe(exc))
            outcome = "failed"
        except Exception as exc:  # noqa: BLE001 - a bug of ours must not be met for ever
            log.error("an event of the %s: %s", source, describe(exc))  # noqa: TRY400
            outcome = "bad"
        INVALIDATION_EVENTS.labels(source, outcome).inc()
        return outcome

    async def _purge(self, text: bytes, source: str, heard_ms: int | None) -> str:
        if len(text) > MAX_REQUEST_BYTES:
            raise ControlError(f"larger than {MAX_REQUEST_BYTES} bytes")
        asked = read_purge_request(text)
        if asked.tenant is None:
            raise ControlError("it names no tenant")
        if asked.dry_run:
            raise ControlError("dry_run has no answer here; use `encore purge --dry-run`")
        purge = purge_of(self._keys, asked.tenant, **asked.named)
        path = self._events.stream if source == "stream" else self._events.channel
        actor = Actor(name="event", path=path)
        is_new = await self._control.apply(asked.tenant, purge, actor, heard_ms=heard_ms)
        return "applied" if is_new else "covered"


def _why(exc: ClientError | ValueError) -> str:
    """Why an event is no purge, in our words: other messages may quote it."""
    if isinstance(exc, ClientError):
        return exc.code or type(exc).__name__
    return str(exc) if isinstance(exc, ControlError) else type(exc).__name__
