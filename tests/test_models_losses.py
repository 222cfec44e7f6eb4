"""What is trained against: literal losses, frequencies, weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.training.imbalance import balanced_weights, frequencies
from models.training.losses import ClassLoss


def loss(targets: list[list[float]], logits: list[list[float]], **options: object) -> float:
    made = ClassLoss(**options)  # type: ignore[arg-type]
    return float(np.asarray(made(np.asarray(targets, np.float32), np.asarray(logits, np.float32))))


@pytest.mark.parametrize(
    "targets, logits, options, expected",
    [
        ([[1, 0]], [[0, 0]], {}, math.log(2)),
        ([[0.5, 0.5]], [[0, 0]], {}, math.log(2)),
        ([[1, 0]], [[math.log(3), 0]], {}, math.log(4 / 3)),
        ([[1, 0]], [[math.log(3), 0]], {"label_smoothing": 0.2}, 0.9 * math.log(4 / 3) + 0.1 * math.log(4)),
        ([[1, 0]], [[0, 0]], {"offset": np.log([0.75, 0.25])}, math.log(4 / 3)),
        ([[0, 1]], [[0, 0]], {"offset": np.log([0.75, 0.25])}, math.log(4)),  # a rare class must be said louder
        ([[1, 0], [0, 1]], [[0, 0], [0, math.log(3)]], {}, (math.log(2) + math.log(4 / 3)) / 2),
        ([[0, 0]], [[5, 0]], {}, 0.0),  # nothing is known, nothing is learned
        ([[1, 0]], [[math.log(3), 0]], {"kind": "focal"}, math.log(4 / 3) / 16),
        ([[1, 0]], [[math.log(3), 0]], {"kind": "generalised"}, (1 - 0.75**0.7) / 0.7),
        ([[0.5, 0.5]], [[math.log(3), 0]], {"kind": "squared"}, 0.125),
        ([[1, 0]], [[0, 0]], {"kind": "squared", "offset": np.log([0.75, 0.25])}, 0.125),
        ([[0, 0]], [[5, 0]], {"kind": "focal"}, 0.0),
        ([[0, 0]], [[5, 0]], {"kind": "generalised"}, 0.0),
    ],
)
def test_the_loss(
    targets: list[list[float]], logits: list[list[float]], options: dict[str, object], expected: float
) -> None:
    assert loss(targets, logits, **options) == pytest.approx(expected, abs=1e-6)


def test_what_is_smoothed_does_not_raise_a_rare_class_when_logits_are_adjusted() -> None:
    """The least loss is that of logits by which the wrong classes are all as unlikely, however rare they are."""
    share, smoothing = np.asarray([0.7, 0.25, 0.05]), 0.1
    learned = (1 - smoothing) * np.eye(3)[0] + smoothing * share
    logits = np.log(learned / share)
    assert logits[1] == pytest.approx(logits[2])
    least = float(-(learned * np.log(learned)).sum())
    options = {"label_smoothing": smoothing, "offset": np.log(share)}
    assert loss([[1, 0, 0]], [logits.tolist()], **options) == pytest.approx(least, abs=1e-6)


def test_frequencies_count_weights_and_are_never_nothing() -> None:
    targets = np.asarray([[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    assert frequencies(targets, np.asarray([1.0, 1, 1, 0])) == pytest.approx([1 / 3, 2 / 3, 1e-6])


def test_rare_classes_weigh_more_by_the_root_of_how_much_rarer_they_are() -> None:
    targets = np.asarray([[1, 0]] + [[0, 1]] * 4, np.float32)
    weights = balanced_weights(targets, np.ones(5, np.float32))
    assert weights[0] / weights[1] == pytest.approx(2.0)
    assert weights.sum() == pytest.approx(5.0)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40))
def test_balancing_keeps_the_sum_and_the_zeros(labels: list[int]) -> None:
    targets = np.eye(4, dtype=np.float32)[labels]
    weights = np.asarray([float(n % 3 > 0) for n in range(len(labels))], np.float32)
    balanced = balanced_weights(targets, weights)
    assert balanced.sum() == pytest.approx(weights.sum(), rel=1e-4)
    assert ((balanced == 0) == (weights == 0)).all()
