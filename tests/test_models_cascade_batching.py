"""Batching generators: every row is answered once, in full batches, in order, whatever the items' sizes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.detectors.cascade.batching import in_batches

sizes_ = st.lists(st.integers(0, 9), max_size=8)


def items_of(sizes: list[int]) -> list[tuple[int, np.ndarray]]:
    rows = np.arange(1, sum(sizes) + 1, dtype=np.float32)[:, None]
    ends = np.cumsum(sizes)
    return [(number, rows[end - size : end]) for number, (size, end) in enumerate(zip(sizes, ends, strict=True))]


class Doubling:
    """Doubles its rows, and notes how many it was given."""

    def __init__(self) -> None:
        self.given: list[int] = []

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        self.given.append(len(rows))
        return rows[:, 0] * 2


@given(sizes_, st.integers(1, 6), st.booleans())
def test_every_row_gets_its_answer_in_order(sizes, size, regroup):
    items = items_of(sizes)
    answered = list(in_batches(items, size, Doubling(), regroup=regroup))
    assert [key for key, _ in answered] == list(range(len(sizes)))
    for (_, rows), (_, answers) in zip(items, answered, strict=True):
        assert answers.tolist() == (rows[:, 0] * 2).tolist()


@given(sizes_.filter(any), st.integers(1, 6))
def test_batches_are_full_but_the_last(sizes, size):
    together, alone = Doubling(), Doubling()
    list(in_batches(items_of(sizes), size, together))
    list(in_batches(items_of(sizes), size, alone, regroup=False))
    assert set(together.given) | set(alone.given) == {size}
    assert len(together.given) == -(-sum(sizes) // size)
    assert len(alone.given) == sum(-(-some // size) for some in sizes)


def test_items_flow_on_as_soon_as_they_are_answered():
    asked = []

    def items():
        for key, rows in items_of([3, 1, 4]):
            asked.append(key)
            yield key, rows

    flow = in_batches(items(), 4, Doubling())
    assert next(flow)[0] == 0
    assert asked == [0, 1]  # the second item filled the batch; the third was not touched


@pytest.mark.parametrize("sizes", [[], [0], [0, 0, 0]])
def test_items_without_rows_get_answers_without_rows(sizes):
    answered = list(in_batches(items_of(sizes), 4, Doubling()))
    assert [len(answers) for _, answers in answered] == sizes
