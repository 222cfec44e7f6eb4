"""What one slow archive costs: runs over archives in a store of which one answers ten times slower than the others.

The store is S3 on this machine (tests/buckets.py). Each request for a part of an archive takes a fixed time and a time
for its bytes; those of the slow archive take ten times both. All features are in the cache already, so that runs spend
their time waiting for the store. Measured in alternation, by two processes: all archives alike, and one of them slow.
Tar archives are streamed, each by one process; blocks of zip archives are taken by any process.

The unit is the time that requests for one archive take where nothing is slow. docs/scaling.md says by reasoning what to
expect: with n archives on w processes, tars take n / w alike, and at most (n - 1) / w + 10 with a slow one.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import zipfile
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import measuring

sys.path.insert(0, str(measuring.ROOT / "tests"))
import buckets

LATENCY_S, BYTES_S = 0.05, 1_000_000  # of one request, where nothing is slow
SLOWER = 10
ARCHIVES, BLOCK = 8, 64
WORKERS = 2
LIMITS = {"tar": (ARCHIVES - 1) / WORKERS + SLOWER - ARCHIVES / WORKERS, "zip": (SLOWER - 1) / WORKERS}
ROOM = 1.15  # of that, for what is not waiting
SETTINGS = (*measuring.WHOLE, f"read.block_images={BLOCK}", "write.report=false")  # the page reads pictures again


@contextmanager
def store() -> Iterator[Any]:
    """Gives a store, and tells the program where it is."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it prints every request
    with buckets.bucket_server() as bucket:
        os.environ.update({**buckets.KEYS, "AWS_ENDPOINT_URL": bucket.url})
        yield bucket


def waiting(slow: str, whole: int, waited: list[float]) -> Any:
    """Returns what makes requests for archives of `whole` bytes wait; `waited` gets the seconds of the slow one's."""

    def fault(handler: Any) -> bool:
        wanted = handler.headers.get("Range", "")
        if (
            handler.command == "GET"
            and wanted.startswith("bytes=")
            and handler.path.split("?")[0].endswith((".tar", ".zip"))
        ):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            size = min(int(last), whole - 1) - int(first) + 1
            is_slow = bool(slow) and slow in handler.path
            seconds = (LATENCY_S + size / BYTES_S) * (SLOWER if is_slow else 1)
            if is_slow:
                waited.append(seconds)
            time.sleep(seconds)
        return False

    return fault


def run(bucket: Any, place: Path, name: str, kind: str) -> measuring.Ran:
    """Returns a run over the archives of a kind, with results of its own and the cache of all."""
    words = measuring.arguments(place, place / name, "--direct_num_workers", str(WORKERS), settings=SETTINGS)
    words[words.index("--input") + 1] = f"s3://{buckets.BUCKET}/{kind}"
    words += ["--cache", str(place / "cache")]
    return measuring.start("-m", "pipeline", *words, output=place / name).wait().done()


def measured(options: Namespace, place: Path, kind: str) -> Iterator[tuple[measuring.Ran, measuring.Ran, float]]:
    """Yields for each pair the run without and with a slow archive, and the unit in seconds."""
    source = options.data / "fer2013" / "test.tar"
    write = {"tar": measuring.write_tar, "zip": write_zip}[kind]
    with store() as bucket:
        images, whole = measuring.repeated(source, options.images), 0
        for number in range(ARCHIVES):
            path = write(place / f"{number}.{kind}", islice(images, options.images // ARCHIVES))
            whole = max(whole, path.stat().st_size)
            bucket.put(f"{kind}/{number}.{kind}", path.read_bytes())
        measuring.progress(f"{kind}: filling the cache")
        run(bucket, place, f"{kind} filling", kind)
        for pair in range(options.pairs):
            measuring.progress(f"{kind}: pair {pair + 1} of {options.pairs}")
            waited: list[float] = []
            bucket.faults[:] = [waiting("", whole, [])]
            even = run(bucket, place, f"{kind} even{pair}", kind)
            bucket.faults[:] = [waiting(f"{ARCHIVES // 2}.{kind}", whole, waited)]
            one = run(bucket, place, f"{kind} slow{pair}", kind)
            yield even, one, sum(waited) / SLOWER


def write_zip(path: Path, found: Iterable[tuple[str, bytes]]) -> Path:
    """Writes a zip archive without compression; returns its path."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in found:
            archive.writestr(name, data)
    return path


def main(words: Sequence[str]) -> int:
    made = measuring.parser(__doc__ or "")
    made.add_argument("--images", type=int, default=8_192)
    made.add_argument("--pairs", type=int, default=3)
    options = made.parse_args(words)
    measuring.needed(options.data / "fer2013" / "test.tar")
    if options.small:
        options.images, options.pairs = 1_024, 1
    lines, claims = [], []
    with measuring.workplace(options) as place:
        for kind, limit in LIMITS.items():
            units, same = [], True
            for even, one, unit in measured(options, place, kind):
                longer = one.seconds["total"] - even.seconds["total"]
                units.append(longer / unit)
                same &= measuring.results(even.output) == measuring.results(one.output)
                shown = (unit, even.seconds["total"], one.seconds["total"], longer, longer / unit)
                lines.append([kind, *(f"{value:.1f}" for value in shown)])
            middle = measuring.median(units)
            claims.append((f"{kind}: the same bytes", same))
            claim = f"{kind}: longer by at most {limit:g} units and {ROOM - 1:.0%} ({middle:.1f})"
            claims.append((claim, options.small or middle <= limit * ROOM))
    title = f"One of {ARCHIVES} archives {SLOWER} times slower, {options.images:,} images, {WORKERS} processes"
    head = ["archives", "unit, s", "all alike, s", "one slow, s", "longer by, s", "by, units"]
    measuring.show(title, head, lines)
    return measuring.verdict(claims)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
