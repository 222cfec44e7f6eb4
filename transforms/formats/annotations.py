"""Reads tables of known faces: a CSV, FDDB's lists of ellipses, WIDER's lists of boxes, all as published.

| form | what it looks like |
|---|---|
| CSV | a header with image, x, y, w (or width), h (or height); one row per face; a row without numbers: no face |
| FDDB | `FDDB-fold-01-ellipseList.txt`: name without suffix, count, then one line per face: radii, angle, centre, 1 |
| WIDER | `wider_face_val_bbx_gt.txt`: name, count, then one line per face: x, y, w, h and six flags |

Boxes are in pixels of the stored image. Other attributes of a face become words: the cells of the columns
`occlusion`, `box_from` and `flags`, and WIDER's flags as `blur2`, `invalid1`. Further columns are kept by name if asked
for; in WIDER's lists the flags are the columns.

Not here: opening files (`transforms/storage/store.py`), and what counts as found (`models/evaluation/detection.py`).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from transforms.formats.records import FormatError

NO_WORD = frozenset({"", "none", "blur0", "expr0", "illum0", "invalid0", "occ0", "pose0"})  # nothing special
WIDER_FLAGS = ("blur", "expr", "illum", "invalid", "occ", "pose")  # in wider_face_*_bbx_gt.txt, after the box
WORD_COLUMNS = ("occlusion", "box_from", "flags")
MAX_BYTES = 256 * 2**20  # WIDER's training list has 5 MB

_SIDES = (("w", "width"), ("h", "height"))
_SUFFIX = re.compile(r"\.[^./]+$")


class UnknownColumn(FormatError):
    """A column that was asked for is not in the table."""


@dataclass(frozen=True, slots=True)
class KnownFaces:
    """The known faces of one image.

    Attributes:
        boxes: (n, 4) float64 x, y, width, height in pixels; for an ellipse, the smallest box around it.
        ellipses: (n, 5) float64: two radii in pixels, the angle of the first radius in radians, the centre's x and y.
            The angle runs from the x axis to the y axis (which points down). NaN for a face that is a box.
        words: the attributes of each face.
        size: (width, height) of the image, where the table states it.
        cells: of each face in the columns that were asked for, in their order; "" for an empty cell.
    """

    boxes: np.ndarray
    ellipses: np.ndarray
    words: tuple[frozenset[str], ...]
    size: tuple[int, int] | None = None
    cells: tuple[tuple[str, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.words)


@dataclass(frozen=True, slots=True)
class Annotations:
    """Known faces by image name, as the table spells it.

    Attributes:
        form: csv, fddb or wider.
        columns: that `KnownFaces.cells` holds.
    """

    form: str
    faces: dict[str, KnownFaces]
    columns: tuple[str, ...] = ()

    def name_of(self, image_id: str) -> str | None:
        """Returns an image's name in the table: its id or the end of it after a slash (FDDB: without the suffix)."""
        if self.form == "fddb":
            image_id = _SUFFIX.sub("", image_id)
        while image_id and image_id not in self.faces:
            image_id = image_id.partition("/")[2]
        return image_id or None


def read_annotations(file: BinaryIO, name: str, columns: tuple[str, ...] = ()) -> Annotations:
    """Returns the known faces of a table; detects its form from its content.

    Args:
        columns: whose cells are kept for every face.

    Raises:
        FormatError: names the file and the line that does not fit, or the image that is listed twice.
        UnknownColumn: the table lacks one of `columns`.
    """
    data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise FormatError(f"{name} has more than {MAX_BYTES} bytes, too many for a table of faces; give the right file")
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise FormatError(f"{name} is not UTF-8 text: {error}; give a table of faces") from error
    if any("," in line for line in lines[:1]):
        return Annotations("csv", _from_csv(lines, name, columns), columns)
    form = _form_of(lines, name)
    _check_columns(columns, WIDER_FLAGS if form == "wider" else (), name)
    return Annotations(form, dict(_from_list(lines, name, form, columns)), columns)


