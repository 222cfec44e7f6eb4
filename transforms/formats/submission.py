"""The submission file: a label for every image id, Kaggle style, checked before it stands under its name.

Labels are alphabetical indices of classes, or names. A sample submission fixes columns, ids and their order.
Not here: which images there are and what their faces show (`transforms/merge_parts.py`).
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import os
import re
import unicodedata
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import BinaryIO, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.formats.loose_files import IMAGE_SUFFIXES
from transforms.formats.parts import text_array
from transforms.formats.publish import publish_file, storage_error
from transforms.formats.records import FormatError

FacePolicy = Literal["largest", "confident", "first"]
Values = Literal["index", "name"]

NAMED = 5  # names that a report or an error gives before it only counts
BATCH = 16_384  # ids handled at once: a few MB

_FOLDER = r"^(?s:.*)/"
_EXTENSION = r"([^/])\.[A-Za-z][A-Za-z0-9]{0,4}"  # a letter first: `IMG_1.5` has no extension
_EXTENSION_AT_END = re.compile(_EXTENSION + r"\Z")
_IMAGE_AT_END = re.compile(rf"[^.]\.({'|'.join(sorted(IMAGE_SUFFIXES))})\Z", re.IGNORECASE)
_TO_QUOTE = r"""[",\r\n]|^\s|\s$"""
_INTEGER = re.compile(r"[+-]?[0-9]+", re.ASCII)


class SubmissionError(FormatError):
    """No submission file can be written; the message says why and what to do. None is left behind."""


class SampleError(SubmissionError):
    """The sample submission cannot be followed."""


class CollidingIds(SubmissionError):
    """Two images would get one id. Attributes: `first`, `second`, their image ids; `key`, the id both would get."""

    def __init__(self, message: str, *, first: str = "", second: str = "", key: str = "") -> None:
        super().__init__(message)
        self.first, self.second, self.key = first, second, key


class UnlabelledImages(SubmissionError):
    """Images have no label and no label is stated for them. Attributes: `count`, and `names` of the first few."""

    def __init__(self, message: str, *, count: int = 0, names: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.count, self.names = count, names


@dataclass(frozen=True, slots=True)
class SubmissionRules:
    """How the file looks. None stands for "as the sample has it", and without a sample for the default.

    Attributes:
        id_column, label_column: names of the columns; in a sample with more than two, which ones they are.
        values: alphabetical index of the class (default) or its name.
        drop_folder, drop_extension: of the image id; default is to keep both.
        face_policy: which face gives an image its label: the largest by area, the one whose label is the most
            confident, or the first (highest detection score); ties go to the earlier face.
        no_face_label: class (name, or index) stated for images without a label; None refuses them.
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
        """True if ids are shortened, so that two may become one."""
        return bool(self.drop_folder or self.drop_extension)


@dataclass(frozen=True, slots=True)
class LabelledIds:
    """Some images of a submission.

    Attributes:
        ids: (n,) strings, image ids.
        labels: (n,) int, index of the class, -1 where there is none.
    """

    ids: pa.Array
    labels: np.ndarray


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample submission as read.

    Attributes:
        columns: names, in order. `id_at`, `label_at`: which of them are id and label.
        rows: row of each id, in the order of the file.
        others: what stands in further columns, a tuple a row; empty if there are none.
        rules: the rules with what the sample tells filled in.
        composed: row of each id that is not ASCII by its composed form (NFC): a Mac stores names decomposed. Ids that
            share one are left out.
    """

    columns: tuple[str, ...]
    id_at: int
    label_at: int
    rows: dict[str, int]
    others: list[tuple[str, ...]]
    rules: SubmissionRules
    composed: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True)
class SampleReport:
    """How images and sample match.

    Attributes:
        rows: ids of the sample.
        missing: ids of the sample without an image; `missing_names` the first few.
        unexpected: images without an id in the sample; `unexpected_names` the first few.
        drop_folder, drop_extension: how image ids were shortened to match.
        cure: settings by which images would match where none does, if any would.
    """

    rows: int
    missing: int
    missing_names: tuple[str, ...]
    unexpected: int
    unexpected_names: tuple[str, ...]
    drop_folder: bool
    drop_extension: bool
    cure: str = ""

    def notes(self) -> list[str]:
        """Returns a sentence for each way in which images and sample differ."""
        notes = []
        if self.missing:
            notes.append(f"{self.missing} ids of the sample submission have no image: {_listed(self.missing_names)}")
        if self.unexpected:
            notes.append(f"{self.unexpected} images are not in the sample submission: {_listed(self.unexpected_names)}")
        return notes


@dataclass(frozen=True, slots=True)
class SubmissionReport:
    """What was written: `rows`, how many of them got the label for images `without_label`, and how a sample matched."""

    rows: int
    without_label: int
    sample: SampleReport | None = None


# Faces and labels


def choose_face(
    counts: np.ndarray, *, box: np.ndarray, confidence: np.ndarray, policy: FacePolicy = "largest"
) -> np.ndarray:
    """Returns (n,) int64 row of the face that stands for each image, -1 for an image without one.

    Args:
        counts: (n,) faces of each image.
        box: (m, 4) x, y, width, height, image after image.
        confidence: (m,) probability of each face's label.
    """
    counts = np.asarray(counts, np.int64)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)[: len(counts)]
    has_face = counts > 0
    chosen = np.where(has_face, starts, -1)
    if policy == "first":
        return chosen
    weight = confidence if policy == "confident" else box[:, 2].astype(np.int64) * box[:, 3].astype(np.int64)
    image = np.repeat(np.arange(len(counts)), counts)
    order = np.lexsort((-weight, image))  # stable: the earlier of equal faces comes first
    chosen[has_face] = order[starts[has_face]]
    return chosen


