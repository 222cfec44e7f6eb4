"""Tables of runs that nobody made, written as the merge writes them: a run of any size, or one stated row by row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from models.heads.output_spec import ClassOutput
from transforms.merge.row_files import RowFiles
from transforms.merge.rows import IMAGE_SCHEMA, face_schema

ROWS = 8_192


def made_digest(row: int) -> str:
    """Returns a SHA-256 that no image has, in hex."""
    return f"{row:016x}{0:048x}"


def write_run(
    folder: Path,
    images: int,
    *,
    classes: int = 7,
    faces: float = 2,
    name: str = "photos/{}.jpg",
    digest: Callable[[int], str] = made_digest,
    width: int = 1600,
) -> dict[str, Any]:
    """Writes the tables of a made-up run as the merge does; returns what its `run.json` would say.

    Args:
        digest: of an image, by its row. `width`: of all images in pixels; their height is three quarters of it.
    """
    shrink = 1600 / width
    names = [f"class {number:04d}" for number in range(classes)]
    draw = np.random.default_rng(0)
    schema = face_schema(ClassOutput(tuple(names[:1])))
    found = {"labelled": 0, "no_face": 0, "rejected": 0}
    labels = np.zeros(classes, np.int64)
    with (
        RowFiles(str(folder / "images"), IMAGE_SCHEMA, rows_per_file=500_000, row_group=ROWS) as to_images,
        RowFiles(str(folder / "predictions"), schema, rows_per_file=500_000, row_group=ROWS) as to_faces,
    ):
        for start in range(0, images, ROWS):
            count = min(ROWS, images - start)
            ids = [name.format(f"{row:09d}") for row in range(start, start + count)]
            faces_of = draw.poisson(faces, count)
            rejected = draw.random(count) < 0.01
            faces_of[rejected] = 0
            status = np.where(rejected, "rejected", np.where(faces_of > 0, "labelled", "no_face"))
            for key in found:
                found[key] += int((status == key).sum())
            columns = {
                "image_id": ids,
                "source": ["photos"] * count,
                "digest": [digest(row) for row in range(start, start + count)],
                "bytes": [1] * count,
                "width": [width] * count,
                "height": [width * 3 // 4] * count,
                "status": status,
                "stage": ["decode" if one else None for one in rejected],
                "reason": ["truncated" if one else None for one in rejected],
                "faces": faces_of,
                "unlabelled_faces": np.zeros(len(faces_of), np.int32),
                "true_label": [None] * count,
            }
            to_images.add(pa.table([pa.array(columns[n]).cast(IMAGE_SCHEMA.field(n).type) for n in IMAGE_SCHEMA.names],
                                   schema=IMAGE_SCHEMA))  # fmt: skip
            row = np.repeat(np.arange(count), faces_of)
            label = draw.integers(0, classes, len(row))
            labels += np.bincount(label, minlength=classes)
            values = {
                "image_id": [ids[one] for one in row],
                "face_index": np.arange(len(row)) - (np.cumsum(faces_of) - faces_of)[row],
                "x": draw.integers(0, 1300, len(row)) // shrink,
                "y": draw.integers(0, 900, len(row)) // shrink,
                "width": draw.integers(10, 300, len(row)) // shrink,
                "height": draw.integers(10, 300, len(row)) // shrink,
                "detection_score": draw.random(len(row)),
                "label": [names[one] for one in label],
                "label_index": label,
                "confidence": draw.random(len(row)),
                f"p_{names[0]}": draw.random(len(row)),
            }
            to_faces.add(pa.table([pa.array(values[n]).cast(schema.field(n).type) for n in schema.names],
                                  schema=schema))  # fmt: skip
        to_images.publish()
        to_faces.publish()
    return {
        "inputs": ["photos"],
        "run_fingerprint": "ab" * 32,
        "head": {"path": "head", "classes": names},
        "counts": {"images": images, **found, "duplicate": 0, "faces": int(labels.sum())},
        "labels": dict(zip(names, labels.tolist(), strict=True)),
    }


@dataclass(frozen=True)
class MadeImage:
    """An image and its faces, each as (box, label, confidence, score); a label of None is that of a face too small."""

    id: str
    faces: Sequence[tuple[tuple[int, int, int, int], str | None, float, float]] = ()
    status: str = ""
    digest: str | None = "00"
    size: tuple[int, int] = (640, 480)
    reason: str | None = None


def write_images(
    folder: Path, images: Sequence[MadeImage], classes: Sequence[str], *, intensity: bool = False
) -> dict[str, Any]:
    """Writes the tables of a run of these images, sorted by id; returns what its `run.json` would say.

    Args:
        intensity: True for a head that says it: half of the confidence.
    """
    images = sorted(images, key=lambda image: image.id.encode())
    schema = face_schema(ClassOutput(tuple(classes), intensity_exponent=float(intensity)))
    status = [image.status or ("labelled" if image.faces else "no_face") for image in images]
    columns = {
        "image_id": [image.id for image in images],
        "source": ["photos"] * len(images),
        "digest": [None if image.digest is None else image.digest.rjust(64, "0") for image in images],
        "bytes": [1] * len(images),
        "width": [image.size[0] for image in images],
        "height": [image.size[1] for image in images],
        "status": status,
        "stage": ["decode" if image.reason else None for image in images],
        "reason": [image.reason for image in images],
        "faces": [len(image.faces) for image in images],
        "unlabelled_faces": [sum(face[1] is None for face in image.faces) for image in images],
        "true_label": [None] * len(images),
    }
    faces = [(image.id, number, *face) for image in images for number, face in enumerate(image.faces)]
    values = {
        "image_id": [face[0] for face in faces],
        "face_index": [face[1] for face in faces],
        **{name: [face[2][at] for face in faces] for at, name in enumerate(("x", "y", "width", "height"))},
        "detection_score": [face[5] for face in faces],
        "label": [face[3] for face in faces],
        "label_index": [None if face[3] is None else list(classes).index(face[3]) for face in faces],
        "confidence": [None if face[3] is None else face[4] for face in faces],
        "intensity": [None if face[3] is None else face[4] / 2 for face in faces],
        **{f"p_{name}": [None if face[3] is None else 1 / len(classes) for face in faces] for name in classes},
    }
    for kind, table, all_columns in (("images", IMAGE_SCHEMA, columns), ("predictions", schema, values)):
        with RowFiles(str(folder / kind), table, rows_per_file=7, row_group=3) as files:
            files.add(pa.table([pa.array(all_columns[n], table.field(n).type) for n in table.names], schema=table))
            files.publish()
    counts = {name: status.count(name) for name in ("labelled", "no_face", "rejected", "duplicate")}
    return {
        "inputs": ["photos"],
        "run_fingerprint": "ab" * 32,
        "cache_key": "cd" * 32,
        "head": {"path": "head", "digest": "ef" * 32, "classes": list(classes)},
        "counts": {"images": len(images), **counts, "faces": len(faces)},
    }
