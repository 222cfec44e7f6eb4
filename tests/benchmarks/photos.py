"""Labels real photos as the program comes, checks that the counts add up, and draws the results for people to look at.

The photos: the sample that `run_local.sh` labels, and two archives of the data sets. Drawn from the files of the run
alone: the boxes of `predictions/` on the photos of the archive, the labels above them, contact sheets of twenty;
`--side` sets how large a photo is drawn. Then sheets of the faces alone, to judge a label a face. The sheets show
people who were not asked: keep them, and never commit them.

`--weights FILE --head DIR` label with another network than the bundled one.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import measuring
from measuring import Ran

SIDE, COLUMNS, ROWS = 480, 5, 4  # pixels of a photo's longer side; photos a sheet
FACE, FACE_PIXELS = 150, 114  # pixels of a face's tile, and of the face in it
FACE_COLUMNS, FACE_ROWS = 13, 8  # faces a sheet
SAMPLE = "sample.tar"  # made of the photos of `pipeline/sample.py`
GREEN, RED, WHITE = (80, 220, 80), (60, 60, 240), (255, 255, 255)
SETTINGS = ("write.no_face_label=neutral",)  # all others as they are: the bundled detector, network and head

Row = dict[str, Any]


def checks(run: Ran, archive: Path) -> list[tuple[str, bool]]:
    """Returns what must hold of the counts."""
    counts = run.record["counts"]
    images, faces = measuring.rows(run.output / "images"), measuring.rows(run.output / "predictions")
    names = sorted(f"{archive.name}/{name}" for name, _ in measuring.members(archive))
    by_status = {
        status: sum(row["status"] == status for row in images)
        for status in ("labelled", "no_face", "rejected", "duplicate")
    }
    sent = sorted(name for name, _ in measuring.submission(run.output))
    boxed = sum(row["faces"] for row in images)
    claims = [
        ("every photo has its row, once", [row["image_id"] for row in images] == names),
        ("the rows are those counted", all(counts[word] == n for word, n in by_status.items())),
        ("the counts add up", sum(by_status.values()) == counts["images"] == len(names)),
        ("every face has its row", len(faces) == counts["faces"] == boxed),
        ("boxes lie on the photo", all(_inside(face, images) for face in faces)),
        ("submission.csv has every photo", sent == names),
    ]
    return [(f"{archive.name}: {claim}", holds) for claim, holds in claims]


def _inside(face: Row, images: Sequence[Row]) -> bool:
    image = next(row for row in images if row["image_id"] == face["image_id"])
    right, bottom = face["x"] + face["width"], face["y"] + face["height"]
    return min(face["x"], face["y"]) >= 0 and right <= image["width"] and bottom <= image["height"]


# --- drawing ----------------------------------------------------------------------------------------------------------


def draw_sheets(run: Ran, archive: Path, folder: Path, side: int = SIDE) -> list[Path]:
    """Writes the contact sheets as PNG, photos `side` pixels long at most, then the faces; returns their paths."""
    import cv2
    import numpy as np

    faces: dict[str, list[Row]] = {}
    for row in measuring.rows(run.output / "predictions"):
        faces.setdefault(row["image_id"], []).append(row)
    photos, cuts = [], []
    for name, data in sorted(measuring.members(archive)):
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        found = faces.get(f"{archive.name}/{name}", [])
        photos.append(_tile(image, name, found, side))
        cuts += [_face(image, name, face) for face in found if face["label"] is not None]
    folder.mkdir(parents=True, exist_ok=True)
    return [
        *_written(photos, folder / archive.stem, side, (COLUMNS, ROWS)),
        *_written(cuts, folder / f"{archive.stem}_faces", FACE, (FACE_COLUMNS, FACE_ROWS)),
    ]


def _written(tiles: Sequence[Any], stem: Path, side: int, grid: tuple[int, int]) -> list[Path]:
    """Writes sheets of columns × rows tiles; returns their paths."""
    import cv2
    import numpy as np

    columns, rows = grid
    written = []
    for number, start in enumerate(range(0, len(tiles), columns * rows)):
        listed = tiles[start : start + columns * rows]
        sheet = np.zeros((-(-len(listed) // columns) * side, min(columns, len(listed)) * side, 3), np.uint8)
        for place, tile in enumerate(listed):
            y, x = side * (place // columns), side * (place % columns)
            sheet[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
        path = stem.with_name(f"{stem.name}_{number:02d}.png")
        cv2.imwrite(str(path), sheet)
        written.append(path)
    return written


def _face(image: Any, name: str, face: Row) -> Any:
    """Returns a face with a fifth of its box around it, label and photo written below."""
    import cv2
    import numpy as np

    edge = face["width"] // 5
    padded = cv2.copyMakeBorder(image, edge, edge, edge, edge, cv2.BORDER_CONSTANT)
    cut = padded[face["y"] : face["y"] + face["height"] + 2 * edge, face["x"] : face["x"] + face["width"] + 2 * edge]
    tile = np.zeros((FACE, FACE, 3), np.uint8)
    tile[:FACE_PIXELS, :FACE_PIXELS] = cv2.resize(cut, (FACE_PIXELS, FACE_PIXELS), interpolation=cv2.INTER_AREA)
    _write(tile, _words(face), (2, FACE - 20), GREEN)
    _write(tile, name[:16], (2, FACE - 6), WHITE)
    return tile


def _tile(image: Any, name: str, faces: Sequence[Row], side: int) -> Any:
    """Returns the photo with its faces, its longer side `side` pixels."""
    import cv2

    factor = side / max(image.shape[:2])
    tile = cv2.resize(
        image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    )
    for face in faces:
        x, y, width, height = (round(face[edge] * factor) for edge in ("x", "y", "width", "height"))
        cv2.rectangle(tile, (x, y), (x + width, y + height), GREEN, 2)
        _write(tile, _words(face), (x, max(12, y - 4)), GREEN)
    _write(tile, f"{name}: {len(faces)}", (4, tile.shape[0] - 6), WHITE if faces else RED)
    return tile[:side, :side]


def _words(face: Row) -> str:
    """Returns label and confidence; nothing for a face that is too small to label."""
    return "" if face["label"] is None else f"{face['label']} {face['confidence']:.2f}"


def _write(tile: Any, text: str, at: tuple[int, int], colour: tuple[int, int, int]) -> None:
    import cv2

    for thickness, ink in ((3, (0, 0, 0)), (1, colour)):
        cv2.putText(tile, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.45, ink, thickness, cv2.LINE_AA)


def archives(options: Namespace, place: Path) -> list[Path]:
    """Returns what is labelled: the sample, and the archives of the data sets that are there."""
    listed = []
    ran = measuring.start("-m", "pipeline.sample", place / "sample").wait()
    if ran.status == 0:
        found = [(path.name, path.read_bytes()) for path in sorted((place / "sample").iterdir())]
        listed.append(measuring.write_tar(place / SAMPLE, found))
    else:
        measuring.progress(f"left out: the sample ({ran.err.strip()})")
    for name in () if options.small else ("groups.tar", "street.tar"):
        path = options.data / "photos" / name
        if path.exists():
            listed.append(path)
        else:
            measuring.progress(f"left out: {path} is not there; give --data FOLDER")
    return listed


def main(words: Sequence[str]) -> int:
    made = measuring.parser(__doc__ or "")
    made.add_argument("--sheets", type=Path, help="folder for the contact sheets; none are drawn without")
    made.add_argument("--side", type=int, default=SIDE, help="pixels of a photo on a sheet (default: %(default)s)")
    made.add_argument("--weights", type=Path, help="another network than the bundled one; needs a head of its own")
    made.add_argument("--head", type=Path, help="another head than the bundled one")
    made.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings over those used here")
    options = made.parse_args(words)
    settings = [*SETTINGS, *options.set]
    if options.weights is not None:
        settings.append(f"features.weights={options.weights.resolve()}")
    flags = () if options.head is None else ("--head", str(options.head))
    lines, claims = [], []
    with measuring.workplace(options) as place:
        for archive in archives(options, place):
            measuring.progress(f"labelling {archive.name}")
            run = measuring.label(archive, place / archive.stem, *flags, settings=settings)
            counts, labels = run.record["counts"], run.record["labels"]
            reported = ", ".join(
                f"{name} {count}" for name, count in sorted(labels.items(), key=lambda item: -item[1]) if count
            )
            columns = [counts[word] for word in ("images", "labelled", "no_face", "rejected", "faces")]
            lines.append([archive.name, *columns, run.seconds["images_per_s"], reported])
            claims += checks(run, archive)
            if options.sheets is not None:
                for path in draw_sheets(run, archive, options.sheets, options.side):
                    measuring.progress(f"drawn: {path}")
    head = ["archive", "photos", "labelled", "no face", "rejected", "faces", "images/s", "labels"]
    measuring.show("Photos", head, lines)
    return measuring.verdict(claims)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
