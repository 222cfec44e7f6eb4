"""Reads a sample submission, derives the rules it implies, and matches images with its ids."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.formats.class_names import class_name
from transforms.formats.shards.loose_files import IMAGE_SUFFIXES
from transforms.formats.submission.rules import (
    EXTENSION_AT_END,
    NAMED,
    LabelledIds,
    SubmissionError,
    SubmissionRules,
    collision,
    id_batches,
    image_key,
    image_keys,
    label_texts,
    some_names,
)

_IMAGE_AT_END = re.compile(rf"[^.]\.({'|'.join(sorted(IMAGE_SUFFIXES))})\Z", re.IGNORECASE)
NOT_KNOWN = np.int32(-1)  # the label of an image that is only planned
FOLDERS_FROM = 10_000  # ids whose first folder is tried before the images: enough for every folder of a contest
_INTEGER = re.compile(r"[+-]?[0-9]+", re.ASCII)


class SampleError(SubmissionError):
    """The sample submission cannot be followed."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample submission as read.

    Attributes:
        columns: names, in order. `id_at`, `label_at`: positions of id and label.
        rows: row of each id, in the order of the file.
        others: cells of further columns, one tuple per row; empty if there are none.
        rules: the rules, completed from the sample.
        composed: row of each non-ASCII id by its composed form (NFC), as a Mac stores names decomposed. Ids that share
            a composed form are excluded.
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
        missing: number of ids without an image; `missing_names` are the first few.
        unexpected: number of images without an id in the sample; `unexpected_names` are the first few.
        drop_folder, drop_extension: how image ids were shortened to match.
        cure: settings that would make images match, if none match now and such settings exist.
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
        """Returns one sentence for each difference between images and sample."""
        notes = []
        if self.missing:
            notes.append(f"{self.missing} ids of the sample submission have no image: {some_names(self.missing_names)}")
        if self.unexpected:
            notes.append(
                f"{self.unexpected} images are not in the sample submission: {some_names(self.unexpected_names)}"
            )
        return notes


