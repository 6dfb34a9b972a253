"""The programs that Encore is measured beside, each in an environment of its own.

They pin versions that this project could not live with. An environment is made under `.cache/peers`
at its first use, which takes minutes, and made anew when the pins change.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".cache/peers"
INSTALL_TIMEOUT_S = 1800  # llama.cpp is compiled
_STAMP = "requirements.txt"


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A program, what is installed for it, and the program of its environment that is run."""

    name: str
    requirements: tuple[str, ...]
    program: str


PEERS = {
    "litellm": Peer(
        name="LiteLLM", requirements=("litellm[proxy]==1.106.2",), program="bin/litellm"
    ),
    "gptcache": Peer(
        name="GPTCache",
        requirements=(
            *("gptcache==0.1.44", "faiss-cpu==1.15.1"),
            *("sqlalchemy==2.1.9", "numpy==2.4.6"),
        ),
        program="bin/python",
    ),
    "llama-cpp": Peer(
        name="llama.cpp",
        requirements=(
            *("llama-cpp-python==0.3.36", "gguf==0.19.0"),
            *("safetensors==0.8.0", "numpy==2.4.6"),
        ),
        program="bin/python",
    ),
}
"""By the option that tells a script where the program is."""


class AbsentError(Exception):
    """A peer cannot be had here; the message says why."""


def program_of(key: str, given: dict[str, Path], folder: Path = FOLDER) -> Path:
    """The program of a peer: of an environment that is `given`, else of one made in `folder`.

    Raises AbsentError.
    """
    peer = PEERS[key]
    if key in given:
        program = given[key].absolute() / peer.program
        if not program.exists():
            raise AbsentError(f"{program} does not exist")
        return program
    environment = folder / key
    wanted = "\n".join(peer.requirements)
    stamp = environment / _STAMP
    if not stamp.exists() or stamp.read_text("utf-8") != wanted:
        _install(peer, environment)
        stamp.write_text(wanted, "utf-8")
    return environment.absolute() / peer.program


def _install(peer: Peer, environment: Path) -> None:
    print(f"installing {peer.name} into {environment}", file=sys.stderr, flush=True)
    shutil.rmtree(environment, ignore_errors=True)
    steps = (
        [sys.executable, "-m", "venv", str(environment)],
        [str(environment / "bin/pip"), "install", "--quiet", *peer.requirements],
    )
    for step in steps:
        try:
            subprocess.run(
                step, check=True, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S
            )
        except subprocess.CalledProcessError as error:
            last = (error.stderr.strip() or error.stdout.strip() or str(error)).splitlines()[-1]
            raise AbsentError(f"it could not be installed: {last}") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise AbsentError(f"it could not be installed: {error}") from error
