"""Running totals of this process for the progress bar and the closing rates.

Counts of results come from finished parts instead, as a retried block would count twice here.

Each worker process of a local run regularly writes its totals to a small file in the output folder. Workers elsewhere
send them to the last stage with the parts that they wrote (`as_text`), and count for the bar in Beam's metrics.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import reduce
from pathlib import Path

HEARTBEAT_S = 0.5  # about as often as a progress bar redraws


@dataclass
class Totals:
    """Work done so far: images, faces, rejected, cached; seconds of work by stage; the times at which the first block
    got its features and the last block its part.

    `_at` is in seconds since the epoch, `_cpu` in CPU-seconds of the whole process at that moment. `began` is the start
    of reading the first block; `runtime` is the time to start the device after that.
    """

    images: int = 0
    faces: int = 0
    rejected: int = 0
    cached: int = 0
    blocks: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)  # of the calling threads, without a runtime's threads
    began_at: float = 0.0
    began_cpu: float = 0.0
    first_block_at: float = 0.0
    first_block_cpu: float = 0.0
    last_block_at: float = 0.0
    last_block_cpu: float = 0.0
    runtime_s: float = 0.0
    runtime_cpu: float = 0.0
    images_in_first_block: int = 0
    devices: list[str] = field(default_factory=list)
    damaged: int = 0  # cache segments moved aside
    loading: str = ""  # what is being loaded before images can be computed

    def plus(self, other: Totals) -> Totals:
        """Returns the sum of two processes' totals."""
        early, late = sorted((self, other), key=lambda t: t.first_block_at or float("inf"))
        return Totals(
            images=self.images + other.images,
            faces=self.faces + other.faces,
            rejected=self.rejected + other.rejected,
            cached=self.cached + other.cached,
            blocks=self.blocks + other.blocks,
            seconds=_added(self.seconds, other.seconds),
            cpu=_added(self.cpu, other.cpu),
            began_at=min(filter(None, (self.began_at, other.began_at)), default=0.0),
            began_cpu=sum(t.began_cpu for t in (self, other) if t.blocks),
            first_block_at=early.first_block_at or late.first_block_at,
            first_block_cpu=self.first_block_cpu + other.first_block_cpu,
            last_block_at=max(self.last_block_at, other.last_block_at),
            last_block_cpu=self.last_block_cpu + other.last_block_cpu,
            runtime_s=max(self.runtime_s, other.runtime_s),  # processes start theirs in parallel
            runtime_cpu=self.runtime_cpu + other.runtime_cpu,
            images_in_first_block=early.images_in_first_block or late.images_in_first_block,
            devices=sorted({*self.devices, *other.devices}),
            damaged=self.damaged + other.damaged,
            loading=self.loading or other.loading,
        )


