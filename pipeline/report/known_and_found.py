"""Known faces and found boxes, brought together by the image: what is judged, and an account of what is not.

Not here: reading tables (`transforms/formats/annotations.py`), and the metrics (`models/evaluation/detection.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from models.evaluation.detection import Photo
from pipeline.errors import UsageError
from pipeline.run.search_faces import Searched
from transforms.formats.annotations import Annotations, KnownFaces

NEVER_COUNTED = frozenset({"invalid1", "ignore"})  # by those who published the tables


@dataclass(frozen=True, slots=True)
class Outside:
    """Which known faces do not count.

    Attributes:
        words: that a table says of them.
        min_face_px: faces whose longer side is shorter.
    """

    words: frozenset[str]
    min_face_px: float


@dataclass(frozen=True, slots=True)
class Compared:
    """The images that are judged, and an account of all others.

    Attributes:
        images: searched, whose faces are known. photos: the same, for judging.
        words: what the table says of the faces of each. cells: of these faces in the table's `columns`.
        rejected: images with known faces that could not be read, by reason.
        lost_faces: known faces that count, on those.
        unknown: images that the table does not name. repeated: images whose id came before.
        not_there: images of the table that were not among those given; missing_faces: the faces on them.
    """

    images: Sequence[Searched]
    photos: Sequence[Photo]
    words: Sequence[tuple[frozenset[str], ...]]
    columns: tuple[str, ...]
    cells: Sequence[tuple[tuple[str, ...], ...]]
    rejected: Counter[str]
    lost_faces: int
    unknown: int
    repeated: int
    not_there: int
    missing_faces: int


def compare(searched: Iterable[Searched], table: Annotations, outside: Outside) -> Compared:
    """Returns what can be judged.

    Raises:
        UsageError: no image is named by the table, two are by one name, or an image has another size than it states.
    """
    images: list[Searched] = []
    photos: list[Photo] = []
    rejected: Counter[str] = Counter()
    taken: dict[str, str] = {}
    lost_faces = unknown = repeated = 0
    for image in searched:
        name = table.name_of(image.id)
        if name is None:
            unknown += 1
        elif taken.get(name) == image.id:
            repeated += 1
        elif image.reason is not None:
            rejected[image.reason.value] += 1
            lost_faces += int((~_ignored(table.faces[name], outside)).sum())
            taken[name] = image.id
        else:
            _check(image, name, table.faces[name], taken)
            taken[name] = image.id
            images.append(image)
            photos.append(_photo(image, table.faces[name], outside))
    if not images:
        raise UsageError(_none_named(table, unknown, rejected))
    absent = [name for name in table.faces if name not in taken]
    known = [table.faces[table.name_of(image.id) or ""] for image in images]
    words, cells = [faces.words for faces in known], [faces.cells for faces in known]
    missing_faces = sum(len(table.faces[name]) for name in absent)
    return Compared(
        images,
        photos,
        words,
        table.columns,
        cells,
        rejected,
        lost_faces,
        unknown,
        repeated,
        len(absent),
        missing_faces,
    )


def _check(image: Searched, name: str, known: KnownFaces, taken: dict[str, str]) -> None:
    if name in taken:
        raise UsageError(f"{taken[name]} and {image.id} are both {name} of --boxes; give the images of one set")
    if known.size is not None and known.size != (image.width, image.height):
        width, height = known.size
        raise UsageError(
            f"{image.id} has {image.width}×{image.height} pixels, --boxes says {width}×{height}: boxes are pixels of "
            "the stored image; give the images that the table was made for"
        )


def _photo(image: Searched, known: KnownFaces, outside: Outside) -> Photo:
    ellipses = None if np.isnan(known.ellipses).all() else known.ellipses
    found = image.found
    scores = np.asarray(found.scores, np.float64)
    return Photo(known.boxes, ellipses, _ignored(known, outside), np.asarray(found.boxes, np.float64), scores)


def _ignored(known: KnownFaces, outside: Outside) -> np.ndarray:
    known_words = [not words.isdisjoint(outside.words | NEVER_COUNTED) for words in known.words]
    small = known.boxes[:, 2:].max(axis=1, initial=0) < outside.min_face_px
    return np.asarray(np.asarray(known_words, bool) | small)


def check_words(words: Collection[str], table: Annotations) -> None:
    """Raises UsageError for a word of --ignore that the table says of no face."""
    known = {word for faces in table.faces.values() for some in faces.words for word in some}
    if strangers := sorted(set(words) - known):
        known_words = ", ".join(sorted(known)) or "nothing"
        raise UsageError(f"--ignore {strangers[0]}: --boxes says that of no face; it says {known_words}")


def _none_named(table: Annotations, unknown: int, rejected: Counter[str]) -> str:
    if rejected:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(rejected.items()))
        return f"every image that --boxes names was rejected: {reasons}"
    example = next(iter(table.faces), "no image")
    return f"none of {unknown} images is named by --boxes, which names {example}; give the images of that table"
