"""The configuration reference says what the settings are."""

from __future__ import annotations

from pathlib import Path

from origin.settings import Settings, markdown, variable

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"


def test_the_reference_is_current() -> None:
    """It is what `encore settings --markdown` prints."""
    assert REFERENCE.read_text(encoding="utf-8") == markdown()


def test_every_setting_is_described() -> None:
    """Each has its row, and a sentence."""
    for name, field in Settings.model_fields.items():
        assert f"| `{variable(name)}` |" in markdown()
        assert field.description
        assert field.description.endswith(".")
