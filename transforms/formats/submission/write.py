"""Writes the submission file, checked before it gets its final name."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.formats.parts import text_array
from transforms.formats.publish import publish_file, storage_error
from transforms.formats.submission.rules import (
    BATCH,
    NAMED,
    LabelledIds,
    Labels,
    SubmissionError,
    SubmissionRules,
    image_keys,
    no_face_label,
    refuse_collisions,
    some_names,
    unlabelled,
)
from transforms.formats.submission.sample import (
    MatchedIds,
    Sample,
    SampleReport,
    match_ids,
    names_at,
    refuse_stranger,
    sample_report,
)

_TO_QUOTE = r"""[",\r\n]|^\s|\s$"""


class UnlabelledImages(SubmissionError):
    """Images have no label, and no default label is set. Attributes: `count`, and `names` of the first few."""

    def __init__(self, message: str, *, count: int = 0, names: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.count, self.names = count, names


@dataclass(frozen=True, slots=True)
class SubmissionReport:
    """What was written.

    Attributes:
        rows: of the file.
        without_label: images without a label. With `write.no_face_label` they have rows with that label.
        sample: how the ids of a sample matched.
        left_out: of the images without a label, those that have no row: all, if there is no sample and no label for
            them. `left_out_names`: the first few.
        values: how a class is written: index or name.
    """

    rows: int
    without_label: int
    sample: SampleReport | None = None
    left_out: int = 0
    left_out_names: tuple[str, ...] = ()
    values: str = "index"


def write_submission(
    path: str,
    batches: Callable[[], Iterable[LabelledIds]],
    *,
    labels: Labels,
    rules: SubmissionRules,
    sample: Sample | None = None,
) -> SubmissionReport:
    """Writes the submission, complete and checked.

    An old file stays until the new one replaces it, and also after an error, since another attempt of the same run may
    have written it. Only a submission that cannot be written at all (`SubmissionError`) leaves none, not even the old.

    Args:
        batches: gives the images from the start on each call: all that need a row, each id once, in the order of
            the rows (a sample brings its own order).
        labels: how they become texts.
        rules: how the file looks; a sample's own rules replace them.

    Raises:
        UnlabelledImages: images of the sample have no label, and no default label is set.
        CollidingIds: two images would get the same id.
        SubmissionError: an id is empty, or the default label is not a class.
        StorageError: the file cannot be written.
    """
    rules = rules if sample is None else sample.rules
    try:
        texts = _Texts(labels, no_face_label(labels, rules), names=rules.values == "name")
        if sample is None:
            return _write_all(path, batches, rules=rules, texts=texts)
        return _write_sample(path, batches, sample, texts=texts)
    except SubmissionError:
        _remove(path)
        raise


@dataclass(frozen=True, slots=True)
class _Texts:
    """What is written for labels.

    Attributes:
        fallback: the label of images without one. `names`: True to write names of classes.
    """

    labels: Labels
    fallback: np.generic
    names: bool

    @property
    def complete(self) -> bool:
        """True if every image gets a text, because there is a fallback."""
        return not unlabelled(np.asarray(self.fallback))

    def of(self, labels: np.ndarray) -> pa.Array:
        """Returns (n,) strings; call it with missing labels only if there is a fallback."""
        filled = np.where(unlabelled(labels), self.fallback, labels)
        return pa.array(self.labels.texts(filled, names=self.names), pa.string())


def _write_all(
    path: str,
    batches: Callable[[], Iterable[LabelledIds]],
    *,
    rules: SubmissionRules,
    texts: _Texts,
) -> SubmissionReport:
    rows, without = 0, MatchedIds()
    with publish_file(path) as temporary, open(temporary, "wb") as file:
        file.write(_lines([text_array([rules.id_column]), text_array([rules.label_column])]))
        for batch in batches():
            keys = image_keys(batch.ids, rules)
            _refuse_empty(keys, batch.ids)
            missing, labels = unlabelled(batch.labels), batch.labels
            without.add(batch.ids.filter(pa.array(missing)))
            if not texts.complete:
                keys, labels = keys.filter(pa.array(~missing)), labels[~missing]
            rows += len(keys)
            file.write(_lines([keys, texts.of(labels)]))
        if rules.drops:
            refuse_collisions(lambda: (batch.ids for batch in batches()), rules)
    named: tuple[str, ...] = () if texts.complete else tuple(without.names)
    left_out = 0 if texts.complete else without.count
    return SubmissionReport(rows, without.count, left_out=left_out, left_out_names=named, values=_values(rules))


def _write_sample(
    path: str, batches: Callable[[], Iterable[LabelledIds]], sample: Sample, *, texts: _Texts
) -> SubmissionReport:
    matched = match_ids(sample, batches, texts.labels.none)
    report = sample_report(sample, matched)
    refuse_stranger(report)
    missing = np.flatnonzero(unlabelled(matched.label))
    without = MatchedIds(len(missing), list(names_at(sample, missing[:NAMED])))
    if not texts.complete:
        _refuse_unlabelled(without)
    with publish_file(path) as temporary, open(temporary, "wb") as file:
        file.write(_lines([text_array([name]) for name in sample.columns]))
        keys = iter(sample.rows)
        for start in range(0, len(sample), BATCH):
            group = text_array(list(itertools.islice(keys, BATCH)))
            file.write(_lines(_columns(sample, start, group, texts.of(matched.label[start : start + BATCH]))))
    return SubmissionReport(len(sample), without.count, report, values=_values(sample.rules))


def _values(rules: SubmissionRules) -> str:
    return "name" if rules.values == "name" else "index"


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
            f"image {empty[0].as_py()!r} would get an empty id in the submission; rename it or keep its folder: "
            "--set write.drop_folder=false"
        )


def _refuse_unlabelled(without: MatchedIds) -> None:
    if without.count:
        names = tuple(without.names)
        raise UnlabelledImages(
            f"{without.count} images have no label, so submission.csv is not written: {some_names(names)}; "
            "set one for them: --set write.no_face_label=CLASS",
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
