"""`encore kv-size`, in this process, since every new one would load torch again."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import DynamicCache

from origin.cli import main
from origin.control_commands import CommandError
from origin.kv_size_command import bytes_of
from tests.support.commands import encore
from tests.support.tiny_models import measured, tiny_config, tiny_model


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a command left behind."""

    returncode: int | str | None
    stdout: str
    stderr: str


@pytest.fixture
def kv_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Result]:
    """Runs the command in `tmp_path`."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["encore", "kv-size", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Result(returncode=ended.value.code, stdout=said.out, stderr=said.err)

    return run


@pytest.fixture
def gemma(tmp_path: Path) -> str:
    """A folder with the config of a model that mixes sliding and full layers."""
    tiny_config("gemma3").save_pretrained(tmp_path / "gemma[b]")
    return "gemma[b]"


def test_a_table_says_it_in_one_look(kv_size: Callable[..., Result], gemma: str) -> None:
    """Groups of equal layers, bytes, and how many sequences fit; a name is never markup."""
    options = ("--tokens", "40", "--batch", "2", "--dtype", "bfloat16", "--memory", "1MiB")
    result = kv_size(gemma, *options)
    assert (result.returncode or 0, result.stderr) == (0, "")
    assert "gemma[b]: 2 sequences of 40 tokens in bfloat16" in result.stdout
    assert len(result.stdout.splitlines()) < 15
    # A token of a layer: 2 heads, 12 numbers of key and of value, 2 bytes each.
    total = 2 * (2 * 7 + 40) * 96
    for said in (
        "sliding 8 ",
        "2 x (12 + 12)",
        f"{total:,} bytes",
        "96 bytes",
        f"--memory of 1.0 MiB: room for {2**20 // (total // 2)} such sequences",
    ):
        assert said in result.stdout


def test_the_prefix_cache_is_what_they_fit_into(
    kv_size: Callable[..., Result], gemma: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit that is set; where none is, or no origin could start, this machine's default."""
    options = (gemma, "--tokens", "40", "--dtype", "bfloat16")
    monkeypatch.setenv("ENCORE_PREFIX_CACHE_BYTES", "52000")
    monkeypatch.setenv("ENCORE_MODE", "development")
    assert "The prefix cache of 50.8 KiB: room for 10 such" in kv_size(*options).stdout
    monkeypatch.setenv("ENCORE_PREFIX_CACHE_BYTES", "many")
    report = json.loads(kv_size(*options, "--json").stdout)
    assert 0 < report["memory_bytes"] <= 2 << 30


def test_json_says_what_a_real_cache_measures(kv_size: Callable[..., Result], gemma: str) -> None:
    """Layer by layer."""
    result = kv_size(gemma, "--tokens", "30", "--dtype", "float32", "--json")
    report = json.loads(result.stdout)
    model = tiny_model("gemma3")
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        model(torch.ones((1, 30), dtype=torch.long), past_key_values=cache)
    assert [layer["bytes"] for layer in report["layers"]] == measured(cache)
    assert report["bytes"] == sum(measured(cache))
    assert [layer["tokens_held"] for layer in report["layers"]] == [7, 7, 30]
    assert report["bytes_per_token"] == sum(each["bytes_per_token"] for each in report["layers"])
    assert report["bytes_per_further_token"] == report["layers"][2]["bytes_per_token"]


def test_a_window_says_what_it_saves(kv_size: Callable[..., Result]) -> None:
    """However long the sequence: beyond the context too, which a window makes possible."""
    options = ("encore-demo", "--window", "512", "--json", "--dtype", "float32", "--tokens")
    reports = [json.loads(kv_size(*options, tokens).stdout) for tokens in ("2048", "1000000")]
    assert reports[0]["bytes"] == reports[1]["bytes"] == 512 * reports[0]["bytes_per_token"]
    assert reports[0]["bytes_without_window"] == 4 * reports[0]["bytes"]
    assert reports[0]["bytes_per_further_token"] == 0
    shown = kv_size("encore-demo", "--window", "512")
    assert "75.0% saved at 2,048 tokens" in " ".join(shown.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("/nowhere",), "/nowhere: there is no such folder"),
        (("encore-demo", "--tokens", "2049"), "--tokens 2049: beyond the model's context of 2048"),
        (("encore-demo", "--tokens", "0"), "--tokens"),
        (("encore-demo", "--batch", "0"), "--batch"),
        (("encore-demo", "--dtype", "int8"), "--dtype"),
        (("encore-demo", "--window", "4096"), "--window 4096: a window of 4096 tokens is more"),
        (("encore-demo", "--window", "5"), "--window 5: a window of 5 tokens: too small"),
        (("gemma3", "--window", "8"), "slide over 8; take at most 7, or at least 12"),
        (("encore-demo", "--memory", "8"), "--memory '8': not a number with a unit"),
        (("t5",), "t5: a model of type 't5' is not a causal language model"),
        (("gpt2", "--window", "64"), "--window 64: no context window for this model: gpt2 has no"),
    ],
)
def test_what_cannot_be_is_one_line(
    kv_size: Callable[..., Result], tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    """And exit status 2."""
    for name in ("t5", "gpt2", "gemma3"):
        tiny_config(name).save_pretrained(tmp_path / name)
    result = kv_size(*arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert said in line


def test_a_hub_that_cannot_be_reached_is_one_line(tmp_path: Path) -> None:
    """Of a process of its own: nothing else may speak on the way."""
    result = encore(tmp_path, "kv-size", "acme/none", HF_HUB_OFFLINE="1")
    assert (result.returncode, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert "acme/none: no config can be read" in line


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("1B", 1), ("2kB", 2000), ("2KiB", 2048), ("1.5 GiB", 3 * 2**29), ("8TB", 8 * 10**12)],
)
def test_sizes_have_units(text: str, size_bytes: int) -> None:
    """Decimal and binary."""
    assert bytes_of("--memory", text) == size_bytes


@pytest.mark.parametrize("text", ["", "8", "GiB", "-1GiB", "1e9B", "1gib", "1 apple", "nanB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    """It names the option."""
    with pytest.raises(CommandError, match="--memory"):
        bytes_of("--memory", text)
