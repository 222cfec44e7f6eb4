"""Whether this program runs as the executable that PyInstaller made, which has some commands only."""

from __future__ import annotations

import importlib.util
import sys

from pipeline.errors import UsageError
from pipeline.house import DISTRIBUTION


def is_packed() -> bool:
    """True in the executable."""
    return bool(getattr(sys, "frozen", False))


def check_packed(command: str, module: str) -> None:
    """Raises if the executable lacks the module of a command.

    Raises:
        UsageError: says where the command is.
    """
    if is_packed() and importlib.util.find_spec(module) is None:
        raise UsageError(
            f"{command} is not in the executable, which has label-local and live; pip install {DISTRIBUTION} has it"
        )
