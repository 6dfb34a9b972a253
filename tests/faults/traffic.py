"""Steady traffic that knows what each answer must be.

Clients of several tenants ask the same questions, plain and streamed, and for embeddings, at an
edge and at the origins behind it; an admin of each tenant purges. See `tests.faults.upstream` for
how an answer tells its question and its time. A violation is

- an answer to another question, or half of one that looks whole,
- an answer that another tenant was given before,
- an answer that was made before a purge, to who asked after that purge was acknowledged (at the
  edge: by the edge, too),
- an answer older than it may be,
- a failure in another shape than OpenAI's, with a 500 that is not the upstream's own, or without
  any answer where none may break.

An answer with an error of its own (502, 503, 504 ...) is a failure and no violation.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any, Literal

import httpx

from tests.faults.upstream import MODEL
from tests.support.engines import vector_of

TAG = "load"
QUESTIONS = tuple(f"Question {number}: what is {number} squared?" for number in range(24))
TIMEOUT_S = 20.0
CHAT = "/v1/chat/completions"
Kind = Literal["chat", "stream", "embeddings", "purge"]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request and what came of it. Times are of `time.monotonic`."""

    kind: Kind
    where: str
    tenant: str
    begun_s: float
    ended_s: float
    status: str
    """Its `Cache-Status`, or nothing."""
    failure: str | None
    """`503 overloaded`, or the name of what broke the connection; None for a good answer."""

    @property
    def is_hit(self) -> bool:
        """Whether a cache answered."""
        return "; hit" in self.status


@dataclass(kw_only=True)
class Client:
    """One that asks one thing after another, as a tenant and at one place."""

    tenant: str
    api_key: str
    where: str
    url: str
    may_break: bool = False
    """Whether its connections may end without an answer: for whoever asks what is killed."""
    purges: bool = False
    pause_s: float = 0.005
    """Between its requests, so that several leave the machine room for the servers."""
    purge_every_s: float = 0.35


class _WrongError(Exception):
    """A violation: what is wrong with an answer."""