def label_texts(classes: Sequence[str], rules: SubmissionRules) -> list[str]:
    """Returns what is written for each class."""
    return list(classes) if rules.values == "name" else [str(index) for index in range(len(classes))]


def no_face_index(classes: Sequence[str], rules: SubmissionRules) -> int:
    """Returns the index of the class stated for images without a label, -1 if none is.

    Raises:
        SubmissionError: it is no class.
    """
    label = rules.no_face_label
    if label is None:
        return -1
    if label in classes:
        return list(classes).index(label)
    if label.isascii() and label.isdigit() and int(label) < len(classes):
        return int(label)
    raise SubmissionError(f"write.no_face_label={label} is none of the classes: {', '.join(classes)}")


# Ids


def image_key(image_id: str, rules: SubmissionRules) -> str:
    """Returns the id under which the submission names an image.

    >>> image_key("test/0001.jpg", SubmissionRules(drop_folder=True, drop_extension=True))
    '0001'
    """
    key = image_id.rpartition("/")[2] if rules.drop_folder else image_id
    return _EXTENSION_AT_END.sub(r"\1", key) if rules.drop_extension else key


def image_keys(ids: pa.Array, rules: SubmissionRules) -> pa.Array:
    """Returns `image_key` of each of (n,) strings."""
    if rules.drop_folder:
        ids = pc.replace_substring_regex(ids, pattern=_FOLDER, replacement="", max_replacements=1)
    if rules.drop_extension:
        ids = pc.replace_substring_regex(ids, pattern=_EXTENSION + r"\z", replacement=r"\1")
    return ids


def check_ids(ids: Callable[[], Iterable[str]], rules: SubmissionRules) -> None:
    """Checks, before anything is read, that no two image ids become one when they are shortened.

    An id that occurs twice is no collision: the merge lets the first of its images win.

    Args:
        ids: gives the image ids from the start each time it is called; kept are 16 bytes of each.

    Raises:
        CollidingIds: names the first two.
    """
    if rules.drops:
        _refuse_collisions(lambda: _arrays(ids()), rules)


