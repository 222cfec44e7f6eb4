"""What `evaluate-detector` writes: tables, metrics, plots, sheets, and the page last.

But for CPU times the files are bytes of the input and the settings alone; each is published whole. Without `index.html`
the folder is unfinished. Not here: how a figure is computed (`models/evaluation/detection.py`) or drawn.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.evaluation.box_map import BoxMap
from models.evaluation.detection import (
    FALSE_ALARMS,
    OVERLAP,
    PAIRED,
    Judgement,
    Outcome,
    fit_map,
    judge,
    mapped,
    recall_at,
    recall_by_size,
)
from models.evaluation.matching import NONE
from pipeline.report.detection_groups import recall_by_group
from pipeline.report.detection_page import ROC, SIZES, DetectionContent, detection_page
from pipeline.report.detection_plots import roc_svg, sizes_svg
from pipeline.report.detection_sheets import sheets
from pipeline.report.known_and_found import Compared
from pipeline.report.second_look import EXPLAINED
from pipeline.run.search_faces import CpuSeconds
from transforms.formats.publish import publish
from transforms.formats.records import Limits

PAGE = "index.html"
JSON = "detection.json"
DETECTIONS, KNOWN_FACES, IMAGES = "detections.parquet", "known_faces.parquet", "images.parquet"
ALWAYS = (PAGE, JSON, DETECTIONS, KNOWN_FACES, IMAGES, ROC, SIZES, "hits.png", "misses.png", "false_alarms.png")
FILES = (*ALWAYS, EXPLAINED)
WORDS_OF_OUTCOME = {Outcome.HIT: "hit", Outcome.FALSE_ALARM: "false_alarm", Outcome.IGNORED: "ignored"}


@dataclass(frozen=True, slots=True)
class Given:
    """What the files are made of.

    Attributes:
        compared: images, faces and boxes.
        about: what was evaluated, in words of JSON.
        threshold: boxes with a lower score count in the curves only; None for all.
        spent: CPU seconds.
        lines: of the plan, to read pictures from.
        limits: of one image.
        closer: metrics of the second look by name; explained: the picture of one image, as WebP, or nothing.
    """

    compared: Compared
    about: dict[str, Any]
    threshold: float | None
    spent: CpuSeconds
    lines: Iterable[bytes]
    limits: Limits
    closer: Mapping[str, Any]
    explained: bytes


def write_detection(output: str, given: Given) -> dict[str, Any]:
    """Writes all files into `output`, the page last, and returns the metrics; those of an earlier time are replaced.

    Raises:
        InputFault: an image is gone. StorageError: a file cannot be written.
    """
    photos = given.compared.photos
    least = -np.inf if given.threshold is None else given.threshold
    box_map = fit_map(photos, least_score=least)
    judged = {
        (overlap, with_map): judge(
            mapped(photos, box_map) if with_map else photos, least_overlap=overlap, least_score=least
        )
        for with_map in (False, True)
        for overlap in (OVERLAP, PAIRED)
    }
    pointed = judged[PAIRED, False]
    metrics = _metrics(given, judged, box_map)
    curves = {f"overlap above {o}{', mapped' if m else ''}": one.curve for (o, m), one in judged.items()}
    of_boxes, galleries = sheets(given.compared, pointed, given.lines, given.limits)
    pictures = {
        ROC: roc_svg(curves),
        SIZES: sizes_svg(recall_by_size(pointed)),
        **of_boxes,
        **({EXPLAINED: given.explained} if given.explained else {}),
    }
    tables = {
        DETECTIONS: _detections(given.compared, pointed),
        KNOWN_FACES: _known_faces(given.compared, pointed),
        IMAGES: _images(given.compared, pointed),
    }
    content = DetectionContent(metrics, facts(metrics), notes_on(metrics), pictures, galleries)
    _publish(output, metrics, tables, pictures, detection_page(content))
    return metrics


def _publish(
    output: str, metrics: Mapping[str, Any], tables: Mapping[str, pa.Table], pictures: Mapping[str, bytes], page: bytes
) -> None:
    os.makedirs(output, exist_ok=True)
    for name in FILES:
        Path(output, name).unlink(missing_ok=True)
    for name, rows in tables.items():
        publish(
            os.path.join(output, name),
            lambda file, rows=rows: pq.write_table(rows, file, compression="zstd", write_page_checksum=True),  # type: ignore[misc]
        )
    text = json.dumps(metrics, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    for name, data in ((JSON, text.encode("utf-8", "replace")), *pictures.items(), (PAGE, page)):
        publish(os.path.join(output, name), lambda file, data=data: file.write(data))  # type: ignore[misc]


# --- numbers ----------------------------------------------------------------------------------------------------------


def _metrics(given: Given, judged: Mapping[tuple[float, bool], Judgement], box_map: BoxMap) -> dict[str, Any]:
    compared = given.compared
    images = max(given.spent.images, 1)
    pairs = int((judged[PAIRED, False].outcome == Outcome.HIT).sum())
    return {
        "evaluated": {**given.about, "threshold": given.threshold},
        "account": {
            "judged": len(compared.images),
            "rejected": dict(sorted(compared.rejected.items())),
            "faces_on_rejected": compared.lost_faces,
            "not_in_table": compared.unknown,
            "repeated": compared.repeated,
            "only_in_table": compared.not_there,
            "faces_only_in_table": compared.missing_faces,
            "ignored_faces": int((~judged[PAIRED, False].counts).sum()),
        },
        "scores": [
            {"overlap": overlap, "mapped": with_map, **_score(one)} for (overlap, with_map), one in judged.items()
        ],
        "box_map": {**asdict(box_map), "pairs": pairs},
        "by_size": [
            {**asdict(one), "recall": one.found / one.faces if one.faces else None}
            for one in recall_by_size(judged[PAIRED, False])
        ],
        "by_group": [{**asdict(one), "recall": one.recall} for one in recall_by_group(compared, judged[PAIRED, False])],
        **given.closer,
        "cpu_ms_an_image": {
            "read": given.spent.read / images * 1000,
            "decode": given.spent.decode / images * 1000,
            "detect": given.spent.detect / images * 1000,
        },
    }


def _score(one: Judgement) -> dict[str, Any]:
    curve = one.curve
    return {
        "recall": one.recall,
        "hits": int(one.found[one.counts].sum()),
        "faces": curve.faces,
        "false_alarms": int((one.outcome == Outcome.FALSE_ALARM).sum()),
        "false_alarms_an_image": one.false_alarms_an_image,
        "ignored_boxes": int((one.outcome == Outcome.IGNORED).sum()),
        "mean_overlap": one.mean_overlap,
        "recall_at": [asdict(recall_at(curve, level)) for level in FALSE_ALARMS],
        "curve": {
            "score": curve.score.tolist(),
            "false_alarms": curve.false_alarms.tolist(),
            "discrete": curve.discrete().tolist(),
            "continuous": curve.continuous().tolist(),
        },
    }


# --- tables -----------------------------------------------------------------------------------------------------------


def _detections(compared: Compared, judged: Judgement) -> pa.Table:
    """Returns a row a box that counts: what became of it, and the row of `known_faces` it is paired with."""
    places = zip(judged.box_image.tolist(), judged.box_row.tolist(), strict=True)
    boxes = np.asarray([compared.photos[image].found[row] for image, row in places], np.float64).reshape(-1, 4)
    return pa.table(
        {
            "image_id": pa.array([compared.images[image].id for image in judged.box_image.tolist()], pa.string()),
            **_box_columns(boxes),
            "score": judged.score,
            "outcome": pa.array([WORDS_OF_OUTCOME[Outcome(one)] for one in judged.outcome.tolist()], pa.string()),
            "overlap": judged.box_overlap,
            "face": _or_null(judged.box_face),
        }
    )


def _known_faces(compared: Compared, judged: Judgement) -> pa.Table:
    """Returns a row a known face: whether it counts and is found, and the row of `detections` that found it."""
    places = list(zip(judged.face_image.tolist(), judged.face_row.tolist(), strict=True))
    boxes = np.asarray([compared.photos[image].known[row] for image, row in places], np.float64).reshape(-1, 4)
    return pa.table(
        {
            "image_id": pa.array([compared.images[image].id for image, _ in places], pa.string()),
            **_box_columns(boxes),
            "words": pa.array([" ".join(sorted(compared.words[image][row])) for image, row in places], pa.string()),
            "counts": judged.counts,
            "found": judged.found,
            "detection": _or_null(judged.finder),
        }
    )


def _images(compared: Compared, judged: Judgement) -> pa.Table:
    """Returns a row an image that was judged: sizes and counts."""
    rows = len(compared.images)

    def counted(image: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        return np.bincount(image[chosen], minlength=rows)

    return pa.table(
        {
            "image_id": pa.array([image.id for image in compared.images], pa.string()),
            "width": pa.array([image.width for image in compared.images], pa.int32()),
            "height": pa.array([image.height for image in compared.images], pa.int32()),
            "faces": counted(judged.face_image, judged.counts),
            "found": counted(judged.face_image, judged.found),
            "false_alarms": counted(judged.box_image, judged.outcome == Outcome.FALSE_ALARM),
        }
    )


def _box_columns(boxes: np.ndarray) -> dict[str, np.ndarray]:
    return {name: boxes[:, column] for column, name in enumerate(("x", "y", "width", "height"))}


def _or_null(rows: np.ndarray) -> pa.Array:
    return pa.array(rows, pa.int64(), mask=rows == NONE)


# --- words ------------------------------------------------------------------------------------------------------------


def facts(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns what was evaluated, a name and a value each."""
    about, account, spent = metrics["evaluated"], metrics["account"], metrics["cpu_ms_an_image"]
    detector = about["detector"]
    settings = ", ".join(f"{key} {value}" for key, value in detector.items() if key not in ("name", "model"))
    model = f", model {str(detector['model'])[:16]}…" if detector.get("model") else ""
    return [
        ("images", ", ".join(about["images"])),
        ("known faces", f"{', '.join(about['boxes'])} ({about['form']})"),
        ("detector", f"{detector['name']}: {settings}{model}"),
        ("least score", "all boxes count" if about["threshold"] is None else f"{about['threshold']:g}"),
        ("faces that do not count", f"{account['ignored_faces']:,} ({_outside(about)})"),
        ("CPU time an image", ", ".join(f"{step} {value:.1f} ms" for step, value in spent.items())),
    ]


