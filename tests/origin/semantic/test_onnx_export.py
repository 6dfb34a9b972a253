"""Other models than the default, exported for real; and the cache of exported files."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import sentence_transformers
import torch
import transformers
from onnx import numpy_helper

from origin.semantic import onnx_export
from origin.semantic.default_model import default_folder
from origin.semantic.encoder import Encoder
from origin.semantic.encoder_model import EncoderError, EncoderModel
from origin.semantic.onnx_export import exported
from tests.support.encoders import CACHE, encoder

MODEL = EncoderModel.find()


def make_model(folder: Path, *, pooling: dict[str, Any], **config: Any) -> Path:
    """A small model with weights made up."""
    torch.manual_seed(7)
    sizes = transformers.BertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    model = transformers.BertModel(sizes)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        shutil.copy(default_folder() / name, folder / name)
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling")]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds)
    ]
    write(folder / "modules.json", modules)
    write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": 32} | pooling)
    write(folder / "sentence_bert_config.json", config)
    return folder


def write(path: Path, content: Any) -> None:
    """Write JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def test_another_model(tmp_path: Path) -> None:
    """A folder of the operator's: its pooling, its window, its name."""
    folder = make_model(tmp_path / "mine", pooling={"pooling_mode": "cls"})
    mine = Encoder.load(folder, precision="fp32", cache=tmp_path / "cache")
    oracle = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    texts = ["a house", "what is the price of the house at 12 Oak Street?"]
    wanted = oracle.encode(texts, normalize_embeddings=True)
    for encoding, row in zip(mine.encode(texts), wanted, strict=True):
        assert encoding is not None
        assert np.abs(encoding.vector - row).max() < 1e-4
    assert mine.identity.startswith("mine@")
    assert mine.max_tokens == 64
    assert mine.dims == 32


def test_fingerprint_follows_the_content(tmp_path: Path) -> None:
    """Not the folder's place; and other weights are another model."""
    first = make_model(tmp_path / "a" / "mine", pooling={"pooling_mode": "mean"})
    second = tmp_path / "b" / "mine"
    shutil.copytree(first, second)
    assert EncoderModel.find(first).fingerprint == EncoderModel.find(second).fingerprint
    weights = second / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    assert EncoderModel.find(first).fingerprint != EncoderModel.find(second).fingerprint


@pytest.mark.parametrize(
    ("file", "content", "complaint"),
    [
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "pools by"),
        ("1_Pooling/config.json", {"pooling_mode": ["mean", "cls"]}, "mean and cls"),
        ("1_Pooling/config.json", {}, "pools by"),
        (
            "modules.json",
            [
                {"path": "", "type": "x.Transformer"},
                {"path": "1_Pooling", "type": "x.Pooling"},
                {"path": "2_Dense", "type": "x.Dense"},
            ],
            "Dense",
        ),
        ("modules.json", None, "modules.json"),
        (
            "config_sentence_transformers.json",
            {"prompts": {"query": "query: "}, "default_prompt_name": "query"},
            "prompt",
        ),
    ],
)
def test_refused_models(tmp_path: Path, file: str, content: Any, complaint: str) -> None:
    """What would give other vectors than the model's own is refused in words."""
    folder = make_model(tmp_path, pooling={"pooling_mode": "mean"})
    (folder / file).unlink(missing_ok=True)
    if content is not None:
        write(folder / file, content)
    with pytest.raises(EncoderError, match=complaint):
        EncoderModel.find(folder)


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    """One error, whatever is missing: also where the export fails."""
    folder = make_model(tmp_path / "mine", pooling={"pooling_mode": "mean"})
    (folder / "model.safetensors").unlink()
    with pytest.raises(EncoderError, match=r"exporting mine to ONNX failed: .*safetensors"):
        Encoder.load(folder, cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.sealed"))


def test_weights_cannot_saturate() -> None:
    """They keep to seven bits: see `quantization`. All but embeddings and norms is quantised."""
    encoder()
    model = onnx.load_from_string(exported(MODEL, "int8", CACHE))
    weights = [
        numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8
    ]
    assert len(weights) == 36
    assert max(int(np.abs(matrix.astype(int)).max()) for matrix in weights) == 63


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was exported, by a double that takes no time."""
    made: list[str] = []

    def export(model: EncoderModel, precision: str, cache: Path) -> bytes:
        assert cache.is_dir()
        made.append(precision)
        return f"{model.name} {precision} {len(made)}".encode()

    monkeypatch.setattr(onnx_export, "_export", export)
    return made


def test_exported_once(tmp_path: Path, exports: list[str]) -> None:
    """For each precision; the folder is made."""
    cache = tmp_path / "new" / "cache"
    for _ in range(2):
        assert exported(MODEL, "int8", cache) == b"all-MiniLM-L6-v2 int8 1"
        assert exported(MODEL, "fp32", cache) == b"all-MiniLM-L6-v2 fp32 2"
    assert exports == ["int8", "fp32"]


@pytest.mark.parametrize("damage", [b"", b"short", bytes(100)])
def test_damaged_file_is_made_again(tmp_path: Path, exports: list[str], damage: bytes) -> None:
    """A truncated or an altered one, once."""
    exported(MODEL, "int8", tmp_path)
    (file,) = tmp_path.glob("*.sealed")
    file.write_bytes(damage)
    assert exported(MODEL, "int8", tmp_path).endswith(b"int8 2")
    assert exported(MODEL, "int8", tmp_path).endswith(b"int8 2")
    assert len(exports) == 2


def test_cache_that_cannot_be_written(tmp_path: Path, exports: list[str]) -> None:
    """Is said with its place."""
    (tmp_path / "file").touch()
    with pytest.raises(EncoderError, match=r"cannot be kept in .*file"):
        exported(MODEL, "int8", tmp_path / "file")
    assert exports == []


def test_processes_that_start_at_once_export_once(tmp_path: Path) -> None:
    """One exports, the others wait for its file."""
    program = (
        "import sys, time; from pathlib import Path; from origin.semantic import onnx_export as x;"
        "from origin.semantic.encoder_model import EncoderModel; cache = Path(sys.argv[1])\n"
        "def export(*_):\n"
        "    with (cache / 'made').open('a') as file: file.write('x')\n"
        "    time.sleep(0.5)\n"
        "    return b'model'\n"
        "x._export = export\n"
        "assert x.exported(EncoderModel.find(), 'int8', cache) == b'model'"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    root = Path(__file__).parents[3]
    processes = [subprocess.Popen(command, cwd=root) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert (tmp_path / "made").read_text() == "x"


def test_a_user_without_a_home_has_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container under a number; an origin goes on without the encoder."""

    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", home)
    with pytest.raises(EncoderError, match="no folder"):
        Encoder.load()