def _arrays(ids: Iterable[str]) -> Iterator[pa.Array]:
    rest = iter(ids)
    while group := list(itertools.islice(rest, BATCH)):
        yield text_array(group)


def _refuse_collisions(batches: Callable[[], Iterable[pa.Array]], rules: SubmissionRules) -> None:
    suspects = _suspects(batches(), rules)
    if not suspects:
        return
    first_with: dict[str, str] = {}
    for ids in batches():
        for image_id, key in zip(ids.to_pylist(), image_keys(ids, rules).to_pylist(), strict=True):
            if hash(key) in suspects and first_with.setdefault(key, image_id) != image_id:
                raise _collision(first_with[key], image_id, key)


def _suspects(batches: Iterable[pa.Array], rules: SubmissionRules) -> set[int]:
    """Returns hashes of keys that ids of different hashes share: collisions, or the coincidence of two hashes."""
    keys, names = array("q"), array("q")  # Python's own hash: 64 bits, and never stored
    for ids in batches:
        keys.extend(map(hash, image_keys(ids, rules).to_pylist()))
        names.extend(map(hash, ids.to_pylist()))
    key, name = np.asarray(keys, np.int64), np.asarray(names, np.int64)
    order = np.argsort(key, kind="stable")
    key, name = key[order], name[order]
    return set(key[1:][(key[1:] == key[:-1]) & (name[1:] != name[:-1])].tolist())


def _collision(first: str, second: str, key: str) -> CollidingIds:
    return CollidingIds(
        f"images {first!r} and {second!r} would both get the id {key!r} in the submission; "
        "keep what tells them apart: --set write.drop_folder=false write.drop_extension=false",
        first=first,
        second=second,
        key=key,
    )


# The sample


def read_sample(
    file: BinaryIO, *, classes: Sequence[str], rules: SubmissionRules, name: str = "the sample submission"
) -> Sample:
    """Returns a sample submission (CSV in UTF-8, with a header), and the rules it implies where none are set.

    Ids without a `/` mean that image ids drop their folder, ids without an extension that they drop theirs.
    Labels that are all names of classes ask for names, whole numbers for indices.

    Args:
        file: opened for bytes; it stays open.
        name: of the file, for messages.

    Raises:
        SampleError: it is no such file, or repeats an id.
    """
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    try:
        lines = csv.reader(text, strict=True)
        header = next((line for line in lines if line), None)
        if header is None:
            raise SampleError(f"{name} is empty; give the competition's sample submission")
        if any(_IMAGE_AT_END.search(cell) for cell in header):
            raise SampleError(_no_header(name, tuple(header)))
        return _sample(lines, tuple(header), classes=classes, rules=rules, name=name)
    except UnicodeDecodeError as error:
        raise SampleError(f"{name} is not UTF-8 at byte {error.start}; save it as CSV in UTF-8") from error
    except csv.Error as error:
        raise SampleError(f"{name} is not CSV at line {lines.line_num}: {error}") from error
    finally:
        with contextlib.suppress(ValueError):  # a file closed meanwhile cannot be detached, and need not be
            text.detach()


@dataclass(slots=True)
class _Seen:
    """What the rows of a sample tell while they are read."""

    folders: bool = False
    extensions: bool = False
    all_names: bool = True
    all_integers: bool = True
    labels: int = 0
    stranger: str = ""

    def label(self, text: str, classes: frozenset[str]) -> None:
        """Looks at one label; an empty one tells nothing."""
        if not text:
            return
        named, integer = text in classes, _INTEGER.fullmatch(text) is not None
        self.labels += 1
        self.all_names &= named
        self.all_integers &= integer
        if not self.stranger and not named and not integer:
            self.stranger = text


