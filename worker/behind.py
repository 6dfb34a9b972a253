"""What the edge does behind answers and by the clock: report its counts, fetch entries ahead.

None of it may fail a request. A report that does not arrive goes with the next one; what is not
fetched ahead is fetched by the next request.
"""

from __future__ import annotations

import json
import time

import runtime
from answers import Answers
from control_documents import ControlDocuments
from origin_client import BEHIND_TIMEOUT_S, OriginClient, OriginError

from shared.counts import Counts
from shared.wire import COUNTERS_PATH, WARMING_PATH

FLUSHES = ((200, 0.0), (10, 30.0), (1, 300.0))
"""(requests, seconds): what is worth a flush is so many requests when the last one is so old. A
flush is also how an isolate that only hits learns of a new control document."""
FAILED_PAUSE_S = 30.0
"""After a flush that failed: a busy isolate would else try one after the other."""
MAX_PULLS = 20
"""Control documents fetched at a time, for subrequests are limited: the next flush tells of the
rest."""
WARMING_TIMEOUT_S = 25.0
_OPERATIONS_PER_ENTRY = 3
"""A fetch, a write, and a look at the control document of a tenant that is new to this isolate."""
_MAX_ENTRIES = 100


class Reporter:
    """Sends an isolate's counts to the origin, in bulk."""

    def __init__(self, counts: Counts, *, origin: OriginClient, control: ControlDocuments) -> None:
        self._counts = counts
        self._origin = origin
        self._control = control
        self._failed_s = float("-inf")
        self._flushed_s = float("-inf")  # an isolate that lives shortly hears of changes, too

    def is_due(self, now_s: float) -> bool:
        """Whether enough has gathered; asked after each answer, so it is quick.

        `now_s` is of `time.monotonic`.
        """
        if now_s - self._failed_s < FAILED_PAUSE_S:
            return False
        requests = self._counts.requests
        since_s = now_s - self._flushed_s
        return any(requests >= least and since_s >= age_s for least, age_s in FLUSHES)

    async def flush(self) -> None:
        """Send what there is; learn which control documents have a later revision, and get them."""
        self._flushed_s = time.monotonic()
        body = self._counts.take(self._control.revisions())
        if body is None:
            return
        try:
            answer = await self._origin.report(COUNTERS_PATH, body, timeout_s=BEHIND_TIMEOUT_S)
        except OriginError as error:
            runtime.log(f"counters: {error.message}")
            self._counts.put_back(body)
            self._failed_s = time.monotonic()
            return
        self._failed_s = float("-inf")
        newer = answer.get("controls")
        for tenant in list(newer)[:MAX_PULLS] if isinstance(newer, dict) else ():
            await self._control.pull(tenant)


async def warm(answers: Answers, origin: OriginClient, operations: int) -> int:
    """Fetch the entries that the origin has made anew ahead of requests; how many came to KV.

    `operations` bounds fetches, reads and writes together. Raises OriginError.
    """
    limit = min(operations // _OPERATIONS_PER_ENTRY, _MAX_ENTRIES)
    if limit == 0:
        return 0
    body = json.dumps({"limit": limit}).encode()
    answer = await origin.report(WARMING_PATH, body, timeout_s=WARMING_TIMEOUT_S)
    entries = answer.get("entries")
    put = 0
    for entry in entries[:limit] if isinstance(entries, list) else ():
        try:
            put += await answers.put_ahead(entry["tenant"], entry["key"])
        except OriginError as error:
            runtime.log(f"warming: {error.message}")  # the others may still come
    return put
