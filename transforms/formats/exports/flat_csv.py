"""CSV for spreadsheets and pandas: one row per face, with the data of its image.

UTF-8 with a byte order mark, which Excel needs and pandas skips. Images without a face have no row.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from transforms.formats.exports.exported import Exported, Run, has_extra
from transforms.formats.publish import publish_file
from transforms.formats.result_batches import RowBatch, columns_of, row_batches
from transforms.formats.spreadsheets import BEGINS_A_FORMULA

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
BATCH = 8_192  # images at a time
_OF_IMAGE = {"source": "source", "width": "image_width", "height": "image_height", "true_label": "true_label"}
_FORMULA = f"^[{BEGINS_A_FORMULA.replace('-', '')}-]"


def write_csv(run: Run, path: str) -> Exported:
    """Writes the file: the columns of `predictions/`, then source, size, true label and EXIF of the image.

    `run.columns` leaves out and renames columns of `predictions/`.

    Raises:
        ResultsError: the tables do not match. StorageError: a file cannot be read or written.
    """
    summary = Exported()
    of_image = {**_OF_IMAGE, **{name: name for name in has_extra(run)}}
    every = columns_of(run.folder, "predictions")
    of_face = {name: shown for name in every if (shown := run.columns.get(name, name)) is not None}
    with publish_file(path) as temporary, open(temporary, "wb") as file:
        file.write(BYTE_ORDER_MARK)
        header = True
        for batch in row_batches(run.folder, ("faces", *of_image), list(of_face), batch=BATCH):
            rows = _rows(batch, of_face, of_image, exact=run.exact)
            pa_csv.write_csv(rows, file, pa_csv.WriteOptions(include_header=header))
            header = False
            summary.images += batch.images.num_rows
            summary.faces += rows.num_rows
            summary.left_out += int((batch.counts == 0).sum())
            summary.unlabelled += batch.faces[run.answer].null_count
            run.done(summary.images)
    summary.images -= summary.left_out
    return summary


def _rows(batch: RowBatch, of_face: Mapping[str, str], of_image: Mapping[str, str], *, exact: bool) -> pa.Table:
    counts = pa.array(batch.counts)
    parents = pc.list_parent_indices(_lists(counts))
    columns = {shown: batch.faces[name] for name, shown in of_face.items()}
    columns |= {new: batch.images.column(old).take(parents) for old, new in of_image.items()}
    return pa.table({name: column if exact else _guarded(column) for name, column in columns.items()})


def _lists(counts: pa.Array) -> pa.ListArray:
    """Returns an array of lists of these lengths."""
    offsets = pa.concat_arrays([pa.array([0], pa.int64()), pc.cumulative_sum(counts)]).cast(pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.nulls(offsets[-1].as_py()))


def _guarded(column: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """Returns texts with a quote before what a spreadsheet would run as a formula; other columns as they are."""
    if not pa.types.is_string(column.type):
        return column
    risky = pc.match_substring_regex(column, _FORMULA)
    return pc.if_else(risky, pc.binary_join_element_wise("'", column, ""), column)