def _sample(
    lines: Iterator[list[str]], header: tuple[str, ...], *, classes: Sequence[str], rules: SubmissionRules, name: str
) -> Sample:
    id_at, label_at = _columns_of(header, rules, name)
    further = [at for at in range(len(header)) if at not in (id_at, label_at)]
    rows: dict[str, int] = {}
    others: list[tuple[str, ...]] = []
    seen, known = _Seen(), frozenset(classes)
    for number, line in enumerate((line for line in lines if line), start=1):
        if len(line) != len(header):
            raise SampleError(f"{name}: row {number} has {len(line)} columns, its header {len(header)}; mend that row")
        key = line[id_at]
        if not key:
            raise SampleError(f"{name}: row {number} has no id; mend that row")
        if rows.setdefault(key, len(rows)) != number - 1:
            raise SampleError(f"{name}: row {number} repeats the id {key!r}; remove one of the two")
        if further:
            others.append(tuple(line[at] for at in further))
        seen.folders = seen.folders or "/" in key
        seen.extensions = seen.extensions or _EXTENSION_AT_END.search(key) is not None
        seen.label(line[label_at].strip(), known)
    if not rows:
        raise SampleError(f"{name} has a header and no ids; give the competition's sample submission")
    return Sample(header, id_at, label_at, rows, others, _implied(rules, seen, classes, name), _composed(rows))


def _composed(rows: dict[str, int]) -> dict[str, int]:
    found: dict[str, int] = {}
    shared = set()
    for key, row in rows.items():
        if not key.isascii():
            composed = unicodedata.normalize("NFC", key)
            if found.setdefault(composed, row) != row:
                shared.add(composed)
    return {key: row for key, row in found.items() if key not in shared}


def _no_header(name: str, header: tuple[str, ...]) -> str:
    return (
        f"{name} has no header, or an image in it: {', '.join(header)}; put the names of the columns into a first line"
    )


def _columns_of(header: tuple[str, ...], rules: SubmissionRules, name: str) -> tuple[int, int]:
    """Returns which columns are id and label: by their names, else the first that is left and the only other one."""
    if len(header) < 2:
        raise SampleError(f"{name} has one column, {header[0]!r}; it needs an id and a label, with a comma between")
    if len(set(header)) != len(header):
        raise SampleError(f"{name} has two columns of one name in {', '.join(header)}; rename one")
    id_at = header.index(rules.id_column) if rules.id_column in header else int(header[0] == rules.label_column)
    left = [at for at in range(len(header)) if at != id_at]
    if rules.label_column in header and header.index(rules.label_column) in left:
        return id_at, header.index(rules.label_column)
    if len(left) == 1:
        return id_at, left[0]
    raise SampleError(
        f"{name} has the columns {', '.join(header)} and none is called {rules.label_column!r}; "
        "say which holds the label: --set write.label_column=NAME"
    )


def _implied(rules: SubmissionRules, seen: _Seen, classes: Sequence[str], name: str) -> SubmissionRules:
    """Returns the rules with what the sample tells in place of what is not set."""
    values = rules.values
    if values == "index" and seen.labels and seen.all_names and not seen.all_integers:
        raise SampleError(
            f"{name} has names of classes as labels, and write.label_values=index asks for their indices; leave that "
            "setting out to follow the sample, or set it to name"
        )
    if values is None:
        by_number = all(map(_INTEGER.fullmatch, classes)) and list(classes) != label_texts(classes, rules)
        if by_number and seen.all_integers and not (seen.labels and seen.all_names):
            raise SampleError(
                f"{name} does not tell whether labels are classes, whose names are numbers ({', '.join(classes)}), or "
                "their indices from 0; say it: --set write.label_values=name, or index"
            )
        if seen.labels and seen.all_names:
            values = "name"
        elif not seen.labels or seen.all_integers:
            values = "index"
        else:
            raise SampleError(
                f"{name} has labels that are neither indices nor all classes, such as {seen.stranger!r} (classes: "
                f"{', '.join(classes)}); say what to write: --set write.label_values=index, or name"
            )
    return SubmissionRules(
        id_column=rules.id_column,
        label_column=rules.label_column,
        values=values,
        drop_folder=not seen.folders if rules.drop_folder is None else rules.drop_folder,
        drop_extension=not seen.extensions if rules.drop_extension is None else rules.drop_extension,
        face_policy=rules.face_policy,
        no_face_label=rules.no_face_label,
    )


