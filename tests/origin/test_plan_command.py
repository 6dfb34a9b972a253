"""`encore plan` as users run it."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from origin.control_commands import CommandError
from origin.plan_command import settings_of
from origin.settings import Settings
from tests.support.commands import encore, environ

PRICES = '{"gpt-4o*": {"input": 2.5, "output": 10}}'


def question(at_s: float, text: str, **more: Any) -> bytes:
    """A line that asks."""
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": text}]}
    return json.dumps({"time": 1_790_000_000 + at_s, "body": body, **more}).encode() + b"\n"


LOG = b"".join(
    [
        question(0, "How warm is it in Oslo?"),
        question(10, "how  warm is it in Oslo?"),
        b'{"body": \n',
        question(400, "How warm is it in Oslo?"),
        question(4000, "How warm is it in Oslo?"),
    ]
)


@pytest.fixture
def log(tmp_path: Path) -> str:
    """A file with a log."""
    (tmp_path / "log.jsonl").write_bytes(LOG)
    return "log.jsonl"


def planned(tmp_path: Path, *arguments: str, **variables: str) -> dict[str, Any]:
    """The JSON of a plan."""
    done = encore(tmp_path, "plan", *arguments, "--json", **variables)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout, parse_constant=pytest.fail)
    return found


def test_settings_stand_side_by_side(tmp_path: Path, log: str) -> None:
    """Each changes one choice of the base; what is no request is counted and named."""
    found = planned(
        tmp_path,
        *(log, "--ttl", "1h,5m", "--normalisation", "exact,text", "--admit-after", "1,2"),
        ENCORE_PRICES=PRICES,
    )
    assert found["base"] == {
        "ttl_s": 3600,
        "normalisation": "exact",
        "admit_after": 1,
        "semantic": "off",
    }
    rates = {each["name"]: each["hit_rate"] for each in found["settings"]}
    assert rates == {
        "1 h, exact, admit after 1": 0.5,
        "lifetime 5 min": 0.5,
        "normalisation text": 0.75,
        "admit after 2": 0.5,
    }
    assert found["log"]["requests"] == 4
    assert [each["line"] for each in found["log"]["first_bad_lines"]] == [3]
    first = found["settings"][0]
    assert first["usd"]["without_cache"] == pytest.approx(4 * 0.0025 + 4 * 6 * 2.5e-6, rel=0.01)
    assert first["tokens"]["saved"]["completion"] == 500
    assert set(found["advice"]) == {"ttl_s", "normalisation", "admit_after", "semantic"}


def test_it_says_what_to_choose(tmp_path: Path, log: str) -> None:
    """In a table and a sentence a choice; bad lines go beside."""
    done = encore(tmp_path, "plan", log)
    assert done.returncode == 0, done.stderr
    assert "log.jsonl: 4 requests over 1.1 h, 1 lines that are none" in done.stdout
    for title in ("Lifetime: ", "Normalisation: ", "Admission to KV: ", "Semantic match: "):
        assert title in done.stdout
    assert "set ENCORE_PRICES" in done.stdout
    assert done.stderr.startswith("log.jsonl:3: ")
    assert "Oslo" not in done.stdout + done.stderr


def test_the_base_is_what_is_set_here(tmp_path: Path, log: str) -> None:
    """By encore.toml and environment."""
    (tmp_path / "encore.toml").write_text("admit_after = 3\n")
    found = planned(tmp_path, log, ENCORE_TTL_S="7200", ENCORE_MAX_TTL_S="7200")
    assert (found["base"]["ttl_s"], found["base"]["admit_after"]) == (7200, 3)
    assert {each["ttl_s"] for each in found["settings"]} == {300, 3600, 7200}


@pytest.mark.parametrize(
    ("choice", "why"),
    [
        ({"ttl": "90d"}, "ENCORE_MAX_TTL_S"),
        ({"ttl": "1h,"}, None),
        ({"normalisation": "all"}, "--normalisation: 'all'"),
        ({"admit_after": "0"}, "--admit-after: '0'"),
        ({"admit_after": ",".join(map(str, range(1, 100)))}, "settings are too many"),
        ({"semantic": "loose"}, "--semantic: "),
    ],
)
def test_choices(choice: dict[str, str], why: str | None) -> None:
    """What makes no sense is refused by the option's name."""
    configured = Settings(secret=SecretStr("a secret of the tests, long enough"))
    given: dict[str, Any] = {"ttl": None, "normalisation": None, "admit_after": None}
    with nullcontext() if why is None else pytest.raises(CommandError, match=why):
        settings_of(configured, **(given | {"semantic": "off"} | choice))


