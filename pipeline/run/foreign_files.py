"""Tells a run's files in an output folder from the user's, by name and content: a run refuses others before it begins.

Only then may `own_files.py` remove by name. A file counts as ours unless its content says otherwise: an intact file of
another kind is the user's, even under one of our names; a damaged one is ours in a folder that a run has used.
Not here: inputs inside an output folder (`own_files.py`).
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
import zipfile
from collections.abc import Callable
from functools import partial
from typing import BinaryIO

from pipeline.errors import UsageError
from pipeline.run.own_files import (
    LOCK,
    NUMBERS,
    OWN_FILES,
    OWN_FOLDERS,
    PAGE,
    PAGE_HEAD,
    PAGE_MARK,
    PICTURES,
    RECORD,
    is_own,
)
from transforms.formats.encode import MARK_WITHIN, is_marked
from transforms.formats.picture_index import PICTURE_INDEX, is_picture_index
from transforms.formats.publish import is_temporary
from transforms.storage.staged_files import FAILURE, FOLDER

PARQUET, ZIP = b"PAR1", b"PK\3\4"
FOOTER_BYTES = 64 * 2**20  # most to read; the footer of our file with a thousand classes takes a thousandth of it
_MARKS = {  # words in the footer of a Parquet file, which Arrow writes verbatim
    "parts": (b"part_crc32", b"image_id"),
    ".merging": (b"part_crc32", b"image_id"),
    "predictions": (b"image_id", b"detection_score"),
    "images": (b"image_id", b"true_label"),
}
_KEYS = {  # keys of a JSON file that a run writes
    "plan.json": ("inputs_digest", "layout"),
    "plan.tmp": ("inputs_digest", "layout"),
    "identity.json": ("features",),
    "stream.json": ("images", "blocks"),
    RECORD: ("inputs_digest", "counts", "parts"),
    NUMBERS: ("run_fingerprint", "counts", "shown"),
}
_ROWS = {"ids.npy", "labels.npy", "digests.npy", "features.npy"}  # of a file of training rows
WORKING = {"run", "training", "validation"}  # below `work/`: each is an output folder
OF_A_RUN = {*OWN_FOLDERS, *OWN_FILES, LOCK}
LEARNED = {"training.npy", "validation.npy"}
PLANS = {"excluded", "pictures"}  # one plan each
MLP, MLP_FILES = "mlp", (".npz", ".json", ".csv", ".tmp")  # the checkpoint of dense layers


def refuse_foreign(output: str, *, flag: str = "--output") -> None:
    """Raises UsageError if a file that a run would remove or replace was not written by a run; changes nothing."""
    ours = False
    damaged = []
    for folder in OWN_FOLDERS:
        path = os.path.join(output, folder)
        for name in _names(path, flag, output):
            found = _whose(os.path.join(path, name), folder, name)
            ours |= found is True
            if found is False:
                raise _foreign(flag, output, f"{folder}/{name}")
            if found is None:
                damaged.append(f"{folder}/{name}")
    record = _whose_json(os.path.join(output, RECORD), RECORD)
    if record is False:
        raise UsageError(f"{flag} {output}: its run.json was not written by label; move it away or give another folder")
    if page := _foreign_page(output):
        raise _foreign(flag, output, page)
    if ours or record:
        return
    unknown = [*damaged, *(name for name in OWN_FILES if os.path.lexists(os.path.join(output, name)))]
    if unknown:
        raise _foreign(flag, output, unknown[0])


def _foreign_page(output: str) -> str | None:
    """Returns the name of a page, or of its numbers, that something else wrote."""
    if _whose_json(os.path.join(output, NUMBERS), NUMBERS) is False:
        return NUMBERS
    try:
        with open(os.path.join(output, PAGE), "rb") as file:
            head = file.read(PAGE_HEAD)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return PAGE if head.strip(b"\0") and PAGE_MARK not in head else None


def refuse_foreign_work(work: str, *, flag: str = "--output") -> None:
    """Raises UsageError if `work`, which a command removes at the end, has files that no command of ours wrote."""
    known = {*WORKING, *LEARNED, *PLANS, MLP, LOCK}
    for name in _only(work, known.__contains__, flag):
        inner = os.path.join(work, name)
        if name in WORKING:
            _only(inner, OF_A_RUN.__contains__, flag)
            refuse_foreign(inner, flag=flag)
        elif name in PLANS:
            _only(inner, partial(is_own, "plan"), flag)
        elif name == MLP:
            _only(inner, lambda file: file.endswith(MLP_FILES), flag)


def _only(folder: str, known: Callable[[str], bool], flag: str) -> list[str]:
    """Returns the names in a working folder; refuses unknown ones."""
    parent, own = os.path.split(folder)
    names = _names(folder, flag, parent)
    for name in names:
        if not known(name) and not is_temporary(name):
            raise _foreign(flag, parent, f"{own}/{name}")
    return names


def _names(folder: str, flag: str, output: str) -> list[str]:
    """Returns the names in a folder that a run writes to, none if it does not exist; refuses a link and a file."""
    try:
        mode = os.lstat(folder).st_mode
        if stat.S_ISDIR(mode):
            return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UsageError(f"{flag} {folder}: {error.strerror}; give a readable and writable folder") from error
    kind = "a link, and links are not followed" if stat.S_ISLNK(mode) else "no folder"
    raise UsageError(
        f"{flag} {output}: {os.path.basename(folder)}, where results go, is {kind}; "
        "move it away or give another output folder"
    )


def _foreign(flag: str, output: str, name: str) -> UsageError:
    return UsageError(
        f"{flag} {output}: {name} is where results are written, but no run wrote it; "
        "move it away or give another output folder"
    )


def _whose(path: str, folder: str, name: str) -> bool | None:
    """Returns True for an intact file of ours or an empty one, False for another's, None if it is damaged."""
    if not is_own(folder, name):
        return False
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return False
        if is_temporary(name) or folder == "heartbeats" or name == FAILURE:
            return True
        if name.endswith((".json", "plan.tmp")):
            return _whose_json(path, "stream.json" if name.endswith(".stream.json") else name)
        with open(path, "rb") as file:
            if folder == FOLDER:  # named by its content
                return True if hashlib.file_digest(file, "sha256").hexdigest() == name else None
            return _whose_content(file, folder, name)
    except FileNotFoundError:  # moved in the meantime
        return None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}; get permission, or move it away") from error


