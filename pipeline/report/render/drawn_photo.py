"""Draws a photo with its faces: boxes in the colours of their labels, labels beside them, and a caption below.

Not here: where labels go (`places.py`), and files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from models.boxes import rescale
from models.detectors.cropping import resized
from pipeline.report.overlay import has_label, label_of, percent
from pipeline.report.photo import Face, Photo
from pipeline.report.render.lettering import Colour, draw_text, height_of, shortened, width_of
from pipeline.report.render.places import Rectangle, places
from pipeline.report.visible_names import visible

COLOURS: tuple[Colour, ...] = (  # of the labels, in turn; black text reads well on each: as on the run's page
    *((255, 176, 0), (183, 227, 106), (224, 139, 255), (255, 228, 92)),
    *((127, 212, 255), (95, 155, 255), (255, 127, 107), (255, 255, 255)),
)
UNLABELLED: Colour = (190, 190, 190)
INK, PAPER, SOFT = (24, 27, 31), (255, 255, 255), (90, 96, 105)
SMALLEST_PX, LARGEST_PX = 12, 34  # of letters: below 12 nobody reads them, above they hide the photo
A_FACE = 0.2  # height of letters as a share of the face's height
LEAST_OF_PHOTO, MOST_OF_PHOTO = 0.013, 0.028  # and as shares of the photo's longer side
_PAD, _ROW_GAP = 4, 4
NARROWEST_PX, MAT = 320, 235  # a caption needs this width; grey beside a photo that is narrower
LABEL_LETTERS = 40  # of a class's name, at most


@dataclass(frozen=True, slots=True)
class Look:
    """How photos are drawn.

    Attributes:
        longest: pixels of the longer side; a larger photo is reduced.
        enlarged: pixels of the longer side up to which a smaller photo is enlarged, at most twice, so that letters
            find room.
        shortest: pixels of the longer side of the smallest photos, which are enlarged as much as it takes.
        sure: labels say how sure they are.
    """

    longest: int = 1600
    enlarged: int = 1000
    shortest: int = 480
    sure: bool = True


def size_of(photo: Photo, look: Look) -> tuple[int, int]:
    """Returns (height, width) in pixels at which a photo is drawn, without its caption."""
    longer = max(photo.width, photo.height, 1)
    factor = min(max(longer, min(2 * longer, look.enlarged), look.shortest), look.longest) / longer
    return max(1, round(photo.height * factor)), max(1, round(photo.width * factor))


def drawn_photo(
    image: np.ndarray, photo: Photo, classes: Sequence[str], size: tuple[int, int], look: Look
) -> np.ndarray:
    """Returns (h, w, 3) uint8 RGB: the photo at `size` (height, width), with boxes and labels.

    Args:
        image: (h, w, 3) uint8 RGB, the upright photo, reduced or not.
        photo: its faces, in pixels of the full upright photo.
    """
    canvas = np.array(resized(image, size))  # a copy: the image may be a view of what others read
    faces = [face for face in photo.faces if face.box != (0, 0, photo.width, photo.height)]
    if not faces:
        return canvas
    factor = (size[1] / max(photo.width, 1), size[0] / max(photo.height, 1))
    boxes = rescale(np.asarray([face.box for face in faces]), factor)
    line = max(2, round(max(size) / 500))
    for row in sorted(range(len(faces)), key=lambda row: has_label(faces[row])):  # labelled ones above the others
        _outline(canvas, boxes[row], _colour(faces[row]), line if has_label(faces[row]) else max(1, line - 1))
    _labels(canvas, faces, boxes, classes, look)
    return canvas


def _labels(canvas: np.ndarray, faces: Sequence[Face], boxes: np.ndarray, classes: Sequence[str], look: Look) -> None:
    edges = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    texts = [_wordings(face, classes, sure=look.sure) for face in faces]
    sizes = [_letters(box[3], max(canvas.shape[:2])) for box in boxes.tolist()]
    order = sorted((row for row, words in enumerate(texts) if words), key=lambda row: -boxes[row, 2] * boxes[row, 3])

    def measured(row: int) -> list[tuple[int, int]]:
        return [(width_of(words, sizes[row]) + 2 * _PAD, height_of(sizes[row])) for words in texts[row]]

    found = places(edges, (canvas.shape[1], canvas.shape[0]), measured, order)
    for row, place in found.items():
        if place.leader is not None:
            _edged(canvas, place.leader, _colour(faces[row]))
        _edged(canvas, place.at, _colour(faces[row]))
        draw_text(canvas, texts[row][place.words], place.at[0] + _PAD, place.at[1], sizes[row], (0, 0, 0))


def _wordings(face: Face, classes: Sequence[str], *, sure: bool) -> list[str]:
    if not has_label(face):
        return []
    name = visible(label_of(face, classes), LABEL_LETTERS)
    return [f"{name} {percent(face.confidence)}", name] if sure else [name]


def _letters(face_px: int, photo_px: int) -> int:
    """Returns the height of letters for a face of this height."""
    most = max(SMALLEST_PX, min(LARGEST_PX, MOST_OF_PHOTO * photo_px))
    return round(min(most, max(SMALLEST_PX, A_FACE * face_px, LEAST_OF_PHOTO * photo_px)))


def _colour(face: Face) -> Colour:
    return COLOURS[face.label % len(COLOURS)] if has_label(face) else UNLABELLED


def _outline(canvas: np.ndarray, box: np.ndarray, colour: Colour, line: int) -> None:
    """Draws a box whose line lies around it, with a dark line around that, which shows on light photos."""
    left, top, width, height = box.tolist()
    for away, thick, ink in ((line + 1, line + 1, (0, 0, 0)), (line, line, colour)):
        x0, y0, x1, y1 = left - away, top - away, left + width + away, top + height + away
        _fill(canvas, (x0, y0, x1, y0 + thick), ink)
        _fill(canvas, (x0, y1 - thick, x1, y1), ink)
        _fill(canvas, (x0, y0, x0 + thick, y1), ink)
        _fill(canvas, (x1 - thick, y0, x1, y1), ink)


def _edged(canvas: np.ndarray, at: Rectangle, colour: Colour) -> None:
    """Fills a rectangle, with a dark line at its edge."""
    _fill(canvas, at, (0, 0, 0))
    _fill(canvas, (at[0] + 1, at[1] + 1, at[2] - 1, at[3] - 1), colour)


def _fill(canvas: np.ndarray, edges: tuple[int, int, int, int], colour: Colour) -> None:
    left, top, right, bottom = (max(0, edge) for edge in edges)
    canvas[top:bottom, left:right] = colour


# --- the caption ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Item:
    """A word of a caption, with a patch of colour before it unless that is None."""

    text: str
    colour: Colour | None = None


def counted(photo: Photo, classes: Sequence[str]) -> list[Item]:
    """Returns what a photo's faces are in few words: how many of each label, the commonest first."""
    if not photo.faces:
        return [Item("no face found")]
    labelled = [face for face in photo.faces if has_label(face)]
    counts = Counter(face.label for face in labelled)
    items = []
    for label, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        name = visible(classes[label], LABEL_LETTERS)
        sure = next(percent(face.confidence) for face in labelled if face.label == label)
        items.append(Item(f"{name} {sure}" if count == 1 else f"{name}: {count}", COLOURS[label % len(COLOURS)]))
    small = len(photo.faces) - len(labelled)
    return [*items, *([Item(f"too small to label: {small}", UNLABELLED)] if small else [])]


