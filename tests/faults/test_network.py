"""The network between two parts is lost, slow, cut off or damaged, under traffic."""

from __future__ import annotations

import time

import pytest

from tests.faults.system import System
from tests.faults.traffic import Traffic
from tests.support.tcp_proxy import Fault

LASTS_S = 2.0
RECOVERS_S = 10.0
REDIS = {
    "refused": Fault(resetting=True),
    "silent": Fault(silent=True),
    "slow": Fault(delay_s=0.1),
    "reset in the middle": Fault(reset_after_bytes=3000),
    "damaged answers": Fault(flips=0.05),
    "damaged requests": Fault(flips_requests=0.05),
}


@pytest.mark.parametrize("fault", REDIS)
def test_redis(running: System, fault: str) -> None:
    """It costs hits, never a wrong answer."""
    traffic = Traffic(running.clients())
    with traffic.running():
        traffic.recovery_s(time.monotonic())
        with running.redis_proxy.misbehaving(REDIS[fault]):
            time.sleep(LASTS_S)
        assert traffic.recovery_s(time.monotonic()) < RECOVERS_S
