"""The core stays pure: only the standard library, no clock, no randomness, no await, no I/O."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import shared

FOLDER = Path(next(iter(shared.__path__)))
MODULES = sorted(FOLDER.rglob("*.py"))

# Standard modules that read a clock, draw random numbers, do I/O or start things. Not an
# allow-list: a new pure helper from the standard library needs nobody's leave.
IMPURE = frozenset(
    {
        "asyncio",
        "concurrent",
        "contextvars",
        "ctypes",
        "fileinput",
        "getpass",
        "http",
        "importlib",
        "io",
        "logging",
        "mmap",
        "multiprocessing",
        "os",
        "pathlib",
        "platform",
        "random",
        "sched",
        "secrets",
        "select",
        "selectors",
        "shutil",
        "signal",
        "socket",
        "socketserver",
        "sqlite3",
        "ssl",
        "subprocess",
        "sys",
        "tempfile",
        "threading",
        "time",
        "urllib",
        "uuid",
        "webbrowser",
        "zoneinfo",
    }
)
# Of modules that are pure otherwise.
IMPURE_NAMES = frozenset(
    {"now", "today", "utcnow", "time", "time_ns", "monotonic", "perf_counter", "urandom", "sleep"}
)
IMPURE_CALLS = frozenset(
    {"open", "print", "input", "exec", "eval", "compile", "__import__", "breakpoint", "id", "hash"}
)
# What takes long to import, or means that somebody's module reached past the core.
HEAVY = frozenset(
    {
        "asyncio",
        "concurrent",
        "ctypes",
        "email",
        "http",
        "logging",
        "multiprocessing",
        "pathlib",
        "pickle",
        "random",
        "socket",
        "ssl",
        "subprocess",
        "tempfile",
        "threading",
        "unittest",
        "urllib",
        "xml",
        "js",
        "pyodide",
        "httpx",
        "numpy",
        "pydantic",
        "redis",
        "starlette",
        "torch",
    }
)
# gzip brings these along on some versions of Python.
TOLERATED = frozenset({"threading"})


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(FOLDER).as_posix())
def test_a_module_is_pure(path: Path) -> None:
    """No module of the core imports, awaits or calls what is not a function of its arguments."""
    assert _impurities(ast.parse(path.read_text("utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "from os import environ",
        "import os.path",
        "import httpx",
        "from origin import app",
        "from . import errors",
        "async def f(): pass",
        "def f(x): return [y async for y in x]",
        "datetime.now()",
        "open('x')",
        "import js",
        "hash('x')",
        "def f():\n    import random",
        "x = []\ndef f():\n    global x",
    ],
)
def test_an_impurity_is_seen(source: str) -> None:
    """The check above sees each kind of impurity."""
    assert _impurities(ast.parse(source))


def test_the_core_imports_nothing_heavy() -> None:
    """Importing all of the core in a fresh interpreter loads no heavy module."""
    relative = [path.relative_to(FOLDER.parent).with_suffix("") for path in MODULES]
    names = [".".join(path.parts) for path in relative if path.name != "__init__"]
    program = (
        "import sys; before = set(sys.modules)\n"
        f"import {', '.join(names)}\n"
        "print(*(set(sys.modules) - before))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=FOLDER.parent,
    )
    loaded = {name.partition(".")[0] for name in run.stdout.split()}
    assert loaded & (HEAVY - TOLERATED) == set()


def _impurities(tree: ast.Module) -> list[str]:
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                found += [alias.name for alias in node.names if not _may_import(alias.name)]
            case ast.ImportFrom():
                if node.level or not _may_import(node.module or ""):
                    found.append(f"from {node.module}")
            case ast.AsyncFunctionDef() | ast.Await() | ast.AsyncFor() | ast.AsyncWith():
                found.append(f"async in line {node.lineno}")
            case ast.comprehension(is_async=1):
                found.append("async comprehension")
            case ast.Global():
                found.append(f"global in line {node.lineno}")
            case ast.Call(func=ast.Name(id=name)) if name in IMPURE_CALLS:
                found.append(f"{name}() in line {node.lineno}")
            case ast.Call(func=ast.Attribute(attr=name)) if name in IMPURE_NAMES:
                found.append(f".{name}() in line {node.lineno}")
            case _:
                pass
    return found


def _may_import(name: str) -> bool:
    top = name.partition(".")[0]
    return top == "shared" or (top in sys.stdlib_module_names and top not in IMPURE)
