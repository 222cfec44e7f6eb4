"""Holds the decoder against Pillow's: on the images that Pillow tests itself with, and on every kind made by code.

Pillow's own images come with its source distribution, which pip downloads into the working folder (the version that is
installed, unless `--sdist` gives a file). Each is decoded with ours and with Pillow, in a process of its own, and
Pillow's pixels are brought to our conventions (`tests/against_pillow.py`): agree, differ, explained (differ where
Pillow or the file is known to be at fault), only we, only they, neither. `--show` lists the files of each cell.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import measuring

VERDICTS = ("agree", "differ", "explained", "only we", "only they", "neither")
OURS = ("jpeg", "png", "webp", "gif", "bmp", "tiff", "pnm", "heif")
FORMS = {"JPEG": "jpeg", "MPO": "jpeg", "PPM": "pnm", "DIB": "dib", "AVIF": "heif", "HEIF": "heif"}  # Pillow's words
SUFFIXES = {
    "jpg": "jpeg", "jpe": "jpeg", "jfif": "jpeg", "tif": "tiff", "pgm": "pnm", "ppm": "pnm", "pbm": "pnm",
    "heic": "heif", "avif": "heif", "apng": "png",
}  # fmt: skip
APART: dict[str, str] = {}  # files of Pillow whose pixels differ, and why that is right
JUDGE = Path(__file__).parents[1] / "judging.py"
MOST = 100_000  # more files than there are
DOWNLOAD_S = 600

Line = dict[str, Any]


def downloaded(place: Path, version: str) -> Path:
    """Returns Pillow's source distribution, fetched by pip from wherever it is set up to look."""
    words = ["download", "--no-deps", "--no-binary=pillow", "--dest", str(place), f"pillow=={version}"]
    measuring.progress(f"pip downloads the source of Pillow {version}")
    done = subprocess.run(
        [sys.executable, "-m", "pip", *words], capture_output=True, text=True, timeout=DOWNLOAD_S, check=False
    )
    found = sorted(place.glob("pillow-*.tar.gz"))
    if not found:
        sys.exit(f"skipped: pip could not download the source of Pillow {version}: {done.stderr[-500:]}")
    return found[0]


def unpacked(sdist: Path, place: Path) -> Path:
    """Returns the folder of Pillow's test images."""
    with tarfile.open(sdist) as archive:
        members = [member for member in archive if "/Tests/images/" in member.name and member.isreg()]
        archive.extractall(place, members, filter="data")
    return next(place.glob("*/Tests/images"))


def judged(what: str, report: Path, *more: str | Path) -> list[Line]:
    """Returns a line for each file; those that ended the process have no verdict."""
    measuring.start(JUDGE, what, "0", str(MOST), report, "--perturb", "85", *more).wait().done()
    lines = []
    for line in report.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue  # cut, where a file ended the process
    return lines


def kind_of(line: Line) -> str:
    """Returns the kind of file: Pillow's word for it where it opened it, else the name's end."""
    form = line["apart"].partition(" ")[0]
    if form.isupper():
        return FORMS.get(form, form.lower())
    suffix = line["name"].rpartition(".")[2].lower()
    return SUFFIXES.get(suffix, suffix)


def table(title: str, lines: Iterable[tuple[str, Line]]) -> Counter[str]:
    """Prints a row a kind; kinds that we do not read make one row. Returns the counts of ours."""
    cells: dict[str, Counter[str]] = defaultdict(Counter)
    for kind, line in lines:
        cells[kind if kind in OURS else "other formats"][line["pillow"]] += 1
    rows = [
        (kind, *(cells[kind][verdict] for verdict in VERDICTS)) for kind in (*OURS, "other formats") if kind in cells
    ]
    ours: Counter[str] = sum((cells[kind] for kind in OURS), Counter())
    measuring.show(title, ("kind", *VERDICTS), [*rows, ("ours in all", *(ours[verdict] for verdict in VERDICTS))])
    return ours


def listed(lines: Iterable[tuple[str, Line]]) -> None:
    """Prints the files of each cell but those that agree or that neither takes."""
    for kind, line in sorted(lines, key=lambda pair: (pair[0], pair[1]["pillow"], pair[1]["name"])):
        if line["pillow"] not in ("agree", "neither") and (kind in OURS or line["pillow"] != "only they"):
            print(f"- {kind}, {line['pillow']}: {line['name']}: {line['outcome'].partition(' ')[0]} | {line['apart']}")


def run(options: argparse.Namespace, place: Path) -> int:
    """Judges both sets, and prints what came of it."""
    made = judged("kinds", place / "kinds")
    pairs = [(line["name"].partition("/")[0], line) for line in made if "number" in line]
    pairs = [("heif" if kind in ("heic", "avif") else kind, line) for kind, line in pairs]
    own = table(f"{len(pairs)} kinds made by code", pairs)
    every, lines = list(pairs), list(made)
    unexplained: list[str] = []
    if not options.small:
        folder = unpacked(options.sdist or downloaded(place, options.version), place / "pillow")
        found = judged("files", place / "files", "--folder", folder)
        pairs = [(kind_of(line), line) for line in found if "number" in line]
        table(f"{len(pairs)} test images of Pillow {options.version}", pairs)
        unexplained = [line["name"] for _, line in pairs if line["pillow"] == "differ" and line["name"] not in APART]
        every, lines = every + pairs, lines + found
    if options.show:
        print()
        listed(every)
    faults = [line for _, line in every if line["fault"]]
    for line in [*faults, *(line for line in lines if "ended" in line)]:
        print(f"fault: {line}", file=sys.stderr)
    return measuring.verdict(
        [
            ("no file ends the process", not any("ended" in line for line in lines)),
            ("no exception but the documented ones", not faults),
            ("no kind made by code differs without an explanation", own["differ"] == 0),
            (f"none of Pillow's images does {unexplained or ''}".strip(), not unexplained),
        ]
    )


def main(words: Sequence[str]) -> int:
    made = measuring.parser(__doc__ or "")
    made.add_argument("--show", action="store_true", help="list the files of each cell")
    made.add_argument("--sdist", type=Path, help="Pillow's source distribution; default: pip downloads it")
    made.add_argument("--version", default=metadata.version("pillow"), help="of Pillow's source (default: %(default)s)")
    options = made.parse_args(words)
    with measuring.workplace(options) as place:
        return run(options, place)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