@dataclass(kw_only=True)
class _Tenants:
    """What the clients know together."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    owners: dict[int, str] = field(default_factory=dict)
    purged_ns: dict[tuple[str, str], int] = field(default_factory=dict)
    """By tenant and place."""


class Traffic:
    """Runs the clients. Everything here may be read while it runs."""

    def __init__(
        self, clients: list[Client], *, seed: int = 0, longest_life_s: float = math.inf
    ) -> None:
        """An answer older than `longest_life_s` is a violation; it may be changed at any time."""
        self._clients = clients
        self._seed = seed
        self.longest_life_s = longest_life_s
        self._over = threading.Event()
        self._tenants = _Tenants()
        self._numbers = count()
        self.asked: list[Asked] = []
        self.violations: list[str] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Ask for the length of the block; raise AssertionError at its end for any violation."""
        threads = [
            threading.Thread(target=self._run, args=(client, number))
            for number, client in enumerate(self._clients)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()
        assert self.violations == [], "\n".join(self.violations[:10])

    def since(self, moment_s: float) -> list[Asked]:
        """What was begun at that time or later."""
        return [one for one in list(self.asked) if one.begun_s >= moment_s]

    def until(
        self, enough: Callable[[list[Asked]], bool], *, since_s: float, timeout_s: float = 60
    ) -> float:
        """Wait until what was begun since then is enough; return how long that took, in seconds.

        Raises AssertionError after `timeout_s`, with what was answered, or on a violation.
        """
        deadline_s = time.monotonic() + timeout_s
        while not enough(since := self.since(since_s)):
            assert self.violations == [], "\n".join(self.violations[:10])
            assert time.monotonic() < deadline_s, _summary(since)
            time.sleep(0.02)
        return time.monotonic() - since_s

    def recovery_s(
        self, since_s: float, *, quiet_s: float = 1.5, timeout_s: float = 60, least: int = 40
    ) -> float:
        """Wait until all is well again; return how long after `since_s` the last failure ended.

        Well: for `quiet_s` no request failed, or had to do without Redis, or was answered stale;
        each place has answered, there were hits, and a purge was acknowledged. In seconds; 0 where
        nothing failed.
        """
        places = {client.where for client in self._clients}

        def is_well(asked: list[Asked]) -> bool:
            now_s = time.monotonic()
            recent = [one for one in asked if one.ended_s > now_s - quiet_s]
            good = [one for one in recent if not _is_degraded(one)]
            return (
                now_s - since_s > quiet_s
                and len(recent) == len(good) >= least * quiet_s / 10
                and {one.where for one in good} == places
                and any(one.is_hit for one in good)
                and any(one.kind == "purge" for one in good)
            )

        self.until(is_well, since_s=since_s, timeout_s=timeout_s)
        bad = [one.ended_s for one in list(self.asked) if _is_degraded(one)]
        return max([0.0, *(ended_s - since_s for ended_s in bad)])

    def counts(self, since_s: float = 0.0) -> Counter[str]:
        """How many requests ended how: `hit`, `generated`, `purge`, or their failure."""
        return _summary(self.since(since_s))

    def _run(self, client: Client, number: int) -> None:
        draw = Random(self._seed * 1000 + number)  # noqa: S311 - seeded on purpose
        # Whoever is refused before a body was read is hung up on: no connection is used twice.
        limits = httpx.Limits(max_keepalive_connections=0)
        with httpx.Client(
            base_url=client.url,
            headers={"authorization": f"Bearer {client.api_key}"},
            timeout=TIMEOUT_S,
            limits=limits,
        ) as http:
            while not self._over.is_set():
                if client.purges:
                    self._note(client, "purge", http, draw)
                    self._over.wait(client.purge_every_s * (0.3 + 1.4 * draw.random()))
                else:
                    kinds: tuple[Kind, ...] = ("chat", "stream", "embeddings")
                    self._note(client, draw.choices(kinds, (6, 3, 1))[0], http, draw)
                    self._over.wait(client.pause_s)

    def _note(self, client: Client, kind: Kind, http: httpx.Client, draw: Random) -> None:
        begun_s, failure, status = time.monotonic(), None, ""
        try:
            status, failure = getattr(self, f"_{kind}")(client, http, draw)
        except httpx.HTTPError as exc:
            failure = type(exc).__name__
            if not client.may_break:
                self._violates(client, kind, repr(exc))
        except _WrongError as exc:
            failure = "wrong"
            self._violates(client, kind, str(exc))
        except Exception as exc:  # noqa: BLE001 - a client that died would be missed by nobody
            failure = "unreadable"
            self._violates(client, kind, repr(exc))
        self.asked.append(
            Asked(
                kind=kind,
                where=client.where,
                tenant=client.tenant,
                begun_s=begun_s,
                ended_s=time.monotonic(),
                status=status,
                failure=failure,
            )
        )

    def _violates(self, client: Client, kind: Kind, what: str) -> None:
        self.violations.append(f"{client.tenant} at {client.where}, {kind}: {what}")

    def _chat(self, client: Client, http: httpx.Client, draw: Random) -> tuple[str, str | None]:
        question = self._question(draw)
        before = self._before(client)
        response = http.post(CHAT, json=_body(question, stream=False), headers=_headers(draw))
        if response.status_code != 200:
            return "", _failure(response)
        text = response.json()["choices"][0]["message"]["content"]
        status = response.headers["cache-status"]
        self._check(client, question, text, before, status)
        return status, None

    def _stream(self, client: Client, http: httpx.Client, draw: Random) -> tuple[str, str | None]:
        question = self._question(draw)
        before = self._before(client)
        response = http.post(CHAT, json=_body(question, stream=True), headers=_headers(draw))
        if response.status_code != 200:
            return "", _failure(response)
        lines = [line.removeprefix("data: ") for line in response.text.splitlines()]
        events = [line for line in lines if line and not line.startswith(":")]
        if events and events[-1] != "[DONE]":
            return "", _failure_of(json.loads(events[-1]), "200, then")
        if not events:
            raise _WrongError("a stream of nothing")
        deltas = (json.loads(event)["choices"] for event in events[:-1])
        text = "".join(d[0]["delta"].get("content") or "" for d in deltas if d)
        status = response.headers["cache-status"]
        self._check(client, question, text, before, status)
        return status, None

    def _embeddings(
        self, client: Client, http: httpx.Client, draw: Random
    ) -> tuple[str, str | None]:
        del client
        question = self._question(draw)
        response = http.post("/v1/embeddings", json={"model": MODEL, "input": question})
        if response.status_code != 200:
            return "", _failure(response)
        vector = response.json()["data"][0]["embedding"]
        if any(abs(a - b) > 1e-6 for a, b in zip(vector, vector_of(question), strict=True)):
            raise _WrongError(f"{question!r} has another vector: {vector}")
        return response.headers["cache-status"], None

    def _purge(self, client: Client, http: httpx.Client, draw: Random) -> tuple[str, str | None]:
        del draw
        began_ns = time.time_ns()
        response = http.post("/cache/purge", json={"tags": [TAG]})
        if response.status_code != 200:
            return "", _failure(response)
        held = ["origin", *(["edge"] if response.json()["edge"] == "acknowledged" else [])]
        with self._tenants.lock:
            purged_ns = self._tenants.purged_ns
            for where in held:
                place = client.tenant, where
                purged_ns[place] = max(began_ns, purged_ns.get(place, 0))
        return "", None

    def _question(self, draw: Random) -> str:
        if draw.random() < 0.1:
            return f"Question that nobody asked before, {self._seed}.{next(self._numbers)}?"
        return draw.choice(QUESTIONS)

    def _before(self, client: Client) -> tuple[int, float, int]:
        """What an answer is held to: the time, how old it may be, and the last purge that held."""
        purged_ns = self._tenants.purged_ns.get((client.tenant, client.where), 0)
        return time.time_ns(), self.longest_life_s, purged_ns

    def _check(
        self,
        client: Client,
        question: str,
        text: str,
        before: tuple[int, float, int],
        status: str,
    ) -> None:
        began_ns, longest_life_s, purged_ns = before
        said, _, number = text.rpartition(" #")
        if said != question:
            raise _WrongError(f"{question!r} was answered {text!r}")
        made_ns = int(number)
        age_s = (began_ns - made_ns) / 1e9
        told = f"{age_s:.3f} s old, {status}: {text!r}"
        if age_s > longest_life_s:
            raise _WrongError(told)
        with self._tenants.lock:
            owner = self._tenants.owners.setdefault(made_ns, client.tenant)
        if owner != client.tenant:
            raise _WrongError(f"an answer that {owner} had: {text!r}")
        if made_ns < purged_ns:
            late_s = (purged_ns - made_ns) / 1e9
            raise _WrongError(f"made {late_s:.3f} s before a purge that held, {told}")


def _body(question: str, *, stream: bool) -> dict[str, Any]:
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": question}],
        "stream": stream,
    }