@dataclass(slots=True)
class _Matched:
    """Images found for the rows of a sample: `label` (rows,) int32, -1 for none; `found` (rows,) bool."""

    label: np.ndarray
    found: np.ndarray
    unexpected: _Some


@dataclass(slots=True)
class _Some:
    """How many there are, and the names of the first few."""

    count: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, names: pa.Array) -> None:
        self.count += len(names)
        self.names.extend(names[: NAMED - len(self.names)].to_pylist())


def match_sample(sample: Sample, ids: Callable[[], Iterable[str]]) -> SampleReport:
    """Returns how the images that are known so far match a sample, before anything is read.

    Args:
        ids: gives the image ids from the start each time it is called.

    Raises:
        CollidingIds: two images would fill one row.
        SampleError: it has no header, but an image in its place.
    """

    def batches() -> Iterator[LabelledIds]:
        return (LabelledIds(group, np.full(len(group), -1)) for group in _arrays(ids()))

    return _sample_report(sample, _match(sample, batches))


def refuse_stranger(report: SampleReport) -> None:
    """Raises `SampleError` if the sample and the images have no id in common."""
    if report.missing == report.rows:
        raise SampleError(
            f"no id of the sample submission is an image: it has {_listed(report.missing_names)}, "
            f"images are {_listed(report.unexpected_names) or 'none'}; "
            + (report.cure or "give the sample that belongs to these images")
        )


def _match(sample: Sample, batches: Callable[[], Iterable[LabelledIds]]) -> _Matched:
    """An image whose whole id stands in the sample fills that row; of the others each fills the row of its key."""
    matched = _Matched(np.full(len(sample), -1, np.int32), np.zeros(len(sample), bool), _Some())
    for batch in batches():
        _refuse_headless(sample, batch.ids)
        row = _rows_of(sample, batch.ids)
        hit = row >= 0
        matched.label[row[hit]], matched.found[row[hit]] = batch.labels[hit], True
        if not (sample.rules.drops or sample.composed):
            matched.unexpected.add(batch.ids.filter(pa.array(~hit)))
    if sample.rules.drops or sample.composed:
        _match_keys(sample, batches, matched)
    return matched


def _refuse_headless(sample: Sample, ids: pa.Array) -> None:
    """Raises SampleError if what should be the name of a column is one of the images: else that one would be lost."""
    first = sample.columns[sample.id_at]
    if not re.search("[0-9]", first):  # `image` may be a column, and an image too
        return
    if any(pc.any(pc.equal(names, first)).as_py() for names in (ids, image_keys(ids, sample.rules))):
        raise SampleError(_no_header("the sample submission", sample.columns))


def _match_keys(sample: Sample, batches: Callable[[], Iterable[LabelledIds]], matched: _Matched) -> None:
    whole = matched.found.copy()
    filled_twice: set[int] = set()
    for batch in batches():
        left = _rows_of(sample, batch.ids) < 0
        row = np.full(len(left), -1)
        row[left] = _rows_of_keys(sample, batch.ids.filter(pa.array(left)))
        hit = (row >= 0) & ~whole[row]  # row -1 looks at the last one, to no effect
        matched.unexpected.add(batch.ids.filter(pa.array(left & ~hit)))
        rows, counts = np.unique(row[hit], return_counts=True)
        filled_twice.update(rows[(counts > 1) | matched.found[rows]].tolist())
        matched.label[row[hit]], matched.found[row[hit]] = batch.labels[hit], True
    _refuse_two_images_in(filled_twice, sample, batches)


