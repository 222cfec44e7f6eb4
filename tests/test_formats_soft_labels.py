"""Votes and probabilities of another network as shares of classes."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from transforms.formats.records import FormatError
from transforms.formats.soft_labels import read_predictions, read_votes


def votes(text: str) -> object:
    return read_votes(io.BytesIO(text.encode()), "votes.csv")


def test_votes_become_shares_and_rows_without_votes_are_left_out() -> None:
    found = read_votes(io.BytesIO("\ufeffmember,joy,fear\na/1.png,3,1\n\nb.png,0,0\nc.png,0.5,0\n".encode()), "v.csv")
    assert found.classes == ("joy", "fear")
    assert {name: row.tolist() for name, row in found.shares.items()} == {"a/1.png": [0.75, 0.25], "c.png": [1, 0]}


@pytest.mark.parametrize(
    "image_id, known", [("a/1.png", True), ("train.tar/a/1.png", True), ("x/y/a/1.png", True), ("1.png", False)]
)
def test_an_image_is_found_by_its_id_or_the_end_of_it(image_id: str, known: bool) -> None:
    found = read_votes(io.BytesIO(b"member,joy,fear\na/1.png,3,1\n"), "v.csv")
    assert (found.of(image_id) is not None) == known


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "header must name"),
        ("id,joy\n", "header must name"),
        ("id,joy,joy\n", "header must name"),
        ("id,joy,fear\na,1\n", "line 2: 2 numbers from 0 are wanted"),
        ("id,joy,fear\na,1,2\nb,1,many\n", "line 3: could not convert"),
        ("id,joy,fear\na,1,-2\n", "line 2"),
        ("id,joy,fear\na,1,nan\n", "line 2"),
    ],
)
def test_a_table_that_does_not_fit_is_one_line(text: str, words: str) -> None:
    with pytest.raises(FormatError, match=f"votes.csv.*{words}"):
        votes(text)


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(FormatError, match="is no CSV of votes"):
        read_votes(io.BytesIO(b"id,joy,fear\n\xff\xfe,1,2\n"), "v.csv")


def predictions(**columns: object) -> io.BytesIO:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    file.seek(0)
    return file


def test_a_run_teaches_with_the_first_face_of_every_image() -> None:
    file = predictions(image_id=["a", "a", "b"], face=[0, 1, 0], p_joy=[0.2, 0.9, 0.5], p_fear=[0.8, 0.1, 0.5])
    found = read_predictions([("p.parquet", file)])
    assert found.classes == ("joy", "fear")
    assert np.allclose(found.shares["a"], [0.2, 0.8]) and len(found.shares) == 2


def test_what_is_no_run_is_one_line() -> None:
    with pytest.raises(FormatError, match="no predictions"):
        read_predictions([])
    with pytest.raises(FormatError, match="x has no columns image_id"):
        read_predictions([("x", predictions(a=[1]))])
    with pytest.raises(FormatError, match="y is no Parquet file"):
        read_predictions([("y", io.BytesIO(b"nothing"))])
    one = predictions(image_id=["a"], face=[0], p_a=[1.0], p_b=[0.0])
    two = predictions(image_id=["a"], face=[0], p_a=[1.0], p_c=[0.0])
    with pytest.raises(FormatError, match="z has the classes a, c, the files before a, b"):
        read_predictions([("w", one), ("z", two)])