def _whose_content(file: BinaryIO, folder: str, name: str) -> bool | None:
    start = file.read(4)
    if not start.strip(b"\0"):  # empty, or zeros after a power cut: nothing to lose
        return True
    if name.endswith(".npz"):
        return _whose_rows(file) if start == ZIP else False
    if folder == PICTURES:
        start += file.read(MARK_WITHIN)
        return is_picture_index(start) if name == PICTURE_INDEX else is_marked(start)
    if folder == "plan":  # its lines
        return start.startswith(b'[["')
    if start != PARQUET:
        return False
    footer = _parquet_footer(file)
    return None if footer is None else all(mark in footer for mark in _MARKS[folder])


def _parquet_footer(file: BinaryIO) -> bytes | None:
    """Returns the footer of a Parquet file, with column names and metadata; None if it is truncated."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 8))
    length, magic = struct.unpack("<I4s", file.read(8).rjust(8, b"\0"))
    if magic != PARQUET or length + 8 > size:
        return None
    file.seek(size - length - 8)
    return file.read(min(length, FOOTER_BYTES))


def _whose_rows(file: BinaryIO) -> bool | None:
    try:
        with zipfile.ZipFile(file) as archive:
            return set(archive.namelist()) == _ROWS
    except zipfile.BadZipFile:
        return None


def _whose_json(path: str, name: str) -> bool | None:
    """Returns True for a JSON object with our keys, None if it is missing or damaged."""
    try:
        with open(path, "rb") as file:
            text = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return True if name != RECORD and not text.strip(b"\0") else None
    return isinstance(value, dict) and all(key in value for key in _KEYS[name])
