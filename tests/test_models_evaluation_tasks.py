"""As which classes labels and probabilities are compared."""

from __future__ import annotations

import numpy as np
import pytest

from models.evaluation.tasks import two_classes, two_columns

CLASSES = ("happy", "neutral", "surprise")


def test_classes_of_a_binary_question() -> None:
    assert two_classes(["happy"]) == ("not happy", "happy")
    assert two_classes(["happy", "surprise"]) == ("not happy or surprise", "happy or surprise")


def test_probabilities_of_the_positive_classes_are_added() -> None:
    p = np.asarray([[0.2, 0.5, 0.3], [0.6, 0.4, 0.0]])
    assert two_columns(p, CLASSES, ["happy"]).tolist() == pytest.approx(np.asarray([[0.8, 0.2], [0.4, 0.6]]))
    assert two_columns(p, CLASSES, ["surprise", "happy"])[:, 1].tolist() == pytest.approx([0.5, 0.6])


def test_sums_of_rounded_probabilities_stay_probabilities() -> None:
    found = two_columns(np.asarray([[0.333334, 0.0, 0.666667]]), CLASSES, ["happy", "surprise"])
    assert found.tolist() == [[0.0, 1.0]]


def test_on_one_half_the_answer_is_negative() -> None:
    assert two_columns(np.asarray([[0.5, 0.5, 0.0]]), CLASSES, ["happy"]).argmax(1).tolist() == [0]
