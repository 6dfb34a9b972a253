"""The settings of the local engine that are read as it is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from origin.engine.local import load_local_engine
from origin.settings import SettingsError, load_settings


@pytest.mark.parametrize("text", [None, "{", "[]", '{"house": 7}', '{"house": ""}'])
def test_pinned_prompts_that_cannot_be_read_are_refused(tmp_path: Path, text: str | None) -> None:
    """By the name of the setting, before anything is loaded."""
    file = tmp_path / "pinned.json"
    if text is not None:
        file.write_text(text)
    environ = {"ENCORE_MODE": "development", "ENCORE_PINNED_PROMPTS": str(file)}
    settings = load_settings(environ, tmp_path)
    with pytest.raises(SettingsError, match=r"ENCORE_PINNED_PROMPTS=.*pinned\.json"):
        load_local_engine(settings)


def test_pinned_prompts_need_a_system_message(tmp_path: Path) -> None:
    """Of a chat template that takes one."""
    (tmp_path / "pinned.json").write_text('{"house": "You are an agent."}')
    environ = {
        "ENCORE_MODE": "development",
        "ENCORE_PINNED_PROMPTS": str(tmp_path / "pinned.json"),
        "ENCORE_CHAT_TEMPLATE": "{{ raise_exception('no') }}",
    }
    settings = load_settings(environ, tmp_path)
    with pytest.raises(SettingsError, match=r"ENCORE_PINNED_PROMPTS: .* no system message"):
        load_local_engine(settings)


async def test_prefix_cache_is_as_the_settings_say(tmp_path: Path) -> None:
    """Pinned prompts, limit and mode."""
    (tmp_path / "pinned.json").write_text('{"house": "You are an agent."}')
    environ = {
        "ENCORE_MODE": "development",
        "ENCORE_PINNED_PROMPTS": str(tmp_path / "pinned.json"),
        "ENCORE_PREFIX_CACHE": "fast",
        "ENCORE_PREFIX_CACHE_BYTES": "12345",
    }
    engine = load_local_engine(load_settings(environ, tmp_path))
    prefixes = engine._text._prefixes  # type: ignore[attr-defined]  # of the transformers engine
    assert prefixes.is_fast
    assert prefixes.tree.limit_bytes == 12345
    assert list(prefixes._pinned) == ["house"]
    assert prefixes._pinned["house"]
    await engine.close()
