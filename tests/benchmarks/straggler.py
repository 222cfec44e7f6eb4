"""What one slow archive costs: a run over archives in a store of which one answers ten times slower than the others.

The store is S3 on this machine (tests/buckets.py). Each request for a part of an archive takes a fixed time and a time
for its bytes; the slow archive's take ten times both. Measured in alternation: the whole job by local processes, with
and without the slow archive, cold. If all blocks of the slow archive waited for each other, the run would take longer
by all of that archive's waiting; blocks are spread over processes and threads and read ahead, so it should be less.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import measuring

sys.path.insert(0, str(measuring.ROOT / "tests"))
import buckets

LATENCY_S, BYTES_S = 0.05, 2_000_000  # of one request, where nothing is slow
SLOWER = 10
ARCHIVES, BLOCK = 8, 64
WORKERS = 2
LIMIT = 0.75  # of the slow archive's own waiting that the run may take longer
SETTINGS = (*measuring.WHOLE, f"read.block_images={BLOCK}")


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
        if handler.command == "GET" and wanted.startswith("bytes=") and handler.path.split("?")[0].endswith(".tar"):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            size = min(int(last), whole - 1) - int(first) + 1
            is_slow = bool(slow) and slow in handler.path
            seconds = (LATENCY_S + size / BYTES_S) * (SLOWER if is_slow else 1)
            if is_slow:
                waited.append(seconds)
            time.sleep(seconds)
        return False

    return fault


def run(bucket: Any, place: Path, name: str, slow: str, whole: int) -> tuple[measuring.Ran, float]:
    """Returns a cold run, and how long requests for the slow archive waited, in seconds."""
    waited: list[float] = []
    bucket.faults[:] = [waiting(slow, whole, waited)]
    words = measuring.arguments(place, place / name, "--direct_num_workers", str(WORKERS), settings=SETTINGS)
    words[words.index("--input") + 1] = f"s3://{buckets.BUCKET}/in"
    ran = measuring.start("-m", "pipeline", *words, output=place / name).wait().done()
    return ran, sum(waited)


def measured(options: Namespace, place: Path) -> Iterator[tuple[measuring.Ran, measuring.Ran, float]]:
    """Yields for each pair the run without and with a slow archive, and the waiting of the latter."""
    source = options.data / "fer2013" / "test.tar"
    with store() as bucket:
        each = options.images // ARCHIVES
        images = measuring.repeated(source, options.images)
        whole = 0
        for number in range(ARCHIVES):
            path = measuring.write_tar(place / f"{number}.tar", islice(images, each))
            whole = max(whole, path.stat().st_size)
            bucket.put(f"in/{number}.tar", path.read_bytes())
        for pair in range(options.pairs):
            measuring.progress(f"pair {pair + 1} of {options.pairs}")
            even, _ = run(bucket, place, f"even{pair}", "", whole)
            one, waited = run(bucket, place, f"slow{pair}", f"{ARCHIVES // 2}.tar", whole)
            yield even, one, waited


def main(words: Sequence[str]) -> int:
    made = measuring.parser(__doc__ or "")
    made.add_argument("--images", type=int, default=8_192)
    made.add_argument("--pairs", type=int, default=3)
    options = made.parse_args(words)
    measuring.needed(options.data / "fer2013" / "test.tar")
    if options.small:
        options.images, options.pairs = 1_024, 1
    lines, shares, same = [], [], True
    with measuring.workplace(options) as place:
        for even, one, waited in measured(options, place):
            longer = one.seconds["total"] - even.seconds["total"]
            shares.append(longer / waited)
            same &= measuring.results(even.output) == measuring.results(one.output)
            shown = (even.seconds["total"], one.seconds["total"], longer, waited)
            lines.append([*(f"{seconds:.1f}" for seconds in shown), f"{longer / waited:.2f}"])
    title = f"One of {ARCHIVES} archives {SLOWER} times slower, {options.images:,} images, {WORKERS} processes"
    head = ["all alike, s", "one slow, s", "longer by, s", "requests for the slow one waited, s", "share"]
    measuring.show(title, head, lines)
    middle = measuring.median(shares)
    claims = [("the same bytes", same)]
    if not options.small:
        claims.append((f"longer by at most {LIMIT} of the slow archive's waiting ({middle:.2f})", middle <= LIMIT))
    return measuring.verdict(claims)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
