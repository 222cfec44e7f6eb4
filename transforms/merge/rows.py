"""Rows of parts as rows of the final tables."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.heads.output_spec import OutputSpec
from transforms.formats.exif_columns import EXIF_FIELDS
from transforms.formats.parts import has_exif
from transforms.merge.sorted_parts import nested, text_column
from transforms.output_fields import shown_fields, shown_values

IMAGE_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("digest", pa.string()),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("stage", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("faces", pa.int32(), nullable=False),
        pa.field("unlabelled_faces", pa.int32(), nullable=False),
        pa.field("true_label", pa.string()),
    ]
)


def image_schema(*, exif: bool = False) -> pa.Schema:
    """Returns the columns of `images/`, with those of EXIF or without."""
    return pa.schema([*IMAGE_SCHEMA, *EXIF_FIELDS]) if exif else IMAGE_SCHEMA


def image_rows(rows: pa.Table) -> pa.Table:
    """Returns the rows of `images/` for some rows of parts."""
    columns = {name: rows[name] for name in rows.schema.names}
    columns["digest"] = _hex(text_column(rows, "digest"))
    columns["faces"] = pc.list_value_length(rows["faces"])
    columns["unlabelled_faces"] = _unlabelled(text_column(rows, "faces"))
    schema = image_schema(exif=has_exif(rows.schema))
    return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)


def _unlabelled(faces: pa.ListArray) -> pa.Array:
    """Returns (n,) int32 faces of each image that have no label."""
    counts, values = nested(faces)
    image = np.repeat(np.arange(len(counts)), counts)
    labelled = values.field("labelled").to_numpy(zero_copy_only=False)
    return pa.array(np.bincount(image[~labelled], minlength=len(counts)).astype(np.int32))


def _hex(digests: pa.Array) -> pa.Array:
    """Returns (n,) strings of 64 hex digits, null where there is no digest."""
    raw = pc.fill_null(digests, bytes(32)).cast(pa.binary())
    letters = b"".join(raw.to_pylist()).hex().encode()
    offsets = pa.py_buffer(np.arange(0, 64 * len(digests) + 1, 64, dtype=np.int32).tobytes())
    texts = pa.StringArray.from_buffers(len(digests), offsets, pa.py_buffer(letters))
    return pc.if_else(digests.is_valid(), texts, pa.scalar(None, pa.string()))


def face_schema(spec: OutputSpec) -> pa.Schema:
    """Returns the columns of `predictions/`: the face, then what the head says of it, which may be null."""
    return pa.schema(
        [
            pa.field("image_id", pa.string(), nullable=False),
            *(pa.field(name, pa.int32(), nullable=False) for name in ("face_index", "x", "y", "width", "height")),
            pa.field("detection_score", pa.float32(), nullable=False),
            *shown_fields(spec),
        ]
    )


def face_rows(rows: pa.Table, spec: OutputSpec) -> pa.Table:
    """Returns the rows of `predictions/` for some rows of parts; the faces of an image are numbered in their order.

    A face that is not labelled has nulls in place of what the head says.
    """
    counts, faces = nested(text_column(rows, "faces"))
    starts = np.cumsum(counts) - counts
    image = np.repeat(np.arange(len(counts)), counts)
    fields = dict(zip(faces.type.names, faces.flatten(), strict=True))
    predicted = [
        pc.if_else(fields["labelled"], values, pa.scalar(None, values.type)) for values in shown_values(spec, fields)
    ]
    columns = [
        text_column(rows, "image_id").take(pa.array(image)),
        pa.array((np.arange(len(image)) - starts[image]).astype(np.int32)),
        *(fields[name] for name in ("x", "y", "width", "height", "detection_score")),
        *predicted,
    ]
    return pa.Table.from_arrays(columns, schema=face_schema(spec))
