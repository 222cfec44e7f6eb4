"""What was seen of an archive that can only be streamed, noted beside its parts once its end was reached.

Its images cannot be counted while planning; the note is what the last stage counts against, and what tells a run that
goes on whether all blocks of the archive stand. Not here: streaming (`read_blocks.py`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from dataclasses import asdict, dataclass

from transforms.formats.publish import publish, storage_error
from transforms.storage.retrying import patiently

MARK_SUFFIX = ".stream.json"


@dataclass(frozen=True, slots=True)
class StreamMark:
    """An archive that was read to its end.

    Attributes:
        images: in it, rejected ones too.
        blocks: they were cut into.
        skipped: members that are no images by their name; `skipped_names` the ids of the first few.
    """

    images: int
    blocks: int
    skipped: int = 0
    skipped_names: tuple[str, ...] = ()


def mark_path(parts: str, key: str) -> str:
    """Returns where the mark of the streamed archive `key` lies."""
    return os.path.join(parts, key + MARK_SUFFIX)


def write_mark(parts: str, key: str, mark: StreamMark) -> None:
    """Notes that an archive was read to its end; equal archives give equal notes.

    Raises:
        StorageError: disk full, permission.
    """
    text = json.dumps(asdict(mark), sort_keys=True).encode()
    patiently(lambda: publish(mark_path(parts, key), lambda file: file.write(text)))


def read_mark(parts: str, key: str) -> StreamMark | None:
    """Returns the mark of an archive; None where there is none, or it is damaged.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        with open(mark_path(parts, key), "rb") as file:
            fields = json.loads(file.read())
        mark = StreamMark(**{**fields, "skipped_names": tuple(map(str, fields["skipped_names"]))})
        return StreamMark(int(mark.images), int(mark.blocks), int(mark.skipped), mark.skipped_names)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error("read", mark_path(parts, key), error) from error
    except (ValueError, TypeError, KeyError):
        return None


def remove_other_marks(parts: str, keys: Collection[str]) -> None:
    """Removes the marks of archives that are none of `keys`: they changed since, or are no input any more."""
    for name in os.listdir(parts):
        if name.endswith(MARK_SUFFIX) and name.removesuffix(MARK_SUFFIX) not in keys:
            os.unlink(os.path.join(parts, name))
