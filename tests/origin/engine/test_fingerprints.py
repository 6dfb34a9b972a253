"""What identifies a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from origin.engine import fingerprints
from origin.engine.fingerprints import fingerprint


def make_folder(path: Path, weights: bytes) -> Path:
    """A folder with a model's files."""
    path.mkdir()
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(weights)
    return path


def test_same_content_same_fingerprint(tmp_path: Path) -> None:
    """Where and when a folder was written does not count; facts do, each on its own."""
    a, b = make_folder(tmp_path / "a", b"w"), make_folder(tmp_path / "b", b"w")
    first = fingerprint(str(a), a, "x", "yz")
    assert first == fingerprint(str(b), b, "x", "yz")
    assert first != fingerprint(str(a), a, "xy", "z")
    assert first.startswith("fp_")
    assert len(first) == 19


def test_other_files_do_not_count(tmp_path: Path) -> None:
    """A README changes nothing."""
    folder = make_folder(tmp_path / "a", b"w")
    before = fingerprint(str(folder), folder)
    (folder / "README.md").write_text("words")
    assert fingerprint(str(folder), folder) == before


@pytest.mark.parametrize("at", [0, 9_999, 4_900])
def test_large_files_are_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """A change at either end of a large file, or in a slice of it, is seen."""
    monkeypatch.setattr(fingerprints, "_HASHED_WHOLE_BYTES", 1000)
    monkeypatch.setattr(fingerprints, "_SLICE_BYTES", 100)
    folder = make_folder(tmp_path / "a", bytes(10_000))
    before = fingerprint(str(folder), folder)
    changed = bytearray(10_000)
    changed[at] = 1
    (folder / "model.safetensors").write_bytes(changed)
    assert fingerprint(str(folder), folder) != before


def test_hub_snapshot_is_known_by_its_commit(tmp_path: Path) -> None:
    """A hub id goes by its commit, whatever else lies in the snapshot."""
    snapshot = make_folder(tmp_path / "abc123", b"w")
    before = fingerprint("someone/model", snapshot)
    (snapshot / "pytorch_model.bin").write_bytes(b"the same weights again")
    assert fingerprint("someone/model", snapshot) == before
    assert fingerprint("someone/model", make_folder(tmp_path / "def456", b"w")) != before
