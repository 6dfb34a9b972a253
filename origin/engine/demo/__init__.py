"""The demo model that ships with Encore: its text, its training and its checkpoint."""

from __future__ import annotations

from pathlib import Path

DEMO_NAME = "encore-demo"
DEMO_CHECKPOINT = Path(__file__).parent / "checkpoint"
