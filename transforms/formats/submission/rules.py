"""How a submission names images and labels them: columns, ids, the face that decides.

Labels are alphabetical indices of classes, or names. A sample submission fixes columns, ids and their order.
Not here: the images and the labels of their faces (`transforms/merge/`).
"""

from __future__ import annotations

import itertools
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.formats.parts import text_array
from transforms.formats.records import FormatError

FacePolicy = Literal["largest", "confident", "first"]
Values = Literal["index", "name"]
NAMED = 5  # names in a report or an error; the rest is only counted
BATCH = 16_384  # ids handled at once: a few MB
_FOLDER = r"^(?s:.*)/"
_EXTENSION = r"([^/])\.[A-Za-z][A-Za-z0-9]{0,4}"  # starts with a letter, so `IMG_1.5` has no extension
EXTENSION_AT_END = re.compile(_EXTENSION + r"\Z")


class SubmissionError(FormatError):
    """No submission file can be written, and none remains; the message names the cause and the fix."""


class CollidingIds(SubmissionError):
    """Two images would get the same id. Attributes: image ids `first` and `second`; `key`, the id both would get."""

    def __init__(self, message: str, *, first: str = "", second: str = "", key: str = "") -> None:
        super().__init__(message)
        self.first, self.second, self.key = first, second, key


@dataclass(frozen=True, slots=True)
class SubmissionRules:
    """How the file looks. None means "as in the sample", or the default if there is no sample.

    Attributes:
        id_column, label_column: names of the columns; they also pick columns of a sample with more than two.
        values: alphabetical index of the class (default) or its name.
        drop_folder, drop_extension: of the image id; default is to keep both.
        face_policy: which face gives an image its label: the largest by area, the one whose label is the most
            confident, or the first (highest detection score); ties go to the earlier face.
        no_face_label: class (name, or index) stated for images without a labelled face. None leaves them out, or
            refuses them if a sample asks for them.
    """

    id_column: str = "id"
    label_column: str = "label"
    values: Values | None = None
    drop_folder: bool | None = None
    drop_extension: bool | None = None
    face_policy: FacePolicy = "largest"
    no_face_label: str | None = None

    @property
    def drops(self) -> bool:
        """True if ids are shortened, so that two may become equal."""
        return bool(self.drop_folder or self.drop_extension)


class Labels(Protocol):
    """How the labels of a head become texts of the file, and back; `models/heads/output_spec.py` has them.

    Attributes:
        none: the label of an image without one: NaN among numbers, -1 among indices of classes.
    """

    @property
    def none(self) -> np.generic: ...

    def texts(self, labels: np.ndarray, *, names: bool) -> Sequence[str]:
        """Returns what is written for (n,) labels, none of them missing; `names` asks for names of classes."""
        ...

    def label_of(self, text: str) -> int | float:
        """Returns the label that a text states; raises ValueError, which says what it may be, if it states none."""
        ...


@dataclass(frozen=True, slots=True)
class LabelledIds:
    """Some images of a submission.

    Attributes:
        ids: (n,) strings, image ids.
        labels: (n,) index of the class, int, -1 if there is none; or numbers, NaN if there is none.
    """

    ids: pa.Array
    labels: np.ndarray


def unlabelled(labels: np.ndarray) -> np.ndarray:
    """Returns (n,) bool, True for an image without a label."""
    return np.isnan(labels) if labels.dtype.kind == "f" else labels < 0


def choose_face(
    counts: np.ndarray,
    *,
    box: np.ndarray,
    confidence: np.ndarray,
    labelled: np.ndarray,
    policy: FacePolicy = "largest",
) -> np.ndarray:
    """Returns (n,) int64 row of the face that represents each image, -1 for an image without a labelled one.

    Args:
        counts: (n,) faces of each image.
        box: (m, 4) x, y, width, height, ordered by image.
        confidence: (m,) probability of each face's label.
        labelled: (m,) bool; a face without a label never decides.
    """
    weight = {
        "largest": box[:, 2].astype(np.int64) * box[:, 3].astype(np.int64),
        "confident": confidence,
        "first": np.zeros(len(box)),
    }[policy]
    counts, faces = np.asarray(counts, np.int64), np.flatnonzero(labelled)
    image = np.repeat(np.arange(len(counts)), counts)
    order = faces[np.lexsort((-weight[faces], image[faces]))]  # stable: the earlier of equal faces comes first
    images, first = np.unique(image[order], return_index=True)
    chosen = np.full(len(counts), -1)
    chosen[images] = order[first]
    return chosen


