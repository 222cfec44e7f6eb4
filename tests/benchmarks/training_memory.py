"""Peak memory of trainings of a network on few and on many images, and what one more image costs.

Measures `train-backbone` with a tiny network, in a process of its own: its largest resident set without pages of files
(RssAnon, sampled twenty times a second), and with them (VmHWM). Training images wait in a file that is mapped into
memory; its pages count in the second figure as long as nobody else needs them, so the claim is about the first. The
images are those of FER2013 again and again under new names and as new bytes.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import measuring

LIMIT_BYTES = 512  # an image, without pages of files
SAMPLED_S = 0.05
SETTINGS = ("train.widths=[8, 16]", "train.convs=1", "train.batch_size=128", "train.crop=0")
HERE = Path(__file__)
MB = 2**20


def telling(words: list[str]) -> int:
    """Runs the program in this process, then prints both peaks in bytes."""
    from pipeline.cli import main as program

    peak, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(SAMPLED_S):
            peak[0] = max(peak[0], _status("RssAnon"))

    watching = threading.Thread(target=watch)
    watching.start()
    status = program(words)
    ended.set()
    watching.join()
    print(peak[0], _status("VmHWM"))
    return status


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def peaks(source: Path, validation: Path, output: Path) -> tuple[int, int]:
    """Returns the peaks of a training of one epoch: without and with pages of files."""
    words = ["train-backbone", "--input", str(source), "--validation", str(validation), "--output", str(output)]
    words += ["--epochs", "1", "--quiet", "--set", *SETTINGS]
    ran = measuring.start(HERE, "--telling", *words, output=output).wait().done()
    own, whole = ran.out.split()[-2:]
    return int(own), int(whole)


def archives(options_data: Path, place: Path, counts: Sequence[int]) -> Iterator[Path]:
    """Makes an archive of so many images for each count."""
    for count in counts:
        measuring.progress(f"making {count:,} images")
        images = measuring.repeated(options_data / "fer2013" / "test.tar", count)
        yield measuring.write_tar(place / f"images{count}.tar", images)


def main(words: Sequence[str]) -> int:
    if words and words[0] == "--telling":
        return telling(list(words[1:]))
    made = measuring.parser(__doc__ or "")
    made.add_argument("--images", type=int, nargs=2, default=[10_000, 100_000], metavar="N")
    options = made.parse_args(words)
    measuring.needed(options.data / "fer2013" / "test.tar", Path("/proc/self/status"))
    counts = [500, 2_000] if options.small else options.images
    lines, found = [], []
    with measuring.workplace(options) as place:
        some = islice(measuring.members(options.data / "fer2013" / "test.tar"), 256)
        validation = measuring.write_tar(place / "validation.tar", some)
        for count, source in zip(counts, archives(options.data, place, counts), strict=True):
            measuring.progress(f"training on {count:,}")
            own, whole = peaks(source, validation, place / f"trained{count}")
            found.append(own)
            lines.append([f"{count:,}", f"{own / MB:.0f}", f"{whole / MB:.0f}"])
    growth = (found[1] - found[0]) / (counts[1] - counts[0])
    measuring.show(
        f"Peak memory of train-backbone, one epoch, {growth:.0f} bytes an image more",
        ["images", "without pages of files, MB", "with them"],
        lines,
    )
    claim = f"{counts[0]:,} to {counts[1]:,} images: at most {LIMIT_BYTES} bytes an image ({growth:.0f})"
    return measuring.verdict([] if options.small else [(claim, growth <= LIMIT_BYTES)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
