"""The commands that measure, explain and fit semantic match, with neither secret nor Redis."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from origin.semantic.calibration import DEFAULT_CALIBRATION, Calibration, PairStep, Step
from origin.semantic.verifier import Verifier
from tests.support.commands import encore

FLATS = "What do flats in Oslo cost to rent below 900 euros?"
SAME_FLATS = "What do flats in Oslo cost to rent under 900 euros?"
OTHER_FLATS = "What do flats in Oslo cost to rent below 950 euros?"
PAIRS: list[dict[str, Any]] = [
    {"a": FLATS, "b": SAME_FLATS, "same": 1, "source": "s", "kind": "paraphrase"},
    {"a": FLATS, "b": OTHER_FLATS, "same": 0, "source": "s", "kind": "a [b]quantity[/b]"},
    {"a": SAME_FLATS, "b": OTHER_FLATS, "same": 0, "source": "t"},
    {"a": FLATS, "b": "long " * 300, "same": 1, "source": "t"},
]
MISTAKES = [
    ("[1,", "line 2 is no JSON"),
    ('{"b": "x", "same": 1}', 'line 2: "a" is missing'),
    ('{"a": "x", "b": "y", "same": 0.5}', 'line 2: "same" is neither 0 nor 1'),
]


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    """A file of labelled pairs, and a calibration by which all matches that no veto forbids."""
    verifier = Verifier.load()
    calibration = Calibration(
        verifier=verifier.version,
        encoder=verifier.encoder,
        base_rate=0.2,
        queries=0,
        entries=0,
        positives=1000,
        negatives=1000,
        steps=(Step(1e-9, 1000, 0, 0.003),),
        pair_steps=(PairStep(1e-9, 1000, 0, 0.003, "s"),),
    )
    (tmp_path / "calibration.json").write_text(calibration.to_json())
    (tmp_path / "encore.toml").write_text('semantic_calibration = "calibration.json"\n')
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    return "pairs.jsonl"


def refused(tmp_path: Path, *arguments: str, **variables: str) -> str:
    """The one line with which a command refuses."""
    done = encore(tmp_path, *arguments, **variables)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("encore: ")
    return line.removeprefix("encore: ")


def test_eval_prints_one_object(tmp_path: Path, pairs: str) -> None:
    """Of counts and rates, by source, kind and cosine; a packed file is read as well."""
    packed = tmp_path / "pairs.jsonl.gz"
    packed.write_bytes(gzip.compress((tmp_path / pairs).read_bytes()))
    done = encore(tmp_path, "eval", "semantic", packed.name, "--json", "--bound", "0.01")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout, parse_constant=pytest.fail)
    expected = {
        "pairs": 4,
        "positives": 2,
        "negatives": 2,
        "hits": 1,
        "false_hits": 0,
        "recall": 0.5,
        "false_hit_rate": 0.0,
    }
    assert found["decision"].items() >= expected.items()
    assert {name: each["hits"] for name, each in found["by_source"].items()} == {"s": 1, "t": 0}
    assert list(found["by_kind"]) == ["a [b]quantity[/b]", "paraphrase"]
    assert found["cosine"]["0.80"]["false_hits"] == 2
    assert (found["past_window"], found["bound"], found["threshold"]) == (1, 0.01, 1e-9)


def test_eval_prints_a_table_for_a_narrow_terminal(tmp_path: Path, pairs: str) -> None:
    """A row is a line; what was not read is said."""
    done = encore(tmp_path, "eval", "semantic", pairs, COLUMNS="80")
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 80
    row = r"^all pairs +4 +50\.00% +0 +0\.00% +0\.0 to 84\.2% +100\.00% +0\.\d+ *$"
    assert re.search(row, done.stdout, re.MULTILINE), done.stdout
    assert "[b]" in done.stdout
    assert "Mode strict. Estimate: " in done.stdout
    assert "Pairs past the encoder's window, never matched: 1." in done.stdout


def test_eval_draws(tmp_path: Path, pairs: str) -> None:
    """A picture beside the numbers."""
    done = encore(tmp_path, "eval", "semantic", pairs, "--plot", "curve.png")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_that_cannot_be_drawn_is_refused_at_once(tmp_path: Path, pairs: str) -> None:
    """Before anything is decided: of no kind, in no folder, without matplotlib."""
    draw = ("eval", "semantic", pairs, "--plot")
    assert "its name may end in .png" in refused(tmp_path, *draw, "curve.xyz")
    assert "there is no folder none; make it" in refused(tmp_path, *draw, "none/curve.png")
    (tmp_path / "matplotlib.py").write_text("raise ImportError\n")
    assert "pip install matplotlib" in refused(tmp_path, *draw, "curve.png")


@pytest.mark.parametrize(("line", "message"), MISTAKES)
def test_a_wrong_row_is_named(tmp_path: Path, line: str, message: str) -> None:
    """With its file and line."""
    (tmp_path / "rows").write_text(f"{json.dumps(PAIRS[0])}\n{line}\n")
    assert refused(tmp_path, "eval", "semantic", "rows").startswith(f"rows: {message}")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none", None, "none cannot be read: No such file"),
        (".", None, ". cannot be read: Is a directory"),
        (
            "cut.gz",
            gzip.compress(b"x" * 100, mtime=0)[:20],
            "cut.gz cannot be read: Compressed file ended",
        ),
        ("empty", b"\n", "empty: there are no rows; write {"),
    ],
)
def test_a_file_without_pairs_is_refused(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    """In words."""
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert refused(tmp_path, "calibrate", name, "--out", "c.json").startswith(message)


@pytest.mark.parametrize("bound", ["0", "1", "nan", "-1", "abc"])
def test_a_bound_is_a_share(tmp_path: Path, bound: str) -> None:
    """Above 0, which nothing can show, and below 1."""
    said = refused(tmp_path, "explain", "semantic", "a", "b", "--bound", bound)
    assert said.startswith("Invalid value for '--bound': ")
    assert said.endswith("; see `encore explain semantic --help`")


def test_explain_names_the_veto_and_its_words(tmp_path: Path, pairs: str) -> None:
    """With the scores all the same."""
    assert pairs
    done = encore(tmp_path, "explain", "semantic", FLATS, OTHER_FLATS)
    assert (done.returncode, done.stderr) == (0, "")
    said = done.stdout.splitlines()
    assert said[0] == "no match: a veto forbids it"
    assert any(re.fullmatch(r"veto +\w+: .*900.* / .*950.*", line) for line in said), said
    assert any(re.fullmatch(r"verifier's score +0\.\d{4} \(not asked\), .*", line) for line in said)
    assert any(re.fullmatch(r"cosine similarity +0\.\d{4}", line) for line in said)


@pytest.mark.parametrize(
    ("b", "verdict"),
    [
        (SAME_FLATS, "match: no veto, and the verifier's score is high enough"),
        (f" {FLATS}  ", "match: the two are of equal form, and served without asking"),
    ],
)
def test_explain_says_why_two_match(tmp_path: Path, pairs: str, b: str, verdict: str) -> None:
    """As the tier decides."""
    assert pairs
    done = encore(tmp_path, "explain", "semantic", FLATS, b)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, verdict)


def test_explain_refuses_what_is_never_matched(tmp_path: Path) -> None:
    """A text past the encoder's window."""
    said = refused(tmp_path, "explain", "semantic", FLATS, "long " * 300)
    assert re.match(r"B is .*longer than the encoder's window of \d+ tokens; .*: shorten it", said)