def _headers(draw: Random) -> dict[str, str]:
    headers = {"encore-tags": TAG}
    if draw.random() < 0.05:
        headers["cache-control"] = "no-cache"
    return headers


def _failure(response: httpx.Response) -> str:
    """What failed, of an answer in OpenAI's shape; raises for any other, and for a 500."""
    try:
        said = response.json()
    except ValueError:
        raise _WrongError(f"{response.status_code} {response.text[:500]!r}") from None
    if response.status_code in (500, 501) and said["error"]["type"] != "upstream_error":
        raise _WrongError(f"{response.status_code} {response.text[:500]}")
    return _failure_of(said, str(response.status_code))


def _failure_of(said: Any, begin: str) -> str:
    error = said.get("error") if isinstance(said, dict) else None
    if not isinstance(error, dict) or set(error) != {"message", "type", "param", "code"}:
        raise _WrongError(f"{begin} {str(said)[:500]}")
    return f"{begin} {error['code']}"


def _is_degraded(asked: Asked) -> bool:
    return asked.failure is not None or any(
        detail in asked.status for detail in ("l1-error", "stale-if-error")
    )


def _summary(asked: list[Asked]) -> Counter[str]:
    kinds: Counter[str] = Counter()
    for one in asked:
        if one.failure is not None:
            kinds[one.failure] += 1
        elif one.kind == "purge":
            kinds["purge"] += 1
        elif _is_degraded(one):
            kinds["without Redis" if "l1-error" in one.status else "stale-if-error"] += 1
        else:
            kinds["hit" if one.is_hit else "generated"] += 1
    return kinds
