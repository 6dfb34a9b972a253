"""One system for all faults of a module: none of them may leave a trace that needs a restart."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.system import System, system


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """The system, sound, before the first fault."""
    with system(tmp_path_factory.mktemp("system"), {}) as one:
        yield one
