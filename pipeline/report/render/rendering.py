"""Renders chosen photos of a run: reads each again, draws it, and writes photos, contact sheets and face crops.

Bounded: one photo is decoded at a time, one sheet is in the making, and the faces of a group of photos are in memory.
Not here: which photos (`chosen.py`), how they look (`drawn_photo.py`), whose the folder is (`folder.py`).
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from models.boxes import square_with_margin
from models.detectors.cropping import crop_resized
from pipeline.report.overlay import has_label
from pipeline.report.photo import Face, Photo
from pipeline.report.render.chosen import Chosen, groups
from pipeline.report.render.contact_sheets import ContactSheets
from pipeline.report.render.drawn_photo import Look, drawn_photo, size_of, with_caption
from pipeline.report.render.folder import FACES
from transforms.containing import GATE, contained
from transforms.formats.decode import decode
from transforms.formats.encode import as_jpeg, as_png
from transforms.formats.picture_index import INDEX_HEAD, PICTURE_INDEX
from transforms.formats.publish import publish_bytes, publish_file
from transforms.formats.records import Limits, RejectedContent
from transforms.formats.safe_names import UNLABELLED, face_name, folder_names, photo_name, sheet_name
from transforms.formats.spreadsheets import cell
from transforms.read_again import Faults, read_what_is_left
from transforms.storage.stopping import check

QUALITY = 90  # of JPEG
CROP_PX = 1024  # side of a crop, at most: a larger face is reduced
MOST_FAULTS = 200  # inputs in a row that cannot be read, after which the rest is not tried

Lines = Callable[[], Iterable[bytes]]


@dataclass(frozen=True, slots=True)
class Wish:
    """What is written.

    Attributes:
        crops, sheets: beside the photos.
        margin: around a crop, as a share of the face's longer side, on each side: the run's own and what was asked.
        png: PNG in place of JPEG.
        look: of the photos.
        exact: ids in the index as they are, also where a spreadsheet would run them as formulas.
    """

    crops: bool = False
    sheets: bool = False
    margin: float = 0.0
    png: bool = False
    look: Look = field(default_factory=Look)
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """The run that is rendered.

    Attributes:
        folder: its output folder, whose tables stand.
        classes: of its head. `prefix`: what the columns of the head begin with.
        lines: of a plan of its inputs; None where there is none.
        limits: of images that are read again.
    """

    folder: str
    classes: Sequence[str]
    lines: Lines | None
    limits: Limits
    prefix: str = ""


@dataclass(slots=True)
class Rendered:
    """What was written.

    Attributes:
        photos, crops, sheets: numbers of files.
        missing: chosen photos that could not be read as they were.
        fault: the first reason that storage gave, "" where it gave none.
    """

    photos: int = 0
    crops: int = 0
    sheets: int = 0
    missing: int = 0
    fault: str = ""


class NothingRead(Exception):
    """None of the chosen photos could be read, so nothing was written; the message is the first reason, or ""."""


def render(
    source: Source,
    output: str,
    wish: Wish,
    chosen: Chosen,
    *,
    done: Callable[[int], object] = lambda photos: None,
    earlier: set[str] | None = None,
) -> Rendered:
    """Writes pictures of the chosen photos into an existing folder, and the index that says which file is which.

    Args:
        done: called with the number of photos written so far.
        earlier: names of files of an earlier rendering in the folder; those that are written again are taken off.

    Raises:
        NothingRead: no photo could be read. ResultsError: the tables do not fit.
        StorageError: a file cannot be read or written.
    """
    writer = _Writer(source, output, wish, earlier if earlier is not None else set())
    writer.earlier.discard(PICTURE_INDEX)
    with (
        publish_file(os.path.join(output, PICTURE_INDEX)) as temporary,
        open(temporary, "w", encoding="utf-8-sig", errors="backslashreplace", newline="") as file,
    ):
        index = csv.writer(file, lineterminator="\n")
        index.writerow(INDEX_HEAD)
        for photo, data in _read(source, chosen, writer.summary):
            check()
            index.writerows(writer.add(photo, data))
            done(writer.summary.photos)
        writer.finish()
        if not writer.summary.photos:
            raise NothingRead(writer.summary.fault)
    writer.summary.missing = len(chosen.rows) - writer.summary.photos
    return writer.summary


def _read(source: Source, chosen: Chosen, summary: Rendered) -> Iterator[tuple[Photo, bytes]]:
    """Yields the photos and their bytes, in the order of the plan within each group."""
    faults = Faults()
    for group in groups(source.folder, chosen.rows, prefix=source.prefix):
        by_id = {photo.image_id: photo for photo in group if photo.digest}
        wanted = {image_id: photo.digest for image_id, photo in by_id.items()}
        lines = source.lines() if source.lines is not None else ()
        for image_id, data in read_what_is_left(lines, wanted, source.limits, faults, most_faults=MOST_FAULTS):
            yield by_id[image_id], data
    summary.fault = faults.first


class _Writer:
    """Writes what one photo gives, and sheets when they are full."""

    def __init__(self, source: Source, output: str, wish: Wish, earlier: set[str]) -> None:
        self.summary, self.earlier = Rendered(), earlier
        self._source, self._output, self._wish = source, output, wish
        self._sheets = ContactSheets(source.classes)
        self._ending = ".png" if wish.png else ".jpg"
        self._label_folders = folder_names(source.classes)

    def add(self, photo: Photo, data: bytes) -> Iterator[tuple[object, ...]]:
        """Writes the files of a photo and yields their rows in the index; none if it cannot be decoded."""
        image = self._decoded(photo, data)
        if image is None:
            return
        name = photo_name(photo.row, photo.image_id, self._ending)
        self._write(name, self._drawn(image, photo))
        self.summary.photos += 1
        yield (name, "photo", self._cell(photo.image_id), "", "", "")
        if self._wish.crops:
            yield from (self._crop(image, photo, face) for face in photo.faces)
        if self._wish.sheets:
            self._write_sheets(self._sheets.add(image, photo))

    def finish(self) -> None:
        """Writes the last sheet."""
        self._write_sheets(self._sheets.finish())

    def _decoded(self, photo: Photo, data: bytes) -> np.ndarray | None:
        """Returns (h, w, 3) uint8 RGB, a JPEG reduced where no crop needs all of it; None if it cannot be decoded."""
        at_least = None if self._wish.crops else size_of(photo, self._wish.look)
        try:
            with GATE.together():
                return contained(
                    f"{photo.image_id} (rendered)",
                    lambda: decode(data, channels=3, limits=self._source.limits, at_least=at_least),
                ).image
        except RejectedContent:
            return None

    def _drawn(self, image: np.ndarray, photo: Photo) -> np.ndarray:
        look, classes = self._wish.look, self._source.classes
        return with_caption(drawn_photo(image, photo, classes, size_of(photo, look), look), photo, classes)

    def _crop(self, image: np.ndarray, photo: Photo, face: Face) -> tuple[object, ...]:
        labelled = has_label(face)
        label = self._label_folders[face.label] if labelled else UNLABELLED
        name = f"{FACES}/{label}/{face_name(photo.row, photo.image_id, face.number, self._ending)}"
        os.makedirs(os.path.join(self._output, FACES, label), exist_ok=True)
        self._write(name, cropped(image, face, self._wish.margin))
        self.summary.crops += 1
        label_cells = (self._cell(self._source.classes[face.label]), f"{face.confidence:.6f}") if labelled else ("", "")
        return (self._cell(name), "face", self._cell(photo.image_id), face.number, *label_cells)

    def _write_sheets(self, sheets: Iterator[np.ndarray]) -> None:
        for sheet in sheets:
            self._write(sheet_name(self.summary.sheets, self._ending), sheet)
            self.summary.sheets += 1

    def _write(self, name: str, image: np.ndarray) -> None:
        data = as_png(image) if self._wish.png else as_jpeg(image, QUALITY)
        publish_bytes(os.path.join(self._output, name), data)
        self.earlier.discard(name)

    def _cell(self, text: str) -> str | None:
        return text if self._wish.exact else cell(text)


def cropped(image: np.ndarray, face: Face, margin: float) -> np.ndarray:
    """Returns (h, w, 3) uint8 RGB of the square that the label was made of, at most `CROP_PX` a side.

    A box that is the whole image, as without a detector, is given as it is.

    Args:
        image: (h, w, 3) uint8 RGB, the full upright photo.
        margin: around the face, as a share of its longer side, on each side.
    """
    height, width = image.shape[:2]
    if face.box == (0, 0, width, height):
        factor = min(1.0, CROP_PX / max(width, height))
        return crop_resized(image, face.box, (max(1, round(height * factor)), max(1, round(width * factor))))
    square = square_with_margin(np.asarray(face.box)[None], margin)[0]
    side = min(CROP_PX, int(square[2]))
    return crop_resized(image, square, (side, side))
