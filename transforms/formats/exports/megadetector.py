"""MegaDetector's batch output, version 1.4: one category of detections, `face`, with classifications by the head.

Programs for camera-trap results (Timelapse, AddaxAI) open it. Versions 1.5 and 1.6 differ only for videos.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from transforms.formats.exports.exported import MADE_BY, Exported, Face, Image, Run, images_of
from transforms.formats.exports.json_stream import JsonStream
from transforms.formats.publish import publish_file

VERSION = "1.4"
MOST_CLASSES = 10  # classifications of a face, the likeliest first
FACE = "1"  # category; its "0" stands for empty


def write_megadetector(run: Run, path: str) -> Exported:
    """Writes the file: every image of the run, rejected ones as failures.

    Raises:
        ResultsError: the tables do not match. StorageError: a file cannot be read or written.
    """
    summary = Exported()
    with publish_file(path) as temporary, open(temporary, "wb") as file:
        stream = JsonStream(file)
        about = {"format_version": VERSION, "detector": MADE_BY, "classifier": MADE_BY, "run": run.fingerprint}
        stream.value("info", about)
        stream.value("detection_categories", {FACE: "face"})
        stream.value("classification_categories", {str(at): name for at, name in enumerate(run.classes)})
        stream.array("images", _images(run, summary))
        stream.close()
    return summary


def _images(run: Run, summary: Exported) -> Iterator[dict[str, Any]]:
    for image in images_of(run, probabilities=True):
        if image.status == "duplicate":  # the image of that id has its own row
            summary.left_out += 1
            continue
        summary.add(image)
        if image.has_pixels:
            yield {"file": image.image_id, "detections": [_detection(image, face) for face in image.faces]}
        else:
            yield {"file": image.image_id, "failure": str(image.reason), "detections": None}


def _detection(image: Image, face: Face) -> dict[str, Any]:
    found: dict[str, Any] = {"category": FACE, "conf": float(face.score), "bbox": image.relative(face.box)}
    if face.probabilities:
        order = sorted(range(len(face.probabilities)), key=lambda at: (-face.probabilities[at], at))
        found["classifications"] = [[str(at), face.probabilities[at]] for at in order[:MOST_CLASSES]]
    return found
