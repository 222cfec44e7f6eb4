"""Small pictures of a few photos and faces of a run, by a second read of its inputs.

Bounded: one photo is decoded at a time, and all pictures together stay below a number of bytes.
Not here: which photos (`run_samples.py`), and boxes, which the page draws above the pictures (`run_page.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from models.boxes import square_with_margin
from models.detectors.cropping import crop_resized, reduced
from models.evaluation.picture_quality import PictureQuality, picture_quality
from pipeline.report.near_misses import Candidate, NearMisses
from pipeline.report.photo import Face, Photo
from pipeline.report.run_samples import Samples
from transforms.containing import GATE, contained
from transforms.formats.decode import Decoded, decode
from transforms.formats.encode import as_webp
from transforms.formats.records import Limits, RejectedContent
from transforms.read_again import MARGIN, Faults, read_what_is_left

PHOTO_PX, FACE_PX = 640, 96  # longer side of a photo, side of a face
MOST_BYTES = 2_200_000  # of all photos, encoded: 2.9 MB as base64, which leaves room below 5 MB for the rest
LARGEST = 60_000  # bytes of one photo
LADDER = ((PHOTO_PX, 70), (PHOTO_PX, 45), (448, 40), (320, 35), (200, 30), (96, 20))  # px, quality: the first that fits
FACE_QUALITY = 70
_MEASURED_PX = 320  # longer side of a photo when its quality is measured
MOST_STREAMED = 20_000  # images read again of an archive that cannot be sought: beyond, its photos are not shown
MOST_FAULTS = 50  # inputs in a row that cannot be read, after which the rest is not tried

Lines = Callable[[], Iterable[bytes]]


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture file: WebP, and its size in pixels."""

    data: bytes
    width: int
    height: int


@dataclass(slots=True)
class Pictures:
    """What could be read again.

    Attributes:
        photos: by row of the photo. `faces`: by row of the photo and number of the face.
        quality: measures of each photo, by its row.
        candidates: boxes that were too weak to be faces, by row of a photo without a face, where there are any.
        missing: how many photos could not be read as they were.
        fault: the first reason that storage gave, "" where it gave none.
    """

    photos: dict[int, Picture] = field(default_factory=dict)
    faces: dict[tuple[int, int], Picture] = field(default_factory=dict)
    quality: dict[int, PictureQuality] = field(default_factory=dict)
    candidates: dict[int, tuple[Candidate, ...]] = field(default_factory=dict)
    missing: int = 0
    fault: str = ""


def read_run_pictures(
    samples: Samples, lines: Lines | None, limits: Limits, *, fault: str = "", near: NearMisses | None = None
) -> Pictures:
    """Returns pictures of all samples that can still be read and are still the same bytes.

    Args:
        lines: of a plan of the inputs; None where there is none.
        fault: why there is none.
        near: looks at the photos without a face for what almost was one.
    """
    photos = samples.photos()
    found = Pictures(fault=fault)
    wanted_faces = faces_of(samples)
    no_face = {photo.row for photo in samples.no_face}
    allowed = min(LARGEST, MOST_BYTES // max(1, len(photos)))
    by_id = {photo.image_id: photo for photo in photos if photo.digest}
    for image_id, data in _read(by_id, lines, limits, found):
        photo = by_id[image_id]
        _add(found, photo, wanted_faces.get(photo.row, []), data, limits, allowed)
        if near is not None and photo.row in no_face and photo.row in found.photos:
            with GATE.together():
                found.candidates[photo.row] = near.of(photo.image_id, data)
    found.missing = len(photos) - len(found.photos)
    return found


def faces_of(samples: Samples) -> dict[int, list[Face]]:
    """Returns the faces that are shown by themselves, by row of their photo."""
    wanted: dict[int, list[Face]] = {}
    for photo, face in samples.faces():
        wanted.setdefault(photo.row, []).append(face)
    return wanted


def _read(by_id: dict[str, Photo], lines: Lines | None, limits: Limits, found: Pictures) -> Iterator[tuple[str, bytes]]:
    """Yields image id and bytes; an input that cannot be read costs its own photos."""
    wanted = {image_id: photo.digest for image_id, photo in by_id.items()}
    faults = Faults()
    yield from read_what_is_left(
        lines() if lines is not None else (),
        wanted,
        limits,
        faults,
        most_faults=MOST_FAULTS,
        most_streamed=MOST_STREAMED,
    )
    found.fault = found.fault or faults.first


def _add(found: Pictures, photo: Photo, faces: Sequence[Face], data: bytes, limits: Limits, allowed: int) -> None:
    try:
        with GATE.together():
            decoded = contained(
                f"{photo.image_id} (shown on the page)",
                lambda: decode(data, channels=3, limits=limits, at_least=_needed(photo, faces)),
            )
    except RejectedContent:
        return
    if (picture := _fitting(decoded.image, allowed)) is not None:
        found.photos[photo.row] = picture
        found.quality[photo.row] = picture_quality(reduced(decoded.image, _MEASURED_PX))
        for face in faces:
            found.faces[photo.row, face.number] = _face_picture(decoded, face)


def _needed(photo: Photo, faces: Sequence[Face]) -> tuple[int, int]:
    """Returns the (height, width) that is enough for the photo and these faces: a JPEG is then decoded in less time."""
    smallest = min((max(1, min(face.box[2:])) for face in faces), default=FACE_PX * PHOTO_PX)
    factor = max(PHOTO_PX / max(photo.width, photo.height, 1), FACE_PX / smallest)
    return int(np.ceil(photo.height * factor)), int(np.ceil(photo.width * factor))


def _fitting(image: np.ndarray, allowed: int) -> Picture | None:
    for side, quality in LADDER:
        small = reduced(image, side)
        data = as_webp(small, quality)
        if len(data) <= allowed:
            return Picture(data, small.shape[1], small.shape[0])
    return None


def _face_picture(decoded: Decoded, face: Face) -> Picture:
    """Returns a square picture of a face and a little around it; a box that is the whole image is shown as it is."""
    if face.box == (0, 0, decoded.width, decoded.height):
        small = reduced(decoded.image, FACE_PX)
        return Picture(as_webp(small, FACE_QUALITY), small.shape[1], small.shape[0])
    box = square_with_margin(np.asarray(face.box)[None], MARGIN)[0] / decoded.reduction
    whole = np.maximum(np.floor(box + 0.5), (-np.inf, -np.inf, 1, 1)).astype(np.int64)
    tile = crop_resized(decoded.image, whole, (FACE_PX, FACE_PX))
    return Picture(as_webp(tile, FACE_QUALITY), FACE_PX, FACE_PX)
