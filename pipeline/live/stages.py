"""How long each stage takes a frame: counted in steps of a tenth of a millisecond, in memory that does not grow."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

STEP_MS = 0.1
STEPS = 20_000  # up to two seconds; what takes longer counts as that
FRAME = "frame"  # all stages of a frame together


class Stages:
    """Times of stages, in the order in which they first end."""

    def __init__(self) -> None:
        self._counts: dict[str, np.ndarray] = {}
        self._frame_ms = 0.0

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Counts the time that the block takes."""
        began = time.perf_counter()
        yield
        spent = (time.perf_counter() - began) * 1000
        self._frame_ms += spent
        self._count(stage, spent)

    def end_frame(self) -> None:
        """Counts the sum of the stages since the frame before."""
        self._count(FRAME, self._frame_ms)
        self._frame_ms = 0.0

    def _count(self, stage: str, spent_ms: float) -> None:
        counts = self._counts.setdefault(stage, np.zeros(STEPS, np.int64))
        counts[min(STEPS - 1, int(spent_ms / STEP_MS))] += 1

    @property
    def frames(self) -> int:
        """Frames that have ended."""
        return int(self._counts[FRAME].sum()) if FRAME in self._counts else 0

    def percentile_ms(self, stage: str, share: float) -> float:
        """Returns the time within which a share of the frames passed a stage, to a tenth of a millisecond."""
        within = np.cumsum(self._counts[stage])
        return float((np.searchsorted(within, share * within[-1]) + 1) * STEP_MS)

    def frames_within(self, budget_ms: float) -> int:
        """Returns how many frames took at most so long."""
        return int(self._counts[FRAME][: round(budget_ms / STEP_MS)].sum()) if self.frames else 0

    def names(self) -> Sequence[str]:
        """Returns the stages, the sum last."""
        return [*(name for name in self._counts if name != FRAME), *([FRAME] if self.frames else [])]
