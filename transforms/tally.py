"""Running totals of this process for the progress bar and the closing rates. Never used for counts of results:
a retried block would count twice, so those come from finished parts.

Where workers are processes, each writes its totals to a small file in the output folder now and then.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

HEARTBEAT_S = 0.5  # a bar redraws about as often


@dataclass
class Totals:
    """What has been done: images, faces, rejected, hits; seconds of work by stage; when the first and last block were."""

    images: int = 0
    faces: int = 0
    rejected: int = 0
    hits: int = 0
    blocks: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    first_block_at: float = 0.0
    last_block_at: float = 0.0
    images_in_first_block: int = 0
    devices: list[str] = field(default_factory=list)
    damaged: int = 0  # cache segments set aside

    def plus(self, other: Totals) -> Totals:
        """Returns the sum of two processes' totals."""
        early, late = sorted((self, other), key=lambda t: t.first_block_at or float("inf"))
        return Totals(
            images=self.images + other.images,
            faces=self.faces + other.faces,
            rejected=self.rejected + other.rejected,
            hits=self.hits + other.hits,
            blocks=self.blocks + other.blocks,
            seconds={
                stage: self.seconds.get(stage, 0.0) + other.seconds.get(stage, 0.0)
                for stage in sorted({*self.seconds, *other.seconds})
            },
            first_block_at=early.first_block_at or late.first_block_at,
            last_block_at=max(self.last_block_at, other.last_block_at),
            images_in_first_block=early.images_in_first_block or late.images_in_first_block,
            devices=sorted({*self.devices, *other.devices}),
            damaged=self.damaged + other.damaged,
        )


class Tally:
    """Adds up under a lock; optionally tells other processes through a file."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals = Totals()
        self._file: Path | None = None
        self._written_at = 0.0

    def reset(self) -> None:
        """Starts a run."""
        with self._lock:
            self._totals = Totals()

    def beat_into(self, folder: str) -> None:
        """From now on also writes the totals of this process into `folder`."""
        self._file = Path(folder) / f"worker-{os.getpid()}.json"

    def add_block(self, *, images: int, faces: int, rejected: int, hits: int) -> None:
        """Counts a finished block."""
        now = time.time()
        with self._lock:
            t = self._totals
            if not t.first_block_at:
                t.first_block_at, t.images_in_first_block = now, images
            t.last_block_at = now
            t.images, t.faces, t.rejected = t.images + images, t.faces + faces, t.rejected + rejected
            t.hits, t.blocks = t.hits + hits, t.blocks + 1
        if self._file is not None and now - self._written_at > HEARTBEAT_S:
            self.flush()

    def add_damaged(self, count: int) -> None:
        """Counts cache segments that were set aside."""
        with self._lock:
            self._totals.damaged += count

    def add_devices(self, names: list[str]) -> None:
        """Notes what this process computes on."""
        with self._lock:
            self._totals.devices = sorted({*self._totals.devices, *names})

    @contextmanager
    def clock(self, stage: str) -> Iterator[None]:
        """Adds the wall time of what is done inside to a stage (threads of a pool add up)."""
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            with self._lock:
                self._totals.seconds[stage] = self._totals.seconds.get(stage, 0.0) + spent

    def flush(self) -> None:
        """Writes the heartbeat file, if there is one."""
        if self._file is None:
            return
        self._written_at = time.time()
        temporary = self._file.with_suffix(".tmp")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(asdict(self.totals())))
            os.replace(temporary, self._file)
        except OSError:
            pass  # a bar without news is no reason to stop

    def totals(self) -> Totals:
        """Returns a copy of this process's totals."""
        with self._lock:
            return Totals(**{**asdict(self._totals)})


def read_heartbeats(folder: str) -> Totals:
    """Returns the sum over the files that worker processes keep in `folder`."""
    total = Totals()
    for path in sorted(Path(folder).glob("worker-*.json")) if Path(folder).is_dir() else []:
        try:
            total = total.plus(Totals(**json.loads(path.read_text())))
        except (OSError, ValueError, TypeError):
            continue
    return total


TALLY = Tally()
