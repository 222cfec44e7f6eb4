"""Finds the settings files that ship, so that `--config configs/kaggle.yaml` works from any folder."""

from __future__ import annotations

import os
from pathlib import Path

CONFIGS = "configs"
# The first is for an installed wheel (setup.py copies them there), the second for a source tree.
HOMES = (Path(__file__).resolve().parents[1], Path(__file__).resolve().parents[2])


def found(path: Path) -> Path:
    """Returns the shipped file for a path `configs/…`, unless a file exists at the path itself."""
    if path.parts[:1] != (CONFIGS,) or os.path.exists(path):
        return path
    return next((home / path for home in HOMES if os.path.isfile(home / path)), path)