def test_what_calibrate_writes_decides(tmp_path: Path, pairs: str) -> None:
    """It says on what it rests, and how to use it."""
    done = encore(tmp_path, "calibrate", pairs, "--out", "own.json", "--base-rate", "0.3")
    assert (done.returncode, done.stderr) == (0, "")
    own = Calibration.load(tmp_path / "own.json")
    assert (own.positives, own.negatives, own.base_rate) == (2, 2, 0.3)
    assert f"own.json: calibration {own.version}; set ENCORE_SEMANTIC_CALIBRATION=" in done.stdout
    use = {"ENCORE_SEMANTIC_CALIBRATION": "own.json"}
    done = encore(tmp_path, "eval", "semantic", pairs, "--json", **use)
    assert json.loads(done.stdout)["basis"] == f"Mode strict. {own.describe(0.01)}"


def test_calibrate_needs_both_kinds(tmp_path: Path) -> None:
    """Of pairs that all match no false hit can be learnt."""
    (tmp_path / "pairs").write_text(json.dumps(PAIRS[0]))
    said = refused(tmp_path, "calibrate", "pairs", "--out", "c.json")
    assert said == "pairs: a calibration needs pairs that match and pairs that do not"
    assert not (tmp_path / "c.json").exists()


def test_a_calibration_of_another_verifier_is_refused(tmp_path: Path) -> None:
    """By the variable's name; a new one is fitted all the same."""
    other = tmp_path / "other.json"
    own = Verifier.load().version
    other.write_text(DEFAULT_CALIBRATION.read_text().replace(own, "another"))
    use = {"ENCORE_SEMANTIC_CALIBRATION": str(other)}
    said = refused(tmp_path, "explain", "semantic", FLATS, OTHER_FLATS, **use)
    assert said.startswith("ENCORE_SEMANTIC_CALIBRATION: the calibration is of verifier another")
    assert said.endswith("; `encore calibrate` makes one")
    (tmp_path / "pairs").write_text("\n".join(map(json.dumps, PAIRS)))
    done = encore(tmp_path, "calibrate", "pairs", "--out", str(other), **use)
    assert done.returncode == 0, done.stderr
