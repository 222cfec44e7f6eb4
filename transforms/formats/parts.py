"""Part files: the finished rows of one block as Parquet, sorted, one row per image with its faces nested.

They are working files of a run. The merge reads them, and so does a resumed run. Their bytes are checked when read:
without page checksums, Parquet does not notice a flipped bit. Page checksums do not cover the footer, where a flipped
bit may change values or abort the process, so the footer has a separate checksum.
Not here: how a block becomes rows (`transforms/part_rows.py`), and the final tables (`transforms/merge/`).
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from transforms.formats.exif_columns import EXIF_FIELDS
from transforms.formats.publish import Upload, publish_file, storage_error
from transforms.formats.records import FormatError

FORMAT_VERSION = 2
GROUP_BYTES = 128 * 2**10  # of a row group in memory: each input of a merge holds one, however crowded the photos

_BEFORE_ANSWERS = "labelled"  # the field of a face that those of the head's output follow
_INFO, _CHECKSUM, _BLANK = b"part", b"part_crc32", b"00000000"
_MARK = _CHECKSUM + b"\x18\x08"  # in Thrift's compact protocol: a string of eight bytes follows


_NAME = re.compile(r"[0-9a-f]{32}(-\d{8})?\.parquet", re.ASCII)


_STORED_NAME = re.compile(
    r"(?P<key>[0-9a-f]{32}(?:-\d{8})?)\.(?P<images>\d+)-(?P<faces>\d+)-(?P<failed>\d+)\.parquet", re.ASCII
)


@dataclass(frozen=True, slots=True, order=True)
class StoredPart:
    """What the name of a part in an object store says, so that one LIST tells a resumed run all it needs.

    Attributes:
        key: of its block.
        failed: images on which the program failed; of two parts of one block, the one with fewer counts.
        images, faces: numbers of rows.
        name: of the object, without folder.
    """

    key: str
    failed: int
    images: int
    faces: int
    name: str


def stored_name(info: PartMetadata) -> str:
    """Returns the name of a part in an object store. The same block gives the same name, whatever the cache held."""
    return f"{info.block_key}.{info.images}-{info.faces}-{info.failed}.parquet"


def stored_part(name: str) -> StoredPart | None:
    """Returns what the name of an object says, or None if it is not that of a part."""
    found = _STORED_NAME.fullmatch(name)
    if found is None:
        return None
    return StoredPart(found["key"], int(found["failed"]), int(found["images"]), int(found["faces"]), name)


def is_part_name(name: str) -> bool:
    """True if a file has a part's name: the key of its block, followed by a number for a streamed archive."""
    return _NAME.fullmatch(name) is not None


class DamagedPart(FormatError):
    """A part cannot be read, or differs from its footer. After its removal, a run redoes its block.

    Attributes:
        path: of the file.
    """

    def __init__(self, message: str, *, path: str = "") -> None:
        super().__init__(message)
        self.path = path


@dataclass(frozen=True, slots=True)
class PartMetadata:
    """The metadata in a part's footer.

    Attributes:
        block_key: key of the block, "" for a file of the merge.
        run_fingerprint: fingerprint of the run's settings, "" for a file of the merge.
        first_id, last_id: range of image ids, "" when the part is empty.
        images, faces: numbers of rows.
        cached: images whose results came from the cache.
        failed: images on which the program failed; a resumed run redoes the block.
    """

    block_key: str
    run_fingerprint: str
    first_id: str
    last_id: str
    images: int
    faces: int
    cached: int
    failed: int = 0  # missing in parts of earlier versions


def text_array(values: Sequence[str | None]) -> pa.Array:
    """Returns a string array. A stray byte (in a file name that is not Unicode) is spelled out, as `\\udcff`."""
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        return pa.array([None if v is None else storable(v) for v in values], pa.string())


