"""The log in both of its forms."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from origin.logs import JsonFormatter
from tests.support.commands import encore
from tests.support.ports import free_port

SECRET = "0123456789abcdef0123456789abcdef"


def test_json_is_an_object_a_line() -> None:
    """Whatever the message has in it."""
    record = logging.LogRecord(
        "origin.x", logging.WARNING, "x.py", 1, "line\n%s \N{SNOWMAN}", ("two",), None
    )
    line = JsonFormatter().format(record)
    assert "\n" not in line
    said = json.loads(line)
    assert said["message"] == "line\ntwo \N{SNOWMAN}"
    assert (said["level"], said["logger"]) == ("warning", "origin.x")
    assert said["time"].endswith("+00:00")


def test_the_origin_logs_as_it_is_told(tmp_path: Path) -> None:
    """Here of a Redis that is not there, before a model that is not there ends it."""
    result = encore(
        tmp_path,
        "origin",
        ENCORE_SECRET=SECRET,
        ENCORE_LOG_FORMAT="json",
        ENCORE_MODEL=str(tmp_path / "none"),
        REDIS_URL="redis://127.0.0.1:1",
        ENCORE_ORIGIN_PORT=str(free_port()),
    )
    lines = [line for line in result.stderr.splitlines() if line.startswith("{")]
    assert any("cannot be checked now" in json.loads(line)["message"] for line in lines)
