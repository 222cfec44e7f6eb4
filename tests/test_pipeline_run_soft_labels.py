"""A finished run as teacher: which face speaks for an image, and what is no teacher."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import UsageError
from pipeline.run.soft_labels import read_source

# faces are numbered by how sure the detector is, so the first one need not be the largest
FACES = [
    ("a.png", 5, 0.9, 0.1),
    ("a.png", 50, 0.2, 0.8),
    ("b.png", 9, 0.5, 0.5),
    ("b.png", 9, 1.0, 0.0),
]


def a_run(folder: Path) -> Path:
    """Writes what is read of a run: two faces in `a.png` and `b.png`, which is there twice, none in `c.png`."""
    names, sides, joy, sad = zip(*FACES, strict=True)
    zeros = [0] * len(FACES)
    tables: dict[str, dict[str, Any]] = {
        "images": {
            "image_id": ["a.png", "b.png", "b.png", "c.png"],
            "digest": ["0" * 64] * 4,
            "status": ["labelled", "labelled", "duplicate", "no_face"],
            "faces": [2, 2, 0, 0],
            "true_label": [None, None, None, "sad"],
        },
        "predictions": {
            "image_id": names, "x": zeros, "y": zeros, "width": sides, "height": sides, "p_joy": joy, "p_sad": sad,
        },
    }  # fmt: skip
    parts = []
    for name, columns in tables.items():
        (folder / name).mkdir(parents=True)
        path = folder / name / "part-0.parquet"
        pq.write_table(pa.table(columns), path)
        data = path.read_bytes()
        parts.append({"path": f"{name}/part-0.parquet", "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})
    (folder / "run.json").write_text(json.dumps({"head": {"classes": ["joy", "sad"]}, "parts": parts}))
    return folder


def test_a_run_teaches_with_the_face_that_heads_learn_of_equals_the_first(tmp_path: Path) -> None:
    found = read_source(str(a_run(tmp_path / "run")))
    assert found.classes == ("joy", "sad")
    assert np.allclose(found.of("a.png"), [0.2, 0.8])
    assert np.allclose(found.of("photos/b.png"), [0.5, 0.5])
    assert found.of("c.png") is None


def test_a_run_that_is_unfinished_or_changed_is_no_teacher(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    part = run / "predictions" / "part-0.parquet"
    data = part.read_bytes()
    part.write_bytes(data[:20] + bytes([data[20] ^ 1]) + data[21:])
    with pytest.raises(UsageError, match=r"--soft-labels .*run: files that its run.json lists are missing or changed"):
        read_source(str(run))
    part.write_bytes(data)
    read_source(str(run))
    (run / "run.json").unlink()
    with pytest.raises(UsageError, match=r"--soft-labels .*run has no run.json; give the output folder of a finished"):
        read_source(str(run))


@pytest.mark.parametrize(
    ("name", "words"), [("votes.csv", "no such file"), ("votes", "is neither a CSV file nor the folder of a")]
)
def test_what_is_not_there_is_named_with_its_flag(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(UsageError, match=rf"--soft-labels .*{name}:? {words}"):
        read_source(str(tmp_path / name))


def test_a_run_elsewhere_is_to_be_copied() -> None:
    with pytest.raises(UsageError, match=r"--soft-labels gs://b/run: a finished run must be in a local folder"):
        read_source("gs://b/run")
