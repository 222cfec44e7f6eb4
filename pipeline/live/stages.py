"""How long each stage takes a frame: counted in steps of a tenth of a millisecond, in memory that does not grow.

Stages of several frames run at the same time, so three figures say different things: a stage's own time; the *latency*
of a frame, from when it was there to be read until it is written, waiting included; and the *interval* from the end of
the frame before to its own, which is what a frame costs where the source does not set the pace.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

STEP_MS = 0.1
STEPS = 20_000  # up to two seconds; what takes longer counts as that
LATENCY, INTERVAL = "latency", "interval"


class Stages:
    """Times of stages, in the order in which they first end. Its methods may be called from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counts: dict[str, np.ndarray] = {}
        self._counting = threading.Lock()
        self._ended: float | None = None  # when the last frame ended

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Counts the time that the block takes."""
        began = self._clock()
        yield
        self.since(began, stage)

    def since(self, began: float, stage: str) -> None:
        """Counts the time from `began`, on the clock, until now."""
        self._count(stage, self._clock() - began)

    def end_frame(self, came: float) -> None:
        """Ends a frame; frames end one after another, in order.

        Args:
            came: when it was there to be read, on the clock.
        """
        now = self._clock()
        self._count(LATENCY, now - came)
        if self._ended is not None:
            self._count(INTERVAL, now - self._ended)
        self._ended = now

    def _count(self, stage: str, spent_s: float) -> None:
        with self._counting:
            counts = self._counts.setdefault(stage, np.zeros(STEPS, np.int64))
            counts[min(STEPS - 1, int(spent_s * 1000 / STEP_MS))] += 1

    @property
    def frames(self) -> int:
        """Frames that have ended."""
        return self.counted(LATENCY)

    def counted(self, stage: str) -> int:
        """Returns how many times of a stage were counted."""
        return int(self._counts[stage].sum()) if stage in self._counts else 0

    def percentile_ms(self, stage: str, share: float) -> float:
        """Returns the time within which a share of the frames passed a stage, to a tenth of a millisecond."""
        within = np.cumsum(self._counts[stage])
        return float((np.searchsorted(within, share * within[-1]) + 1) * STEP_MS)

    def within(self, stage: str, budget_ms: float) -> int:
        """Returns how many times of a stage were at most so long."""
        return int(self._counts[stage][: round(budget_ms / STEP_MS)].sum()) if stage in self._counts else 0

    def names(self) -> Sequence[str]:
        """Returns the stages, latency and interval last."""
        last = (LATENCY, INTERVAL)
        return [*(name for name in self._counts if name not in last), *(name for name in last if name in self._counts)]
