"""From the sorted parts of all blocks to the final tables and the submission, in bounded memory.

What comes out depends on the rows alone, not on how they were cut into parts.
Not here: what a part is (`formats/parts.py`), and what a submission looks like (`formats/submission/`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from models.heads.output_spec import OutputSpec
from transforms.formats.parts import part_schema
from transforms.formats.publish import StorageError, storage_error
from transforms.formats.submission.rules import LabelledIds, SubmissionRules
from transforms.formats.submission.sample import Sample
from transforms.formats.submission.write import write_submission
from transforms.merge.account import Account, ImageLabels, MergeResult
from transforms.merge.row_files import ROW_GROUP, RowFiles, output_file, unlink_if_there
from transforms.merge.rows import face_rows, face_schema, image_rows, image_schema
from transforms.merge.scratch import Scratch
from transforms.merge.sorted_parts import FILES_OPEN, rows_of, without_repeated_ids
from transforms.output_fields import part_fields
from transforms.storage.retrying import with_retries
from transforms.storage.stopping import check


def merge_parts(
    parts: Sequence[str],
    output: str,
    *,
    spec: OutputSpec,
    exif: bool = False,
    rows_per_file: int = 1_000_000,
    row_group: int = ROW_GROUP,
    max_open: int = FILES_OPEN,
    submission: SubmissionRules | None = None,
    sample: Sample | None = None,
    expected_images: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> MergeResult:
    """Writes `predictions/`, `images/` and `submission.csv` from all parts; doing it again gives the same bytes.

    Args:
        parts: paths, in any order.
        output: folder of the run; final files of an earlier merge there are replaced.
        spec: what the head says of a face.
        exif: `images/` has the columns of EXIF.
        rows_per_file, row_group: output file i holds the rows i·N … (i+1)·N−1, in row groups of exactly so many.
        max_open: files open at once, at least 4.
        submission: how `submission.csv` looks; None writes none and removes an old one.
        sample: to be followed; its rules stand above `submission`.
        expected_images: how many must come out.
        progress: called with the number of images merged so far.

    Raises:
        AccountError: images are missing, or too many; nothing is published.
        DamagedPart: a part cannot be read; nothing is published.
        SubmissionError: no submission can be written; the tables are published.
        StorageError: the output cannot be written.
    """
    rules = sample.rules if sample is not None else submission or SubmissionRules()
    account = Account(spec, rules)
    images = RowFiles(
        os.path.join(output, "images"), image_schema(exif=exif), rows_per_file=rows_per_file, row_group=row_group
    )
    faces = RowFiles(
        os.path.join(output, "predictions"),
        face_schema(spec),
        rows_per_file=rows_per_file,
        row_group=row_group,
    )
    schema = part_schema(part_fields(spec), exif=exif)
    with _storage(output), Scratch(output) as scratch, faces, images:
        for rows in without_repeated_ids(rows_of(parts, schema, scratch, max_open)):
            check()
            account.add(rows)
            images.add(image_rows(rows))
            faces.add(face_rows(rows, spec))
            if progress is not None:
                progress(account.images)
        account.refuse_unless(expected_images)
        files = [*faces.publish(), *(listed := images.publish())]
        report, path = None, os.path.join(output, "submission.csv")
        if submission is None and sample is None:
            unlink_if_there(path)  # not before every part was read: see `finish_run`
        else:
            batches = partial(_labelled_ids, [os.path.join(output, file.name) for file in listed], account.labels())
            write = partial(write_submission, path, batches, labels=spec, rules=rules, sample=sample)
            report = with_retries(write)  # by itself: the tables need not be merged again
            files.append(output_file(path, output, report.rows))
    return replace(account.result(), files=tuple(files), submission=report)


def _labelled_ids(paths: Sequence[str], labels: ImageLabels) -> Iterator[LabelledIds]:
    """Yields the images of the final tables with their labels, duplicates left out."""
    start = 0
    for path in paths:
        with pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False) as file:
            for batch in file.iter_batches(ROW_GROUP, columns=["image_id"]):
                some, wanted = labels.of(slice(start, start + batch.num_rows))
                start += batch.num_rows
                yield LabelledIds(batch.column(0).filter(pa.array(wanted)), some)


@contextlib.contextmanager
def _storage(output: str) -> Iterator[None]:
    """Turns faults of the output's storage into one line with the cure."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise storage_error("write", error.filename or output, error) from error
