"""The encoder of semantic match fails, and its index: a match is lost, and nothing else.

Encoder and index are in the origin's own process; a tenant that goes without is the other one's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.endure import LASTS_S, RECOVERS_S, Row, hold
from tests.faults.faulty_encoder import FAULTS
from tests.faults.system import TENANTS, Upstream
from tests.faults.traffic import Client, Traffic
from tests.support.origins import SECRET, Origin, said_in
from tests.support.redis_servers import durable_server, programs
from tests.support.tcp_proxy import Fault, TcpProxy, tcp_proxy

QUESTION = "Analyze this property: 123 Main St, 3BR/2BA, $450k"
PARAPHRASE = "Analyze this property: 123 Main Street, 3 bedroom 2 bath, $450,000"
NEAR_MISS = "Analyze this property: 124 Main St, 3BR/2BA, $450k"
REDIS = {
    "index refused": Fault(resetting=True),
    "index silent": Fault(silent=True),
    "index slow": Fault(delay_s=0.08),
}


@dataclass(frozen=True, kw_only=True)
class Matching:
    """An origin that matches by meaning for one tenant of two."""

    origin: Origin
    redis_proxy: TcpProxy
    keys: dict[str, str]
    fault: Path

    def clients(self) -> list[Client]:
        """Two who ask for each tenant, and one who purges."""
        return [
            Client(
                tenant=tenant,
                api_key=self.keys[tenant],
                where="origin",
                url=self.origin.url,
                purges=purges,
            )
            for tenant in TENANTS
            for purges in (False, False, True)
        ]

    @contextmanager
    def failing(self, fault: str) -> Iterator[None]:
        """The encoder fails so for the length of the block."""
        self.fault.write_text(fault)
        try:
            yield
        finally:
            self.fault.write_text("")

    def said(self, question: str, scope: str, tenant: str = TENANTS[0]) -> str:
        """The question that was answered, and whether by a match; asserts that it was answered."""
        said = said_in(self.origin.ask(self.keys[tenant], question, encore_scope=scope))
        return said.question


@pytest.fixture(scope="module")
def matching(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matching]:
    """A running one, with an index in Redis where it can keep one."""
    folder = tmp_path_factory.mktemp("matching")
    fault = folder / "fault"
    fault.write_text("")
    with ExitStack() as stack:
        redis = stack.enter_context(durable_server(list(programs().values())[-1], folder / "redis"))
        proxy = stack.enter_context(tcp_proxy(redis.port))
        upstream = Upstream()
        stack.callback(upstream.kill)
        upstream.start()
        variables = {
            "ENCORE_SECRET": SECRET,
            "ENCORE_UPSTREAM": f"http://127.0.0.1:{upstream.port}",
            "REDIS_URL": f"redis://127.0.0.1:{proxy.port}",
            "ENCORE_SEMANTIC": "on",
            "ENCODER_FAULT": str(fault),
        }
        (folder / "origin").mkdir()
        origin = Origin(
            folder=folder / "origin", variables=variables, module="tests.faults.faulty_encoder"
        )
        stack.callback(origin.client.close)
        stack.callback(origin.kill)
        keys = {
            tenant: origin.command("keys", "create", tenant, "--role", "admin")
            for tenant in TENANTS
        }
        origin.command("policy", TENANTS[1], "--semantic", "off")
        origin.start()
        yield Matching(origin=origin, redis_proxy=proxy, keys=keys, fault=fault)


def failing(matching: Matching, fault: str) -> AbstractContextManager[None]:
    """The fault of that name."""
    if fault in REDIS:
        return matching.redis_proxy.misbehaving(REDIS[fault])
    return matching.failing(fault)


@pytest.mark.parametrize("fault", [*FAULTS, *REDIS])
def test_embedder(matching: Matching, fault: str, note: Callable[[Row], None]) -> None:
    """It becomes a miss at once, and a match again by itself."""
    traffic = Traffic(matching.clients())
    until_matched(matching, f"before {fault}".replace(" ", "-"))

    def during(began_s: float) -> None:
        asked = 0
        while time.monotonic() < began_s + LASTS_S:
            asked += 1
            scope = f"in-{fault}-{asked}".replace(" ", "-")
            for question in (QUESTION, NEAR_MISS):
                assert matching.said(question, scope) == question
            assert matching.said(PARAPHRASE, scope) in (PARAPHRASE, QUESTION)

    fails = failing(matching, fault)
    hold(traffic, fails, name="encoder", does=fault, note=note, during=during)
    until_matched(matching, f"after {fault}".replace(" ", "-"))


def until_matched(matching: Matching, scope: str) -> None:
    """Ask in a scope of its own until a paraphrase is answered by its question's answer.

    The other tenant's never is.
    """
    deadline_s = time.monotonic() + RECOVERS_S
    for number in range(1000):
        here = f"{scope}-{number}"
        assert matching.said(QUESTION, here) == QUESTION
        time.sleep(0.1)
        assert matching.said(PARAPHRASE, here, TENANTS[1]) == PARAPHRASE
        if matching.said(PARAPHRASE, here) == QUESTION:
            return
        assert time.monotonic() < deadline_s
