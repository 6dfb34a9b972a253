"""What an encoder must know of a sentence-transformers model before it runs, from its files.

Knows neither torch nor ONNX. What is not understood is refused here, in words: vectors that are
almost the model's own would be wrong without anybody noticing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self, cast

from huggingface_hub import snapshot_download

from origin.engine.fingerprints import fingerprint
from origin.failures import first_line
from origin.semantic.default_model import DEFAULT_NAME, default_folder

Pooling = Literal["mean", "cls"]
_POOLINGS: Final = frozenset({"mean", "cls"})
_DOWNLOADED: Final = ("*.json", "*.txt", "*.model", "*.safetensors")
_NOT_DOWNLOADED: Final = ("onnx/*", "openvino/*")
_UNLIMITED_TOKENS: Final = 1_000_000
"""Tokenizers without a limit state 1e30."""


class EncoderError(Exception):
    """The encoder cannot be made, or failed at its work. One line, for operators."""


@dataclass(frozen=True, kw_only=True)
class EncoderModel:
    """A model's files and what they say.

    `fingerprint` is 16 hex digits that change with the model's content, `max_tokens` the window
    in tokens, special ones included.
    """

    name: str
    folder: Path
    fingerprint: str
    max_tokens: int
    pooling: Pooling
    lower_case: bool

    @classmethod
    def find(cls, source: str | Path | None = None) -> Self:
        """Read a folder, a hub id (downloaded where it is not there yet) or the packaged default.

        Blocking. Raises EncoderError.
        """
        try:
            return cls._read(source)
        except EncoderError:
            raise
        except (OSError, ValueError, KeyError, TypeError) as error:
            shown = "the default encoder" if source is None else str(source)
            kind, why = type(error).__name__, first_line(error)
            raise EncoderError(f"{shown} cannot be read: {kind}: {why}") from error

    @classmethod
    def _read(cls, source: str | Path | None) -> Self:
        if source is None:
            folder, name = default_folder(), DEFAULT_NAME
        elif Path(source).is_dir():
            folder, name = Path(source), Path(source).resolve().name
        else:
            name = str(source)
            allowed, ignored = list(_DOWNLOADED), list(_NOT_DOWNLOADED)
            folder = Path(snapshot_download(name, allow_patterns=allowed, ignore_patterns=ignored))
        _check_modules(name, folder)
        transformer = _load(folder / "sentence_bert_config.json", missing={})
        return cls(
            name=name,
            folder=folder,
            fingerprint=fingerprint(str(source or folder), folder).removeprefix("fp_"),
            max_tokens=_max_tokens(folder, transformer),
            pooling=_pooling(name, folder),
            lower_case=bool(transformer.get("do_lower_case")),
        )


def _check_modules(name: str, folder: Path) -> None:
    modules = _load(folder / "modules.json")
    kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
    if kinds not in (["Transformer", "Pooling", "Normalize"], ["Transformer", "Pooling"]):
        raise EncoderError(
            f"{name} is made of {', '.join(kinds)}; only Transformer, Pooling and Normalize, "
            "in this order, can be exported"
        )
    if modules[0]["path"]:
        raise EncoderError(f"{name} keeps its transformer in a folder of its own")
    prompts = _load(folder / "config_sentence_transformers.json", missing={})
    if (prompts.get("prompts") or {}).get(prompts.get("default_prompt_name")):
        raise EncoderError(f"{name} puts a prompt before every text, which is not supported")


def _pooling(name: str, folder: Path) -> Pooling:
    path = _load(folder / "modules.json")[1]["path"]
    config = _load(folder / path / "config.json")
    modes = config.get("pooling_mode")
    if modes is None:
        old = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}
        modes = [
            old.get(key, key)
            for key, on in config.items()
            if key.startswith("pooling_mode_") and on
        ]
    modes = [modes] if isinstance(modes, str) else list(modes)
    if len(modes) != 1 or modes[0] not in _POOLINGS:
        raise EncoderError(f"{name} pools by {' and '.join(modes)}; only mean or cls is supported")
    return cast("Pooling", modes[0])


def _max_tokens(folder: Path, transformer: dict[str, Any]) -> int:
    """As sentence-transformers has it: its own limit, else the least of tokenizer's and model's."""
    stated = transformer.get("max_seq_length")
    if stated is None:
        tokenizer = _load(folder / "tokenizer_config.json", missing={})
        positions = _load(folder / "config.json").get("max_position_embeddings")
        limits = (tokenizer.get("model_max_length"), positions)
        stated = min((limit for limit in limits if limit is not None), default=_UNLIMITED_TOKENS)
    return int(min(stated, _UNLIMITED_TOKENS))


def _load(path: Path, *, missing: Any = None) -> Any:
    if missing is not None and not path.exists():
        return missing
    return json.loads(path.read_text("utf-8"))