def test_a_list_of_prompts_from_stdin(tmp_path: Path) -> None:
    """Packed; at a rate, for it has no times."""
    done = subprocess.run(
        [sys.executable, "-m", "origin.cli", "plan", "-", "--json", "--rate", "0.0001"],
        cwd=tmp_path,
        env=environ(),
        input=gzip.compress(b"How warm is it?\nHow cold is it?\nHow warm is it?\n"),
        capture_output=True,
        timeout=60,
        check=False,
    )
    found = json.loads(done.stdout)
    assert found["log"] | {"requests": 3, "without_time": 3, "hours": 5.556} == found["log"]
    rates = {each["name"]: each["hit_rate"] for each in found["settings"]}
    assert rates["lifetime 5 min"] == 0
    assert rates["1 d, exact, admit after 1"] == pytest.approx(1 / 3, abs=1e-5)


def test_a_log_is_made_up_read_and_drawn(tmp_path: Path) -> None:
    """As much of it as asked for."""
    done = encore(tmp_path, "plan", "--generate", "500", "--out", "made.jsonl.gz", "--zipf", "1.2")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    found = planned(tmp_path, "made.jsonl.gz", "--limit", "400", "--plot", "plan.svg")
    assert found["log"]["requests"] == 400
    assert "normalisation text" in (tmp_path / "plan.svg").read_text()


def test_semantic_match_is_the_real_one(tmp_path: Path) -> None:
    """Of two questions that mean the same the second is a hit, unless its request refuses it."""
    home = "Analyze this property: 123 Main St, 3BR/2BA, $450k"
    same = "Please analyze: 123 Main St, 3BR/2BA, asking $450k"
    other = "Analyze this property: 124 Main St, 3BR/2BA, $450k"
    stricter = {"headers": {"Encore-Semantic": "off"}}
    lines = [
        question(0, home),
        question(1, other),
        question(2, same, **stricter, location="sin"),
        question(10, f"{same}  ", location="fra"),
        question(11, f"{same}  ", location="fra"),
        question(12, f"{same}  ", **stricter),
    ]
    (tmp_path / "log.jsonl").write_bytes(b"".join(lines))
    arguments = ("log.jsonl", "--semantic", "off,strict", "--generation-s", "0")
    found = planned(tmp_path, *arguments)
    by_name = {each["name"]: each for each in found["settings"]}
    strict = by_name["semantic strict"]
    assert strict["requests"]["semantic"] == 1
    assert (strict["requests"]["model"], strict["promoted_hits"]) == (4, 1)
    assert by_name["1 d, exact, admit after 1"]["requests"]["model"] == 4


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "--generate N"),
        (("log.jsonl", "--generate", "5"), "name a log"),
        (("--generate", "5"), "--out"),
        (("--generate", "5", "--out", "no/such/file"), "cannot be written"),
        (("--generate", "5", "--out", "x", "--unique", "2"), "unique must be from 0 to 1"),
        (("no.jsonl",), "no.jsonl cannot be read: No such file"),
        (("log.jsonl", "--ttl", "soon"), "--ttl 'soon'"),
        (("log.jsonl", "--tenant", "No"), "--tenant: "),
        (("log.jsonl", "--plot", "x.doc"), "no kind of picture"),
        (("empty.jsonl",), "there is no request in it"),
        (("cut.gz",), "cannot be read"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, log: str, arguments: tuple[str, ...], why: str
) -> None:
    """Which says what to mend."""
    assert log
    (tmp_path / "empty.jsonl").write_bytes(b"\n")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(LOG)[:-20])
    done = encore(tmp_path, "plan", *arguments)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("encore: ")
    assert why in last