def _refuse_two_images_in(rows: set[int], sample: Sample, batches: Callable[[], Iterable[LabelledIds]]) -> None:
    """Raises CollidingIds if images of two ids fill one of the rows; one id twice is one image, its first."""
    if not rows:
        return
    first: dict[int, str] = {}
    for batch in batches():
        names = batch.ids.filter(pa.array(_rows_of(sample, batch.ids) < 0))
        of = _rows_of_keys(sample, names).tolist()
        for row, name in zip(of, names.to_pylist(), strict=True):
            if row in rows and first.setdefault(row, name) != name:
                raise _collision(first[row], name, next(itertools.islice(sample.rows, row, None)))


def _rows_of(sample: Sample, ids: pa.Array) -> np.ndarray:
    """Returns (n,) rows of the sample, -1 for an id that is not there."""
    rows = sample.rows
    return np.fromiter((rows.get(name, -1) for name in ids.to_pylist()), np.int64, len(ids))


def _rows_of_keys(sample: Sample, ids: pa.Array) -> np.ndarray:
    """Returns (n,) rows by what ids are shortened to, as it is or composed; -1 for one that is not there."""
    keys = image_keys(ids, sample.rules)
    found = _rows_of(sample, keys)
    if sample.composed:
        for at in np.flatnonzero(found < 0):
            found[at] = sample.composed.get(unicodedata.normalize("NFC", keys[at].as_py()), -1)
    return found


def _cure(sample: Sample, images: Sequence[str]) -> str:
    """Returns the settings by which one of these images would have a row of the sample, or nothing."""
    rules = sample.rules
    for folder, extension in itertools.product((False, True), repeat=2):
        other = replace(rules, drop_folder=folder, drop_extension=extension)
        if any(image_key(name, other) in sample.rows for name in images):
            names = {
                "write.drop_folder": (folder, rules.drop_folder),
                "write.drop_extension": (extension, rules.drop_extension),
            }
            wanted = [f"{name}={str(now).lower()}" for name, (now, before) in names.items() if now != before]
            return f"they would match by --set {' '.join(wanted)}"
    return ""


def _sample_report(sample: Sample, matched: _Matched) -> SampleReport:
    missing = np.flatnonzero(~matched.found)
    return SampleReport(
        rows=len(sample),
        missing=len(missing),
        missing_names=_names_at(sample, missing[:NAMED]),
        unexpected=matched.unexpected.count,
        unexpected_names=tuple(matched.unexpected.names),
        drop_folder=bool(sample.rules.drop_folder),
        drop_extension=bool(sample.rules.drop_extension),
        cure=_cure(sample, matched.unexpected.names) if len(missing) == len(sample) else "",
    )


def _names_at(sample: Sample, rows: np.ndarray) -> tuple[str, ...]:
    wanted = set(rows.tolist())
    return tuple(name for name, row in sample.rows.items() if row in wanted) if wanted else ()


# The file


def write_submission(
    path: str,
    batches: Callable[[], Iterable[LabelledIds]],
    *,
    classes: Sequence[str],
    rules: SubmissionRules,
    sample: Sample | None = None,
) -> SubmissionReport:
    """Writes the submission under its final name, whole and checked, or leaves none there, not even an old one.

    Args:
        batches: gives the images from the start each time it is called: all that want a row, each id once, in the
            order of the rows (a sample has its own).
        classes: in the order of the labels' indices.
        rules: how the file looks; with a sample, its own rules hold.

    Raises:
        UnlabelledImages: images without a label, and none stated for them.
        CollidingIds: two images would get one id.
        SubmissionError: an id is empty, or the stated label is no class.
        StorageError: the file cannot be written.
    """
    _remove(path)
    rules = rules if sample is None else sample.rules
    fallback = no_face_index(classes, rules)
    texts = pa.array(label_texts(classes, rules), pa.string())
    if sample is None:
        return _write_all(path, batches, rules=rules, texts=texts, fallback=fallback)
    return _write_sample(path, batches, sample, texts=texts, fallback=fallback)


