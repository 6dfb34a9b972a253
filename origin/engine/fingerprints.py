"""What identifies a model on this machine, so that another one never answers from its entries.

A hub's snapshot is known by its commit, a folder by its content. Files are hashed in full up to
`_HASHED_WHOLE_BYTES`; of larger ones, the size and slices spread over the file. No modification
times: replicas with the same files must agree.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

_HASHED_WHOLE_BYTES: Final = 256 * 2**20
_SLICE_BYTES: Final = 2**20
_SLICES: Final = 64
_READ_SUFFIXES: Final = frozenset(
    {".json", ".jinja", ".txt", ".model", ".tiktoken", ".safetensors", ".bin", ".pt"}
)


def checkpoint_folder(source: str) -> Path:
    """Where a model lies that has been loaded: the folder itself, or a hub id's snapshot."""
    folder = Path(source)
    if folder.is_dir():
        return folder
    from transformers.utils.hub import cached_file  # noqa: PLC0415 - seconds

    return Path(cached_file(source, "config.json") or "").parent


def fingerprint(source: str, folder: Path, *facts: str) -> str:
    """A short digest over a model and `facts`, as `fp_` and 16 hex digits.

    `source` is what was asked for, `folder` where it lies: for a hub id a snapshot, named after its
    commit. Reads the files of a folder of the operator's: blocking; raises OSError.
    """
    digest = hashlib.sha256()
    for fact in facts:
        digest.update(f"{len(fact)}:{fact};".encode())
    if not Path(source).is_dir():
        digest.update(f"{source}@{folder.name}".encode())
        return _shown(digest)
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in _READ_SUFFIXES:
            name, size_bytes = path.relative_to(folder).as_posix(), path.stat().st_size
            digest.update(f"{len(name)}:{name};{size_bytes};".encode())
            _hash_content(path, size_bytes, digest)
    return _shown(digest)


def _shown(digest: hashlib._Hash) -> str:
    return f"fp_{digest.hexdigest()[:16]}"


def _hash_content(path: Path, size_bytes: int, digest: hashlib._Hash) -> None:
    with path.open("rb") as file:
        if size_bytes <= _HASHED_WHOLE_BYTES:
            while block := file.read(_SLICE_BYTES):
                digest.update(block)
            return
        for index in range(_SLICES):
            file.seek((size_bytes - _SLICE_BYTES) * index // (_SLICES - 1))
            digest.update(file.read(_SLICE_BYTES))
