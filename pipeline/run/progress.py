"""The progress bar of local runs; silent without a terminal."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from transforms.tally import HEARTBEAT_S, TALLY, Totals, read_heartbeats


def totals_from(heartbeat: str) -> Callable[[], Totals]:
    """Returns the source of totals: this process, or the files of worker processes."""
    return (lambda: read_heartbeats(heartbeat)) if heartbeat else TALLY.totals


@contextmanager
def counting_bar(total: int, unit: str, *, quiet: bool) -> Iterator[Callable[[int], object]]:
    """Draws how much of `total` is done while the block runs; yields a function to call with the number done.

    Args:
        quiet: draw nothing; also if standard error is not a terminal.
    """
    from tqdm import tqdm

    shown = not quiet and sys.stderr.isatty()
    with tqdm(total=total, unit=f" {unit}", dynamic_ncols=True, disable=not shown) as drawn:
        yield lambda done: drawn.update(done - drawn.n)


@contextmanager
def bar(total: int | None, *, done: int, totals: Callable[[], Totals], quiet: bool) -> Iterator[None]:
    """Draws images done of total, rate, time left, faces, rejected and cached images while the block runs.

    Args:
        total: images, None if unknown.
        done: images that earlier runs finished.
        quiet: draw nothing; also if standard error is not a terminal.
    """
    if quiet or not sys.stderr.isatty():
        yield
        return
    from tqdm import tqdm

    ended = threading.Event()
    with tqdm(total=total, initial=done, unit=" images", dynamic_ncols=True, smoothing=0.1) as drawn:

        def redraw() -> None:
            now = totals()
            if (words := f"loading {now.loading}: " if now.loading else "") != drawn.desc:
                drawn.set_description_str(words)  # drawn at once, since no image moves the bar yet
            drawn.set_postfix(faces=now.faces, rejected=now.rejected, cached=now.cached, refresh=False)
            drawn.update(done + now.images - drawn.n)

        def watch() -> None:
            while not ended.wait(HEARTBEAT_S):
                redraw()

        thread = threading.Thread(target=watch, name="bar", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            redraw()
