"""Boxes and labels above a photo, as SVG in the photo's own coordinates: no label lies on another, or on a face."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.report.near_misses import Candidate
from pipeline.report.photo import Face, Photo
from transforms.formats.records import NO_LABEL

VIEW = 640  # units of the longer side of every photo, whatever its pixels
COLOURS = 8  # classes of the style sheet for boxes, in turn
WEAK = 7  # of these: white, for what is no face
_TEXT, _LETTER = 22, 13.8  # units: height of a line, mean width of a letter with its outline, in a wide font
_GAP = 3


@dataclass(frozen=True, slots=True)
class Mark:
    """A face as drawn, in units of the view.

    Attributes:
        number: of the face in its photo.
        look: number of its colour.
        title: the text shown when the pointer rests on it.
        text: its label, "" where there is no room for it; `at`: left end and base line of it.
        whole: the box is the whole photo, so that none is drawn.
        weak: the box is too weak to be a face.
    """

    number: int
    x: float
    y: float
    width: float
    height: float
    look: int
    title: str
    text: str
    at: tuple[float, float]
    whole: bool
    weak: bool = False


def view_of(photo: Photo) -> tuple[int, int]:
    """Returns (width, height) of the view."""
    factor = VIEW / max(photo.width, photo.height, 1)
    return max(1, round(photo.width * factor)), max(1, round(photo.height * factor))


def marks(photo: Photo, classes: Sequence[str], most: int, first: Sequence[Face] = ()) -> list[Mark]:
    """Returns the faces of a photo as they are drawn, the largest first: they find room for their labels first.

    Args:
        most: how many are drawn.
        first: faces that are drawn before all others, each once.
    """
    factor = VIEW / max(photo.width, photo.height, 1)
    width, height = view_of(photo)
    chosen = {face.number for face in first}
    rest = [face for face in photo.faces if face.number not in chosen]
    by_size = sorted(rest, key=lambda face: (-face.box[2] * face.box[3], face.number))
    shown = list(dict.fromkeys([*first, *by_size]))[:most]
    faces = [_placed(face, factor) for face in shown]
    taken: list[tuple[float, float, float, float]] = []
    drawn = []
    for face in shown:
        x, y, wide, tall = (round(side * factor, 1) for side in face.box)
        label = label_of(face, classes)
        whole = face.box == (0, 0, photo.width, photo.height)
        text, at = "", (0.0, 0.0)
        for words in () if whole or not has_label(face) else (f"{label} {percent(face.confidence)}", label):
            if (found := _room(words, (x, y, wide, tall), (width, height), [*taken, *faces])) is not None:
                text, at = words, (found[0], round(found[1] + _TEXT * 0.8, 1))
                taken.append((*found, found[0] + len(words) * _LETTER, found[1] + _TEXT))
                break
        drawn.append(Mark(face.number, x, y, wide, tall, face.label % COLOURS, _title(face, label), text, at, whole))
    return drawn


def candidate_marks(photo: Photo, candidates: Sequence[Candidate]) -> list[Mark]:
    """Returns boxes that were too weak to be faces, with their scores, as they are drawn."""
    factor = VIEW / max(photo.width, photo.height, 1)
    boxes = [tuple(round(side * factor, 1) for side in one.box) for one in candidates]
    taken = [(x, y, x + wide, y + tall) for x, y, wide, tall in boxes]
    drawn = []
    for one, (x, y, wide, tall) in zip(candidates, boxes, strict=True):
        words, at = f"{one.score:.2f}", (0.0, 0.0)
        if (found := _room(words, (x, y, wide, tall), view_of(photo), taken)) is not None:
            at = (found[0], round(found[1] + _TEXT * 0.8, 1))
            taken.append((*found, found[0] + len(words) * _LETTER, found[1] + _TEXT))
        title = f"candidate, detection score {words}"
        text = words if found is not None else ""
        drawn.append(Mark(-1, x, y, wide, tall, WEAK, title, text, at, whole=False, weak=True))
    return drawn


def _placed(face: Face, factor: float) -> tuple[float, float, float, float]:
    x, y, width, height = (side * factor for side in face.box)
    return x, y, x + width, y + height


def percent(share: float) -> str:
    """Returns a share in whole percent; none is rounded to 100 that is less."""
    return f"{min(99, round(share * 100)) if share < 1 else 100} %"


def has_label(face: Face) -> bool:
    """Returns False for a face that is too small to label."""
    return face.label != NO_LABEL


def label_of(face: Face, classes: Sequence[str]) -> str:
    """Returns the name of a face's class, or words for a face that has none."""
    return name_of(face.label, classes)


def name_of(label: int, classes: Sequence[str]) -> str:
    """Returns the name of a class, or words for a face that has none."""
    return classes[label] if label != NO_LABEL else "too small to label"


def _title(face: Face, label: str) -> str:
    sure = f" {percent(face.confidence)}" if has_label(face) else ""
    return f"face {face.number}: {label}{sure}, detection score {face.score:.2f}"


def _room(
    words: str,
    box: tuple[float, float, float, float],
    view: tuple[int, int],
    taken: list[tuple[float, float, float, float]],
) -> tuple[float, float] | None:
    """Returns left and top of a place where the text lies on nothing that is taken; None if there is none."""
    wide = len(words) * _LETTER
    if wide > view[0]:
        return None
    for left, top in _places(box, wide, view):
        place = (left, top, left + wide, top + _TEXT)
        if top >= 0 and place[3] <= view[1] and not any(_meet(place, other) for other in taken):
            return round(left, 1), round(top, 1)
    return None


def _places(
    box: tuple[float, float, float, float], wide: float, view: tuple[int, int]
) -> Iterator[tuple[float, float]]:
    """Yields left and top of a text: above the box, then below it; from its left end, then to its right end."""
    x, y, broad, tall = box
    for start in (x, x + broad - wide):
        left = max(0.0, min(start, view[0] - wide))
        yield left, y - _TEXT - _GAP
        yield left, y + tall + _GAP


def _meet(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
