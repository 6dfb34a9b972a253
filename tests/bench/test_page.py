"""The page of the benchmarks: what it is made of, and what becomes of a script that fails."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import SECTIONS, Measured, Section, chosen, environments, measure, page, run
from bench.peers import PEERS, AbsentError, program_of
from bench.results import Comparison, Result, Table, figure

ROOT = Path(__file__).resolve().parents[2]
TINY = Result(
    comparisons=[
        Comparison(what="a hit", unit="CPU ms", encore=2, beside="another", other=8),
        Comparison(what="memory", unit="MB", encore=100),
    ],
    tables=[Table(title="Times", columns=["", "ms"], rows=[["a hit", "3.5"]])],
    remarks=["the peer was asleep"],
)
SCRIPTS = {
    "tiny": f"import sys; open(sys.argv[-1], 'w').write({TINY.to_json()!r})",
    "broken": "raise SystemExit('it broke')",
    "wrong": f"""
import sys
open(sys.argv[-1], 'w').write({Result(failures=["3 errors"]).to_json()!r})
raise SystemExit(1)
""",
    "printing": "print('a curve')",
}


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of tiny scripts that can be run as modules."""
    for name, text in SCRIPTS.items():
        (tmp_path / f"{name}_script.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def measured(name: str, folder: Path, *, is_data: bool = True) -> Measured:
    """What becomes of one of `SCRIPTS`."""
    section = Section(name=name, title=f"On {name}", module=f"{name}_script", is_data=is_data)
    return measure(section, quick=True, peers=None, folder=folder)


def test_page_has_ratios_before_tables(scripts: Path) -> None:
    """In one order, whichever section they are of."""
    text = page([measured("tiny", scripts)], head="# Head", foot="The foot.")
    expected = [
        "# Head",
        "| a hit | CPU ms | 2.00 | another | 8.00 | 0.250 |",
        "| memory | MB | 100 |  |  |  |",
        "## On tiny",
        "Times",
        "| a hit | 3.5 |",
        "- the peer was asleep",
        "The foot.",
    ]
    places = [text.index(each) for each in expected]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("name", "failure"),
    [
        ("tiny", []),
        ("broken", ["exit status 1: it broke"]),
        ("wrong", ["3 errors"]),
    ],
)
def test_script_that_fails_says_so_in_its_section(
    name: str, failure: list[str], scripts: Path
) -> None:
    """By what it has written, or else by how it ended."""
    one = measured(name, scripts)
    assert one.result.failures == failure
    text = page([one, measured("tiny", scripts)], head="", foot="")
    assert [f"**Failed**: {each}" in text for each in failure] == [True] * len(failure)
    assert "## On tiny" in text


def test_script_that_takes_too_long_is_interrupted() -> None:
    """It may still stop what it has started."""
    script = "import time\ntry:\n    time.sleep(60)\nfinally:\n    print('tidy')"
    status, said, errors = run([sys.executable, "-c", script], timeout_s=3)
    assert (status, said) == (1, "tidy\n")
    assert errors.endswith("it took longer than 3 s")


def test_script_without_data_is_shown_as_it_printed(scripts: Path) -> None:
    """Its output stands in its section."""
    one = measured("printing", scripts, is_data=False)
    assert "## On printing\n\na curve\n" in page([one], head="", foot="")


def test_section_without_a_script_is_not_measured(scripts: Path) -> None:
    """It says so, and is no failure."""
    one = measured("absent", scripts)
    assert one.result.remarks == ["not measured: there is no absent_script"]
    assert not one.result.failures


def test_result_is_read_as_it_was_written() -> None:
    """Every field."""
    assert Result.from_json(TINY.to_json()) == TINY


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.00123, "0.00123"),
        (0.5, "0.500"),
        (1.0, "1.00"),
        (12.34, "12.3"),
        (123.4, "123"),
        (12345.6, "12,346"),
        (float("inf"), "inf"),
    ],
)
def test_figures_have_three_significant_digits(value: float, text: str) -> None:
    """Or all before the point."""
    assert figure(value) == text


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_every_section_has_its_script_and_the_options_it_is_given(section: Section) -> None:
    """No option of a section is unknown to the script, or the page would fail there."""
    spec = importlib.util.find_spec(section.module)
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).read_text("utf-8")
    options = [each for each in (*section.short, *section.quick) if each.startswith("--")]
    options += [f"--{section.peer}"] if section.peer else []
    assert [option for option in options if f'"{option}"' not in source] == []


def test_sections_are_chosen_by_name() -> None:
    """In the page's order; an unknown name is refused."""
    assert [section.name for section in chosen("origin,edge")] == ["edge", "origin"]
    assert chosen(None) == list(SECTIONS)
    with pytest.raises(ValueError, match="nothing: the sections are edge, origin"):
        chosen("edge,nothing")


def test_environments_are_given_by_name() -> None:
    """An unknown name is refused."""
    assert environments(["litellm=/a"]) == {"litellm": Path("/a")}
    with pytest.raises(ValueError, match="NAME=VENV"):
        environments(["other=/a"])


def test_environment_that_was_given_is_not_installed(tmp_path: Path) -> None:
    """Its program is taken; where there is none, it is said."""
    program = tmp_path / PEERS["gptcache"].program
    with pytest.raises(AbsentError, match="does not exist"):
        program_of("gptcache", {"gptcache": tmp_path})
    program.parent.mkdir()
    program.touch()
    assert program_of("gptcache", {"gptcache": tmp_path}) == program


def test_environment_of_the_same_pins_is_used_again(tmp_path: Path) -> None:
    """The stamp is the list of what was installed."""
    environment = tmp_path / "gptcache"
    environment.mkdir()
    (environment / "requirements.txt").write_text("\n".join(PEERS["gptcache"].requirements))
    found = program_of("gptcache", {}, tmp_path)
    assert found == environment / PEERS["gptcache"].program


def test_status_is_1_and_the_page_is_written_where_a_section_fails(tmp_path: Path) -> None:
    """Of the command itself; the sections after it are measured all the same."""
    command = [sys.executable, "-c", MAIN, "--only", "broken,tiny", "--output"]
    (tmp_path / "broken_script.py").write_text(SCRIPTS["broken"])
    (tmp_path / "tiny_script.py").write_text(SCRIPTS["tiny"])
    ran = subprocess.run(
        [*command, str(tmp_path / "page.md")],
        cwd=ROOT,
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1, ran.stderr
    text = (tmp_path / "page.md").read_text("utf-8")
    assert ran.stdout == text + "\n"
    assert "**Failed**: exit status 1: it broke" in text
    assert "- the peer was asleep" in text
    assert "Load average at the start" in text


MAIN = f"""
import bench.__main__ as page
page.SECTIONS = [
    page.Section(name=name, title=name, module=name + "_script")
    for name in {json.dumps(["broken", "tiny"])}
]
page.main()
"""
