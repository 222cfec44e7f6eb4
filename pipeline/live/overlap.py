"""Frames read, worked on and written at the same time: a thread reads, some work, one writes. Order is kept.

    source -> [reader] -> [workers, a frame each] -> the caller, in order -> [writer]

What fails in a thread is raised where its result is taken. What is in progress is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from queue import Empty, Queue
from threading import Semaphore
from typing import Generic, TypeAlias, TypeVar

from transforms.ahead import Ahead, single

In = TypeVar("In")
Out = TypeVar("Out")
Task: TypeAlias = Callable[[], object]

LOOK_S = 0.1  # how often the one who waits looks whether a stop was asked for
WRITES_WAITING = 2  # most
MOST_AT_ONCE = 8  # frames: drawing and writing, in a thread each, keep up with no more


def frames_at_once(cores: int, *, paced: bool) -> int:
    """Returns how many frames are worked on at the same time.

    As many as there are cores give the most frames a second. Of a camera it is one, by all cores: the least latency.
    """
    return 1 if paced else min(cores, MOST_AT_ONCE)


@contextmanager
def worked_on(
    items: Iterator[In], work: Callable[[In], Out], *, workers: int, in_progress: int, stop: Callable[[], bool]
) -> Iterator[Iterator[tuple[In, Out]]]:
    """Yields an iterator of items and what `work` returns for them, in order. Both run in threads.

    Args:
        items: taken by one thread; an error in it is raised in its place.
        workers: threads that work.
        in_progress: most items that are taken and whose result was not yet given. With 1 the next is taken when the
            result of the one before is given, so that none grows old while it waits.
        stop: the iterator ends as soon as it is true.
    """
    reading = _Reading(items, work, workers, in_progress)
    try:
        yield reading.results(stop)
    finally:
        reading.end()


class _Reading(Generic[In, Out]):
    def __init__(self, items: Iterator[In], work: Callable[[In], Out], workers: int, in_progress: int) -> None:
        self._items, self._work = items, work
        self._room = Semaphore(in_progress)
        self._ended = False
        self._taken: Queue[tuple[In, Future[Out]] | None] = Queue()  # None: there are no more
        self._workers = ThreadPoolExecutor(workers, thread_name_prefix="frame")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="reader")
        self._read_all = self._reader.submit(self._read)

    def _read(self) -> None:
        try:
            while self._may_go_on() and (item := next(self._items, None)) is not None:
                self._taken.put((item, self._workers.submit(self._work, item)))
        finally:
            self._taken.put(None)

    def _may_go_on(self) -> bool:
        self._room.acquire()
        return not self._ended

    def results(self, stop: Callable[[], bool]) -> Iterator[tuple[In, Out]]:
        while not stop():
            with suppress(Empty):
                taken = self._taken.get(timeout=LOOK_S)
                if taken is None:
                    self._read_all.result()  # raises what ended it
                    return
                item, future = taken
                result = future.result()
                self._room.release()
                yield item, result

    def end(self) -> None:
        self._ended = True
        self._room.release()
        self._reader.shutdown(wait=True)
        self._workers.shutdown(wait=True, cancel_futures=True)


@contextmanager
def written_behind() -> Iterator[Callable[[Task], None]]:
    """Yields what runs tasks in a thread of its own, in order; all are done at the end, unless the block raised.

    The call waits for room, and raises what a task before raised.
    """
    writer: Ahead[Task, object] = single(lambda task: task(), depth=WRITES_WAITING)

    def put(task: Task) -> None:
        for _ in writer.put(task):
            pass

    try:
        yield put
        for _ in writer.drain():
            pass
    finally:
        writer.close()