def _outside(about: Mapping[str, Any]) -> str:
    words = list(about["ignore"])
    if about["min_face_px"]:
        words.append(f"longer side below {about['min_face_px']:g} px")
    return ", ".join(words) or "none is left out by a flag"


def notes_on(metrics: Mapping[str, Any]) -> list[str]:
    """Returns a sentence for everything that was not judged."""
    account = metrics["account"]
    notes = []
    if account["rejected"]:
        told_reasons = ", ".join(f"{count:,} {reason}" for reason, count in account["rejected"].items())
        notes.append(
            f"{_counted(sum(account['rejected'].values()), 'image')} could not be read ({told_reasons}); "
            f"{_counted(account['faces_on_rejected'], 'known face')} on them count neither as found nor as missed."
        )
    for key, text in (
        ("not_in_table", "not named by the table: not judged. Give an image without faces a row of its own."),
        ("repeated", "left out, as their id came before in the same archive."),
    ):
        if account[key]:
            notes.append(f"{_counted(account[key], 'image')} {text}")
    if account["only_in_table"]:
        faces = _counted(account["faces_only_in_table"], "face")
        notes.append(
            f"{_counted(account['only_in_table'], 'image')} of the table ({faces}) were not among those given."
        )
    return notes


def _counted(count: int, thing: str) -> str:
    return f"{count:,} {thing}" + ("" if count == 1 else "s")


def closing_words(metrics: Mapping[str, Any], output: str) -> str:
    """Returns a few lines for people."""
    lines = []
    for one in metrics["scores"]:
        how = f"overlap above {one['overlap']}{', after the box map' if one['mapped'] else ''}"
        recall = "–" if one["recall"] is None else f"{one['recall']:.3f}"
        lines.append(
            f"{how}: {recall} of {one['faces']:,} faces found, {one['false_alarms_an_image']:.3f} false alarms an image"
        )
    detect = metrics["cpu_ms_an_image"]["detect"]
    lines.append(f"{detect:.1f} CPU-ms an image in the detector")
    return "\n".join([*lines, *notes_on(metrics), f"page: {os.path.join(output, PAGE)}"])
