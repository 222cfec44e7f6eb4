"""Peak memory of whole runs over few, many and very many images, cold and from the cache, and what one more costs.

Measures: the largest resident set of the process that does all the work (VmHWM, as Linux keeps it: that of a parent may
be inherited by what `getrusage` tells of a child). The images are those of FER2013 again and again under new names and
as new bytes, so that none is a copy. Growth is the difference of two peaks by the difference of their images.

Some stores have a fixed size and fill within the first ten thousands: the merge reads 30 parts at once (8,000 images)
and holds row groups of 8,192 rows (FILES_OPEN and ROW_GROUP in transforms/merge/). The claims include them. A
warm run keeps only segments of the cache whose images were not all asked for yet (up to 128 MB, where the order of the
images is quite another; here it is the same).
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import measuring

LIMIT_BYTES = 512  # an image, beyond what depends on block and pool sizes
HERE = Path(__file__)
MB = 2**20


def peak(archive: Path, output: Path, cache: Path) -> int:
    """Returns the peak memory of a run, in bytes."""
    words = measuring.arguments(archive, output, cache=cache)
    ran = measuring.start(HERE, "--telling", *words, output=output).wait().done()
    return int(ran.out.split()[-1])


def telling(words: list[str]) -> int:
    """Runs the program in this process, then prints its peak memory in bytes."""
    from pipeline.cli import main as program

    status = program(words)
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            print(int(line.split()[1]) * 1024)
    return status


def measured(options: Namespace, place: Path, counts: Sequence[int]) -> list[tuple[str, list[list[int]]]]:
    """Returns for cold and warm runs the peaks of each repetition, a column a count."""
    source = options.data / "fer2013" / "test.tar"
    archives = []
    for count in counts:
        measuring.progress(f"making {count:,} images")
        archives.append(measuring.write_tar(place / f"images{count}.tar", measuring.repeated(source, count)))
    cold, warm = [], []
    for number in range(options.repeats):
        outputs = [place / f"cold{number}-{count}" for count in counts]
        caches = [place / f"cache{number}-{count}" for count in counts]
        measuring.progress(f"cold, {number + 1} of {options.repeats}")
        cold.append([peak(*three) for three in zip(archives, outputs, caches, strict=True)])
        measuring.progress(f"warm, {number + 1} of {options.repeats}")
        again = [place / f"warm{number}-{count}" for count in counts]
        warm.append([peak(*three) for three in zip(archives, again, caches, strict=True)])
    return [("cold", cold), ("from the cache", warm)]


def growths(peaks: Sequence[float], counts: Sequence[int]) -> list[float]:
    """Returns bytes an image from each count to the next."""
    return [(b - a) / (n - m) for (a, m), (b, n) in pairwise(zip(peaks, counts, strict=True))]


def main(words: Sequence[str]) -> int:
    if words and words[0] == "--telling":
        return telling(list(words[1:]))
    made = measuring.parser(__doc__ or "")
    made.add_argument("--images", type=int, nargs=3, default=[4_000, 40_000, 160_000], metavar="N")
    made.add_argument("--repeats", type=int, default=2)
    options = made.parse_args(words)
    measuring.needed(options.data / "fer2013" / "test.tar", Path("/proc/self/status"))
    if options.small:
        options.images, options.repeats = [300, 1_000, 3_000], 1
    few, many, most = options.images
    lines, claims = [], []
    with measuring.workplace(options) as place:
        for name, repeats in measured(options, place, options.images):
            peaks = [measuring.median(column) for column in zip(*repeats, strict=True)]
            swing = max(max(column) - min(column) for column in zip(*repeats, strict=True))
            early, late = growths(peaks, options.images)
            shown = [f"{peak / MB:.0f}" for peak in peaks]
            lines.append([name, *shown, f"{early:.0f}", f"{late:.0f}", f"{swing / MB:.0f}"])
            whole = (peaks[-1] - peaks[0]) / (most - few)
            for start, growth in ((few, whole), (many, late)):
                claim = f"{name}, {start:,} to {most:,} images: at most {LIMIT_BYTES} bytes an image ({growth:.0f})"
                claims.append((claim, growth <= LIMIT_BYTES))
    head = [
        "run", f"peak at {few:,} images, MB", f"at {many:,}", f"at {most:,}",
        f"growth to {many:,}, bytes an image", f"to {most:,}", "repetitions differ by, MB",
    ]  # fmt: skip
    measuring.show(f"Peak memory, face_vgg, median of {options.repeats}", head, lines)
    return measuring.verdict([] if options.small else claims)  # a few blocks do not even fill the pools


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
