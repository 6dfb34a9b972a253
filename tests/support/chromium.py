"""The Chromium of this machine, if any: tests of pages are worth what a real browser says."""

from __future__ import annotations

import os
import shutil

NONE = "none"
_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")


def chromium() -> str | None:
    """Its program: what `CHROMIUM` names (`none`: do without), else one on PATH."""
    named = os.environ.get("CHROMIUM")
    if named == NONE:
        return None
    return named or next(filter(None, map(shutil.which, _NAMES)), None)