def _added(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    return {stage: one.get(stage, 0.0) + other.get(stage, 0.0) for stage in sorted({*one, *other})}


class Tally:
    """Adds up totals under a lock; can share them with other processes through a file."""

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
        """Also writes the totals of this process into `folder` from now on."""
        self._file = Path(folder) / f"worker-{os.getpid()}.json"

    def begin(self) -> None:
        """Notes the start of the rates; only the first call of a run counts."""
        with self._lock:
            if not self._totals.began_at:
                self._totals.began_at, self._totals.began_cpu = time.time(), time.process_time()

    @contextmanager
    def runtime_start(self, runtime: str) -> Iterator[None]:
        """Counts the time inside as the start of the device, which rates exclude; `runtime` is shown meanwhile.

        Stages that work ahead in their own threads keep their CPU time.
        """
        start, cpu = time.perf_counter(), time.process_time() - self._clocked()
        self._load(runtime)
        try:
            yield
        finally:
            self._load("")
            spent, worked = time.perf_counter() - start, time.process_time() - self._clocked() - cpu
            with self._lock:
                self._totals.runtime_s += spent
                self._totals.runtime_cpu += worked

    def _load(self, runtime: str) -> None:
        with self._lock:
            self._totals.loading = runtime
        self.flush()

    def _clocked(self) -> float:
        with self._lock:
            return sum(self._totals.cpu.values())

    def note_first(self, *, images: int) -> None:
        """Notes the end of the first block, which is when it has its features, as blocks are written in groups.

        Only the first call of a run counts.
        """
        with self._lock:
            t = self._totals
            if not t.first_block_at:
                t.first_block_at, t.first_block_cpu = time.time(), time.process_time()
                t.images_in_first_block = images

    def add_block(self, *, images: int, faces: int, rejected: int, cached: int) -> None:
        """Counts a finished block."""
        now, cpu = time.time(), time.process_time()
        with self._lock:
            t = self._totals
            t.last_block_at, t.last_block_cpu = now, cpu
            t.images, t.faces, t.rejected = t.images + images, t.faces + faces, t.rejected + rejected
            t.cached, t.blocks = t.cached + cached, t.blocks + 1
        if self._file is not None and now - self._written_at > HEARTBEAT_S:
            self.flush()

    def add_damaged(self, count: int) -> None:
        """Counts cache segments that were moved aside."""
        with self._lock:
            self._totals.damaged += count

    def add_devices(self, names: list[str]) -> None:
        """Notes the devices that this process computes on."""
        with self._lock:
            self._totals.devices = sorted({*self._totals.devices, *names})

    def clock(self, stage: str) -> Clock:
        """Adds the wall and CPU time spent inside to a stage (threads of a pool add up)."""
        return Clock(self, stage)

    def add_time(self, stage: str, spent: float, worked: float) -> None:
        """Adds seconds of wall and of CPU time to a stage."""
        with self._lock:
            t = self._totals
            t.seconds[stage] = t.seconds.get(stage, 0.0) + spent
            t.cpu[stage] = t.cpu.get(stage, 0.0) + worked

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
            pass  # a stale progress bar must not stop the run

    def totals(self) -> Totals:
        """Returns a copy of this process's totals."""
        with self._lock:
            return Totals(**asdict(self._totals))

    def as_text(self) -> str:
        """Returns the totals of this process as text, with a name of the process."""
        return json.dumps({"process": _PROCESS, **asdict(self.totals())})


_PROCESS = f"{socket.gethostname()} {os.getpid()} {time.time_ns()}"  # unique to this process on any machine


def sum_of_totals(texts: Iterable[str]) -> Totals:
    """Returns the sum of the totals of the processes that sent them, this one included; the latest of each counts."""
    latest: dict[str, Totals] = {}
    for text in filter(None, texts):
        fields = json.loads(text)
        process, totals = fields.pop("process"), Totals(**fields)
        if process not in latest or totals.blocks >= latest[process].blocks:
            latest[process] = totals
    latest[_PROCESS] = TALLY.totals()
    return reduce(Totals.plus, latest.values())


class Clock:
    """Times the code inside, once. A class, as a generator takes three times as long, several times per block."""

    __slots__ = ("_cpu", "_stage", "_start", "_tally")

    def __init__(self, tally: Tally, stage: str) -> None:
        self._tally, self._stage = tally, stage

    def __enter__(self) -> None:
        self._start, self._cpu = time.perf_counter(), time.thread_time()

    def __exit__(self, *_: object) -> None:
        self._tally.add_time(self._stage, time.perf_counter() - self._start, time.thread_time() - self._cpu)


def read_heartbeats(folder: str) -> Totals:
    """Returns the sum of the totals that worker processes write into `folder`."""
    total = Totals()
    for path in sorted(Path(folder).glob("worker-*.json")) if Path(folder).is_dir() else []:
        try:
            total = total.plus(Totals(**json.loads(path.read_text())))
        except (OSError, ValueError, TypeError):
            continue
    return total


TALLY = Tally()