def read_sample(
    file: BinaryIO, *, classes: Sequence[str], rules: SubmissionRules, name: str = "the sample submission"
) -> Sample:
    """Returns a sample submission (CSV in UTF-8, with a header), and the rules it implies unless they are set.

    If its ids have no `/`, image ids drop their folder; if they have no extension, image ids drop theirs.
    If all labels are class names, names are written; if they are whole numbers, indices.

    Args:
        file: opened in binary mode; it stays open.
        name: of the file, for messages.

    Raises:
        SampleError: the file is not a sample submission, or repeats an id.
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
        raise SampleError(f"{name} is not valid CSV at line {lines.line_num}: {error}") from error
    finally:
        with contextlib.suppress(ValueError):  # a file closed meanwhile cannot and need not be detached
            text.detach()


@dataclass(slots=True)
class _Seen:
    """What the rows of a sample reveal about its rules, collected while they are read."""

    folders: bool = False
    extensions: bool = False
    all_names: bool = True
    all_integers: bool = True
    labels: int = 0
    stranger: str = ""

    def label(self, text: str, classes: frozenset[str]) -> None:
        """Notes one label; an empty one reveals nothing."""
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
            raise SampleError(f"{name}: row {number} has {len(line)} columns, its header {len(header)}; fix that row")
        key = line[id_at]
        if not key:
            raise SampleError(f"{name}: row {number} has no id; fix that row")
        if rows.setdefault(key, len(rows)) != number - 1:
            raise SampleError(f"{name}: row {number} repeats the id {key!r}; remove one of the two")
        if further:
            others.append(tuple(line[at] for at in further))
        seen.folders = seen.folders or "/" in key
        seen.extensions = seen.extensions or EXTENSION_AT_END.search(key) is not None
        seen.label(class_name(line[label_at].strip()), known)
    if not rows:
        raise SampleError(f"{name} has a header but no ids; give the competition's sample submission")
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
    return f"{name} has an image where the header should be: {', '.join(header)}; add a first line with column names"


def _columns_of(header: tuple[str, ...], rules: SubmissionRules, name: str) -> tuple[int, int]:
    """Returns the positions of id and label: by name, else the first column left and the only other one."""
    if len(header) < 2:
        raise SampleError(f"{name} has one column, {header[0]!r}; it needs an id and a label, separated by a comma")
    if len(set(header)) != len(header):
        raise SampleError(f"{name} has two columns with the same name in {', '.join(header)}; rename one")
    id_at = header.index(rules.id_column) if rules.id_column in header else int(header[0] == rules.label_column)
    left = [at for at in range(len(header)) if at != id_at]
    if rules.label_column in header and header.index(rules.label_column) in left:
        return id_at, header.index(rules.label_column)
    if len(left) == 1:
        return id_at, left[0]
    raise SampleError(
        f"{name} has the columns {', '.join(header)} and none is called {rules.label_column!r}; "
        "name the one with the label: --set write.label_column=NAME"
    )


def _implied(rules: SubmissionRules, seen: _Seen, classes: Sequence[str], name: str) -> SubmissionRules:
    """Returns the rules; those that are not set are taken from the sample."""
    values = rules.values if classes else "index"  # labels that are numbers are written as such
    if values == "index" and seen.labels and seen.all_names and not seen.all_integers:
        raise SampleError(
            f"{name} has class names as labels, but write.label_values=index asks for indices; remove that setting to "
            "follow the sample, or set it to name"
        )
    if values is None:
        by_number = all(map(_INTEGER.fullmatch, classes)) and list(classes) != label_texts(classes, rules)
        if by_number and seen.all_integers and not (seen.labels and seen.all_names):
            raise SampleError(
                f"{name} does not show whether labels are class names, which are numbers ({', '.join(classes)}), or "
                "indices from 0; choose one: --set write.label_values=name, or index"
            )
        if seen.labels and seen.all_names:
            values = "name"
        elif not seen.labels or seen.all_integers:
            values = "index"
        else:
            raise SampleError(
                f"{name} has labels that are neither indices nor all classes, such as {seen.stranger!r} (classes: "
                f"{', '.join(classes)}); choose what to write: --set write.label_values=index, or name"
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
    """Images found for the rows of a sample: `label` (rows,), see `LabelledIds`; `found` (rows,) bool."""

    label: np.ndarray
    found: np.ndarray
    unexpected: MatchedIds


@dataclass(slots=True)
class MatchedIds:
    """The number of ids, and the names of the first few."""

    count: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, names: pa.Array) -> None:
        self.count += len(names)
        self.names.extend(names[: NAMED - len(self.names)].to_pylist())


def match_sample(sample: Sample, ids: Callable[[], Iterable[str]]) -> SampleReport:
    """Returns how the images known so far match a sample, before any image is read.

    Args:
        ids: gives the image ids from the start on each call.

    Raises:
        CollidingIds: two images would fill one row.
        SampleError: the sample has an image where its header should be.
    """

    def batches() -> Iterator[LabelledIds]:
        return (LabelledIds(group, np.full(len(group), NOT_KNOWN)) for group in id_batches(ids()))

    return sample_report(sample, match_ids(sample, batches, NOT_KNOWN))


def refuse_stranger(report: SampleReport) -> None:
    """Raises `SampleError` if the sample and the images have no id in common."""
    if report.missing == report.rows:
        raise SampleError(
            f"no id of the sample submission matches an image: its ids are {some_names(report.missing_names)}, "
            f"images are {some_names(report.unexpected_names) or 'none'}; "
            + (report.cure or "give the sample that belongs to these images")
        )


def match_ids(sample: Sample, batches: Callable[[], Iterable[LabelledIds]], none: np.generic) -> _Matched:
    """Matches images with rows: an image whose full id is in the sample fills that row, others that of their key.

    Args:
        none: the label of a row without an image.
    """
    matched = _Matched(np.full(len(sample), none), np.zeros(len(sample), bool), MatchedIds())
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
    """Raises SampleError if the header holds the id of an image, which would be lost."""
    first = sample.columns[sample.id_at]
    if not re.search("[0-9]", first):  # without a digit: `image` may be both a column and an image
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
        hit = (row >= 0) & ~whole[row]  # row -1 indexes the last row, and `row >= 0` masks it
        matched.unexpected.add(batch.ids.filter(pa.array(left & ~hit)))
        rows, counts = np.unique(row[hit], return_counts=True)
        filled_twice.update(rows[(counts > 1) | matched.found[rows]].tolist())
        matched.label[row[hit]], matched.found[row[hit]] = batch.labels[hit], True
    _refuse_two_images_in(filled_twice, sample, batches)


def _refuse_two_images_in(rows: set[int], sample: Sample, batches: Callable[[], Iterable[LabelledIds]]) -> None:
    """Raises CollidingIds if two ids fill one of the rows; a repeated id counts as one image, its first."""
    if not rows:
        return
    first: dict[int, str] = {}
    for batch in batches():
        names = batch.ids.filter(pa.array(_rows_of(sample, batch.ids) < 0))
        of = _rows_of_keys(sample, names).tolist()
        for row, name in zip(of, names.to_pylist(), strict=True):
            if row in rows and first.setdefault(row, name) != name:
                raise collision(first[row], name, next(itertools.islice(sample.rows, row, None)))


def _rows_of(sample: Sample, ids: pa.Array) -> np.ndarray:
    """Returns (n,) rows of the sample, -1 for an id that it does not have."""
    rows = sample.rows
    return np.fromiter((rows.get(name, -1) for name in ids.to_pylist()), np.int64, len(ids))


def _rows_of_keys(sample: Sample, ids: pa.Array) -> np.ndarray:
    """Returns (n,) rows by shortened ids, as they are or composed (NFC); -1 for an id that the sample does not have."""
    keys = image_keys(ids, sample.rules)
    found = _rows_of(sample, keys)
    if sample.composed:
        for at in np.flatnonzero(found < 0):
            found[at] = sample.composed.get(unicodedata.normalize("NFC", keys[at].as_py()), -1)
    return found


def _cure(sample: Sample, images: Sequence[str]) -> str:
    """Returns the settings, or the name of the input, with which one of these images would match a row; or ""."""
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
    folders = dict.fromkeys(key.partition("/")[0] for key in itertools.islice(sample.rows, FOLDERS_FROM) if "/" in key)
    for first in folders:
        if any(image_key(f"{first}/{name}", rules) in sample.rows for name in images):
            return f"they would match by --input {first}=PATTERN, which puts {first}/ before the ids"
    return ""


def sample_report(sample: Sample, matched: _Matched) -> SampleReport:
    missing = np.flatnonzero(~matched.found)
    return SampleReport(
        rows=len(sample),
        missing=len(missing),
        missing_names=names_at(sample, missing[:NAMED]),
        unexpected=matched.unexpected.count,
        unexpected_names=tuple(matched.unexpected.names),
        drop_folder=bool(sample.rules.drop_folder),
        drop_extension=bool(sample.rules.drop_extension),
        cure=_cure(sample, matched.unexpected.names) if len(missing) == len(sample) else "",
    )


def names_at(sample: Sample, rows: np.ndarray) -> tuple[str, ...]:
    wanted = set(rows.tolist())
    return tuple(name for name, row in sample.rows.items() if row in wanted) if wanted else ()
