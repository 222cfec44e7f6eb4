"""The terms that every file format uses for images: the outcome of an image, its place in a file, the bytes read.

Not here: the block that travels through the graph (`transforms/block.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import BinaryIO, Protocol

NO_LABEL = -1  # in place of the index of a class: of a face too small to label


class Status(StrEnum):
    """The outcome of an image. Every planned image ends with exactly one."""

    LABELLED = "labelled"
    NO_FACE = "no_face"
    REJECTED = "rejected"
    DUPLICATE = "duplicate"


class Stage(StrEnum):
    """The stage that decided that an image gets no label."""

    READ = "read"
    DECODE = "decode"
    LABEL = "label"
    MERGE = "merge"


class Reason(StrEnum):
    """Why an image has no label. An image in which no face was found needs no reason.

    Values are stored in the cache and in the output: never rename one.
    """

    EMPTY = "empty"
    TRUNCATED = "truncated"
    NOT_AN_IMAGE = "not_an_image"
    UNDECODABLE = "undecodable"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_MANY_BYTES = "too_many_bytes"
    TOO_SMALL = "too_small"
    TOO_COSTLY = "too_costly"
    UNSAFE_NAME = "unsafe_name"
    NOT_A_FILE = "not_a_file"
    UNSUPPORTED_COMPRESSION = "unsupported_compression"
    DAMAGED_ARCHIVE = "damaged_archive"
    DAMAGED_MEMBER = "damaged_member"
    TOO_SMALL_TO_LABEL = "too_small_to_label"
    DUPLICATE_ID = "duplicate_id"
    INTERNAL_ERROR = "internal_error"

    @property
    def stage(self) -> Stage:
        """Returns the stage that finds this fault."""
        if self is Reason.DUPLICATE_ID:
            return Stage.MERGE
        if self is Reason.TOO_SMALL_TO_LABEL:
            return Stage.LABEL
        return Stage.DECODE if self in _FOUND_WHILE_DECODING else Stage.READ

    @property
    def is_of_content(self) -> bool:
        """True if the same bytes always have this fault, so it can be cached; a fault of the program may be fixed."""
        return self.stage is Stage.DECODE and self is not Reason.INTERNAL_ERROR


_FOUND_WHILE_DECODING = frozenset(
    {
        Reason.EMPTY,
        Reason.TRUNCATED,
        Reason.NOT_AN_IMAGE,
        Reason.UNDECODABLE,
        Reason.TOO_MANY_PIXELS,
        Reason.TOO_SMALL,
        Reason.INTERNAL_ERROR,  # may also come from a detector or a crop
        Reason.TOO_COSTLY,
    }
)


MOST_PIXELS_A_SIDE = 2**31 - 1  # columns of sizes are int32


class FormatError(Exception):
    """A file is not valid in the format it claims to have; the message names file, fault and fix."""


class NoImagesHere(FormatError):
    """A valid file of a format that may hold images, but without any, such as a table about the images."""


class RejectedContent(Exception):
    """The bytes of one image cannot be used. Only this image is affected: it gets no label.

    Attributes:
        reason: what is wrong.
        width, height: pixels of the upright image if the header is readable, else 0; also 0 if the header states more
            pixels a side than a column of 32 bits can hold.
    """

    def __init__(self, reason: Reason, *, width: int = 0, height: int = 0) -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.width, self.height = (side if 0 <= side <= MOST_PIXELS_A_SIDE else 0 for side in (width, height))


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on a member, checked before it is opened."""

    max_image_bytes: int = 256 * 2**20  # after decompression
    max_pixels: int = 100_000_000


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one image of a shard is, found by listing, without reading the image.

    Attributes:
        name: relative to the shard, with `/`; "" if the format gives it only when the image is read.
        where: the format's own reference (byte offsets, row numbers).
        size: encoded bytes, or -1 if unknown before reading.
        label: the class that the format states, or None.
        reason: why the image cannot be read, if listing already shows it.
    """

    name: str
    where: tuple[int, ...]
    size: int
    label: str | None = None
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """One image as read: its encoded bytes, or the reason why there are none.

    A damaged archive ends with one member whose reason is `DAMAGED_ARCHIVE`.
    """

    name: str
    data: bytes | None
    label: str | None = None
    reason: Reason | None = None


class ShardFormat(Protocol):
    """A file that holds many images.

    Attributes:
        name: the format's name in messages and settings.
        suffixes: lower-case endings by which it is recognised.
        sought: True if members can be listed and then read in any order; False if the file can only be streamed.
    """

    name: str
    suffixes: tuple[str, ...]
    sought: bool

    def list(self, file: BinaryIO, limits: Limits) -> Iterator[Entry]:
        """Yields the members in the file's order (only if `sought`)."""
        ...

    def read(self, file: BinaryIO, entries: Sequence[Entry], limits: Limits) -> Iterator[Member]:
        """Yields one member for each of `entries`, in their order (only if `sought`)."""
        ...

    def stream(self, file: BinaryIO, limits: Limits) -> Iterator[Member]:
        """Yields all members from first to last, reading forward only."""
        ...
