# ruff: noqa: INP001 - a script, not a package
"""The Worker's build: put what it imports where `wrangler` uploads it from.

    python3 tools/build_worker.py [PROJECT]

Run by wrangler's `[build] command`, and by the local edge. Standard library only.

wrangler uploads every Python file below the folder of `main` (so this file does not live there)
and everything in `python_modules/`. Staged there: `shared/` but for what only the origin imports,
and the official runtime SDK, unless pywrangler has vendored it already. Nothing of the origin or
the tests. Files that have not changed are not touched, so running it again costs milliseconds and
wakes no watcher.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path

SDK = "workers-runtime-sdk"
ORIGIN_ONLY = ("compression.py", "veto")
"""What of `shared/` the Worker does not import: it would only slow its start."""
_ROOT = Path(__file__).resolve().parent.parent


def stage(root: Path) -> str:
    """Bring `root`/python_modules up to date; say in one line what is there. Raises LookupError."""
    target = root / "python_modules"
    shared = {
        Path("shared", path.relative_to(root / "shared")): path.read_bytes()
        for path in sorted((root / "shared").rglob("*.py"))
        if path.relative_to(root / "shared").parts[0] not in ORIGIN_ONLY
    }
    changed = _mirror(shared, target, below="shared")
    if any(target.glob("workers_runtime_sdk-*.dist-info")) and (target / ".synced").exists():
        sdk_line = "SDK as pywrangler vendored it"  # its copy is the one it deploys
    else:
        sdk = _installed_sdk(root)
        changed += _mirror(_sdk_files(sdk), target)
        sdk_line = f"{SDK} {sdk.version}"
    return f"python_modules: shared ({len(shared)} modules), {sdk_line}; {changed} changed"


def _mirror(files: dict[Path, bytes], target: Path, below: str | None = None) -> int:
    """Write what differs; below the folder `below`, delete what is no longer there."""
    changed = 0
    for path, data in files.items():
        destination = target / path
        if not destination.is_file() or destination.read_bytes() != data:
            destination.parent.mkdir(parents=True, exist_ok=True)
            # Whole or not at all: edges that start at the same time build at the same time.
            written = target.with_name(f"{target.name}.{os.getpid()}")
            written.write_bytes(data)
            written.replace(destination)
            changed += 1
    for stale in sorted((target / below).rglob("*.py")) if below else ():
        if stale.relative_to(target) not in files:
            stale.unlink(missing_ok=True)
            changed += 1
    return changed


def _installed_sdk(root: Path) -> Distribution:
    """The SDK of the running interpreter, else of `root`/.venv."""
    site_packages = [str(path) for path in (root / ".venv").glob("lib/python3*/site-packages")]
    for places in (sys.path, site_packages):
        found = next(iter(distributions(name=SDK, path=places)), None)
        if found is not None:
            return found
    raise LookupError(
        f"{SDK} is neither installed for {sys.executable} nor in {root / '.venv'}; "
        "run `make setup`, or `pip install workers-runtime-sdk`"
    )


def _sdk_files(sdk: Distribution) -> dict[Path, bytes]:
    """What the wheel installed, without what installers add beside it."""
    files = sdk.files or []
    return {
        Path(file): Path(str(sdk.locate_file(file))).read_bytes()
        for file in files
        if file.suffix != ".pyc"
        and ".." not in file.parts
        and file.name not in {"INSTALLER", "REQUESTED", "direct_url.json", "RECORD"}
    }


if __name__ == "__main__":
    try:
        print(stage(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else _ROOT))  # noqa: T201 - the build's one line
    except LookupError as exc:
        sys.exit(f"build failed: {exc}")