def with_caption(canvas: np.ndarray, photo: Photo, classes: Sequence[str]) -> np.ndarray:
    """Returns the drawn photo, `NARROWEST_PX` wide or more, with a strip below it: what its faces are, and its id."""
    if canvas.shape[1] < NARROWEST_PX:
        left = (NARROWEST_PX - canvas.shape[1]) // 2
        wide = np.full((canvas.shape[0], NARROWEST_PX, 3), MAT, np.uint8)
        wide[:, left : left + canvas.shape[1]] = canvas
        canvas = wide
    width = canvas.shape[1]
    size = round(min(20, max(13, LEAST_OF_PHOTO * max(canvas.shape[:2]))))
    rows = list(_flowed(counted(photo, classes), size, width - 2 * size))
    step = height_of(size) + _ROW_GAP
    strip = np.full((step * (len(rows) + 1) + 3 * _ROW_GAP, width, 3), PAPER, np.uint8)
    for number, row in enumerate(rows):
        for left, item in row:
            draw_item(strip, item, size + left, 2 * _ROW_GAP + number * step, size)
    name = shortened(visible(photo.image_id), size, width - 2 * size, keep_end=True)
    draw_text(strip, name, size, 2 * _ROW_GAP + len(rows) * step, size, SOFT)
    return np.concatenate([canvas, strip])


def draw_item(canvas: np.ndarray, item: Item, left: int, top: int, size: int) -> None:
    """Draws a word of a caption with its patch."""
    if item.colour is not None:
        middle, half = top + height_of(size) // 2, size // 3
        _fill(canvas, (left, middle - half, left + 2 * half, middle + half), INK)
        _fill(canvas, (left + 1, middle - half + 1, left + 2 * half - 1, middle + half - 1), item.colour)
        left += size
    draw_text(canvas, item.text, left, top, size, INK)


def item_width(item: Item, size: int) -> int:
    """Returns the pixels that a word of a caption takes."""
    return width_of(item.text, size) + (size if item.colour is not None else 0)


def _flowed(items: Sequence[Item], size: int, width: int) -> Iterator[list[tuple[int, Item]]]:
    """Yields the rows of a caption: each word with its distance from the left."""
    row: list[tuple[int, Item]] = []
    left = 0
    for item in items:
        if width_of(item.text, size) + size > width:
            item = Item(shortened(item.text, size, max(1, width - size)), item.colour)
        if row and left + item_width(item, size) > width:
            yield row
            row, left = [], 0
        row.append((left, item))
        left += item_width(item, size) + size
    yield row
