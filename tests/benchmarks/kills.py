"""Kills one run at ten moments, takes it up each time, and compares the end with a run that nobody disturbed.

Measures: whether predictions, images and submission.csv are the same bytes; and how many images each kill cost. What a
killed process computed is counted batch by batch, before the net is called, in a file that survives it; what is kept of
it is counted in the cache's segments. The difference is computed twice. Kills are SIGKILL to the process and its
children, each after at least one more part has been finished, at a moment drawn from a seed.

Then, listed apart: two runs at once on one cache; an input that changes between kill and resumption; a full disk.
"""

from __future__ import annotations

import math
import os
import random
import shutil
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import kills_picture
import measuring
from measuring import Ran, Started

BLOCK_IMAGES = 32  # small blocks: many moments at which to be killed
BATCH = 64
SETTINGS = (*measuring.WHOLE, f"read.block_images={BLOCK_IMAGES}", f"features.batch_size={BATCH}")
Settings = tuple[str, ...]
# Behind the device a small block waits for its segment alone: one in line, one in work. The batch in the net may touch
# more blocks.
IN_FLIGHT = 3 + math.ceil(BATCH / BLOCK_IMAGES) + 1
LATEST_S = 0.4  # of the kill after a new part: somewhere within the next blocks
PATIENCE_S = 600.0
HERE = Path(__file__)


@dataclass(frozen=True)
class Kill:
    """What one kill did.

    Attributes:
        parts: that stood at that moment.
        computed: images that the killed process had sent into the net.
        kept: of these, in whole segments of the cache.
    """

    parts: int
    computed: int
    kept: int

    @property
    def lost(self) -> int:
        """Images that are computed again."""
        return self.computed - self.kept


def parts(output: Path) -> int:
    """Returns the number of finished parts."""
    return len(list((output / "parts").glob("*.parquet")))


def kept_images(cache: Path) -> int:
    """Returns the number of images in whole segments."""
    import h5py

    total = 0
    for path in cache.glob("*/*.h5"):
        with h5py.File(path, "r", locking=False) as segment:
            total += int(segment.attrs["images"])
    return total


def counted(log: Path) -> int:
    """Returns the number of images that processes have sent into the net."""
    return sum(map(int, log.read_text().split())) if log.exists() else 0


def begin(log: Path, words: Sequence[str], output: Path) -> Started:
    """Starts a run that counts in `log` what it computes."""
    return measuring.start(HERE, "--counting", log, *words, output=output)


def kill_and_resume(archive: Path, place: Path, settings: Settings, kills: int) -> tuple[list[Kill], Ran]:
    """Runs, is killed `kills` times, and runs to the end; returns what each kill did, and how the last run ended."""
    draw = random.Random(2013)
    output, cache, log = place / "killed", place / "killed" / "cache", place / "computed.log"
    words = measuring.arguments(archive, output, settings=settings)
    done: list[Kill] = []
    while len(done) < kills:
        before, computed, kept = parts(output), counted(log), kept_images(cache)
        started = begin(log, words, output)
        wait_until(lambda: parts(output) > before, started)  # noqa: B023 - called before `before` changes
        time.sleep(draw.uniform(0, LATEST_S))
        over = started.ended()
        started.kill()
        if over:
            sys.exit(f"the run ended before kill {len(done) + 1}: give it more images, or fewer kills")
        done.append(Kill(parts(output), counted(log) - computed, kept_images(cache) - kept))
        measuring.progress(f"kill {len(done)}: {done[-1]}")
    return done, begin(log, words, output).wait().done()


