"""The progress of a training on stderr: a bar for the steps of an epoch, and a line for each finished epoch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


class EpochBar:
    """Shows the steps of the current epoch on a terminal, and a line for each finished epoch.

    Args:
        steps: steps per epoch.
        epochs: epochs of the whole training.
        describe: turns an epoch's row of the history into words.
        quiet: True to show nothing.
    """

    def __init__(self, steps: int, epochs: int, describe: Callable[[dict[str, float]], str], *, quiet: bool) -> None:
        self._steps, self._epochs, self._describe, self._quiet = steps, epochs, describe, quiet

    def __enter__(self) -> EpochBar:
        from tqdm import tqdm

        shown = not self._quiet and sys.stderr.isatty()
        self._bar: Any = tqdm(total=self._steps, desc="epoch", unit="step", leave=False, disable=not shown)
        return self

    def step(self) -> None:
        self._bar.update()

    def epoch(self, row: dict[str, float]) -> None:
        self._bar.reset()
        if not self._quiet:
            text = f"epoch {row['epoch']:.0f} of {self._epochs}: {self._describe(row)}"
            print(text, file=sys.stderr, flush=True)

    def __exit__(self, *_: object) -> None:
        self._bar.close()
