"""What must hold of any archive, however damaged, and independent readers to hold it against.

Not a test: other tests `import archive_oracle`.
"""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import islice
from typing import Any

import google_crc32c
from mutants import Mutant, digest

from transforms.formats.records import Entry, FormatError, Limits, Member, Reason, ShardFormat
from transforms.formats.shards.loose_files import clean_name
from transforms.formats.shards.registry import FIRST_BYTES, format_of
from transforms.read_blocks import PlannedBlock, make_block

LIMITS = Limits(max_image_bytes=2**20)
MOST_MEMBERS = 20_000  # a mutant of some kilobytes has no more
Found = dict[str, bytes]


class NotHeld(Exception):
    """The oracle objects; the message says why."""


def judge_archive(mutant: Mutant) -> tuple[str, str]:
    """Returns the outcome, equal in every process, and a fault, or ""."""
    form = format_of(mutant.name, mutant.data[:FIRST_BYTES])
    if form is None:
        return "no archive", ""
    try:
        members = _members(form, mutant.data)
        _check_rows(members, mutant.name)
        _check_all_are_there(members, mutant, form)
    except FormatError as error:  # stops the run in one line
        return f"stops: {error}", "" if "\n" not in str(error) else "the message has several lines"
    except NotHeld as error:
        return "objected", str(error)
    except Exception as error:  # noqa: BLE001 - this is what is looked for
        return "raised", f"{type(error).__name__}: {error}"[:300]
    return " ".join([form.name, str(len(members)), digest(repr(members).encode())]), ""


def _members(form: ShardFormat, data: bytes) -> list[Member]:
    """Returns all members; where they can be listed, reading and streaming must give the same."""
    streamed = _some(form.stream(io.BytesIO(data), LIMITS))
    if not form.sought:
        return streamed
    entries = _some(form.list(io.BytesIO(data), LIMITS))
    _check_plan(entries)
    file = io.BytesIO(data)
    members = _some(form.read(file, entries, LIMITS))
    if len(members) != len(entries):
        raise NotHeld(f"{len(entries)} entries, {len(members)} members")
    if _good(members) != _good(streamed):
        raise NotHeld(f"listed {_told(members)}, streamed {_told(streamed)}")
    return members


def _some(found: Iterable[Any]) -> list[Any]:
    some = list(islice(found, MOST_MEMBERS + 1))
    if len(some) > MOST_MEMBERS:
        raise NotHeld(f"more than {MOST_MEMBERS} members")
    return some


def _good(members: Iterable[Member]) -> list[tuple[str, bytes]]:
    return [(member.name, member.data) for member in members if member.data is not None]


def _told(members: Iterable[Member]) -> str:
    return ", ".join(f"{member.name[-20:]}:{member.reason or len(member.data or b'')}" for member in members)[:600]


def _check_plan(entries: list[Entry]) -> None:
    planned = PlannedBlock("k", "tar", "in.tar", "in.tar/", 0, tuple(entries))
    if PlannedBlock.from_json(planned.to_json()) != planned:
        raise NotHeld("a line of the plan does not come back as it was")


def _check_rows(members: list[Member], name: str) -> None:
    """Each member becomes a row with an id that can be written."""
    block = make_block(PlannedBlock("k", "tar", name, f"{name}/", 0), members, 0)
    if not len(block) == len(members) == len(block.ids) == len(block.reason):
        raise NotHeld("members without a row")
    for image_id, member, status in zip(block.ids, members, block.status, strict=True):
        image_id.encode()
        if (member.data is None) != (status is not None):
            raise NotHeld(f"{image_id}: neither bytes nor a reason, or both")


def _check_all_are_there(members: list[Member], mutant: Mutant, form: ShardFormat) -> None:
    """What was in the archive has a row; or it is damaged and says so; or another reader misses it, too."""
    named = {member.name for member in members}
    if any(member.reason is Reason.DAMAGED_ARCHIVE for member in members):
        return
    read = _by_others(form, mutant.data)
    lost = [name for name in mutant.whole if name not in named and name in read]
    if lost:
        raise NotHeld(f"without a row: {', '.join(lost)[:200]}")
    if len(members) < len(read):
        raise NotHeld(f"{len(members)} rows, another reader finds {len(read)}")
    others = dict(_good(members))
    wrong = [name for name in mutant.whole if name in others and name in read and others[name] != read[name]]
    if wrong:
        raise NotHeld(f"other bytes than another reader finds: {', '.join(wrong)[:200]}")


# --- other readers ----------------------------------------------------------------------------------------------------


def _by_others(form: ShardFormat, data: bytes) -> Found:
    """Returns the images that an independent reader finds, by the names we give them; what it refuses is not found."""
    reader = _READERS.get(form.name)
    if reader is None:
        return {}
    try:
        return {clean_name(name).text: content for name, content in reader(data)}
    except Exception:  # noqa: BLE001 - libraries raise whatever they meet
        return {}


def _tar(data: bytes) -> list[tuple[str, bytes]]:
    found = []
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isreg() and member.name.endswith(".png") else None
            if file is not None:
                found.append((member.name, file.read()))
    return found


def _zip(data: bytes) -> list[tuple[str, bytes]]:
    found = []
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for name in archive.namelist():
            with suppress(Exception):  # one that it refuses says nothing of the others
                found.append((name, archive.read(name)))
    return [(name, content) for name, content in found if name.endswith(".png")]


def _tfrecord(data: bytes) -> list[tuple[str, bytes]]:
    """Returns sound records by number; what is inside them is not looked at."""
    found, at = [], 0
    while at + 16 <= len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        record = data[at + 12 : at + 12 + length]
        if _masked(data[at : at + 8]) != data[at + 8 : at + 12]:
            break
        found.append((f"{len(found):08d}", record))
        at += 16 + length
    return found


def _masked(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _unpacked(reader: Callable[[bytes], list[tuple[str, bytes]]]) -> Callable[[bytes], list[tuple[str, bytes]]]:
    return lambda data: reader(gzip.decompress(data))


_READERS: dict[str, Callable[[bytes], list[tuple[str, bytes]]]] = {
    "tar": _tar,
    "tar.gz": _unpacked(_tar),
    "zip": _zip,
    "tfrecord": _tfrecord,
    "tfrecord.gz": _unpacked(_tfrecord),
}
