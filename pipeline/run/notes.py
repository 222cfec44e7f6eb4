"""Progress notes: lines on standard error that `--quiet` silences, like warnings."""

from __future__ import annotations

import logging
import sys

logger = logging.getLogger("pipeline.notes")


def note(text: str) -> None:
    """Prints one line on standard error, unless --quiet is given."""
    if logger.isEnabledFor(logging.WARNING):
        print(text, file=sys.stderr, flush=True)
