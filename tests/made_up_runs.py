"""Tables of finished runs made by hand: a few images with stated faces, whatever their names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from models.heads.output_spec import ClassOutput
from transforms.merge.row_files import RowFiles
from transforms.merge.rows import IMAGE_SCHEMA, face_schema

CLASSES = ("happy", "sad", "unlabelled")
HOSTILE = (
    "<script>alert(1)</script>.png",
    '"><img src=x onerror=alert(1)>.png',
    "=cmd|' /C calc'!A0.png",
    "@SUM(1+1).png",
    "../../etc/passwd",
    "/absolute/path.png",
    "gnp\u202eevil\u2066.png",
    "two\nlines\tand\x1b[31m.png",
    "c:\\con\\nul.png",
    "ü漢字👩\u200d🚀.png",
    "long" * 1000 + ".png",
    "a/b.png",
    "a_b.png",
    "a b.png",
    "A_B.png",
    ".",
    "..",
    "-rf",
    "no ending",
    "quote\"s,and'commas.png",
)


@dataclass
class MadeUp:
    """An image with its faces: (x, y, width, height, index of the class or -1)."""

    image_id: str
    faces: Sequence[tuple[int, int, int, int, int]] = ()
    size: tuple[int, int] = (640, 480)
    status: str = ""
    reason: str | None = None
    data: bytes = b""
    source: str = "photos"
    more: dict[str, Any] = field(default_factory=dict)


def write_made_up(
    folder: Path, images: Sequence[MadeUp], classes: Sequence[str] = CLASSES, *, intensity_exponent: float = 0.0
) -> dict[str, Any]:
    """Writes tables and `run.json` of a run over these images; returns what `run.json` holds."""
    images = sorted(images, key=lambda image: image.image_id.encode())
    faces = face_schema(ClassOutput(tuple(classes), intensity_exponent=intensity_exponent))
    extra = [pa.field(name, pa.scalar(value).type) for name, value in (images[0].more if images else {}).items()]
    schema = pa.schema([*IMAGE_SCHEMA, *extra])
    with (
        RowFiles(str(folder / "images"), schema, rows_per_file=10**6, row_group=8_192) as to_images,
        RowFiles(str(folder / "predictions"), faces, rows_per_file=10**6, row_group=8_192) as to_faces,
    ):
        to_images.add(pa.Table.from_pylist([_image(image) for image in images], schema))
        to_faces.add(pa.Table.from_pylist([row for image in images for row in _faces(image, classes)], faces))
        files = [*to_images.publish(), *to_faces.publish()]
    record = {
        "inputs": ["photos"],
        "inputs_digest": "0",
        "run_fingerprint": "ab" * 32,
        "head": {"path": "head", "classes": list(classes)},
        "counts": {"images": len(images)},
        "parts": [
            {"path": file.name, "bytes": (folder / file.name).stat().st_size, "rows": file.rows, "sha256": file.digest}
            for file in files
        ],
    }
    (folder / "run.json").write_text(json.dumps(record))
    return record


def _image(image: MadeUp) -> dict[str, Any]:
    labelled = sum(face[4] >= 0 for face in image.faces)
    return {
        "image_id": image.image_id,
        "source": image.source,
        "digest": hashlib.sha256(image.data or image.image_id.encode()).hexdigest(),
        "bytes": len(image.data),
        "width": image.size[0],
        "height": image.size[1],
        "status": image.status or ("labelled" if labelled else "no_face"),
        "stage": "decode" if image.reason else None,
        "reason": image.reason,
        "faces": len(image.faces),
        "unlabelled_faces": len(image.faces) - labelled,
        "true_label": None,
        **image.more,
    }


def _faces(image: MadeUp, classes: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for number, (x, y, width, height, index) in enumerate(image.faces):
        chances = np.full(len(classes), 0.1 / max(1, len(classes) - 1))
        chances[index] = 0.9
        row = {"image_id": image.image_id, "face_index": number, "x": x, "y": y, "width": width, "height": height}
        row |= {"detection_score": 1 - number / 100}
        if index >= 0:
            row |= {"label": classes[index], "label_index": index, "confidence": 0.9, "intensity": 0.6}
            row |= {f"p_{name}": chance for name, chance in zip(classes, chances, strict=True)}
        rows.append(row)
    return rows
