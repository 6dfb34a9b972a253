"""Where a machine is said to have no Chromium, and none is to be had, nothing is asked of it."""

from __future__ import annotations

import os

from tests.support.chromium import NONE

collect_ignore = ["test_dashboard.py"] if os.environ.get("CHROMIUM") == NONE else []
