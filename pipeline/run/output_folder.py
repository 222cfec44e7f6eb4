"""What an output folder already contains: which run, which finished blocks; and the lock.

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

DIGEST = "digest"  # digest of the rest of identity.json


@dataclass(frozen=True, slots=True)
class Progress:
    """Which planned blocks are finished.

    Attributes:
        missing: references of the blocks to do, including a stream with a missing block.
        reused: blocks with finished parts.
        redone: parts that no longer match an input, were damaged, or contain an internal_error: they are removed and
            their blocks are done again.
        images_done: images of the reused blocks.
    """

    missing: list[BlockRef]
    reused: int
    redone: int
    images_done: int


class OutputFolder:
    """The folder of a run: its paths, and what an earlier run left there."""

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
            UsageError: it cannot be created or written.
        """
        import fcntl

        try:
            os.makedirs(self.path, exist_ok=True)
            lock = open(os.path.join(self.path, LOCK), "a")  # noqa: SIM115 - held below; "a" truncates no file
        except OSError as error:
            raise UsageError(f"--output {self.path}: {error.strerror}; give a writable folder") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StoppedError(f"--output {self.path}: another run is using this folder; wait for it") from error
            except OSError as error:
                raise UsageError(
                    f"--output {self.path} cannot be locked: {error.strerror}; give another folder"
                ) from error
            yield

    def refuse_unwritable(self) -> None:
        """Raises UsageError if the folder cannot be created or written, as `locked` would; creates nothing."""
        place = self.path
        while not os.path.lexists(place):
            place = os.path.dirname(place)
        if not os.path.isdir(place):
            raise UsageError(f"--output {self.path}: {place} is not a folder; give a writable folder")
        if not os.access(place, os.W_OK | os.X_OK):
            raise UsageError(f"--output {self.path}: Permission denied; give a writable folder")

    def record(self) -> dict[str, Any] | None:
        """Returns `run.json` of a finished run, or None."""
        return _read_json(self.record_file)

    def identity(self) -> dict[str, Any] | None:
        """Returns the identity of the unfinished run in this folder, empty if damaged; None if there is no run."""
        found = _read_json(self.identity_file)
        if found is None:
            return None
        digest = found.pop(DIGEST, None)  # earlier versions wrote none
        return found if digest in (None, fingerprint_of(found)) else {}

    def refuse_damaged(self) -> None:
        """Raises UsageError if the files that identify the run in this folder are damaged."""
        record = self.record() or {}
        identity = (record.get("identity"), record.get("run_fingerprint"))
        damaged = {
            self.record_file: not record or (all(identity) and fingerprint_of(identity[0]) != identity[1]),
            self.identity_file: not self.identity(),
        }
        for path, is_damaged in damaged.items():
            if is_damaged and os.path.lexists(path):
                raise UsageError(
                    f"--output {self.place}: {os.path.relpath(path, self.path)} is damaged, so the settings of the "
                    "results there are unknown; --overwrite starts over (computed features stay in the cache), "
                    "or give another folder"
                )

    def clear(self) -> None:
        """Removes everything that a run wrote here, except the cache."""
        remove_own(self.path)

    def prepare(self, identity: dict[str, Any]) -> None:
        """Creates the working folders and notes their run, which counts as unfinished from now on.

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
        self.forget_record()  # only now, so that the folder always has a file that identifies its run

    def forget_record(self) -> None:
        """Marks the run as unfinished: `run.json` is written last and removed first, with its page and pictures."""
        Path(self.record_file).unlink(missing_ok=True)
        for name in (PAGE, NUMBERS):
            Path(self.path, name).unlink(missing_ok=True)
        remove_own(self.path, (PICTURES,), ())

    def is_whole(self, record: dict[str, Any]) -> bool:
        """True if every file that `run.json` lists still exists with the same size."""
        for file in record["parts"]:
            path = os.path.join(self.path, file["path"])
            if not os.path.isfile(path) or os.path.getsize(path) != file["bytes"]:
                return False
        return True

    def refuse_another(self, standing: dict[str, Any] | None, identity: dict[str, Any]) -> None:
        """Raises UsageError if the run in this folder has settings that give other results."""
        if standing is not None and standing != identity:
            listed = "; ".join(differences(standing, identity)[:6])
            raise UsageError(
                f"--output {self.place} holds a run with other settings ({listed}); "
                "give another folder, or --overwrite to start over"
            )

    @property
    def place(self) -> str:
        """The path at which workers can open it."""
        return self.path

    @property
    def blocks_file(self) -> str:
        """The path at which workers can open the lines of the plan."""
        return os.path.join(self.plan, BLOCKS)

    def progress(self, plan: Plan) -> Progress:
        """Returns which blocks of the plan are finished; removes parts that are obsolete or damaged."""
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
        """Returns the reusable parts of each streamed archive, with their images.

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
        """True if an archive was read to its end and all its blocks are finished, so that it need not be read again."""
        seen = read_mark(self.place_of_parts, key)
        return seen is not None and (seen.blocks, seen.images) == (len(kept), sum(kept.values()))

    @property
    def place_of_parts(self) -> str:
        """Where workers write parts."""
        return self.parts

    def _standing(self) -> set[str]:
        """Returns the keys of the blocks that have parts."""
        ours = [name for name in os.listdir(self.parts) if is_own("parts", name)]
        return {name.removesuffix(".parquet") for name in ours if name.endswith(".parquet")}

    def _drop(self, key: str) -> None:
        """Removes a part."""
        Path(self._part(key)).unlink(missing_ok=True)

    def _part(self, key: str) -> str:
        return os.path.join(self.parts, key + ".parquet")

    def _images(self, key: str) -> int | None:
        """Returns the number of images in the part of a block; None if it is damaged or has an internal_error."""
        try:
            info = with_retries(lambda: part_info(self._part(key)))
        except DamagedPart:
            return None
        return None if info.failed else info.images

    def tidy(self) -> None:
        """Removes the working files of a finished run."""
        with suppress(OSError):  # the results are complete; the next run cleans up again
            remove_own(self.path, WORKING, ())


def _read_json(path: str) -> dict[str, Any] | None:
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return value if isinstance(value, dict) else None
