"""What the figures were measured on, in words."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import psutil

from bench.results import markdown
from origin.embedded_redis import find_server, server_version

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = (
    *("uvicorn", "uvloop", "httptools", "starlette", "redis", "hiredis", "numpy"),
    *("torch", "transformers", "onnxruntime", "sentence-transformers"),
)
NODE_PACKAGES = ("workerd", "miniflare", "pyodide")
BUSY_LOAD_PER_CORE = 0.5


def description() -> str:
    """A table."""
    memory_gb = psutil.virtual_memory().total / 1e9
    rows = {
        "date": f"{datetime.now(tz=UTC):%Y-%m-%d %H:%M} UTC",
        "commit": commit(),
        "CPU": f"{cpu_name()}, {os.cpu_count()} cores",
        "memory": f"{memory_gb:.0f} GB",
        "system": f"{system()}, {platform.release()}, {platform.machine()}",
        "Python": platform.python_version(),
        "Node": output([str(ROOT / "node_modules/.bin/node"), "--version"]),
        "Node packages": ", ".join(f"{name} {node_version(name)}" for name in NODE_PACKAGES),
        "Redis": ".".join(map(str, server_version(find_server()))),
        "libraries": ", ".join(f"{name} {python_version(name)}" for name in LIBRARIES),
    }
    return markdown(["machine", ""], [list(row) for row in rows.items()], left={0, 1})


def load_average() -> str:
    """Of 1, 5 and 15 minutes."""
    return ", ".join(f"{each:.2f}" for each in os.getloadavg())


def warning() -> str | None:
    """What to say of a machine that is not at rest."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load <= BUSY_LOAD_PER_CORE * cores:
        return None
    return (
        f"**Warning**: the load average is {load:.2f} on {cores} cores. Something else is at work "
        "on this machine: absolute times, and ratios of them, say little."
    )


def cpu_name() -> str:
    """As the kernel has it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return output(["sysctl", "-n", "machdep.cpu.brand_string"])


def system() -> str:
    """The distribution, or the kernel where there is none."""
    with contextlib.suppress(OSError):
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    return f"{platform.system()} {platform.release()}"


def commit() -> str:
    """Of this repository, and whether files have changed since."""
    changed = output(["git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no"])
    return output(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]) + (
        " and uncommitted changes" if changed not in ("", "unknown") else ""
    )


def node_version(package: str) -> str:
    """Of a package in node_modules."""
    with contextlib.suppress(OSError):
        manifest = ROOT / "node_modules" / package / "package.json"
        return str(json.loads(manifest.read_text("utf-8"))["version"])
    return "unknown"


def python_version(package: str) -> str:
    """Of an installed library."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return "absent"


def output(command: list[str]) -> str:
    """What a program prints; "unknown" where it cannot be asked."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        asked = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return asked.stdout.strip()
    return "unknown"