def merged(tables: Iterable[tuple[str, Annotations]]) -> Annotations:
    """Returns several tables of one form as one, for example FDDB's ten folds.

    Args:
        tables: (name, table) pairs.

    Raises:
        FormatError: the forms differ, or two tables name the same image.
    """
    form, faces, columns = "", dict[str, KnownFaces](), tuple[str, ...]()
    for name, table in tables:
        if form and table.form != form:
            raise FormatError(f"{name} has the form {table.form}, the one before it {form}; give tables of one form")
        if twice := sorted(faces.keys() & table.faces.keys()):
            raise FormatError(f"{name}: {twice[0]} is also in the table before it; remove one of them")
        form, faces, columns = table.form, faces | table.faces, table.columns
    return Annotations(form, faces, columns)


def _check_columns(wanted: Sequence[str], known: Sequence[str], name: str) -> None:
    for column in wanted:
        if column not in known:
            raise UnknownColumn(f"{name} has no column {column}; it has {', '.join(known) or 'only faces'}")


# --- CSV --------------------------------------------------------------------------------------------------------------


def _from_csv(lines: list[str], name: str, asked: tuple[str, ...]) -> dict[str, KnownFaces]:
    rows = csv.DictReader(lines)
    header = [column.strip() for column in rows.fieldnames or ()]
    rows.fieldnames = header
    columns = _box_columns(header, name)
    _check_columns(asked, header, name)
    found: dict[str, list[_Face]] = {}
    sizes: dict[str, tuple[int, int] | None] = {}
    for row in rows:
        where = f"{name}, line {rows.line_num}"
        image = row["image"] or ""
        if not image or None in row:
            fault = "more cells than columns" if image else "the image name is empty"
            raise FormatError(f"{where}: {fault}; fix that line")
        sizes.setdefault(image, _stated_size(row, columns, where))
        faces = found.setdefault(image, [])
        if any((row[column] or "").strip() for column in columns):
            box = _numbers([row[column] or "" for column in columns], 4, where)
            cells = tuple((row[column] or "").strip() for column in asked)
            faces.append(_Face(_sound_box(box, where), _words(row), cells))
    return {image: _boxes_only(faces, sizes[image]) for image, faces in found.items()}


def _box_columns(header: list[str], name: str) -> tuple[str, ...]:
    """Returns the four columns of a box; width and height serve if w and h are missing (else they are the image's)."""
    sides = [next((word for word in words if word in header), "") for words in _SIDES]
    columns = ("x", "y", *sides)
    missing = [word for word in ("image", *columns) if word not in header]
    if missing:
        raise FormatError(f"{name} has the columns {', '.join(header)}; a table of faces needs image, x, y, w and h")
    return columns


def _stated_size(row: dict[str, str | None], columns: tuple[str, ...], where: str) -> tuple[int, int] | None:
    cells = [row.get(column) for column in ("width", "height")]
    if "width" in columns or not all(cells):
        return None
    width, height = _numbers([cell or "" for cell in cells], 2, where)
    return int(width), int(height)


def _words(row: dict[str, str | None]) -> frozenset[str]:
    words = " ".join(row.get(column) or "" for column in WORD_COLUMNS).split()
    return frozenset(words) - NO_WORD


# --- lists ------------------------------------------------------------------------------------------------------------


def _form_of(lines: list[str], name: str) -> str:
    """Returns fddb or wider, judged by the first line of numbers after a name and a count."""
    for image, count, numbers in zip(lines, lines[1:], lines[2:], strict=False):
        cells = numbers.split()
        if image.strip() and count.strip().isdigit() and len(cells) in (5, 6, 10):
            return "wider" if len(cells) == 10 else "fddb"
    raise FormatError(
        f"{name} is not a table of faces; give a CSV with image, x, y, w and h, FDDB's list of ellipses "
        "(FDDB-fold-01-ellipseList.txt) or WIDER's list of boxes (wider_face_val_bbx_gt.txt)"
    )


