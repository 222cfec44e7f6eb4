"""The columns of EXIF in tables of images: one for each field of `exif.Exif`, in its order."""

from __future__ import annotations

import pyarrow as pa

from transforms.formats.exif import Exif

EXIF_FIELDS = (
    pa.field("taken_at", pa.string()),
    pa.field("camera", pa.string()),
    pa.field("latitude", pa.float64()),
    pa.field("longitude", pa.float64()),
)


def exif_columns(found: list[Exif]) -> list[pa.Array]:
    """Returns a column for each of `EXIF_FIELDS`."""
    return [pa.array([getattr(one, field.name) for one in found], field.type) for field in EXIF_FIELDS]
