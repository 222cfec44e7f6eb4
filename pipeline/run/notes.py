"""Notes to the user on the way: lines on standard error that `--quiet` silences, as it does warnings."""

from __future__ import annotations

import logging
import sys

logger = logging.getLogger("pipeline.notes")


def note(text: str) -> None:
    """Prints one line on standard error, unless the user wants none."""
    if logger.isEnabledFor(logging.WARNING):
        print(text, file=sys.stderr, flush=True)
