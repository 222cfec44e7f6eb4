"""An unforeseen fault at one image costs that image its row; the same fault at many images in a row stops the run.

Not here: faults of content, which are foreseen and have reasons of their own (`formats/decode/`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from transforms.formats.publish import StorageError
from transforms.formats.records import Reason, RejectedContent
from transforms.storage.faults import InputFault
from transforms.storage.retrying import may_heal
from transforms.storage.stopping import Stopped

logger = logging.getLogger("pipeline.images")

IN_A_ROW = 20  # images: one damaged archive may hold several adjacent bad ones, but hardly this many of one kind
MESSAGE_SHOWN = 200  # characters of an exception's message

T = TypeVar("T")
Item = TypeVar("Item")


class ProgramFault(RuntimeError):
    """Many images in a row failed in the same way, so the program is at fault, not the images. Resumable."""


class Gate:
    """Admits many threads together, or one alone.

    For work that ran out of memory: retried alone, its outcome does not depend on the number of threads.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = self._wanted = 0
        self._held = False

    @contextmanager
    def together(self) -> Iterator[None]:
        """Waits while a thread is alone inside, or waits to be."""
        with self._changed:
            self._changed.wait_for(lambda: not self._wanted)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Waits, from within `together`, until all other threads are outside."""
        with self._changed:
            self._inside -= 1
            self._wanted += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._inside and not self._held)
            self._held = True
        try:
            yield
        finally:
            with self._changed:
                self._held = False
                self._wanted -= 1
                self._inside += 1
                self._changed.notify_all()


GATE = Gate()  # of this process


def contained(image_id: str, work: Callable[[], T]) -> T:
    """Returns the result of `work` for one image; call it within `GATE.together()`.

    Raises:
        RejectedContent: a fault of content as it is; any unforeseen exception as `INTERNAL_ERROR`, with a warning. The
            exception is its cause. Stopped, StorageError, InputFault, OSError: no fault of the image.
    """
    try:
        try:
            return work()
        except MemoryError:
            with GATE.alone():
                return work()
    except (RejectedContent, Stopped, StorageError, InputFault):
        raise
    except Exception as error:  # broad: an unforeseen exception must not cost other images
        if isinstance(error, OSError) and error.errno is not None and may_heal(error):
            raise  # a full disk, too many open files: caused by this machine
        logger.warning(
            "image %r: unforeseen %s: %s; it is rejected as %s",
            image_id, type(error).__name__, " ".join(str(error).split())[:MESSAGE_SHOWN], Reason.INTERNAL_ERROR,
        )  # fmt: skip
        raise RejectedContent(Reason.INTERNAL_ERROR) from error


def contained_batch(
    ids: Sequence[str], items: Sequence[Item], work: Callable[[Sequence[Item]], Sequence[T]]
) -> list[T | RejectedContent]:
    """Returns the results of `work` for several images at once, with a rejection for each image that fails.

    Call it within `GATE.together()`. After an unforeseen exception every image is tried alone, so that only the one
    at fault loses its row.

    Raises:
        Stopped, StorageError, InputFault, OSError: no fault of an image.
    """
    if len(items) > 1:
        try:
            return list(work(items))
        except (Stopped, StorageError, InputFault):
            raise
        except Exception as error:  # noqa: BLE001 - the image at fault is found below
            logger.debug("unforeseen %s in a batch of %d images: trying each alone", type(error).__name__, len(items))
    return [_alone(image_id, item, work) for image_id, item in zip(ids, items, strict=True)]


def _alone(image_id: str, item: Item, work: Callable[[Sequence[Item]], Sequence[T]]) -> T | RejectedContent:
    try:
        return contained(image_id, lambda: work([item])[0])
    except RejectedContent as rejected:
        return rejected


def fault_of(rejected: RejectedContent) -> str:
    """Returns the class name of the unforeseen exception that caused a rejection, "" if it was foreseen."""
    return type(rejected.__cause__).__name__ if rejected.reason is Reason.INTERNAL_ERROR else ""


class FaultsInARow:
    """Counts consecutive unforeseen faults of one kind, in the order of the images.

    An image that comes through ends the row. One that is rejected for its content neither ends it nor counts.
    """

    def __init__(self) -> None:
        self._kind = ""
        self._count = 0

    def note(self, ids: Sequence[str], reasons: Sequence[Reason | None], faults: Sequence[str]) -> None:
        """Takes the outcomes of the next images.

        Args:
            faults: class name of the exception where a reason is `INTERNAL_ERROR`.

        Raises:
            ProgramFault: the row is `IN_A_ROW` images long.
        """
        for image_id, reason, fault in zip(ids, reasons, faults, strict=True):
            if reason is None:
                self._count = 0
            elif fault:
                self._count = self._count + 1 if fault == self._kind else 1
                self._kind = fault
            if self._count == IN_A_ROW:
                raise ProgramFault(
                    f"{IN_A_ROW} images in a row, up to {image_id}, failed with an unforeseen {fault}, so the program "
                    "or its installation is at fault, not the images: please report the warnings above"
                )
