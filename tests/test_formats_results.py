"""Reading the tables of a finished run back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.heads.output_spec import ClassOutput
from transforms.formats.results import ResultsError, read_results
from transforms.merge.rows import IMAGE_SCHEMA, face_schema

CLASSES = ("happy", "sad")
IMAGES = [  # id, status, faces, true label
    ("a.png", "labelled", 1, "happy"),
    ("b.png", "no_face", 0, "sad"),
    ("c.png", "labelled", 3, None),
    ("d.png", "rejected", 0, "sad"),
    ("d.png", "duplicate", 0, "sad"),
    ("e.png", "labelled", 2, "sad"),
]
FACES = [  # id, width, height, probability of happy
    ("a.png", 5, 5, 0.75),
    ("c.png", 4, 4, 0.1),
    ("c.png", 2, 9, 0.2),
    ("c.png", 9, 2, 0.3),
    ("e.png", 3, 3, 0.4),
    ("e.png", 50_000, 60_000, 0.5),
]


def write(folder: Path, *, files: int = 1, faces: list | None = None, unlabelled: Sequence[int] = ()) -> Path:
    """Writes the two tables of a run as so many files each; some faces, by number, without a label."""
    rows = [
        {
            "image_id": name, "source": "in.tar", "digest": f"{i:064x}", "bytes": 1, "width": 9, "height": 9,
            "status": status, "stage": None, "reason": None, "faces": count,
            "unlabelled_faces": 0, "true_label": label,
        }
        for i, (name, status, count, label) in enumerate(IMAGES)
    ]  # fmt: skip
    seen = [
        {
            "image_id": name, "face_index": 0, "x": i, "y": 0, "width": width, "height": height, "detection_score": 1.0,
            "label": "happy", "label_index": 0, "confidence": p, "p_happy": p, "p_sad": 1 - p,
        }
        for i, (name, width, height, p) in enumerate(FACES if faces is None else faces)
    ]  # fmt: skip
    for number in unlabelled:
        seen[number] |= dict.fromkeys(("label", "label_index", "confidence", "p_happy", "p_sad"))
    for name, schema, table in (
        ("images", IMAGE_SCHEMA, rows),
        ("predictions", face_schema(ClassOutput(tuple(CLASSES))), seen),
    ):
        (folder / name).mkdir(parents=True)
        size = -(-len(table) // files) or 1
        for part in range(files):
            some = pa.Table.from_pylist(table[part * size : (part + 1) * size], schema)
            pq.write_table(some, folder / name / f"part-{part:05d}-of-{files:05d}.parquet", write_page_checksum=True)
    return folder


@pytest.mark.parametrize("files", [1, 2, 5])
def test_each_image_with_its_largest_face(tmp_path: Path, files: int) -> None:
    found = read_results(str(write(tmp_path / "run", files=files)), CLASSES)
    assert found.ids.to_pylist() == [row[0] for row in IMAGES]
    assert found.status.to_pylist() == [row[1] for row in IMAGES]
    assert found.labels.to_pylist() == [row[3] for row in IMAGES]
    assert found.digests.to_pylist()[1] == f"{1:064x}"
    assert found.probabilities[:, 0].tolist() == [0.75, 0, 0.2, 0, 0, 0.5]  # of equal faces the first
    assert found.probabilities[:, 1].tolist() == [0.25, 0, 0.8, 0, 0, 0.5]
    assert found.box[[0, 2, 5]].tolist() == [[0, 0, 5, 5], [2, 0, 2, 9], [5, 0, 50_000, 60_000]]
    assert not found.box[[1, 3, 4]].any()
    assert len(found) == 6
    assert found.box.dtype == np.int32


def test_a_face_without_a_label_does_not_stand_for_its_image(tmp_path: Path) -> None:
    found = read_results(str(write(tmp_path / "run", unlabelled=(0, 2, 5))), CLASSES)
    assert found.probabilities[:, 0].tolist() == [0, 0, 0.3, 0, 0, 0.4]
    assert found.box[[0, 2, 5]].tolist() == [[0, 0, 0, 0], [3, 0, 9, 2], [4, 0, 3, 3]]


@pytest.mark.parametrize("faces", [FACES[:-1], [], [*FACES[:1], FACES[4], *FACES[1:4], FACES[5]]])
def test_tables_that_are_not_of_one_run_are_refused(tmp_path: Path, faces: list) -> None:
    with pytest.raises(ResultsError, match="come from different runs"):
        read_results(str(write(tmp_path / "run", faces=faces)), CLASSES)


def test_missing_columns_files_and_folders_are_named(tmp_path: Path) -> None:
    run = write(tmp_path / "run")
    with pytest.raises(ResultsError, match=r"predictions.* has no column p_fear; give the output folder"):
        read_results(str(run), ("fear", "happy"))
    with pytest.raises(ResultsError, match=r"images does not exist"):
        read_results(str(tmp_path / "nowhere"), CLASSES)
    next((run / "images").glob("*.parquet")).unlink()
    with pytest.raises(ResultsError, match="holds no Parquet files"):
        read_results(str(run), CLASSES)


@pytest.mark.parametrize("at", [100, 4])
def test_a_damaged_table_is_one_line(tmp_path: Path, at: int) -> None:
    run = write(tmp_path / "run")
    path = next((run / "predictions").glob("*.parquet"))
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data if at != 4 else data[:50])
    with pytest.raises(ResultsError, match="damaged") as caught:
        read_results(str(run), CLASSES)
    assert "\n" not in str(caught.value)
