"""What planning, resuming, the index of the cache and the merge cost per million images, in time, memory and requests.

The code is the program's own; archives, parts and segments are made up: images of a few bytes, one face each. Every
measured step is a process of its own. Its memory is the largest resident set (VmHWM). What an image adds is the
difference of two processes by the difference of their images, so what a start costs is left out. Requests are counted
at a store of this machine that speaks Google's interface, for a whole `label` with input, output and cache there, and
again when all is finished.

In "merge, every part spans all ids" the rows of each part are spread over all names, as with shuffled archives.
"""

from __future__ import annotations

import os
import sys
import tarfile
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import measuring

HERE = Path(__file__)
MB = 2**20
MILLION = 1_000_000
LIMIT_BYTES = 512  # an image and process, beyond what depends on block and pool sizes
FLAT = 1.5  # CPU time per image at the most images, by that at the fewest
MEMBERS, BLOCK = 10_000, 256  # images of an archive, and of a block
CLASSES, FINGERPRINT = ("glad", "sad"), "f" * 64
SEGMENT, WIDTH = 1_024, 16  # images of a segment, and numbers of a feature; the index holds no features
STORED = (2_048, 8_192)  # images of the runs whose requests are counted
IN_ARCHIVE = 1_024  # images of each archive there, a megabyte or two
RUNS = ("first run", "the same command again")
KINDS = ("LIST", "GET", "HEAD", "PUT", "DELETE")


# --- made up ----------------------------------------------------------------------------------------------------------


