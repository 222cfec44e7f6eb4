"""Works ahead in threads, bounded and in order, so that reading, decoding and writing overlap with the device.

A runner calls stages one after the other in one thread, so nothing overlaps without our own threads.
A stage puts block n in and yields block n-k, and the rest when its bundle ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


class Ahead(Generic[In, Out]):
    """Splits each value into tasks for a pool and joins their results; values leave in the order they arrived.

    Args:
        split: value -> tasks, each a callable without arguments that a thread of the pool runs.
        join: (value, results of its tasks in order) -> output.
        threads: size of the pool.
        depth: most values in progress at a time, which bounds memory.
    """

    def __init__(
        self,
        split: Callable[[In], Sequence[Callable[[], Any]]],
        join: Callable[[In, list[Any]], Out],
        *,
        threads: int,
        depth: int,
    ) -> None:
        self._split = split
        self._join = join
        self._depth = depth
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="ahead")
        self._waiting: deque[tuple[In, list[Future[Any]]]] = deque()

    def put(self, value: In) -> Iterator[Out]:
        """Adds a value; yields finished values while there are more than `depth`."""
        self._waiting.append((value, [self._pool.submit(task) for task in self._split(value)]))
        while len(self._waiting) > self._depth:
            yield self._take()

    def ready(self) -> Iterator[Out]:
        """Yields finished values in order, without waiting."""
        while self._waiting and all(future.done() for future in self._waiting[0][1]):
            yield self._take()

    def drain(self) -> Iterator[Out]:
        """Yields all remaining values, in order."""
        while self._waiting:
            yield self._take()

    def close(self) -> None:
        """Drops waiting tasks and ends the threads."""
        for _, futures in self._waiting:
            for future in futures:
                future.cancel()
        self._waiting.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _take(self) -> Out:
        value, futures = self._waiting.popleft()
        return self._join(value, [future.result() for future in futures])


def single(work: Callable[[In], Out], *, depth: int) -> Ahead[In, Out]:
    """Returns an `Ahead` with one thread that runs `work` on each value."""
    return Ahead(lambda value: [lambda: work(value)], lambda _, results: results[0], threads=1, depth=depth)