def _from_list(lines: list[str], name: str, form: str, columns: tuple[str, ...]) -> Iterator[tuple[str, KnownFaces]]:
    seen: set[str] = set()
    at = 0
    while at < len(lines):
        image = lines[at].strip()
        if not image:
            at += 1
            continue
        if image in seen:
            raise FormatError(f"{name}, line {at + 1}: {image} is listed twice; remove one of them")
        count = _count(lines, at + 1, name)
        rows = [
            (f"{name}, line {number + 1}", lines[number]) for number in range(at + 2, min(at + 2 + count, len(lines)))
        ]
        if len(rows) < count:
            raise FormatError(f"{name} ends after {len(rows)} of {count} faces of {image}; the file is incomplete")
        yield image, (_wider_faces(rows, columns) if form == "wider" else _fddb_faces(rows))
        seen.add(image)
        at += 2 + count
        at += (
            form == "wider" and not count and at < len(lines) and lines[at].split() == ["0"] * 10
        )  # in place of a face


def _count(lines: list[str], at: int, name: str) -> int:
    text = lines[at].strip() if at < len(lines) else ""
    if not text.isascii() or not text.isdigit():
        raise FormatError(f"{name}, line {at + 1}: expected the number of faces, found {text!r}")
    return int(text)


def _wider_faces(rows: list[tuple[str, str]], columns: tuple[str, ...]) -> KnownFaces:
    faces = []
    for where, line in rows:
        numbers = _numbers(line.split(), 10, where)
        words = [f"{flag}{int(value)}" for flag, value in zip(WIDER_FLAGS, numbers[4:].tolist(), strict=True)]
        box = numbers[:4]
        if not (box[2:] > 0).all():  # the published lists have a few empty boxes, which nobody can find
            words.append("invalid1")
        cells = tuple(f"{int(numbers[4 + WIDER_FLAGS.index(column)])}" for column in columns)
        faces.append(_Face(np.maximum(box, [-np.inf, -np.inf, 0, 0]), frozenset(words) - NO_WORD, cells))
    return _boxes_only(faces, None)


def _fddb_faces(rows: list[tuple[str, str]]) -> KnownFaces:
    ellipses = np.zeros((len(rows), 5))
    for row, (where, line) in enumerate(rows):
        ellipses[row] = _numbers(line.split()[:5], 5, where)
        if not (ellipses[row, :2] > 0).all():
            raise FormatError(f"{where}: an ellipse needs two radii above 0, found {line.strip()}")
    return KnownFaces(_around(ellipses), ellipses, (frozenset(),) * len(rows))


def _around(ellipses: np.ndarray) -> np.ndarray:
    """Returns (n, 4), the smallest boxes around ellipses."""
    first, second, angle, x, y = ellipses.T
    half_width = np.hypot(first * np.cos(angle), second * np.sin(angle))
    half_height = np.hypot(first * np.sin(angle), second * np.cos(angle))
    return np.stack([x - half_width, y - half_height, 2 * half_width, 2 * half_height], axis=1)


# --- numbers ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Face:
    box: np.ndarray
    words: frozenset[str]
    cells: tuple[str, ...]


def _boxes_only(faces: list[_Face], size: tuple[int, int] | None) -> KnownFaces:
    boxes = np.asarray([face.box for face in faces], np.float64).reshape(-1, 4)
    words, cells = tuple(face.words for face in faces), tuple(face.cells for face in faces)
    return KnownFaces(boxes, np.full((len(faces), 5), np.nan), words, size, cells)


def _numbers(cells: list[str], count: int, where: str) -> np.ndarray:
    try:
        numbers = np.asarray([float(cell) for cell in cells])
    except ValueError as error:
        raise FormatError(f"{where}: {error}") from error
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise FormatError(f"{where}: expected {count} numbers, found {' '.join(cells)}")
    return numbers


def _sound_box(box: np.ndarray, where: str) -> np.ndarray:
    if not (box[2:] > 0).all():
        raise FormatError(f"{where}: a face needs a width and a height above 0, found {box[2]:g} and {box[3]:g}")
    return box
