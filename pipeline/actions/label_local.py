"""`label-local`: the photos of one folder to two tables, by the pure functions of the stages, without Beam.

Rows are those of `label` with the same settings. Not here: archives, a cache, an account that is checked, resuming, and
submissions, which are `label`'s.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice

from models.heads.side_by_side import label_names
from models.runtimes.exported import cores
from pipeline.api.face_labeler import IMAGES_AT_ONCE, FaceLabeler
from pipeline.api.faces import LabelledImage
from pipeline.commands.command import Context
from pipeline.commands.label_local import LabelLocalOptions
from pipeline.errors import Interrupted, UsageError
from pipeline.live.loop import face_columns, face_row
from pipeline.live.outputs import check_table
from pipeline.run.progress import counting_bar
from transforms.formats.class_names import class_name
from transforms.formats.records import Status
from transforms.formats.row_table import Column, Row, new_table, usual_suffix
from transforms.formats.shards.loose_files import is_image_name, label_of, text_of

IMAGE_COLUMNS = [
    Column("image_id", "string", nullable=False),
    Column("source", "string", nullable=False),
    Column("digest", "string"),
    Column("bytes", "int64", nullable=False),
    Column("width", "int32", nullable=False),
    Column("height", "int32", nullable=False),
    Column("status", "string", nullable=False),
    Column("stage", "string"),
    Column("reason", "string"),
    Column("faces", "int32", nullable=False),
    Column("unlabelled_faces", "int32", nullable=False),
    Column("true_label", "string"),
]


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo of the folder: its path, and its image id."""

    path: str
    image_id: str


def run(options: LabelLocalOptions, context: Context) -> int:
    """Labels the photos, and says how many.

    Raises:
        UsageError: there is no photo, one cannot be read, or a table already exists.
        Interrupted: the user stopped it; nothing was written.
    """
    photos = _photos(options.input)
    suffix = f".{options.table}" if options.table else usual_suffix()
    os.makedirs(options.output, exist_ok=True)
    tables = [os.path.join(options.output, name + suffix) for name in ("predictions", "images")]
    for path in tables:
        check_table(path, overwrite=options.overwrite, flag="--output")
    labeler = FaceLabeler(settings=context.settings, threads=cores())
    try:
        counts = _label(photos, labeler, tables, context)
    except KeyboardInterrupt as error:
        raise Interrupted("interrupted; nothing was written, as only label can resume") from error
    if not context.quiet:
        outcomes = ", ".join(f"{counts[status]:,} {status.replace('_', ' ')}" for status in Status if counts[status])
        print(f"{len(photos):,} photos: {outcomes}; {counts['faces']:,} faces\n{' and '.join(tables)}")
    return 0


def _photos(folder: str) -> list[Photo]:
    """Returns the photos of a folder in the order of their ids, which are compared by their UTF-8 bytes.

    Raises:
        UsageError: there is none.
    """
    if not os.path.isdir(folder):
        raise UsageError(f"--input {folder} is not a folder; label also takes archives, tables and wildcards")
    found = []
    for path, below, names in os.walk(folder):
        below.sort()
        for name in names:
            whole = os.path.join(path, name)
            relative = os.path.relpath(whole, folder)
            if is_image_name(relative) and os.path.isfile(whole):
                found.append(Photo(whole, text_of(os.fsencode(relative))))
    if not found:
        raise UsageError(f"--input {folder} holds no photo")
    return sorted(found, key=lambda photo: photo.image_id.encode())


def _label(photos: Sequence[Photo], labeler: FaceLabeler, tables: Sequence[str], context: Context) -> Counter[str]:
    counts: Counter[str] = Counter()
    faces = [Column("image_id", "string", nullable=False)]
    faces += face_columns(labeler.output)
    most, names = context.settings.read.max_image_bytes, label_names(labeler.output)
    with ExitStack() as entered:
        done = entered.enter_context(counting_bar(len(photos), "photos", quiet=context.quiet))
        predictions, images = (
            entered.enter_context(new_table(path, columns))
            for path, columns in zip(tables, (faces, IMAGE_COLUMNS), strict=True)
        )
        finished = 0
        for some in _some(photos):
            data = [_read(photo.path, most) for photo in some]
            for photo, encoded, image in zip(some, data, labeler.label_many(data), strict=True):
                for number, face in enumerate(image.faces):
                    predictions.add([{"image_id": photo.image_id, **face_row(face, number)}])
                images.add([_image_row(photo, encoded, image, most, names)])
                counts.update({image.status: 1, "faces": len(image.faces)})
            finished += len(some)
            done(finished)
    return counts


def _some(photos: Sequence[Photo]) -> Iterator[list[Photo]]:
    left = iter(photos)
    while some := list(islice(left, IMAGES_AT_ONCE)):
        yield some


def _read(path: str, most: int) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(most + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error


def _image_row(photo: Photo, data: bytes, image: LabelledImage, most: int, names: Collection[str] | None) -> Row:
    """Returns the row of a photo.

    Args:
        names: of all classes; None if a head gives numbers, so that any text may be a true label.
    """
    too_large = len(data) > most
    known = class_name(label_of(photo.image_id))
    return {
        "image_id": photo.image_id,
        "source": os.path.abspath(photo.path),
        "digest": None if too_large else hashlib.sha256(data).hexdigest(),
        "bytes": 0 if too_large else len(data),
        "width": image.width,
        "height": image.height,
        "status": image.status.value,
        "stage": image.reason.stage.value if image.reason else None,
        "reason": image.reason.value if image.reason else None,
        "faces": len(image.faces),
        "unlabelled_faces": sum(face.label is None for face in image.faces),
        "true_label": known if names is None or known in names else None,
    }
