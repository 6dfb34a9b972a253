"""One system for all faults of a module: none of them may leave a trace that needs a restart.

What each fault cost is told at the end, or with `--faults-report FILE` written there (markdown).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.endure import Row, markdown
from tests.faults.system import System, system

PROPERTY = "fault"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """The system, sound, before the first fault."""
    with system(tmp_path_factory.mktemp("system"), {}) as one:
        yield one


@pytest.fixture
def note(record_property: Callable[[str, object], None]) -> Callable[[Row], None]:
    """What a test tells its rows to."""
    return lambda row: record_property(PROPERTY, row.cells())


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--faults-report`: works where this folder is named."""
    parser.addoption("--faults-report", metavar="FILE", type=Path)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Tell the rows, of all workers."""
    told = [
        report
        for kind in ("passed", "failed")
        for report in terminalreporter.stats.get(kind, ())
        if report.when == "call"
    ]
    rows = [
        value
        for report in sorted(told, key=lambda report: report.nodeid.partition("[")[0])
        for name, value in report.user_properties
        if name == PROPERTY
    ]
    if not rows:
        return
    path: Path | None = config.getoption("--faults-report", None)
    if path is None:
        terminalreporter.section("faults")
        terminalreporter.write(markdown(rows))
    else:
        path.write_text(markdown(rows))