def storable(text: str) -> str:
    """Returns the text as it is stored: unchanged, unless it has surrogates, which UTF-8 cannot encode."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


@functools.cache
def faces_type(answers: tuple[pa.Field, ...]) -> pa.ListType:
    """Returns the type of the column `faces`: a list of structs, in which the answers of the head come last.

    Answers of a face that is not `labelled` are what the head says, and become nulls in the merge.

    Args:
        answers: the fields of the head's output.
    """
    fields = [pa.field(name, pa.int32(), nullable=False) for name in ("x", "y", "width", "height")]
    fields += [
        pa.field("detection_score", pa.float32(), nullable=False),
        pa.field(_BEFORE_ANSWERS, pa.bool_(), nullable=False),
        *answers,
    ]
    return pa.list_(pa.field("element", pa.struct(fields), nullable=False))


@functools.cache
def part_schema(answers: tuple[pa.Field, ...], *, exif: bool = False) -> pa.Schema:
    """Returns the columns of a part for a head with these fields, with or without EXIF."""
    return pa.schema(
        [
            pa.field("image_id", pa.string(), nullable=False),
            pa.field("position", pa.int64(), nullable=False),
            pa.field("source", pa.string(), nullable=False),
            pa.field("digest", pa.binary(32)),
            pa.field("bytes", pa.int64(), nullable=False),
            pa.field("width", pa.int32(), nullable=False),
            pa.field("height", pa.int32(), nullable=False),
            pa.field("status", pa.string(), nullable=False),
            pa.field("stage", pa.string()),
            pa.field("reason", pa.string()),
            pa.field("true_label", pa.string()),
            pa.field("cached", pa.bool_(), nullable=False),
            *(EXIF_FIELDS if exif else ()),
            pa.field("faces", faces_type(answers), nullable=False),
        ]
    )


def write_part(path: str, table: pa.Table, metadata: PartMetadata, *, upload: Upload | None = None) -> None:
    """Writes a part under its final name, atomically. Equal rows and metadata give equal bytes.

    Args:
        path: its name; may be an object's if `upload` is given.
        table: rows of `part_schema`, sorted by image id (UTF-8 bytes), then position.
        metadata: for the footer.
        upload: copies a finished file to an object store.

    Raises:
        StorageError: the disk is full, or permission is missing.
    """
    with publish_file(path, upload=upload) as temporary:
        write_part_file(temporary, [table], table.schema, metadata)


def write_part_file(path: str, tables: Sequence[pa.Table], schema: pa.Schema, metadata: PartMetadata) -> None:
    """Writes rows straight to `path`; use `write_part` where others may see the file."""
    with part_writer(path, schema) as writer:
        for table in tables:
            write_rows(writer, table)
        close_part(path, writer, metadata)


def part_writer(path: str, schema: pa.Schema) -> pq.ParquetWriter:
    """Returns an open writer of a part; close it with `close_part`."""
    return pq.ParquetWriter(
        path, schema, compression="lz4", use_dictionary=False, write_statistics=False, write_page_checksum=True
    )


def write_rows(writer: pq.ParquetWriter, table: pa.Table) -> None:
    """Writes sorted rows in row groups of at most about `GROUP_BYTES`."""
    if table.num_rows:
        writer.write_table(table, row_group_size=max(1, table.num_rows * GROUP_BYTES // max(table.nbytes, 1)))


def close_part(path: str, writer: pq.ParquetWriter, metadata: PartMetadata) -> None:
    """Writes the footer of the part at `path`, then its checksum into the bytes reserved for it."""
    text = json.dumps({"version": FORMAT_VERSION, **asdict(metadata)}, sort_keys=True).encode()
    writer.add_key_value_metadata({_INFO: text, _CHECKSUM: _BLANK})
    writer.close()
    with open(path, "r+b") as file:
        start, footer = _footer(file)
        place = _place_of_checksum(footer)
        file.seek(start + place)
        file.write(b"%08x" % zlib.crc32(footer))


def part_info(path: str) -> PartMetadata:
    """Returns the metadata in the footer, without reading rows.

    Raises:
        DamagedPart: the file is missing, truncated, of another version, or not a part.
        StorageError: the storage cannot be reached.
    """
    with _named_damage(path), _opened(path) as file:
        info = _info(file, path)
        _schema(file, path)
        return info


def read_part(path: str) -> pa.Table:
    """Returns all rows of a part, verified.

    Raises:
        DamagedPart, StorageError: as for `part_info`; also when a page's checksum fails.
    """
    with PartReader(path) as reader:
        tables = list(reader)
        return pa.concat_tables([reader.schema.empty_table(), *tables]).combine_chunks()


class PartReader:
    """An open part. Iterating gives its rows, verified, as one table per row group.

    Attributes:
        info: the metadata in the footer.
        schema: of the tables.
        groups_left: row groups not read yet.

    Raises:
        DamagedPart, StorageError: when opened, and while iterating.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        with _named_damage(path):
            self._file = _opened(path)
            try:
                self.info = _info(self._file, path)
                self.schema = _schema(self._file, path)
            except BaseException:
                self._file.close()
                raise
        self._groups: int = self._file.num_row_groups
        self.groups_left: int = self._groups
        self._last_id = self.info.first_id

    def __iter__(self) -> Iterator[pa.Table]:
        return self

    def __next__(self) -> pa.Table:
        if self.groups_left == 0:
            raise StopIteration
        with _named_damage(self.path):
            table = self._file.read_row_group(self._groups - self.groups_left, use_threads=False)
        self.groups_left -= 1
        table = table.replace_schema_metadata(None).combine_chunks()
        self._check(table)
        return table

    def _check(self, table: pa.Table) -> None:
        """Checks order and range of ids: the merge relies on them."""
        ids = pa.concat_arrays([pa.array([self._last_id], pa.string()), *table["image_id"].chunks])
        fits = len(ids) > 1 and pc.all(pc.less_equal(ids[:-1], ids[1:])).as_py()
        self._last_id = ids[-1].as_py()
        if not fits or (self.groups_left == 0 and self._last_id != self.info.last_id):
            raise _damaged(self.path, "its rows are not in the order and range that its footer states")

    def __enter__(self) -> PartReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; a second call does nothing."""
        self._file.close()


def _opened(path: str) -> pq.ParquetFile:
    """Opens a part after checking its footer: some damage there makes Arrow abort the process."""
    with open(path, "rb") as file:
        _, footer = _footer(file)
    place = _place_of_checksum(footer)
    blank = footer[:place] + _BLANK + footer[place + len(_BLANK) :]
    if footer[place : place + len(_BLANK)] != b"%08x" % zlib.crc32(blank):
        raise _damaged(path, "its footer does not match its checksum")
    return pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False)


def _footer(file: BinaryIO) -> tuple[int, bytes]:
    """Returns where the end of a Parquet file starts, and its bytes: footer, footer length, magic number."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 8))
    length, magic = struct.unpack("<I4s", file.read(8).rjust(8, b"\0"))
    if magic != b"PAR1" or length + 8 > size:
        raise ValueError("it is truncated, or not a Parquet file")
    return file.seek(size - length - 8), file.read()


