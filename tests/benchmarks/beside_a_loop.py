"""The job beside a loop as people write it, on photos: Haar, then a network, an image and a face at a time.

Measures images per second of both, in turn, in one script: of the loop without its imports and without loading and
compiling its network (mini-XCEPTION, a published one, through tf_keras, the legacy package), of the job as `run.json`
has it, without the runtime's start; and of both whole commands. The loop looks for faces with OpenCV's frontal cascade,
the job with its own detector, which finds three times as many; `--detector haar` has both search alike, at the same
scales with the same smallest face. The photos are those of groups.tar, each several times as other bytes.

Then what the job did that the loop did not. The networks differ, and so do the labels: no comparison of accuracy.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import measuring
from measuring import Ran

SETTINGS = ("features.pooling=multi", "write.no_face_label=neutral")
BROKEN = {"broken/cut.jpg": 0.6, "broken/empty.jpg": 0.0}  # shares of a photo's bytes that are left
HERE = Path(__file__)


def loop(folder: Path, network: Path) -> tuple[Ran, dict[str, Any]]:
    """Runs the loop; returns the process and what it printed."""
    ran = measuring.start(HERE.with_name("haar_loop.py"), folder, network).wait().done()
    return ran, json.loads(ran.out.splitlines()[-1])


def photos(options: Namespace, place: Path) -> Path:
    """Returns a folder of photos, the last ones broken as downloads break."""
    source = options.data / "photos" / "groups.tar"
    listed = list(measuring.members(source))[: 12 if options.small else None]
    found = [
        (f"{copy}/{name}", measuring.renewed(data, copy)) for copy in range(options.copies) for name, data in listed
    ]
    data = found[0][1]
    found += [(name, data[: int(share * len(data))]) for name, share in BROKEN.items()]
    return measuring.unpack(place / "photos", found)


def pair(folder: Path, network: Path, place: Path, number: int, detector: str) -> tuple[list[Any], Ran]:
    """Runs loop and job; returns a row of the table, and the job."""
    whole, reported = loop(folder, network)
    settings = (*SETTINGS, f"faces.detector={detector}")
    run = measuring.label(folder, place / f"job{number}", settings=settings)
    seconds, images = run.seconds, reported["images"]
    rates = [images / reported["wall_s"], images / seconds["work"], reported["wall_s"] / seconds["work"]]
    row = [number + 1, *rates, reported["cpu_s"] / seconds["work_cpu"], whole.wall_s, run.wall_s]
    return [*row, reported["faces"], run.record["counts"]["faces"]], run


def besides(folder: Path, place: Path, run: Ran, detector: str) -> tuple[list[list[Any]], list[tuple[str, bool]]]:
    """Returns what the job did besides, as lines of a table, and what is claimed of it."""
    counts = run.record["counts"]
    again = measuring.label(
        folder, place / "again", settings=(*SETTINGS, f"faces.detector={detector}"), cache=run.output / "cache"
    )
    same = measuring.results(again.output) == measuring.results(run.output)
    files = sum(path.is_file() for path in folder.rglob("*"))
    reported = ", ".join(f"{reason} {count}" for reason, count in run.record["reasons"].items())
    lines = [
        ["an account of every image", f"{counts['images']:,} rows", "none"],
        ["photos without a face", f"{counts['no_face']:,}, counted apart", "not counted"],
        ["broken photos", f"{counts['rejected']} rejected: {reported}", "passed over in silence"],
        ["a second run", f"{again.wall_s:.1f} s, {again.record['cache']['hits']:,} from the cache", "everything again"],
        ["after a kill", "goes on (kills.py)", "everything again"],
        ["submission.csv", "checked, written whole or not at all", "none"],
    ]
    checks = [
        ("every file has its row", counts["images"] == files),
        ("broken photos are rejected and counted", counts["rejected"] == len(BROKEN)),
        ("a second run takes everything from the cache and writes the same bytes", same),
    ]
    return lines, checks


def main(words: Sequence[str]) -> int:
    made = measuring.parser(__doc__ or "")
    made.add_argument("--pairs", type=int, default=3)
    made.add_argument("--detector", default="bundled", help="of the job; haar searches as the loop does")
    made.add_argument("--copies", type=int, default=4, help="of each photo, as other bytes")
    options = made.parse_args(words)
    network = options.data / "peers" / "fer2013_mini_XCEPTION.102-0.66.hdf5"
    measuring.needed(network, options.data / "photos" / "groups.tar")
    if importlib.util.find_spec("tf_keras") is None:
        sys.exit("skipped: the loop needs tf_keras: pip install --no-deps tf_keras of TensorFlow's version")
    if options.small:
        options.pairs, options.copies = 1, 1
    rows = []
    with measuring.workplace(options) as place:
        folder = photos(options, place)
        for number in range(options.pairs):
            measuring.progress(f"pair {number + 1} of {options.pairs}")
            row, run = pair(folder, network, place, number, options.detector)
            rows.append(row)
        head = [
            "pair", "loop images/s", "job images/s", "job : loop", "per CPU-second",
            "loop, whole command s", "job", "loop faces", "job faces",
        ]  # fmt: skip
        measuring.show(f"{run.record['counts']['images']:,} photos", head, rows)
        lines, checks = besides(folder, place, run, options.detector)
        measuring.show("What the job did besides", ["what", "the job", "the loop"], lines)
    quicker = measuring.median(row[3] for row in rows)
    return measuring.verdict([*checks, (f"the job is quicker: {quicker:.2f} times, median", quicker > 1)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
