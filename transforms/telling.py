"""Tells the driver why a stage cannot start on a worker elsewhere: runners hide that in logs and start workers again.

A local run needs none of this: its workers tell Beam, or write `failure.json`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from transforms.provenance import Provenance
from transforms.storage.staged_files import FAILURE
from transforms.storage.stores import store_of

logger = logging.getLogger("pipeline.job")


class Stage(Protocol):
    """A DoFn that knows what it loads, and where to say that it cannot."""

    _provenance: Provenance


Of = TypeVar("Of", bound=Stage)


def telling(setup: Callable[[Of], None]) -> Callable[[Of], None]:
    """Returns a stage's `setup` that leaves a note for the driver if it fails for good."""

    @functools.wraps(setup)
    def told(stage: Of) -> None:
        try:
            setup(stage)
        except Exception as error:
            if stage._provenance.tell and not _may_pass(error):
                _tell(stage._provenance.tell, error)
            raise

    return told


def _may_pass(error: Exception) -> bool:
    """True for faults of storage, which the runner's next attempt may not meet."""
    return isinstance(error, OSError) and bool(getattr(error, "heals", True))


def _tell(place: str, error: Exception) -> None:
    kind: Any = type(error)
    text = f"{kind.__module__}.{kind.__qualname__}: {' '.join(str(error).split())}"
    try:
        store_of(place).put_bytes(FAILURE, text.encode())
    except OSError as fault:  # the runner's log has the error all the same
        logger.warning("the driver cannot be told: %s", fault)
