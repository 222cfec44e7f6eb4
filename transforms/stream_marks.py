"""Totals of an archive that can only be streamed, written next to its parts once its end is reached.

Its images cannot be counted while planning. The last stage counts against this mark, and a resumed run learns from it
if all blocks of the archive are done. Not here: streaming (`read_blocks.py`).
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass

from transforms.storage.retrying import with_retries
from transforms.storage.stores import store_of

MARK_SUFFIX = ".stream.json"


@dataclass(frozen=True, slots=True)
class StreamMark:
    """An archive that was read to its end.

    Attributes:
        images: number of images, including rejected ones.
        blocks: number of blocks they were cut into.
        skipped: number of members without an image's name; `skipped_names` are the ids of the first few.
    """

    images: int
    blocks: int
    skipped: int = 0
    skipped_names: tuple[str, ...] = ()


def mark_path(parts: str, key: str) -> str:
    """Returns the path of the mark of the streamed archive `key`."""
    return store_of(parts).path(key + MARK_SUFFIX)


def write_mark(parts: str, key: str, mark: StreamMark) -> None:
    """Records that an archive was read to its end; equal archives give equal marks.

    Raises:
        StorageError: the disk is full, or permission is missing.
    """
    text = json.dumps(asdict(mark), sort_keys=True).encode()
    with_retries(lambda: store_of(parts).put_bytes(key + MARK_SUFFIX, text))


def read_mark(parts: str, key: str) -> StreamMark | None:
    """Returns the mark of an archive; None if it is missing or damaged.

    Raises:
        StorageError, InputFault: it cannot be read.
    """
    found = store_of(parts).get(key + MARK_SUFFIX)
    if found is None:
        return None
    try:
        fields = json.loads(found[0])
        mark = StreamMark(**{**fields, "skipped_names": tuple(map(str, fields["skipped_names"]))})
        return StreamMark(int(mark.images), int(mark.blocks), int(mark.skipped), mark.skipped_names)
    except (ValueError, TypeError, KeyError):
        return None


def remove_other_marks(parts: str, keys: Collection[str]) -> None:
    """Removes the marks of archives not in `keys`: those that changed, or are no longer inputs."""
    store = store_of(parts)
    marks = [found.name for found in store.list() if found.name.endswith(MARK_SUFFIX)]
    store.delete(name for name in marks if name.removesuffix(MARK_SUFFIX) not in keys)
