"""The boxes of two runs above one photo, each run in its colour, and the labels of the faces that differ."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import replace

from pipeline.report.overlay import Mark, has_label, label_of, marks, percent
from pipeline.report.photo import Face, Photo
from pipeline.report.two_runs.differences import Classes
from pipeline.report.two_runs.pair_samples import Example

DRAWN = 40  # faces of both runs on one photo
LOOK_A, LOOK_B = 0, 5  # colours of the style sheet: orange and blue, which nearly everybody tells apart
_OFFSET = 1_000  # between the numbers of A's faces and of B's: more than are kept of a photo


def pair_marks(example: Example, classes: Classes, names: Sequence[str]) -> list[Mark]:
    """Returns the faces of both runs as they are drawn; `look` is `LOOK_A` or `LOOK_B`.

    Args:
        names: of the labels of both runs, as they are shown.
    """
    pair = example.pair
    faces_a = [_of_run(face, 0, classes, classes.a) for face in (pair.a.faces if pair.a else ())]
    faces_b = [_of_run(face, 1, classes, classes.b) for face in (pair.b.faces if pair.b else ())]
    wanted = {a for a, _ in example.faces if a is not None}
    wanted |= {b + _OFFSET for _, b in example.faces if b is not None}
    faces = [*faces_a, *faces_b]
    photo = replace(pair.either, faces=tuple(faces), face_count=len(faces))
    shown = [f"A {name}" for name in names], [f"B {name}" for name in names]
    first = [face for face in faces if face.number in wanted]
    return [_of(mark, wanted) for mark in marks(photo, [*shown[0], *shown[1]], DRAWN, first)]


def _of_run(face: Face, run: int, classes: Classes, own: Sequence[str]) -> Face:
    label = face.label
    if has_label(face):
        label = classes.both.index(own[face.label]) + run * len(classes.both)
    return replace(face, number=face.number + run * _OFFSET, label=label)


def _of(mark: Mark, wanted: Set[int]) -> Mark:
    """Returns a mark in the colour of its run; only those that differ keep their labels, unless no face does."""
    run, number = divmod(mark.number, _OFFSET)
    title = mark.title.partition(": ")[2]
    text = mark.text if not wanted or mark.number in wanted else ""
    return replace(mark, look=(LOOK_A, LOOK_B)[run], title=f"{'AB'[run]}, face {number}: {title}", text=text)


def words_of(example: Example, classes: Classes) -> list[dict[str, str]]:
    """Returns the faces that differ, a row each: what A says and what B says."""
    return [
        {"a": _said(example.pair.a, a, classes.a), "b": _said(example.pair.b, b, classes.b)} for a, b in example.faces
    ]


def _said(photo: Photo | None, number: int | None, names: Sequence[str]) -> str:
    if photo is None or number is None:
        return "no such face"
    if number >= len(photo.faces):
        return f"face {number}"
    face = photo.faces[number]
    sure = f" {percent(face.confidence)}" if has_label(face) else ""
    return f"{label_of(face, names)}{sure} (face {number})"
