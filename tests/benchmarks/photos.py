"""Labels real photos with Haar, checks that the counts add up, and draws what came out, for people to look at.

Draws from the files of the run alone: the boxes and labels of `predictions/` on the photos of the archive, contact
sheets of twenty. The sheets show people who were not asked: keep them, and never commit them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import measuring
from measuring import Ran

TILE, COLUMNS, ROWS = 480, 5, 4  # pixels of a photo's longer side; photos a sheet
GREEN, RED, WHITE = (80, 220, 80), (60, 60, 240), (255, 255, 255)
SETTINGS = (*measuring.FOUND, "write.no_face_label=neutral")

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


def draw_sheets(run: Ran, archive: Path, folder: Path) -> list[Path]:
    """Writes the contact sheets as PNG; returns their paths."""
    import cv2
    import numpy as np

    faces: dict[str, list[Row]] = {}
    for row in measuring.rows(run.output / "predictions"):
        faces.setdefault(row["image_id"], []).append(row)
    tiles = []
    for name, data in sorted(measuring.members(archive)):
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        tiles.append(_tile(image, name, faces.get(f"{archive.name}/{name}", [])))
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for number, start in enumerate(range(0, len(tiles), COLUMNS * ROWS)):
        sheet = np.zeros((ROWS * TILE, COLUMNS * TILE, 3), np.uint8)
        for place, tile in enumerate(tiles[start : start + COLUMNS * ROWS]):
            y, x = TILE * (place // COLUMNS), TILE * (place % COLUMNS)
            sheet[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
        path = folder / f"{archive.stem}_{number:02d}.png"
        cv2.imwrite(str(path), sheet)
        written.append(path)
    return written


def _tile(image: Any, name: str, faces: Sequence[Row]) -> Any:
    """Returns the photo with its faces, its longer side `TILE` pixels."""
    import cv2

    factor = TILE / max(image.shape[:2])
    tile = cv2.resize(
        image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    )
    for face in faces:
        x, y, width, height = (round(face[side] * factor) for side in ("x", "y", "width", "height"))
        cv2.rectangle(tile, (x, y), (x + width, y + height), GREEN, 2)
        _write(tile, f"{face['label']} {face['confidence']:.2f}", (x, max(12, y - 4)), GREEN)
    _write(tile, f"{name}: {len(faces)}", (4, tile.shape[0] - 6), WHITE if faces else RED)
    return tile[:TILE, :TILE]


def _write(tile: Any, text: str, at: tuple[int, int], colour: tuple[int, int, int]) -> None:
    import cv2

    for thickness, ink in ((3, (0, 0, 0)), (1, colour)):
        cv2.putText(tile, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.45, ink, thickness, cv2.LINE_AA)


def main(words: Sequence[str]) -> int:
    made = measuring.parser(__doc__ or "")
    made.add_argument("--sheets", type=Path, help="folder for the contact sheets; none are drawn without")
    made.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings over those used here")
    options = made.parse_args(words)
    archives = [options.data / "photos" / name for name in ("groups.tar", "street.tar")]
    measuring.needed(*archives)
    lines, claims = [], []
    with measuring.workplace(options) as place:
        for archive in archives[-1:] if options.small else archives:
            run = measuring.label(archive, place / archive.stem, settings=(*SETTINGS, *options.set))
            counts, labels = run.record["counts"], run.record["labels"]
            told = ", ".join(
                f"{name} {count}" for name, count in sorted(labels.items(), key=lambda item: -item[1]) if count
            )
            columns = [counts[word] for word in ("images", "labelled", "no_face", "rejected", "faces")]
            lines.append([archive.name, *columns, run.seconds["images_per_s"], told])
            claims += checks(run, archive)
            if options.sheets is not None:
                for path in draw_sheets(run, archive, options.sheets):
                    measuring.progress(f"drawn: {path}")
    head = ["archive", "photos", "labelled", "no face", "rejected", "faces", "images/s", "labels"]
    measuring.show("Photos", head, lines)
    return measuring.verdict(claims)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
