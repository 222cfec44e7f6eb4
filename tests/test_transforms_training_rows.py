"""Labelled features for training a head."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blocks import job, raw, through

from transforms.block import Block, Faces, Status
from transforms.tally import TALLY
from transforms.training_rows import TrainingRows, WriteTrainingRows, read_rows, training_rows, write_rows


def block(labels: list[str | None], faces: list[list[tuple[int, int]]], *, key: str = "k", first: int = 0) -> Block:
    """A block with a label an image and a list of faces an image, each (width, height); features count up."""
    count = sum(map(len, faces))
    found = Faces(
        image=np.repeat(np.arange(len(faces), dtype=np.int32), [len(f) for f in faces]),
        box=np.asarray([[0, 0, *size] for sizes in faces for size in sizes], np.int32).reshape(-1, 4),
        score=np.linspace(1, 0.5, count, dtype=np.float32),
        features=np.arange(first, first + count, dtype=np.float16).reshape(count, 1) if count else None,
    )
    status = tuple(Status.LABELLED if f else Status.NO_FACE for f in faces)
    contents = [f"{key}{row}".encode() for row in range(len(faces))]
    return raw(contents, key=key, prefix=f"{key}/", labels=tuple(labels), faces=found, status=status)


def values(rows: TrainingRows) -> list[tuple[str, str, float]]:
    return [(str(i), str(label), float(f[0])) for i, label, f in zip(rows.ids, rows.labels, rows.features, strict=True)]


def test_images_with_a_label_and_a_face() -> None:
    rows = training_rows(block(["happy", None, "sad", "happy"], [[(2, 2)], [(2, 2)], [], [(2, 2)]]))
    assert values(rows) == [("k/0.png", "happy", 0), ("k/3.png", "happy", 2)]
    assert rows.digests.tolist() == block(["", "", "", ""], [[], [], [], []]).digests[[0, 3]].tolist()
    assert rows.features.dtype == np.float16


@pytest.mark.parametrize(
    "sizes, chosen",
    [([(2, 2), (3, 3)], 1), ([(3, 3), (2, 2)], 0), ([(2, 8), (4, 4), (8, 2)], 0), ([(60_000, 60_000), (1, 1)], 0)],
)
def test_of_several_faces_the_largest_and_of_equals_the_first(sizes: list[tuple[int, int]], chosen: int) -> None:
    assert values(training_rows(block(["happy"], [sizes]))) == [("k/0.png", "happy", chosen)]


def test_rows_come_back_from_their_files_in_the_order_of_the_paths(tmp_path: Path) -> None:
    one, two, none = (
        block(["é"], [[(1, 1)]], key="one"),
        block(["sad"], [[(1, 1)]], key="two", first=5),
        block([None], [[]]),
    )
    for name, given in (("b", one), ("a", two), ("c", none)):
        write_rows(str(tmp_path / f"{name}.npz"), training_rows(given))
    rows = read_rows([str(tmp_path / f"{name}.npz") for name in "abc"], str(tmp_path / "all.npy"))
    assert values(rows) == [("two/0.png", "sad", 5), ("one/0.png", "é", 0)]
    assert (rows.digests.shape, rows.digests.dtype, len(rows)) == ((2, 32), np.uint8, 2)


def test_features_come_back_as_a_memory_map(tmp_path: Path) -> None:
    write_rows(str(tmp_path / "a.npz"), training_rows(block(["sad"], [[(1, 1)]], first=3)))
    rows = read_rows([str(tmp_path / "a.npz")], str(tmp_path / "all.npy"))
    assert isinstance(rows.features, np.memmap)
    assert not rows.features.flags.writeable
    assert np.load(tmp_path / "all.npy").tolist() == [[3.0]]


def test_features_of_different_widths_are_refused(tmp_path: Path) -> None:
    one = training_rows(block(["sad"], [[(1, 1)]]))
    write_rows(str(tmp_path / "a.npz"), one)
    write_rows(str(tmp_path / "b.npz"), replace(one, features=np.zeros((1, 2), np.float16)))
    with pytest.raises(ValueError, match=r"different widths \[1, 2\]"):
        read_rows([str(tmp_path / name) for name in ("a.npz", "b.npz")], str(tmp_path / "all.npy"))


def test_images_without_a_label_are_taken_where_they_are_asked_for(tmp_path: Path) -> None:
    given = block(["happy", None, None], [[(1, 1)], [(1, 1)], []])
    assert values(training_rows(given, unlabelled=True)) == [("k/0.png", "happy", 0), ("k/1.png", "", 1)]
    made = job(tmp_path)
    assert [info.faces for info in through(WriteTrainingRows(made.writing.parts, unlabelled=True), [given])] == [2]
    rows = read_rows([str(Path(made.writing.parts) / "k.npz")], str(tmp_path / "all.npy"))
    assert rows.labels.tolist() == ["happy", ""]


@pytest.mark.parametrize("files", [0, 1])
def test_without_rows_nothing_comes_back(tmp_path: Path, files: int) -> None:
    write_rows(str(tmp_path / "a.npz"), training_rows(block([None], [[]])))
    assert len(read_rows([str(tmp_path / "a.npz")][:files], str(tmp_path / "all.npy"))) == 0


def test_writing_again_gives_the_same_bytes(tmp_path: Path) -> None:
    path = str(tmp_path / "a.npz")
    write_rows(path, training_rows(block(["happy"], [[(1, 1)]])))
    before = Path(path).read_bytes()
    write_rows(path, training_rows(block(["happy"], [[(1, 1)]])))
    assert Path(path).read_bytes() == before
    assert os.listdir(tmp_path) == ["a.npz"]


def test_the_stage_writes_a_file_a_block(tmp_path: Path) -> None:
    given = job(tmp_path)
    TALLY.reset()
    infos: list[Any] = through(
        WriteTrainingRows(given.writing.parts), [block(["sad", None], [[(1, 1)], []], key=f"k{n}") for n in range(5)]
    )
    assert [(info.name, info.images, info.faces) for info in infos] == [(f"k{n}.npz", 2, 1) for n in range(5)]
    assert sorted(os.listdir(given.writing.parts)) == [f"k{n}.npz" for n in range(5)]
    assert (TALLY.totals().images, TALLY.totals().blocks) == (10, 5)