def make_archives(place: Path, count: int) -> None:
    """Writes tar files of so many images in all."""
    place.mkdir()
    for number in range(-(-count // MEMBERS)):
        with tarfile.open(place / f"{number:05d}.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
            for row in range(min(MEMBERS, count - number * MEMBERS)):
                archive.addfile(tarfile.TarInfo(f"{row:06d}.jpg"))


def make_parts(place: Path, count: int, *, spread: bool) -> None:
    """Writes the parts of so many images.

    Args:
        spread: True for rows of each part all over the names, else one part follows the other.
    """
    import blocks
    import numpy as np

    from models.heads.output_spec import ClassOutput
    from transforms.write_parts import write_block

    place.mkdir()
    chosen = [number % 2 for number in range(BLOCK)]
    template, spec = blocks.finished(chosen), ClassOutput(CLASSES)
    draw = np.random.default_rng(0)
    total = -(-count // BLOCK)
    for number in range(total):
        first, step = (number, total) if spread else (number * BLOCK, 1)
        names = tuple(f"photos/{first + step * row:09d}.jpg" for row in range(BLOCK))
        digests = draw.integers(0, 256, (BLOCK, 32), np.uint8)
        given = {"key": f"{number:032x}", "ids": names, "position": number * BLOCK, "digests": digests}
        values = {name: getattr(template, name) for name in template.__slots__} | given
        write_block(type(template)(**values), str(place), spec, FINGERPRINT)


def make_cache(place: Path, count: int) -> None:
    """Writes the segments of so many images."""
    from transforms.formats.cache.feature_cache import FeatureCache

    cache = FeatureCache.create(str(place), '{"features":"made up"}')
    for contents in some_contents(count, 0):
        cache.add(contents)


def some_contents(count: int, seed: int) -> Iterator[Any]:
    """Yields a segment's contents after the other."""
    import numpy as np

    from transforms.formats.cache.contents import Contents

    draw = np.random.default_rng(seed)
    rows = np.arange(SEGMENT, dtype=np.int32)
    for _ in range(-(-count // SEGMENT)):
        yield Contents(
            digest=draw.integers(0, 256, (SEGMENT, 32), np.uint8),
            width=np.full(SEGMENT, 48, np.int32),
            height=np.full(SEGMENT, 48, np.int32),
            status=np.full(SEGMENT, "labelled", object),
            reason=np.full(SEGMENT, "", object),
            face_image=rows,
            box=np.tile(np.asarray([[0, 0, 48, 48]], np.int32), (SEGMENT, 1)),
            score=np.ones(SEGMENT, np.float32),
            features=np.zeros((SEGMENT, WIDTH), np.float16),
            names=("x",) * SEGMENT,
            labels=(None,) * SEGMENT,
        )


# --- measured, each in a process of its own ---------------------------------------------------------------------------


def plan(place: Path, count: int) -> None:
    """Plans all archives, and writes the plan."""
    from pipeline.run.plan import Layout, make_plan
    from transforms.formats.records import Limits

    made = make_plan([str(place / f"archives{count}")], str(place / f"plan{count}"), Layout(BLOCK, 2**26), Limits())
    assert made.images == count


def resume(place: Path, count: int) -> None:
    """Looks which of all parts stand, as a resumed run does for each block of its plan."""
    from transforms.formats.parts import part_info

    parts = place / f"parts{count}"
    assert sum(part_info(str(parts / name)).images for name in sorted(os.listdir(parts))) >= count


def build_index(place: Path, count: int) -> None:
    """Opens a cache whose index is missing."""
    _open_cache(place, count)


def extend_index(place: Path, count: int) -> None:
    """Opens a cache with one segment more than its index knows."""
    cache = _open_cache(place, count)
    cache.add(next(some_contents(1, 1)))
    _open_cache(place, count)


def _open_cache(place: Path, count: int) -> Any:
    from transforms.formats.cache.feature_cache import FeatureCache

    cache = FeatureCache.create(str(place / f"cache{count}"), '{"features":"made up"}')
    assert len(cache) >= count
    return cache


def merge(place: Path, count: int) -> None:
    """Merges parts that follow each other."""
    _merge(place / f"parts{count}", place / "merged", count)


def merge_spread(place: Path, count: int) -> None:
    """Merges parts that each span all ids."""
    _merge(place / f"spread{count}", place / "merged", count)


def _merge(parts: Path, output: Path, count: int) -> None:
    from models.heads.output_spec import ClassOutput
    from transforms.merge.merge_parts import merge_parts

    output.mkdir(exist_ok=True)
    result = merge_parts([str(path) for path in sorted(parts.iterdir())], str(output), spec=ClassOutput(CLASSES))
    assert result.counts["images"] >= count


STEPS: dict[str, Callable[[Path, int], None]] = {
    "plan": plan,
    "resume": resume,
    "index, built": build_index,
    "index, one segment more": extend_index,
    "merge, ordered ids": merge,
    "merge, every part spans all ids": merge_spread,
}


def telling(step: str, place: Path, count: int) -> int:
    """Does a step in this process, then prints its peak memory in bytes."""
    STEPS[step](place, count)
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            print(int(line.split()[1]) * 1024)
    return 0


# --- requests ---------------------------------------------------------------------------------------------------------


def requests(place: Path, source: Path, count: int) -> list[list[int]]:
    """Returns for a first and a repeated `label` on a store how many requests of each of `KINDS` and in all it sent."""
    import google_bucket

    from transforms.storage import objects

    lines = []
    counted: dict[str, int] = {}
    whole = google_bucket._Handler.parse_request

    def counting(handler: Any) -> bool:
        done = whole(handler)
        if done:
            kind = "LIST" if handler.command == "GET" and "list-type" in handler.path else handler.command
            counted[kind] = counted.get(kind, 0) + 1
        return done

    google_bucket._Handler.parse_request = counting  # type: ignore[method-assign]
    try:
        with google_bucket.google_bucket() as address:
            os.environ["STORAGE_EMULATOR_HOST"] = address
            objects.forget_clients()
            images = list(measuring.repeated(source, count))
            for first in range(0, count, IN_ARCHIVE):
                archive = measuring.write_tar(place / "stored.tar", images[first : first + IN_ARCHIVE])
                objects.ObjectStore("gs://b/in").put(f"{first:06d}.tar", str(archive))
            for _ in RUNS:
                counted.clear()
                words = [*measuring.WHOLE, "features.weights=random", "features.pooling=avg", "features.input_size=16"]
                given = ["--input", "gs://b/in", "--output", "gs://b/out", "--head", str(place / "head")]
                measuring.start(
                    "-m", "pipeline", "--runner=DirectRunner", *given, "--quiet", "--set", *words[:1], *words[2:]
                ).wait().done()
                lines.append([*(counted.get(kind, 0) for kind in KINDS), sum(counted.values())])
    finally:
        google_bucket._Handler.parse_request = whole  # type: ignore[method-assign]
    return lines


def table_of_requests(place: Path, source: Path) -> None:
    """Prints the requests of both runs at both sizes, and what a million images more would send."""
    few, many = (requests(place, source, count) for count in STORED)
    lines: list[list[Any]] = []
    for run, first, second in zip(RUNS, few, many, strict=True):
        lines += [[f"{run}, {count:,} images", *sent] for count, sent in zip(STORED, (first, second), strict=True)]
        each = [(b - a) / (STORED[1] - STORED[0]) * MILLION for a, b in zip(first, second, strict=True)]
        lines.append([f"{run}, a million images more", *(f"{one:,.0f}" for one in each)])
    measuring.show("Requests", ["`label` on a store", *KINDS, "all"], lines)


def make_head(place: Path) -> None:
    """Writes a head for features that are quick to compute."""
    import runs

    runs.make_head(place / "head")


# --- the script -------------------------------------------------------------------------------------------------------


def measured(options: Namespace, place: Path) -> dict[str, list[measuring.Ran]]:
    """Returns for each step how its process ended, at each number of images."""
    found: dict[str, list[measuring.Ran]] = {step: [] for step in STEPS}
    for count in options.images:
        measuring.progress(f"making {count:,} images")
        make_archives(place / f"archives{count}", count)
        make_parts(place / f"parts{count}", count, spread=False)
        make_parts(place / f"spread{count}", count, spread=True)
        make_cache(place / f"cache{count}", count)
        for path in (place / f"cache{count}").glob("*/index*"):
            path.unlink()
        for step in STEPS:
            measuring.progress(f"{step}, {count:,}")
            found[step].append(measuring.start(HERE, "--telling", step, str(place), str(count)).wait().done())
    return found


def table(options: Namespace, place: Path) -> list[tuple[str, bool]]:
    """Prints what the steps cost, and returns the claims."""
    lines, claims = [], []
    for step, ran in measured(options, place).items():
        cpu = [one * MILLION for one in growths([each.cpu_s for each in ran], options.images)]
        peaks = [int(each.out.split()[-1]) for each in ran]
        growth = growths(peaks, options.images)
        lines.append(
            [
                step,
                *(f"{value:.1f}" for value in cpu),
                *(f"{peak / MB:.0f}" for peak in peaks),
                *(f"{value:.0f}" for value in growth),
            ]
        )
        claims.append((f"{step}: at most {LIMIT_BYTES} bytes an image ({growth[1]:.0f})", growth[1] <= LIMIT_BYTES))
        claims.append((f"{step}: CPU time grows {cpu[1] / cpu[0]:.2f} times as fast", cpu[1] <= FLAT * cpu[0]))
    few, many, most = options.images
    head = [
        "step", f"CPU-s per million more images, to {many:,}", f"to {most:,}", f"peak MB at {few:,}", f"at {many:,}",
        f"at {most:,}", f"bytes an image, to {many:,}", f"to {most:,}",
    ]  # fmt: skip
    measuring.show("Planning, resuming, index and merge", head, lines)
    return claims


def growths(values: Sequence[float], counts: Sequence[int]) -> list[float]:
    """Returns what an image adds, from each count to the next."""
    return [(b - a) / (n - m) for (a, m), (b, n) in pairwise(zip(values, counts, strict=True))]


def main(words: Sequence[str]) -> int:
    sys.path.insert(0, str(measuring.ROOT / "tests"))  # for `blocks`, `runs` and `google_bucket`
    if words and words[0] == "--telling":
        return telling(words[1], Path(words[2]), int(words[3]))
    made = measuring.parser(__doc__ or "")
    made.add_argument("--images", type=int, nargs=3, default=[100_000, 400_000, 1_000_000], metavar="N")
    made.add_argument("--no-requests", action="store_true", help="leave out the run on a store")
    options = made.parse_args(words)
    if options.small:
        options.images = [2_560, 5_120, 10_240]
    with measuring.workplace(options) as place:
        claims = table(options, place)
        if not options.no_requests:
            source = options.data / "fer2013" / "test.tar"
            measuring.needed(source)
            measuring.progress("requests")
            make_head(place)
            table_of_requests(place, source)
    return measuring.verdict([] if options.small else claims)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
