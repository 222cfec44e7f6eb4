"""What the page of a run and the comparison of two runs cost, over few and very many images.

Tables are made up, two faces an image on average. The page is written twice: from the tables alone, which is what grows
with the run, and with its pictures, from an archive of as many small photos; the photos without a face are searched for
what almost was one. Near-duplicates need a feature cache, and have a benchmark of their own (`similar_faces.py`).
Measures: CPU seconds and the largest resident set (VmHWM) of a process that does nothing else, without its start. The
two runs compared hold other faces in the same images.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
import time
from pathlib import Path

import measuring

HERE = Path(__file__)
SIZES, SMALL = (4_000, 40_000, 400_000, 1_000_000), (400, 4_000)
MB = 2**20
PAGE_BYTES = 5_000_000
LIMIT_BYTES = 100  # an image more
WIDTH, HEIGHT, GROUNDS = 320, 240, 64  # pixels of a photo, and how many different ones there are but for a number
ARCHIVE = "photos.tar"


def telling(kind: str, output: Path, folders: list[Path]) -> int:
    """Writes a page in this process, then prints CPU seconds, peak memory in bytes and the bytes of the page."""
    from models.detectors.registry import DetectorSpec
    from pipeline.report.near_misses import Searching
    from pipeline.report.run_report import RunReport
    from pipeline.report.two_runs.comparison_report import FinishedRun, write_comparison
    from pipeline.report.two_runs.pair_pictures import Source
    from transforms.formats.records import Limits

    records = [json.loads((folder / "made.json").read_text()) for folder in folders]
    before = time.process_time()
    if kind in ("page", "pictures"):
        plan = records[0]["plan"] if kind == "pictures" else ""
        done = RunReport(str(folders[0]), plan, Limits(), searching=Searching(DetectorSpec()))(records[0])
        if plan and (done["photos_missing"] or not done["photos"]):
            raise SystemExit(f"the page lacks photos: {done}")
        page = folders[0] / "report.html"
    else:
        runs = [
            FinishedRun(str(folder), record, Source(None, Limits()))
            for folder, record in zip(folders, records, strict=True)
        ]
        write_comparison(str(output), *runs, min_iou=0.5, seed=0)
        page = output / "comparison.html"
    spent = time.process_time() - before
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            print(spent, int(line.split()[1]) * 1024, page.stat().st_size)
    return 0


def making(folder: Path, images: int, faces: str) -> int:
    """Makes up the tables of a run."""
    from made_runs import write_run

    from pipeline.run.plan import Layout, make_plan
    from transforms.formats.records import Limits

    grounds = made_photos()
    record = write_run(
        folder,
        images,
        faces=float(faces),
        name=ARCHIVE + "/{}.jpg",
        digest=lambda row: hashlib.sha256(photo_of(grounds, row)).hexdigest(),
        width=WIDTH,
    )
    if folder.name.startswith("a"):  # the page is of A
        with tarfile.open(folder / ARCHIVE, "w") as archive:
            for row in range(images):
                data, member = photo_of(grounds, row), tarfile.TarInfo(f"{row:09d}.jpg")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        plan = make_plan([str(folder / ARCHIVE)], str(folder / "plan"), Layout(256, 64 * MB), Limits())
        record["plan"] = plan.blocks_file
    (folder / "made.json").write_text(json.dumps(record))
    return 0


def made_photos() -> list[bytes]:
    """Returns JPEG files of coarse colours."""
    import cv2
    import numpy as np

    draw = np.random.default_rng(0)
    coarse = draw.integers(0, 256, (GROUNDS, 6, 8, 3), np.uint8)
    return [cv2.imencode(".jpg", cv2.resize(one, (WIDTH, HEIGHT)))[1].tobytes() for one in coarse]


def photo_of(grounds: list[bytes], row: int) -> bytes:
    """Returns a photo that no other row has: the number stands after the picture's end, where nothing is decoded."""
    return grounds[row % GROUNDS] + row.to_bytes(8, "big")


def measured(kind: str, output: Path, *folders: Path) -> list[float]:
    ran = measuring.start(HERE, "--telling", kind, output, *folders).wait().done()
    return [float(word) for word in ran.out.split()]


def main() -> int:
    options = measuring.parser(__doc__).parse_args()
    sizes = SMALL if options.small else SIZES
    pages, pictured, comparisons = [], [], []
    with measuring.workplace(options) as work:
        for images in sizes:
            measuring.progress(f"{images:,} images")
            folders = [work / f"{name}{images}" for name in "ab"]
            for folder, faces in zip(folders, ("2", "2.2"), strict=True):
                folder.mkdir()
                measuring.start(HERE, "--making", folder, str(images), faces).wait().done()
            pages.append(measured("page", work / "out", folders[0]))
            pictured.append(measured("pictures", work / "out", folders[0]))
            comparisons.append(measured("compare", work / f"out{images}", *folders))
    head = ("images", "CPU s", "peak, MB", "page, kB")
    tables = {
        "The page of a run, from its tables": pages,
        "The page of a run, with its pictures": pictured,
        "Two runs compared": comparisons,
    }
    for title, found in tables.items():
        measuring.show(
            title,
            head,
            [(f"{n:,}", cpu, peak / MB, size / 1000) for n, (cpu, peak, size) in zip(sizes, found, strict=True)],
        )
    per_image = {
        title: (found[-1][1] - found[-2][1]) / (sizes[-1] - sizes[-2])
        for title, found in (("page", pages), ("page with pictures", pictured), ("comparison", comparisons))
    }
    claims = [
        (f"no page is larger than {PAGE_BYTES:,} bytes", max(f[2] for f in pages + pictured + comparisons) < PAGE_BYTES)
    ]
    if not options.small:  # what is held at most is held from the first ten thousands on
        claims += [
            (f"an image more costs the {kind} {cost:.0f} bytes of memory, {LIMIT_BYTES} at most", cost <= LIMIT_BYTES)
            for kind, cost in per_image.items()
        ]
    return measuring.verdict(claims)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--telling"]:
        sys.exit(telling(sys.argv[2], Path(sys.argv[3]), [Path(word) for word in sys.argv[4:]]))
    if sys.argv[1:2] == ["--making"]:
        sys.exit(making(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
    sys.exit(main())
