"""What decoding a JPEG and a PNG costs, beside an older commit.

Pictures are made by code: a JPEG of 640 by 480 pixels and about 60 kB, decoded whole and reduced for crops of 48
pixels, PNGs of 48 by 48 grey and of 640 by 480 colour pixels. The older commit lies in a worktree of its own, made here
and removed in the end. Both are measured in fresh processes, in turn; a process gives the least CPU time of several
rounds. The claim is about the least of each over all turns, and the ratios of the turns are given beside.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import cv2
import measuring
import numpy as np

DEAREST = 1.03  # of the older commit's CPU time
CHILD = """
import json, sys, time
import cv2
cv2.setNumThreads(1)
from transforms.formats.decode import decode
from transforms.formats.records import Limits
limits, found = Limits(), {}
for name, path, channels, side, seconds in json.loads(sys.argv[1]):
    data = open(path, "rb").read()
    at_least = (side, side) if side else None
    def once(count):
        began = time.process_time()
        for _ in range(count):
            decode(data, channels=channels, limits=limits, at_least=at_least, min_side=12)
        return (time.process_time() - began) / count
    count = max(5, int(seconds / 10 / min(once(3) for _ in range(5))))
    found[name] = 1e6 * min(once(count) for _ in range(10))
print(json.dumps(found))
"""


def picture(height: int, width: int) -> np.ndarray:
    """Returns (h, w, 3) uint8 of soft blots with some noise: compresses like a photo."""
    draw = np.random.default_rng(0)
    blots = draw.integers(0, 256, (height // 16, width // 16, 3), np.uint8)
    soft = cv2.resize(blots, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    noise = draw.normal(0, 6, soft.shape).astype(np.int16)
    return np.clip(soft + noise, 0, 255).astype(np.uint8)


def write_files(work: Path) -> dict[str, Path]:
    """Writes the three pictures; returns their paths."""
    whole = picture(480, 640)
    small = cv2.cvtColor(whole, cv2.COLOR_BGR2GRAY)[:48, :48].copy()
    made = {
        "photo.jpg": cv2.imencode(".jpg", whole, [cv2.IMWRITE_JPEG_QUALITY, 80])[1],
        "small.png": cv2.imencode(".png", small)[1],
        "large.png": cv2.imencode(".png", whole)[1],
    }
    for name, data in made.items():
        (work / name).write_bytes(data.tobytes())
    return {name: work / name for name in made}


def measured(root: Path, tasks: list[list[object]]) -> dict[str, float]:
    """Returns CPU-µs an image of each task, by a fresh process of the checkout `root`."""
    ran = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps(tasks)],
        env={**os.environ, "PYTHONPATH": str(root)},
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(json.loads(ran.stdout.splitlines()[-1]))


def run(options: Namespace) -> int:
    """Measures, prints, and returns the exit status."""
    turns, seconds = (1, 0.05) if options.small else (options.turns, options.seconds)
    with measuring.workplace(options) as work, measuring.checkout(options.before) as old:
        files = write_files(work)
        tasks: list[list[object]] = []
        for name, side in (("photo.jpg", 0), ("photo.jpg", 48), ("small.png", 0), ("large.png", 0)):
            for channels in (1, 3):
                what = f"{name}, {'grey' if channels == 1 else 'RGB'}{', reduced' if side else ''}"
                tasks.append([what, str(files[name]), channels, side, seconds])
        times: dict[str, list[dict[str, float]]] = {"before": [], "now": []}
        for turn in range(turns):
            measuring.progress(f"turn {turn + 1} of {turns}")
            for which, root in (("before", old), ("now", measuring.ROOT))[:: 1 if turn % 2 == 0 else -1]:
                times[which].append(measured(root, tasks))
        sizes = {name: path.stat().st_size / 1000 for name, path in files.items()}
    lines, ratios = [], {}
    for name in times["now"][0]:
        before, now = ([turn[name] for turn in times[which]] for which in ("before", "now"))
        ratios[name] = min(now) / min(before)
        of_turns = measuring.spread([b / a for a, b in zip(before, now, strict=True)])
        kilobytes = f"{sizes[name.partition(',')[0]]:.1f}"
        lines.append([name, kilobytes, f"{min(before):.1f}", f"{min(now):.1f}", f"{ratios[name]:.3f}", of_turns])
    head = ["picture", "kB", f"CPU-µs at {options.before}", "CPU-µs now", "ratio", "ratios of the turns"]
    measuring.show("Decoding an image", head, lines)
    return measuring.verdict(
        [
            (f"{name}: {value:.3f} of the older commit's CPU time, target {DEAREST}", options.small or value <= DEAREST)
            for name, value in ratios.items()
        ]
    )


def main() -> int:
    made = measuring.parser(__doc__ or "")
    made.add_argument("--before", metavar="COMMIT", default="b74b58c", help="default: %(default)s")
    made.add_argument("--turns", type=int, default=6)
    made.add_argument("--seconds", type=float, default=1.0, help="of each picture in each turn")
    return run(made.parse_args())


if __name__ == "__main__":
    sys.exit(main())
