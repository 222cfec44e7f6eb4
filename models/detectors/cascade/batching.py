"""Batching generators: rows of many items go through a function in full batches of one size, regrouped in between."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

Key = TypeVar("Key")
Run = Callable[[np.ndarray], np.ndarray]


@dataclass
class _Waiting(Generic[Key]):
    """An item whose rows are not all answered yet."""

    key: Key
    missing: int
    answers: list[np.ndarray] = field(default_factory=list)


def in_batches(
    items: Iterable[tuple[Key, np.ndarray]], size: int, run: Run, *, regroup: bool = True
) -> Iterator[tuple[Key, np.ndarray]]:
    """Yields (key, answers) of each item in order: `run`'s answer to each of its rows.

    `run` is always given exactly `size` rows; what is missing in the last batch is filled with zeros. At most one
    batch of rows and the item that fills it are held.

    Args:
        items: (key, (m, ...) rows); m may be 0.
        run: (size, ...) rows to (size, ...) answers; a row's answer must not depend on the others.
        regroup: rows of several items share a batch. If not, every item ends with a batch of its own.
    """
    waiting: deque[_Waiting[Key]] = deque()
    rest: np.ndarray | None = None
    empty: np.ndarray | None = None
    for key, rows in items:
        waiting.append(_Waiting(key, len(rows)))
        rest = rows if rest is None or not len(rest) else np.concatenate([rest, rows])
        last = 0 if regroup else len(rest)
        while len(rest) >= size or last:
            batch, rest = rest[:size], rest[size:]
            empty = _answered(waiting, run(filled(batch, size))[: len(batch)])
            last = 0 if regroup else len(rest)
        yield from _complete(waiting, empty)
    if rest is not None and (len(rest) or empty is None):
        empty = _answered(waiting, run(filled(rest, size))[: len(rest)])
    yield from _complete(waiting, empty)


def filled(rows: np.ndarray, size: int) -> np.ndarray:
    """Returns (size, ...): the rows, then zeros."""
    if len(rows) == size:
        return rows
    return np.concatenate([rows, np.zeros((size - len(rows), *rows.shape[1:]), rows.dtype)])


def _answered(waiting: Iterable[_Waiting[Key]], answers: np.ndarray) -> np.ndarray:
    """Hands the answers to the items that wait, in order, and returns an array of no answers."""
    start = 0
    for item in waiting:
        taken = min(item.missing, len(answers) - start)
        item.answers.append(answers[start : start + taken])
        item.missing -= taken
        start += taken
    return answers[:0]


def _complete(waiting: deque[_Waiting[Key]], empty: np.ndarray | None) -> Iterator[tuple[Key, np.ndarray]]:
    while waiting and not waiting[0].missing and (waiting[0].answers or empty is not None):
        item = waiting.popleft()
        yield item.key, np.concatenate(item.answers) if item.answers else np.asarray(empty)
