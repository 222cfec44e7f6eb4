"""What stands in an output folder from earlier: whose run it is, which blocks are finished, and the lock.

Not here: planning (`plan.py`), and what a part holds (`transforms/formats/parts.py`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import StoppedError, UsageError
from pipeline.run.own_files import IDENTITY, LOCK, NUMBERS, PAGE, PICTURES, RECORD, WORKING, is_own, remove_own
from pipeline.run.plan import BLOCKS, Plan, head_of
from pipeline.settings.differences import differences
from transforms.block import BlockRef
from transforms.formats.canonical import fingerprint_of
from transforms.formats.parts import DamagedPart, part_info
from transforms.formats.publish import publish, remove_leftovers
from transforms.read_blocks import STREAM_MARK
from transforms.storage.retrying import with_retries
from transforms.storage.store import is_local
from transforms.stream_marks import read_mark, remove_other_marks

DIGEST = "digest"  # of the rest of identity.json


@dataclass(frozen=True, slots=True)
class Progress:
    """Which planned blocks stand finished.

    Attributes:
        missing: references of the blocks that have to be done; a stream of which one is missing is one of them.
        reused: blocks whose parts stand.
        redone: parts that stood, and no longer fit an input, were damaged, or hold an image that the program failed at:
            removed, their blocks are done again.
        images_done: images of the reused blocks.
    """

    missing: list[BlockRef]
    reused: int
    redone: int
    images_done: int


class OutputFolder:
    """One run's folder: knows its paths and what an earlier run left there."""

    def __init__(self, path: str) -> None:
        if not is_local(path):
            raise UsageError(
                f"--output {path}: results cannot be written there; give a local folder (label also takes s3:// or gs://)"
            )
        self.path = os.path.abspath(path)
        self.plan = os.path.join(self.path, "plan")
        self.parts = os.path.join(self.path, "parts")
        self.identity_file = os.path.join(self.path, IDENTITY)
        self.record_file = os.path.join(self.path, RECORD)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder for one run.

        Raises:
            StoppedError: another run holds it.
            UsageError: it cannot be made or written.
        """
        import fcntl

        try:
            os.makedirs(self.path, exist_ok=True)
            lock = open(os.path.join(self.path, LOCK), "a")  # noqa: SIM115 - held below; "a" empties nobody's file
        except OSError as error:
            raise UsageError(f"--output {self.path}: {error.strerror}; give a folder that can be written") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StoppedError(f"--output {self.path}: another run works in this folder; wait for it") from error
            except OSError as error:
                raise UsageError(
                    f"--output {self.path} cannot be locked: {error.strerror}; give another one"
                ) from error
            yield

    def refuse_unwritable(self) -> None:
        """Raises UsageError if the folder cannot be made or written, as `locked` would; makes nothing."""
        place = self.path
        while not os.path.lexists(place):
            place = os.path.dirname(place)
        if not os.path.isdir(place):
            raise UsageError(f"--output {self.path}: {place} is not a folder; give a folder that can be written")
        if not os.access(place, os.W_OK | os.X_OK):
            raise UsageError(f"--output {self.path}: Permission denied; give a folder that can be written")

    def record(self) -> dict[str, Any] | None:
        """Returns `run.json` of a finished run, or None."""
        return _read_json(self.record_file)

    def identity(self) -> dict[str, Any] | None:
        """Returns what the unfinished run that stands here is made of, nothing where that is damaged; else None."""
        found = _read_json(self.identity_file)
        if found is None:
            return None
        digest = found.pop(DIGEST, None)  # earlier versions wrote none
        return found if digest in (None, fingerprint_of(found)) else {}

    def refuse_damaged(self) -> None:
        """Raises UsageError if nobody can tell whose run stands here, as the files that say so are damaged."""
        record = self.record() or {}
        identity = (record.get("identity"), record.get("run_fingerprint"))
        damaged = {
            self.record_file: not record or (all(identity) and fingerprint_of(identity[0]) != identity[1]),
            self.identity_file: not self.identity(),
        }
        for path, is_damaged in damaged.items():
            if is_damaged and os.path.lexists(path):
                raise UsageError(
                    f"--output {self.place}: {os.path.relpath(path, self.path)} is damaged, so nobody can tell which "
                    "settings the results there are of; --overwrite starts anew (the cache keeps what was computed), "
                    "or give another folder"
                )

    def clear(self) -> None:
        """Removes everything a run of ours has put here; the cache, if it lies here, stays."""
        remove_own(self.path)

    def prepare(self, identity: dict[str, Any]) -> None:
        """Makes the working folders and notes whose they are; from now on the run counts as unfinished.

        Raises:
            UsageError: they belong to a run with other settings; lists the differences.
        """
        self.refuse_another(self.identity(), identity)
        for folder in (self.plan, self.parts):
            os.makedirs(folder, exist_ok=True)
            remove_leftovers(folder)
        remove_leftovers(self.path)
        text = json.dumps({**identity, DIGEST: fingerprint_of(identity)}, indent=1, sort_keys=True).encode()
        with_retries(lambda: publish(self.identity_file, lambda file: file.write(text)))
        self.forget_record()  # only now: at no time the folder lacks a sign of whose it is

    def forget_record(self) -> None:
        """Makes the run unfinished: `run.json` comes last and goes first, and with it page and pictures of the run."""
        Path(self.record_file).unlink(missing_ok=True)
        for name in (PAGE, NUMBERS):
            Path(self.path, name).unlink(missing_ok=True)
        remove_own(self.path, (PICTURES,), ())

    def is_whole(self, record: dict[str, Any]) -> bool:
        """True if every file that `run.json` lists still stands with its size."""
        for file in record["parts"]:
            path = os.path.join(self.path, file["path"])
            if not os.path.isfile(path) or os.path.getsize(path) != file["bytes"]:
                return False
        return True

    def refuse_another(self, standing: dict[str, Any] | None, identity: dict[str, Any]) -> None:
        """Raises UsageError if what stands here was made with settings that give other results."""
        if standing is not None and standing != identity:
            listed = "; ".join(differences(standing, identity)[:6])
            raise UsageError(
                f"--output {self.place} holds a run with other settings ({listed}); "
                "give another folder, or --overwrite to start anew"
            )

    @property
    def place(self) -> str:
        """Where workers find it: a path that they can open too."""
        return self.path

    @property
    def blocks_file(self) -> str:
        """Where workers find the lines of the plan."""
        return os.path.join(self.plan, BLOCKS)

    def progress(self, plan: Plan) -> Progress:
        """Returns which blocks of the plan are finished; removes parts that no longer belong or are damaged."""
        standing = self._standing()
        missing: list[BlockRef] = []
        reused = redone = images_done = 0
        streams: dict[str, BlockRef] = {}
        for ref, line in plan.lines():
            key, images, streamed = head_of(line)
            if streamed:
                streams[key] = ref
                missing.append(ref)
            elif key in standing and self._images(key) == images:
                standing.discard(key)
                reused += 1
                images_done += images
            else:
                missing.append(ref)
        kept = self._kept_of(streams, standing)
        for key in standing - {key for found in kept.values() for key in found}:
            self._drop(key)
            redone += 1
        remove_other_marks(self.place_of_parts, streams.keys())
        whole = {ref for key, ref in streams.items() if self._is_streamed(key, kept[key])}
        for found in kept.values():
            reused += len(found)
            images_done += sum(found.values())
        return Progress([ref for ref in missing if ref not in whole], reused, redone, images_done)

    def _kept_of(self, streams: Iterable[str], standing: Iterable[str]) -> dict[str, dict[str, int]]:
        """Returns for each streamed archive the parts of it that can be kept, with their images.

        None are kept where they are all there and hold other images than were seen: one of them is wrong.
        """
        kept: dict[str, dict[str, int]] = {key: {} for key in streams}
        for key in standing:
            stream, mark, _ = key.partition(STREAM_MARK)
            images = self._images(key) if mark and stream in kept else None
            if images is not None:
                kept[stream][key] = images
        for stream, found in kept.items():
            seen = read_mark(self.place_of_parts, stream)
            if seen is not None and seen.blocks == len(found) and seen.images != sum(found.values()):
                found.clear()
        return kept

    def _is_streamed(self, key: str, kept: Mapping[str, int]) -> bool:
        """True if an archive was read to its end, and all its blocks stand: then it need not be read again."""
        seen = read_mark(self.place_of_parts, key)
        return seen is not None and (seen.blocks, seen.images) == (len(kept), sum(kept.values()))

    @property
    def place_of_parts(self) -> str:
        """Where workers write parts."""
        return self.parts

    def _standing(self) -> set[str]:
        """Returns the keys of the blocks whose parts stand."""
        ours = [name for name in os.listdir(self.parts) if is_own("parts", name)]
        return {name.removesuffix(".parquet") for name in ours if name.endswith(".parquet")}

    def _drop(self, key: str) -> None:
        """Removes a part."""
        Path(self._part(key)).unlink(missing_ok=True)

    def _part(self, key: str) -> str:
        return os.path.join(self.parts, key + ".parquet")

    def _images(self, key: str) -> int | None:
        """Returns how many images the part of a block holds; None if it is damaged, or the program failed at one."""
        try:
            info = with_retries(lambda: part_info(self._part(key)))
        except DamagedPart:
            return None
        return None if info.failed else info.images

    def tidy(self) -> None:
        """Removes the working files of a finished run."""
        with suppress(OSError):  # results stand, and the next run tidies again
            remove_own(self.path, WORKING, ())


def _read_json(path: str) -> dict[str, Any] | None:
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return value if isinstance(value, dict) else None
