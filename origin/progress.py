"""A bar on a terminal that says how far a file is read. Imported where there is one: it is slow."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def file_bar(
    console: Console, name: str, file: BinaryIO, shown: str, *, transient: bool = False, **said: Any
) -> Iterator[Callable[..., None]]:
    """A bar for the length of the block; gives what moves it to where the file is.

    `shown` is what stands behind it, of rich's `task`, whose fields are `said` and what it is moved
    with. A pipe has no size: its bar only pulses.
    """
    status = os.fstat(file.fileno())
    size_bytes = status.st_size if stat.S_ISREG(status.st_mode) else None
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn(shown),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=transient) as progress:
        task = progress.add_task(name, total=size_bytes, **said)

        def move(**said: Any) -> None:
            at = None if size_bytes is None else file.tell()
            progress.update(task, completed=at, **said)

        yield move
