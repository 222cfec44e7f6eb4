"""Labels from a CSV, as contests ship them."""

from __future__ import annotations

import io

import pytest

from transforms.formats.label_table import LabelTable, read_label_table
from transforms.formats.records import FormatError


def table(text: str, column: str | None = None) -> LabelTable:
    return read_label_table(io.BytesIO(text.encode()), "train.csv", column)


@pytest.mark.parametrize(
    "text",
    [
        "id,label\na.png,happy\nb.png,sad\n",
        "\ufefflabel,id\nhappy,a.png\nsad,b.png\n",
        "Image,width,Emotion\r\na.png,48,happy\r\nb.png,48,sad\r\n",
        "one,other\na.png, happy\n\nb.png,sad",
        "id,label\na.png,happy\nb.png,sad\na.png,happy\n",
    ],
)
def test_columns_are_found_by_their_usual_names_or_as_the_second_of_two(text: str) -> None:
    assert table(text).labels == {"a.png": "happy", "b.png": "sad"}


def test_labels_are_composed_as_classes_are_compared() -> None:
    assert table("id,label\na.png,Gefu\u0308hl\nb.png,Gef\u00fchl\na.png,Gef\u00fchl\n").labels == {
        "a.png": "Gef\u00fchl",
        "b.png": "Gef\u00fchl",
    }


def test_a_column_may_be_named() -> None:
    assert table("image,valence,positive\na.png,3.1,0\n", "positive").labels == {"a.png": "0"}


@pytest.mark.parametrize("name", ["train.zip/a/7.png", "a/7.png", "7.png", "train.zip/a/7", "a/7", "7"])
def test_an_image_is_found_by_its_id_or_the_end_of_it_with_or_without_the_extension(name: str) -> None:
    assert LabelTable({name: "happy"}).of("train.zip/a/7.png") == "happy"


@pytest.mark.parametrize("name", ["b/7.png", "17.png", "7.jpg", "zip/a/7.png", "a"])
def test_a_row_for_another_image_is_not_taken(name: str) -> None:
    assert LabelTable({name: "happy"}).of("train.zip/a/7.png") is None


def test_the_longest_name_decides_and_an_empty_label_is_none() -> None:
    labels = LabelTable({"7.png": "sad", "a/7.png": "happy", "b/7.png": ""})
    assert [labels.of(name) for name in ("a/7.png", "b/7.png", "c/7.png")] == ["happy", None, "sad"]


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "expected a header"),
        ("id\na.png\n", "expected a header"),
        ("id,label\n", "no rows"),
        ("id,x,y\na.png,1,2\n", "which column holds the labels.*read.label_column.*id, x, y"),
        ("id,label\na.png\n", "line 2: expected 2 columns, found 1"),
        ("id,label\n,happy\n", "line 2: the id is empty"),
        ("id,label\na.png,happy\na.png,sad\n", "line 3: 'a.png' has two labels, 'happy' and 'sad'"),
        ('id,label\n"a.png,happy\n', "not a CSV file"),
    ],
)
def test_a_table_that_does_not_fit_is_one_line(text: str, words: str) -> None:
    with pytest.raises(FormatError, match=f"train.csv.*{words}"):
        table(text)


def test_an_unknown_column_lists_the_known_ones() -> None:
    with pytest.raises(FormatError, match=r"no column 'mood'.*it has id, label"):
        table("id,label\na.png,happy\n", "mood")


def test_bytes_that_are_not_text_are_named() -> None:
    with pytest.raises(FormatError, match="not a CSV file in UTF-8"):
        read_label_table(io.BytesIO(b"id,label\n\xff\xfe,happy\n"), "train.csv")
