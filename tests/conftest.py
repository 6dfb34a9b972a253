"""What every test relies on: a clean environment, and skips nobody can overlook.

`ENCORE_REQUIRE_ALL=1` (CI) turns every skip into a failure: what a test needs is installed there.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.support.chromium import chromium
from tests.support.redis_servers import REDIS_8

if TYPE_CHECKING:
    from collections.abc import Generator

# No test judges time: machines are shared and slow at will.
settings.register_profile("encore", deadline=None)
settings.load_profile("encore")

REQUIRE_ALL = os.environ.get("ENCORE_REQUIRE_ALL") == "1"


def pytest_configure() -> None:
    """Keep a developer's own settings out of the tests and of the processes they start."""
    for name in list(os.environ):
        if name == "REDIS_URL" or (name.startswith("ENCORE_") and name != "ENCORE_REQUIRE_ALL"):
            del os.environ[name]


def pytest_report_header() -> list[str]:
    """Say what stands behind the tests that take what there is."""
    return [
        f"redis-server: {shutil.which('redis-server') or 'not on PATH'}",
        f"Chromium: {chromium() or 'not there: the dashboard is not looked at'}",
        f"Redis 8: {REDIS_8 if REDIS_8.exists() else 'not there; tools/redis8.sh fetches it'}",
    ]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test that skips where everything is required."""
    report = yield
    if REQUIRE_ALL and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = _refusal(report.longrepr)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Fail a module that skips as a whole where everything is required."""
    report = yield
    if REQUIRE_ALL and report.skipped:
        report.outcome = "failed"
        report.longrepr = _refusal(report.longrepr)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly what did not run."""
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        terminalreporter.section("NOT RUN", sep="!", red=True, bold=True)
        for reason, count in Counter(_reason(report.longrepr) for report in skipped).items():
            terminalreporter.write_line(f"{count} x {reason}", yellow=True)
        terminalreporter.write_line(
            "CI runs these: under ENCORE_REQUIRE_ALL=1 a skip is a failure."
        )


def _reason(longrepr: object) -> str:
    return str(longrepr[2] if isinstance(longrepr, tuple) else longrepr)


def _refusal(longrepr: object) -> str:
    return f"ENCORE_REQUIRE_ALL=1, yet not run: {_reason(longrepr)}"
