"""The one table of formats that hold many images: a new format is a file beside this one and a line here."""

from __future__ import annotations

import re

from transforms.formats.archives import Tar, TarGz, Zip
from transforms.formats.records import ShardFormat
from transforms.formats.tables import Fer2013Csv, ParquetImages, looks_like_fer2013
from transforms.formats.tfrecords import TFRecord, TFRecordGz, looks_like_tfrecord

FORMATS: tuple[ShardFormat, ...] = (Tar(), TarGz(), Zip(), TFRecord(), TFRecordGz(), ParquetImages(), Fer2013Csv())

FIRST_BYTES = 2**10  # what `format_of` wants to see of a file whose name does not decide

NUMBERED = re.compile(r"-\d{5}-of-\d{5}$")  # shards that may be named by number alone


def format_of(path: str, first_bytes: bytes | None = None) -> ShardFormat | None:
    """Returns the format of a file by the end of its name, or None if it is no shard.

    `-00000-of-00010` behind the suffix is passed over. Two kinds of names do not decide, and are no shards unless the
    first bytes show it: a CSV file may be FER2013 or anything, `train-00000-of-00010` may be a TFRecord file.

    Args:
        path: or the file's name alone; case does not matter.
        first_bytes: of the file, `FIRST_BYTES` of them or all.
    """
    name = path.replace("\\", "/").rpartition("/")[2].lower()
    stem = NUMBERED.sub("", name)
    fits = [(len(suffix), form) for form in FORMATS for suffix in form.suffixes if stem.endswith(suffix)]
    found = max(fits, key=lambda fit: fit[0])[1] if fits else None
    if isinstance(found, Fer2013Csv) and not looks_like_fer2013(first_bytes or b""):
        return None
    if found is None and stem != name and looks_like_tfrecord(first_bytes or b""):
        return next(form for form in FORMATS if isinstance(form, TFRecord))
    return found


def format_named(name: str) -> ShardFormat:
    """Returns the format that calls itself `name`."""
    return next(form for form in FORMATS if form.name == name)