def wait_until(condition: Callable[[], bool], started: Started) -> None:
    """Returns as soon as the condition holds; ends the benchmark if the process does not get there."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if started.ended() or time.monotonic() > end:
            ran = started.kill()
            sys.exit(f"a run ended with {ran.status} before it could be killed:\n{ran.err[-2000:]}")
        time.sleep(0.002)


# --- apart ------------------------------------------------------------------------------------------------------------


def two_at_once(archive: Path, place: Path, settings: Settings, expected: dict[str, str]) -> tuple[str, bool]:
    """Starts two runs on one cache at the same moment."""
    cache = place / "shared cache"
    outputs = [place / "one", place / "other"]
    words = [measuring.arguments(archive, output, settings=settings, cache=cache) for output in outputs]
    started = [measuring.start("-m", "pipeline", *w, output=o) for w, o in zip(words, outputs, strict=True)]
    ended = [process.wait().done() for process in started]
    same = all(measuring.results(output) == expected for output in outputs)
    damaged = sum(int(run.record["cache"]["damaged"]) for run in ended) + len(list(cache.glob("*/*.damaged")))
    leftovers = len(list(cache.glob("*/*.tmp")))
    claim = f"two runs at once on one cache: the same bytes, {damaged} segments damaged, {leftovers} files left over"
    return claim, same and not damaged and not leftovers


def changed_input(archive: Path, place: Path, settings: Settings) -> tuple[str, bool]:
    """Kills a run over two archives, changes one whose parts stand, and goes on."""
    found = list(islice(measuring.members(archive), 12 * BLOCK_IMAGES))
    folder, output = place / "inputs", place / "changed"
    first = measuring.write_tar(folder / "a.tar", found[: len(found) // 2])
    measuring.write_tar(folder / "b.tar", found[len(found) // 2 :])
    words = measuring.arguments(folder, output, settings=settings)
    started = begin(place / "changed.log", words, output)
    wait_until(lambda: parts(output) >= 8, started)  # more than the first archive has
    started.kill()
    stood = parts(output)
    name, data = found[0]
    measuring.write_tar(first, [(name, measuring.renewed(data, 1)), *found[1 : len(found) // 2]])
    resumed = measuring.label(folder, output, settings=settings)
    fresh = measuring.label(folder, place / "unchanged", settings=settings)
    resume = resumed.record["resume"]
    same = measuring.results(resumed.output) == measuring.results(fresh.output)
    claim = (
        f"an input changed between kill and resumption: the bytes of a new run; of {stood} parts "
        f"{resume['blocks_reused']} were kept and {resume['blocks_redone']} done again, and run.json says so"
    )
    return claim, same and resume["blocks_redone"] > 0


def full_disk(archive: Path, place: Path, settings: Settings, expected: dict[str, str]) -> tuple[str, bool] | None:
    """Runs on a disk of one megabyte, then makes room and goes on; None where nothing may be mounted."""
    disk = place / "disk"
    with small_disk(disk, "1m") as mounted:
        if not mounted:
            return None
        output = disk / "out"
        words = measuring.arguments(archive, output, settings=settings)
        full = measuring.start("-m", "pipeline", *words, output=output).wait()
        lines = [line for line in full.err.splitlines() if line.startswith("pipeline: error")]
        subprocess.run(["mount", "-o", "remount,size=500m", str(disk)], check=True)
        measuring.label(archive, output, settings=settings)
        same = measuring.results(output) == expected
    reported = lines[0] if lines else full.err[-300:]
    claim = (
        f"a full disk: exit status {full.status} (`{reported}`); with room again the same command wrote the same bytes"
    )
    return claim, full.status == 3 and len(lines) == 1 and same


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[bool]:
    """Mounts a disk in memory at `path`; gives False where that is not permitted."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    mounted = shutil.which("mount") is not None and subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(path)], check=True)


# --- the program, counting --------------------------------------------------------------------------------------------


def counting(log: str, words: list[str]) -> int:
    """Runs the program in this process; notes the size of each batch before it goes into the net."""
    from pipeline.cli import main as program
    from transforms.extract_features import ExtractFeatures

    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    extract = ExtractFeatures._extract

    def noted(self, crops):  # type: ignore[no-untyped-def]
        os.write(file, b"%d\n" % len(crops))
        return extract(self, crops)

    ExtractFeatures._extract = noted  # type: ignore[method-assign]
    return program(words)


# --- all of it --------------------------------------------------------------------------------------------------------


def main(words: Sequence[str]) -> int:
    if words and words[0] == "--counting":
        return counting(words[1], list(words[2:]))
    made = measuring.parser(__doc__ or "")
    made.add_argument("--kills", type=int, default=10)
    made.add_argument("--draw", type=Path, help="write a picture of it (SVG)")
    made.add_argument("--detector", default="none", help="bundled: every image is searched for faces")
    options = made.parse_args(words)
    source = options.data / "fer2013" / "test.tar"
    measuring.needed(source)
    with measuring.workplace(options) as place:
        count = 1024 if options.small else None
        archive = measuring.write_tar(place / "test.tar", islice(measuring.members(source), count))
        return all_of_it(options, archive, place)


def all_of_it(options: Namespace, archive: Path, place: Path) -> int:
    """Runs everything; returns the exit status."""
    settings = (*SETTINGS, f"faces.detector={options.detector}", "write.no_face_label=neutral")
    measuring.progress("undisturbed")
    undisturbed = measuring.label(archive, place / "undisturbed", settings=settings)
    expected = measuring.results(undisturbed.output)
    kills, last = kill_and_resume(archive, place, settings, 3 if options.small else options.kills)
    lines = [[n, k.parts, k.computed, k.kept, k.lost, k.lost / BLOCK_IMAGES] for n, k in enumerate(kills, 1)]
    head = ["kill", "parts standing", "images computed", "kept", "computed twice", "in blocks"]
    images = undisturbed.record["counts"]["images"]
    measuring.show(f"{images:,} images in blocks of {BLOCK_IMAGES}, killed {len(kills)} times", head, lines)
    if options.draw:
        kills_picture.draw(
            options.draw,
            finished=[kill.parts * BLOCK_IMAGES for kill in kills],
            twice=[kill.lost for kill in kills],
            images=images,
            same=measuring.results(last.output) == expected,
        )
    resume = last.record["resume"]
    hits = last.record["cache"]["cached"]
    print(f"\nThe last run kept {resume['blocks_reused']} blocks; {hits} results in all came from the cache.")
    most = max(kill.lost for kill in kills)
    bound = IN_FLIGHT * BLOCK_IMAGES
    checks = [
        ("the end is the same, byte for byte", measuring.results(last.output) == expected),
        (f"a kill costs at most {IN_FLIGHT} blocks, {bound} images (the most: {most})", most <= bound),
    ]
    measuring.progress("two runs at once")
    checks.append(two_at_once(archive, place, settings, expected))
    measuring.progress("a changed input")
    checks.append(changed_input(archive, place, settings))
    measuring.progress("a full disk")
    disk = full_disk(archive, place, settings, expected)
    if disk is None:
        print("\nSkipped: a full disk (mounting is not permitted here)")
    return measuring.verdict([*checks, *([disk] if disk else [])])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
