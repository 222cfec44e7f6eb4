"""labelme: one JSON file per photo, in one folder; each face is a rectangle.

Files that labelme has saved again no longer begin with our mark, so a later export never takes them for exported files.
"""

from __future__ import annotations

import os
import re
from typing import Any

from transforms.formats.exports.exported import MADE_BY, Exported, Face, Image, Run, file_of, images_of
from transforms.formats.exports.json_stream import JsonStream
from transforms.formats.publish import publish
from transforms.formats.safe_names import DIGITS, photo_name, unlabelled_name

VERSION = "5.5.0"  # of labelme, whose fields are written
NAME = re.compile(rf"\d{{{DIGITS},}}-.+\.json")


def write_labelme(run: Run, folder: str) -> Exported:
    """Writes a file for each image that was searched, also for those without a face, into an existing folder.

    Raises:
        ResultsError: the tables do not match. StorageError: a file cannot be read or written.
    """
    summary = Exported()
    nameless = unlabelled_name(run.classes)
    for image in images_of(run):
        if not image.has_pixels:
            summary.left_out += 1
            continue
        summary.add(image)
        _write(os.path.join(folder, photo_name(image.row, image.image_id, ".json")), image, nameless)
    return summary


def _write(path: str, image: Image, nameless: str) -> None:
    def write(file: Any) -> None:
        stream = JsonStream(file)
        stream.value("made_by", MADE_BY)
        stream.value("version", VERSION)
        stream.value("flags", {})
        stream.array("shapes", (_shape(face, nameless) for face in image.faces))
        stream.value("imagePath", file_of(image)[1])
        stream.value("imageData", None)
        stream.value("imageHeight", image.height)
        stream.value("imageWidth", image.width)
        stream.close()

    publish(path, write)


def _shape(face: Face, nameless: str) -> dict[str, Any]:
    x, y, width, height = face.box
    sure = "" if face.confidence is None else f"confidence {face.confidence:.6f}, "
    sure += "" if face.intensity is None else f"intensity {face.intensity:.6f}, "
    return {
        "label": face.label or nameless,
        "points": [[float(x), float(y)], [float(x + width), float(y + height)]],
        "group_id": None,
        "description": f"{sure}detection score {face.score:.6f}",
        "shape_type": "rectangle",
        "flags": {},
        "mask": None,
    }