def _write_all(
    path: str,
    batches: Callable[[], Iterable[LabelledIds]],
    *,
    rules: SubmissionRules,
    texts: pa.Array,
    fallback: int,
) -> SubmissionReport:
    rows, without = 0, _Some()
    with publish_file(path) as temporary, open(temporary, "wb") as file:
        file.write(_lines([text_array([rules.id_column]), text_array([rules.label_column])]))
        for batch in batches():
            keys = image_keys(batch.ids, rules)
            _refuse_empty(keys, batch.ids)
            rows += len(keys)
            without.add(batch.ids.filter(pa.array(batch.labels < 0)))
            if fallback >= 0 or without.count == 0:  # else the rest is only counted
                file.write(_lines([keys, texts.take(pa.array(np.where(batch.labels < 0, fallback, batch.labels)))]))
        _refuse_unlabelled(without, fallback)
        if rules.drops:
            _refuse_collisions(lambda: (batch.ids for batch in batches()), rules)
    return SubmissionReport(rows, without.count)


def _write_sample(
    path: str, batches: Callable[[], Iterable[LabelledIds]], sample: Sample, *, texts: pa.Array, fallback: int
) -> SubmissionReport:
    matched = _match(sample, batches)
    report = _sample_report(sample, matched)
    refuse_stranger(report)
    unlabelled = np.flatnonzero(matched.label < 0)
    without = _Some(len(unlabelled), list(_names_at(sample, unlabelled[:NAMED])))
    _refuse_unlabelled(without, fallback)
    labels = np.where(matched.label < 0, fallback, matched.label)
    with publish_file(path) as temporary, open(temporary, "wb") as file:
        file.write(_lines([text_array([name]) for name in sample.columns]))
        keys = iter(sample.rows)
        for start in range(0, len(sample), BATCH):
            group = text_array(list(itertools.islice(keys, BATCH)))
            file.write(_lines(_columns(sample, start, group, texts.take(pa.array(labels[start : start + BATCH])))))
    return SubmissionReport(len(sample), without.count, report)


def _columns(sample: Sample, start: int, keys: pa.Array, labels: pa.Array) -> list[pa.Array]:
    """Returns the columns of some rows, in the sample's order."""
    others = iter(zip(*sample.others[start : start + len(keys)], strict=True)) if sample.others else iter(())
    columns = []
    for at in range(len(sample.columns)):
        columns.append(keys if at == sample.id_at else labels if at == sample.label_at else text_array(next(others)))
    return columns


def _lines(columns: Sequence[pa.Array]) -> bytes:
    """Returns rows of CSV: UTF-8, LF, quotes only where a field needs them."""
    lines = pc.binary_join_element_wise(*[_quoted(column) for column in columns], ",").to_pylist()
    return "".join(line + "\n" for line in lines).encode("utf-8")


def _quoted(column: pa.Array) -> pa.Array:
    needed = pc.match_substring_regex(column, _TO_QUOTE)
    if not pc.any(needed).as_py():
        return column
    doubled = pc.replace_substring(column, '"', '""')
    return pc.if_else(needed, pc.binary_join_element_wise('"', doubled, '"', ""), column)


def _refuse_empty(keys: pa.Array, ids: pa.Array) -> None:
    empty = ids.filter(pc.equal(keys, ""))
    if len(empty):
        raise SubmissionError(
            f"image {empty[0].as_py()!r} would get an empty id in the submission; rename it, or keep its folder: "
            "--set write.drop_folder=false"
        )


def _refuse_unlabelled(without: _Some, fallback: int) -> None:
    if without.count and fallback < 0:
        names = tuple(without.names)
        raise UnlabelledImages(
            f"{without.count} images have no label, so submission.csv is not written: {_listed(names)}; "
            "state one for them: --set write.no_face_label=CLASS",
            count=without.count,
            names=names,
        )


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise storage_error("replace", path, error) from error


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)