def _place_of_checksum(footer: bytes) -> int:
    """Returns where the checksum's digits begin. The mark has control characters, so no JSON can contain it."""
    place = footer.find(_MARK)
    if place < 0 or place + len(_MARK) + len(_BLANK) > len(footer):
        raise ValueError("it is not a part of a run, or is of another version")
    return place + len(_MARK)


def _info(file: pq.ParquetFile, path: str) -> PartMetadata:
    fields = json.loads(file.metadata.metadata[_INFO])
    version = fields.pop("version")
    if version != FORMAT_VERSION:
        raise _damaged(path, f"it has format version {version}, not {FORMAT_VERSION}")
    info = PartMetadata(**fields)
    if file.metadata.num_rows != info.images:
        raise _damaged(path, f"it holds {file.metadata.num_rows} rows, not {info.images}")
    return info


def _schema(file: pq.ParquetFile, path: str) -> pa.Schema:
    """Returns the columns, checked to be those of a part, as no checksum of Parquet covers them."""
    schema = file.schema_arrow.remove_metadata()
    if "faces" not in schema.names or schema != part_schema(answers_in(schema), exif=has_exif(schema)):
        raise _damaged(path, "its columns are not those of a part")
    return schema


def answers_in(schema: pa.Schema) -> tuple[pa.Field, ...]:
    """Returns the fields of a face that hold the answers of a head."""
    fields = list(schema.field("faces").type.value_type)
    return tuple(fields[1 + [field.name for field in fields].index(_BEFORE_ANSWERS) :])


def has_exif(schema: pa.Schema) -> bool:
    """True if a table has the columns of EXIF."""
    return all(field.name in schema.names for field in EXIF_FIELDS)


def _damaged(path: str, fault: str) -> DamagedPart:
    return DamagedPart(
        f"part {path} is damaged ({fault}); remove it and run the same command again to redo its block", path=path
    )


@contextlib.contextmanager
def _named_damage(path: str) -> Iterator[None]:
    """Reports damaged content and failed storage apart: Arrow gives storage errors an error number."""
    try:
        yield
    except DamagedPart:
        raise
    except FileNotFoundError as error:
        raise _damaged(path, "it is missing") from error
    except OSError as error:
        if error.errno:
            raise storage_error("read", path, error) from error
        raise _damaged(path, _first_line(error)) from error
    except (pa.ArrowException, ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise _damaged(path, _first_line(error)) from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
