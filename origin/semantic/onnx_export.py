"""Makes the ONNX file that an encoder runs, once, and keeps it in a cache folder.

torch, transformers and onnx are heavy and needed here alone: the export is a process of its own
(`python -m origin.semantic.onnx_export FOLDER PRECISION FILE`), so that an origin whose file lies
in the cache already never loads them.

A cached file is the SHA-256 of the model, then the model: what a disk or a hand damaged is made
again. It is written beside its place and renamed, under a lock: of several processes that start
at once one exports and the others wait.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from origin.semantic.encoder_model import EncoderError, EncoderModel

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

Precision = Literal["fp32", "int8"]
RECIPE: Final = 1
"""Raise it with every change of the numbers that an exported model gives."""
_DIGEST_BYTES: Final = 32
_TIMEOUT_S: Final = 900
_TOLERANCE: Final = 1e-3
"""Hidden states are of the order of 1; float32 sums in another order differ by some 1e-6."""


def default_cache() -> Path:
    """`~/.cache/encore`, or where XDG_CACHE_HOME says that caches lie. Raises EncoderError."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "encore"
    except RuntimeError as error:  # a user without a name, as containers have
        raise EncoderError(f"there is no folder for the encoder: {error}") from error


def exported(model: EncoderModel, precision: Precision, cache: Path) -> bytes:
    """The ONNX model, from the cache or made now (some ten seconds). Raises EncoderError."""
    path = cache / f"{model.fingerprint}-{RECIPE}-{precision}.onnx.sealed"
    if (content := _unseal(path)) is not None:
        return content
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # gone with its holder, however that ends
            if (content := _unseal(path)) is not None:
                return content
            content = _export(model, precision, cache)
            _seal(path, content)
            return content
    except OSError as error:
        raise EncoderError(f"the encoder cannot be kept in {cache}: {error}") from error


def _export(model: EncoderModel, precision: Precision, cache: Path) -> bytes:
    log.info("exporting %s to ONNX (%s), once for %s", model.name, precision, cache)
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(dir=cache, prefix="export-") as folder:
        file = Path(folder) / "model.onnx"
        command = [sys.executable, "-W", "ignore", "-m", __name__]
        command += [str(model.folder), precision, str(file)]
        try:
            done = subprocess.run(  # noqa: S603 - ourselves
                command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise EncoderError(f"exporting {model.name} took more than {_TIMEOUT_S} s") from None
        if done.returncode:
            said = (done.stderr.strip() or "nothing").splitlines()[-1]
            raise EncoderError(f"exporting {model.name} to ONNX failed: {said}")
        content = file.read_bytes()
    log.info("exported %s in %.0f s", model.name, time.monotonic() - began_s)
    return content


def _seal(path: Path, content: bytes) -> None:
    fresh = path.with_suffix(f".{os.getpid()}")
    try:
        with fresh.open("wb") as file:
            file.write(hashlib.sha256(content).digest())
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def _unseal(path: Path) -> bytes | None:
    try:
        sealed = path.read_bytes()
    except OSError:
        return None
    content = sealed[_DIGEST_BYTES:]
    if hashlib.sha256(content).digest() == sealed[:_DIGEST_BYTES]:
        return content
    log.warning("%s is damaged and is made again", path)
    return None


def export(folder: Path, precision: Precision, file: Path) -> None:
    """Write the model of `folder` to `file`. Needs torch, transformers and onnx.

    Inputs: `input_ids` and `attention_mask`, int64 [texts, tokens]. Output: `states`, float32
    [texts, tokens, dims], the last hidden states.
    """
    import torch  # noqa: PLC0415 - see above
    import transformers  # noqa: PLC0415

    model = transformers.AutoModel.from_pretrained(
        folder, local_files_only=True, dtype=torch.float32, attn_implementation="eager"
    ).eval()

    class States(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            found = self.model(input_ids=input_ids, attention_mask=attention_mask)
            states: torch.Tensor = found.last_hidden_state
            return states

    states = States().eval()
    inputs = _example(2, 5, 1)
    axes = {0: "texts", 1: "tokens"}
    torch.onnx.export(
        states,
        inputs,
        file,
        input_names=["input_ids", "attention_mask"],
        output_names=["states"],
        dynamic_shapes=(axes, axes),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    _check(states, file)
    if precision == "int8":
        from origin.semantic.quantization import quantize  # noqa: PLC0415 - onnx

        quantize(file)


def _example(texts: int, tokens: int, padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    import torch  # noqa: PLC0415

    ids = torch.arange(texts * tokens).reshape(texts, tokens) % 900 + 100
    mask = torch.ones_like(ids)
    if padding:
        mask[-1, -padding:] = 0
    return ids, mask


def _check(model: Any, file: Path) -> None:
    """Compare the file with the model, at other shapes than those it was traced with."""
    import onnxruntime  # noqa: PLC0415
    import torch  # noqa: PLC0415

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for shape in ((1, 2, 0), (1, 40, 0), (3, 9, 4)):
        ids, mask = _example(*shape)
        with torch.inference_mode():
            wanted = model(ids, mask)
        found = session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})[0]
        far = ((torch.from_numpy(found) - wanted) * mask[..., None]).abs().max().item()
        if not far < _TOLERANCE:
            raise EncoderError(f"the exported model differs from its source by {far:.2g}")


if __name__ == "__main__":
    folder, wanted, target = sys.argv[1:]
    export(Path(folder), "int8" if wanted == "int8" else "fp32", Path(target))
