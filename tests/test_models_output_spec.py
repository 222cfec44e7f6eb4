"""What a head says, stated once: the classes of today's heads."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from models.heads.output_spec import PROBABILITY, ClassOutput
from transforms.formats.results import PREFIX

PLAIN = ClassOutput(("angry", "happy", "sad"))
REJECTING = ClassOutput(("angry", "happy", "sad"), rejecting=True)
DEGREE = ClassOutput(("angry", "happy", "sad"), rejecting=True, intensity_exponent=0.5)
ANSWERS = np.array([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]])


def test_columns_of_classes_in_their_order() -> None:
    names = ["label", "label_index", "confidence", "p_angry", "p_happy", "p_sad"]
    assert [column.name for column in PLAIN.columns] == names
    assert [column.name for column in REJECTING.columns] == [*names[:3], "no_label_score", *names[3:]]
    assert [column.name for column in DEGREE.columns] == [*names[:3], "intensity", "no_label_score", *names[3:]]
    assert all(column.doc for column in DEGREE.columns)


@pytest.mark.parametrize("spec", [PLAIN, REJECTING, DEGREE])
def test_every_column_shows_a_field_that_is_stored(spec: ClassOutput) -> None:
    answers = np.full((4, spec.width), 1 / 3)
    stored, fields = spec.stored(answers), {field.name: field for field in spec.fields}
    assert stored.keys() == fields.keys() >= {spec.label, spec.confidence}
    assert {name: values.shape for name, values in stored.items()} == {
        name: (4, field.size) if field.size else (4,) for name, field in fields.items()
    }
    for column in spec.columns:
        assert (column.place is None) == (fields[column.field].size == 0)
        assert column.place is None or 0 <= column.place < fields[column.field].size


def test_the_most_likely_class_and_ties_by_the_alphabet() -> None:
    stored = PLAIN.stored(ANSWERS)
    assert stored["label_index"].tolist() == [1, 0]
    assert stored["confidence"].tolist() == [0.5, 0.4]
    assert stored["p"].tolist() == ANSWERS.tolist()


def test_the_no_label_score_is_the_last_answer_and_no_class() -> None:
    stored = REJECTING.stored(np.column_stack([ANSWERS, [0.9, 1.0]]))
    assert stored["no_label_score"].tolist() == [0.9, 1.0]
    assert stored["label_index"].tolist() == [1, 0]


def test_the_intensity_is_that_of_the_label() -> None:
    stored = DEGREE.stored(np.array([[0.04, 0.64, 0.32, 0.1], [0.0, 0.0, 1.0, 0.2]]))
    assert stored["label_index"].tolist() == [1, 2]
    assert stored["intensity"].tolist() == [round(0.8 / (0.2 + 0.8 + 0.32**0.5), 6), 1.0]
    assert stored["confidence"].tolist() == [0.64, 1.0]


def test_shares_of_a_large_power_are_numbers() -> None:
    """As of a head whose temperature was raised after its intensity was fitted: 0.125 to the power of 400 is 0."""
    names = tuple("abcdefgh")
    assert ClassOutput(names, intensity_exponent=400).shares(np.full((1, 8), 0.125)).tolist() == [[0.125] * 8]


def test_no_face_gives_no_rows() -> None:
    assert {name: len(values) for name, values in REJECTING.stored(np.zeros((0, 4))).items()} == {
        "label_index": 0,
        "confidence": 0,
        "p": 0,
        "no_label_score": 0,
    }


def test_labels_as_texts_and_back() -> None:
    labels = np.array([2, 0], np.int32)
    assert PLAIN.texts(labels, names=True) == ["sad", "angry"]
    assert PLAIN.texts(labels, names=False) == ["2", "0"]
    assert PLAIN.texts(labels[:0], names=True) == []
    assert (PLAIN.label_of("happy"), PLAIN.label_of("2")) == (1, 2)
    assert ClassOutput(("1", "0")).label_of("1") == 0  # a name before an index
    with pytest.raises(ValueError, match="is not a class; choose one of angry, happy, sad"):
        PLAIN.label_of("3")


def test_it_travels_to_workers_and_readers_know_its_prefix() -> None:
    assert pickle.loads(pickle.dumps(REJECTING)) == REJECTING
    assert PROBABILITY == PREFIX  # formats may not import models, so each has the text
