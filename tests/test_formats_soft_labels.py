"""Votes as shares of classes."""

from __future__ import annotations

import io

import numpy as np
import pytest

from transforms.formats.records import FormatError
from transforms.formats.soft_labels import SoftLabels, read_votes


def votes(text: str) -> object:
    return read_votes(io.BytesIO(text.encode()), "votes.csv")


def test_votes_become_shares() -> None:
    found = read_votes(io.BytesIO("\ufeffmember,joy,fear\na/1.png,3,1\n\nc.png,0.5,0\n".encode()), "v.csv")
    assert found.classes == ("joy", "fear")
    assert {name: row.tolist() for name, row in found.shares.items()} == {"a/1.png": [0.75, 0.25], "c.png": [1, 0]}


def test_an_image_that_is_known_to_have_none_does_not_get_those_of_a_shorter_name() -> None:
    found = read_votes(io.BytesIO(b"member,joy,fear\na/1.png,0,0\n1.png,3,1\n"), "v.csv")
    assert found.of("a/1.png") is None and found.of("x/a/1.png") is None
    assert np.allclose(found.of("b/1.png"), [0.75, 0.25])


def test_shares_of_other_classes_sum_to_1_again() -> None:
    rows = {"a": np.asarray([0.25, 0.25, 0.5], np.float32), "b": np.asarray([0, 0, 1], np.float32)}
    found = SoftLabels(("joy", "glee", "NF"), rows).added(("happy", "sad"), np.asarray([[1, 0], [0, 1], [0, 0]]))
    assert found.classes == ("happy", "sad")
    assert found.shares["a"].tolist() == [0.5, 0.5] and found.of("b") is None


@pytest.mark.parametrize(
    "image_id, known", [("a/1.png", True), ("train.tar/a/1.png", True), ("x/y/a/1.png", True), ("1.png", False)]
)
def test_an_image_is_found_by_its_id_or_the_end_of_it(image_id: str, known: bool) -> None:
    found = read_votes(io.BytesIO(b"member,joy,fear\na/1.png,3,1\n"), "v.csv")
    assert (found.of(image_id) is not None) == known


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "header needs the id"),
        ("id,joy\n", "header needs the id"),
        ("id,joy,joy\n", "header needs the id"),
        ("id,joy,fear\na,1\n", "line 2: expected 2 numbers of 0 or more"),
        ("id,joy,fear\na,1,2\nb,1,many\n", "line 3: could not convert"),
        ("id,joy,fear\na,1,-2\n", "line 2"),
        ("id,joy,fear\na,1,nan\n", "line 2"),
        ("id,joy,fear\na,1,0\nb,1,0\na,0,1\n", "line 4: 'a' is listed twice"),
    ],
)
def test_a_table_that_does_not_fit_is_one_line(text: str, words: str) -> None:
    with pytest.raises(FormatError, match=f"votes.csv.*{words}"):
        votes(text)


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(FormatError, match="is not a CSV of votes"):
        read_votes(io.BytesIO(b"id,joy,fear\n\xff\xfe,1,2\n"), "v.csv")
