"""The page about two runs: puts counts, tables, drift and pictures in the order that they are read in.

Not here: counting (`tally.py`, `drift.py`), choosing (`pair_samples.py`), and how it looks (`templates/`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.report.charts import stacked
from pipeline.report.decimals import minus
from pipeline.report.overlay import COLOURS, view_of
from pipeline.report.photo import Photo
from pipeline.report.templating import number, render, share
from pipeline.report.two_runs.differences import KINDS, Classes, Kind
from pipeline.report.two_runs.matching import SAME_FACE
from pipeline.report.two_runs.pair_overlay import LOOK_A, LOOK_B, pair_marks, words_of
from pipeline.report.two_runs.pair_pictures import PairPictures
from pipeline.report.two_runs.pair_samples import Example
from pipeline.report.visible_names import visible
from pipeline.settings.differences import differing

LABELS_SHOWN = 40  # rows of the table of labels: with more, the most frequent
MATRIX = 16  # classes up to which A's label by B's label is a table; with more, the changes are listed
FACES_LISTED = 12  # that differ in one photo
SHADES = 4
TITLES = {
    Kind.IMAGE_ONLY_IN_A: ("Images only in A", "B has no image of this id."),
    Kind.IMAGE_ONLY_IN_B: ("Images only in B", "A has no image of this id."),
    Kind.REJECTED_ONLY_IN_A: ("Rejected only in A", "B could read these images."),
    Kind.REJECTED_ONLY_IN_B: ("Rejected only in B", "A could read these images."),
    Kind.CONTENT: (
        "Same name, other bytes",
        "The file changed between the runs. A’s picture is shown where it is left.",
    ),
    Kind.FACE_ONLY_IN_A: ("Faces only in A", f"No box of B overlaps them by {SAME_FACE} (IoU) or more."),
    Kind.FACE_ONLY_IN_B: ("Faces only in B", f"No box of A overlaps them by {SAME_FACE} (IoU) or more."),
    Kind.BOX: ("Another box", "Both runs found the face, and their boxes overlap little."),
    Kind.LABEL: ("Another label", "Both runs found the face and gave it different labels."),
}


@dataclass(frozen=True, slots=True)
class ComparisonContent:
    """What the page shows.

    Attributes:
        numbers: as in `comparison.json`. `records`: `run.json` of A and of B.
        classes: of both runs. `examples`, `pictures`: what is shown of each kind.
    """

    numbers: Mapping[str, Any]
    records: tuple[Mapping[str, Any], Mapping[str, Any]]
    classes: Classes
    examples: Mapping[Kind, Sequence[Example]]
    pictures: PairPictures


def comparison_page(content: ComparisonContent) -> bytes:
    """Returns the page, UTF-8."""
    numbers = content.numbers
    galleries = list(_galleries(content))
    context = {
        "numbers": numbers,
        "runs": [{"name": "A", **numbers["a"]}, {"name": "B", **numbers["b"]}],
        "cards": list(_cards(numbers)),
        **_account(numbers),
        "asked": list(_asked(content)),
        "kinds": [_kind(kind, numbers, galleries) for kind in KINDS],
        "label_rows": _label_rows(numbers),
        "labels_left": max(0, len(numbers["labels"]) - LABELS_SHOWN),
        "matrix": _matrix(numbers),
        "flows": numbers["flows"],
        "drift": list(_drift(numbers["drift"])),
        "features": _features(numbers["drift"]["features"]),
        "galleries": galleries,
        "pictures_note": _pictures_note(content.pictures),
        "looks": {"a": LOOK_A, "b": LOOK_B},
        "filter_labels": [(at, name) for at, name in enumerate(content.classes.both)][:LABELS_SHOWN],
        "same_face": SAME_FACE,
    }
    context["sections"] = list(_sections(context))
    return render("comparison.html.j2", style="run_report.css", script="run_report.js", **context)


def _sections(context: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "outcome", "Outcome"
    yield "asked", "What was asked"
    yield "labels", "Labels"
    yield "drift", "Drift"
    yield from ((gallery["id"], gallery["title"]) for gallery in context["galleries"])


def _cards(numbers: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    images, faces, found = numbers["images"], numbers["faces"], numbers["differences"]
    yield "images in both", number(images["both"]), f"{number(images['a'])} in A, {number(images['b'])} in B"
    yield (
        "without any difference",
        number(_same_images(numbers)),
        _share_of(_same_images(numbers), _all_images(numbers)),
    )
    yield "faces in both", number(faces["both"]), f"{number(faces['a'])} in A, {number(faces['b'])} in B"
    yield "same label", _share_of(faces["same_label"], faces["both"]) or "–", f"{number(faces['same_label'])} faces"
    yield "faces only in A", number(found[Kind.FACE_ONLY_IN_A]["rows"]), "of images in both"
    yield "faces only in B", number(found[Kind.FACE_ONLY_IN_B]["rows"]), "of images in both"


def _all_images(numbers: Mapping[str, Any]) -> int:
    images = numbers["images"]
    return int(images["a"] + images["b"] - images["both"])


def _same_images(numbers: Mapping[str, Any]) -> int:
    return _all_images(numbers) - int(numbers["images"]["with_differences"])


def _share_of(part: int, whole: int) -> str:
    return share(part / whole) if whole else ""


def _account(numbers: Mapping[str, Any]) -> dict[str, Any]:
    images = numbers["images"]
    parts = [
        ("in both, nothing differs", _same_images(numbers), "labelled"),
        ("in both, something differs", images["with_differences"] - _all_images(numbers) + images["both"], "rejected"),
        ("only in A", images["a"] - images["both"], "none"),
        ("only in B", images["b"] - images["both"], "duplicate"),
    ]
    words = ", ".join(f"{number(count)} {name}" for name, count, _ in parts)
    return {"account": stacked(parts, f"Images of both runs: {words}"), "account_parts": parts}


def _asked(content: ComparisonContent) -> Iterator[tuple[str, str, str]]:
    a, b = content.numbers["a"], content.numbers["b"]
    yield "folder", a["folder"], b["folder"]
    for name, key in (("inputs", "inputs"), ("detector", "detector")):
        yield name, _worded(a[key]), _worded(b[key])
    yield "head", str(a["head"].get("path", "")), str(b["head"].get("path", ""))
    yield "head’s digest", _shortened(a["head"].get("digest")), _shortened(b["head"].get("digest"))
    yield "cache key", _shortened(a["cache_key"]), _shortened(b["cache_key"])
    for key in ("images", "labelled", "no_face", "rejected", "faces"):
        yield key.replace("_", " "), number(a["counts"].get(key, 0)), number(b["counts"].get(key, 0))
    one, other = (record.get("settings", {}) for record in content.records)
    for name, value_a, value_b in differing(one, other):
        yield name, value_a, value_b


def _worded(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "–" if value is None else str(value)


def _shortened(digest: str | None) -> str:
    return f"{digest[:16]}…" if digest else "–"


def _kind(kind: Kind, numbers: Mapping[str, Any], galleries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found = numbers["differences"][kind]
    return {
        "kind": kind.value,
        "title": TITLES[kind][0],
        **found,
        "link": any(gallery["id"] == kind.value.replace("_", "-") for gallery in galleries),
        "id": kind.value.replace("_", "-"),
    }


def _label_rows(numbers: Mapping[str, Any]) -> list[dict[str, Any]]:
    labels = numbers["labels"]
    order = sorted(range(len(labels)), key=lambda at: (-labels[at]["faces_a"] - labels[at]["faces_b"], at))
    return [{**labels[at], "look": at % COLOURS} for at in order[:LABELS_SHOWN]]


def _matrix(numbers: Mapping[str, Any]) -> dict[str, Any] | None:
    table = numbers["label_table"]
    if len(numbers["labels"]) > MATRIX:
        return None
    rows = [
        {"name": name, "cells": _cells(counts)}
        for name, counts in zip(table["names"], table["rows_a_columns_b"], strict=True)
    ]
    return {"names": table["names"], "rows": rows}


def _cells(counts: Sequence[int]) -> list[dict[str, int]]:
    total = max(1, sum(counts))
    return [{"count": count, "shade": min(SHADES, -(-SHADES * count // total))} for count in counts]


def _drift(drift: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    labels = drift["labels_total_variation"]
    yield {
        "name": "labels: total variation",
        "a": "",
        "b": "",
        "value": _decimal(labels["value"]),
        "interval": _ends(labels),
        "verdict": _verdict(labels, labels["by_chance"] or 0.0, above=True),
    }
    for key, name, none in (
        ("mean_confidence", "mean confidence", 0.0),
        ("mean_detection_score", "mean detection score", 0.0),
        ("face_side_ratio", "size of faces, pixels: B as a multiple of A", 1.0),
        ("faces_per_image", "faces an image", 0.0),
        ("share_without_face", "share of images without a face", 0.0),
    ):
        found = drift[key]
        yield {
            "name": name,
            "a": _decimal(found["a"]),
            "b": _decimal(found["b"]),
            "value": _decimal(found["value"], signed=none == 0),
            "interval": _ends(found, signed=none == 0),
            "verdict": _verdict(found, none),
        }


def _decimal(value: float | None, *, signed: bool = False) -> str:
    if value is None:
        return "–"
    digits = 1 if abs(value) >= 10 else 3
    return minus(f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}")


def _ends(found: Mapping[str, float | None], *, signed: bool = False) -> str:
    if found["low"] is None or found["high"] is None:
        return "–"
    return f"{_decimal(found['low'], signed=signed)} to {_decimal(found['high'], signed=signed)}"


def _verdict(found: Mapping[str, float | None], none: float, *, above: bool = False) -> str:
    """Returns in words whether an interval leaves out the value that no difference would have."""
    value, low, high = found["value"], found["low"], found["high"]
    if value is None or low is None or high is None:
        return "not defined"
    if above:
        more = "more" if value > none else "no more"
        return f"{more} than chance gives ({_decimal(none)})"
    return "not distinguishable" if low <= none <= high else "differs"


def _features(found: Mapping[str, Any]) -> str:
    if "why_not" in found:
        return f"Features were not compared: {visible(found['why_not'], 400)}."
    ends = f" (95 % interval {found['low']:.3f} to {found['high']:.3f})" if found["low"] is not None else ""
    return (
        f"A linear classifier that tries to tell B’s faces from A’s by their features reaches an area under the ROC "
        f"curve of {found['area']:.3f}{ends}: 0.5 if it cannot tell them apart, 1 if it always can. It saw "
        f"{number(found['faces_a'])} faces of A and {number(found['faces_b'])} of B, and was tested on images that it "
        f"had not learned from; {number(found['shared_images'])} of the images drawn are in both runs."
    )


def _galleries(content: ComparisonContent) -> Iterator[dict[str, Any]]:
    names = [visible(name, 24) for name in content.classes.both]
    for kind in KINDS:
        examples, found = content.examples[kind], content.numbers["differences"][kind]
        if examples:
            title, words = TITLES[kind]
            yield {
                "id": kind.value.replace("_", "-"),
                "title": title,
                "words": words,
                **found,
                "photos": [_figure(content, kind, example, names) for example in examples],
            }


def _figure(content: ComparisonContent, kind: Kind, example: Example, names: Sequence[str]) -> dict[str, Any]:
    pair, photo = example.pair, example.pair.either
    picture = content.pictures.photos.get(pair.row)
    drawn = pair_marks(example, content.classes, names) if picture else []
    counts = f"A: {_outcome(pair.a)} · B: {_outcome(pair.b)}"
    name = visible(photo.image_id)
    return {
        "id": f"{kind.value.replace('_', '-')}-{pair.row}",
        "name": name,
        "about": f"{photo.width} × {photo.height}",
        "counts": counts + (f" · {len(drawn)} boxes drawn" if picture and len(drawn) < _faces(example) else ""),
        "words": f"Photo {name}. {counts}",
        "labels": _labels(content.classes, example),
        "picture": picture.data if picture else None,
        "view": view_of(photo),
        "marks": drawn,
        "under": "".join(f"M{m.x} {m.y}h{m.width}v{m.height}h-{m.width}z" for m in drawn if not m.whole),
        "faces": [
            {run: visible(text, 60) for run, text in row.items()}
            for row in words_of(example, content.classes)[:FACES_LISTED]
        ],
        "differing": len(example.faces),
        "left": max(0, len(example.faces) - FACES_LISTED),
    }


def _faces(example: Example) -> int:
    return sum(photo.face_count for photo in (example.pair.a, example.pair.b) if photo is not None)


def _outcome(photo: Photo | None) -> str:
    if photo is None:
        return "not there"
    if not photo.face_count:
        return "no face"
    return f"{number(photo.face_count)} {'face' if photo.face_count == 1 else 'faces'}"


def _labels(classes: Classes, example: Example) -> list[int]:
    """Returns the labels that occur in a photo, as indices into those of both runs."""
    named = [(example.pair.a, classes.a), (example.pair.b, classes.b)]
    return sorted(
        {
            classes.both.index(own[face.label])
            for photo, own in named
            if photo
            for face in photo.faces
            if face.label >= 0
        }
    )


def _pictures_note(pictures: PairPictures) -> str:
    if not pictures.missing:
        return ""
    why = f" ({visible(pictures.fault, 300)})" if pictures.fault else ""
    which = f"{number(pictures.missing)} of the photos" if pictures.photos else "The photos"
    return (
        f"{which} chosen for this page could not be read again unchanged{why}. "
        "“compare A B --images PATTERN” says where they lie now; the numbers are whole."
    )
