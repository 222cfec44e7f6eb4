"""The table of formats that hold many images. A new format is a file in this folder and a line here."""

from __future__ import annotations

import re

from transforms.formats.records import ShardFormat
from transforms.formats.shards.fer2013 import Fer2013Csv, looks_like_fer2013
from transforms.formats.shards.parquet import ParquetImages
from transforms.formats.shards.tar import Tar, TarGz, looks_like_tar
from transforms.formats.shards.tfrecord import TFRecord, TFRecordGz, looks_like_tfrecord
from transforms.formats.shards.zip import Zip

_PLAIN: tuple[ShardFormat, ...] = (Tar(), TFRecord())
_GZIPPED: tuple[ShardFormat, ...] = (TarGz(), TFRecordGz())
FORMATS: tuple[ShardFormat, ...] = (*_PLAIN, *_GZIPPED, Zip(), ParquetImages(), Fer2013Csv())

_TOLD_BY_BYTES = (".csv", *(end for form in (*_PLAIN, *_GZIPPED) for end in form.suffixes))

FIRST_BYTES = 2**10  # what `format_of` needs if the file's name does not decide

NUMBERED = re.compile(r"-\d{5}-of-\d{5}$")  # a shard may be named by its number alone


def format_of(path: str, first_bytes: bytes | None = None) -> ShardFormat | None:
    """Returns the format of a file by the end of its name, or None if it is not a shard.

    `-00000-of-00010` after the suffix is ignored. Two kinds of names do not decide, so their first bytes must: a CSV
    file may or may not be FER2013, and `train-00000-of-00010` may be a TFRecord file. First bytes, if given, also show
    whether a tar or TFRecord file is gzipped: a `.tar.gz` may have been unpacked on its way, and vice versa.

    Args:
        path: path or name of the file; case does not matter.
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
    return found if found is None or not first_bytes else _as_its_bytes_say(found, first_bytes)


def decided_by_bytes(path: str, *, remote: bool = False) -> bool:
    """True if `format_of` needs the first bytes of a file of this name.

    Args:
        remote: True if opening a file is slow; then an archive's name is trusted.
    """
    if remote:
        return path.lower().endswith(".csv") or NUMBERED.search(path) is not None
    name = path.lower()
    return name.endswith(_TOLD_BY_BYTES) or NUMBERED.search(name) is not None


def _as_its_bytes_say(found: ShardFormat, first_bytes: bytes) -> ShardFormat:
    gzipped = first_bytes.startswith(b"\x1f\x8b\x08")
    for plain, packed, looks_plain in zip(_PLAIN, _GZIPPED, (looks_like_tar, looks_like_tfrecord), strict=True):
        if found is plain and gzipped and not looks_plain(first_bytes):  # a record's length may look like gzip
            return packed
        if found is packed and looks_plain(first_bytes):
            return plain
    return found


def format_named(name: str) -> ShardFormat:
    """Returns the format called `name`."""
    return next(form for form in FORMATS if form.name == name)