def label_texts(classes: Sequence[str], rules: SubmissionRules) -> list[str]:
    """Returns the text written for each class."""
    return list(classes) if rules.values == "name" else [str(index) for index in range(len(classes))]


def no_face_label(labels: Labels, rules: SubmissionRules) -> np.generic:
    """Returns the label written for images without one, `labels.none` if none is set.

    Raises:
        SubmissionError: the setting is not a label.
    """
    text = rules.no_face_label
    if text is None:
        return labels.none
    try:
        return labels.none.dtype.type(labels.label_of(text))
    except ValueError as error:
        raise SubmissionError(f"write.no_face_label={text} {error}") from error


def image_key(image_id: str, rules: SubmissionRules) -> str:
    """Returns the id under which the submission names an image.

    >>> image_key("test/0001.jpg", SubmissionRules(drop_folder=True, drop_extension=True))
    '0001'
    """
    key = image_id.rpartition("/")[2] if rules.drop_folder else image_id
    return EXTENSION_AT_END.sub(r"\1", key) if rules.drop_extension else key


def image_keys(ids: pa.Array, rules: SubmissionRules) -> pa.Array:
    """Returns `image_key` of each of (n,) strings."""
    if rules.drop_folder:
        ids = pc.replace_substring_regex(ids, pattern=_FOLDER, replacement="", max_replacements=1)
    if rules.drop_extension:
        ids = pc.replace_substring_regex(ids, pattern=_EXTENSION + r"\z", replacement=r"\1")
    return ids


def check_ids(ids: Callable[[], Iterable[str]], rules: SubmissionRules) -> None:
    """Checks, before any image is read, that no two image ids become equal when they are shortened.

    An id that occurs twice is not a collision: the merge keeps the first of its images.

    Args:
        ids: gives the image ids from the start on each call; 16 bytes of each are kept in memory.

    Raises:
        CollidingIds: names the first two images.
    """
    if rules.drops:
        refuse_collisions(lambda: id_batches(ids()), rules)


def id_batches(ids: Iterable[str]) -> Iterator[pa.Array]:
    rest = iter(ids)
    while group := list(itertools.islice(rest, BATCH)):
        yield text_array(group)


def refuse_collisions(batches: Callable[[], Iterable[pa.Array]], rules: SubmissionRules) -> None:
    suspects = _suspects(batches(), rules)
    if not suspects:
        return
    first_with: dict[str, str] = {}
    for ids in batches():
        for image_id, key in zip(ids.to_pylist(), image_keys(ids, rules).to_pylist(), strict=True):
            if hash(key) in suspects and first_with.setdefault(key, image_id) != image_id:
                raise collision(first_with[key], image_id, key)


def _suspects(batches: Iterable[pa.Array], rules: SubmissionRules) -> set[int]:
    """Returns hashes of keys that different ids share: collisions of keys, or of two hashes by coincidence."""
    keys, names = array("q"), array("q")  # Python's own hash: 64 bits, and never stored
    for ids in batches:
        keys.extend(map(hash, image_keys(ids, rules).to_pylist()))
        names.extend(map(hash, ids.to_pylist()))
    key, name = np.asarray(keys, np.int64), np.asarray(names, np.int64)
    order = np.argsort(key, kind="stable")
    key, name = key[order], name[order]
    return set(key[1:][(key[1:] == key[:-1]) & (name[1:] != name[:-1])].tolist())


def collision(first: str, second: str, key: str) -> CollidingIds:
    return CollidingIds(
        f"images {first!r} and {second!r} would both get the id {key!r} in the submission; "
        "keep folder and extension: --set write.drop_folder=false write.drop_extension=false",
        first=first,
        second=second,
        key=key,
    )


def some_names(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)
