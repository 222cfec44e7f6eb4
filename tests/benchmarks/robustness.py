"""What everyday damage costs: FER2013's test part, damaged by code, labelled by the program as shipped.

Every image is damaged in each way, written without loss (PNG; JPEG where JPEG is the damage), and all are labelled in
one run with no setting changed but `faces.detector=none`. The table has the accuracy beside that of the images as they
are. The claim is about the everyday damages; covered faces are listed without one, as part of what the label is about
is gone.

Margins. FER2013 has one fixed frame around the face. Where it lies is measured here: the program looks for faces in
some of the images with Haar, its default, with their borders repeated and four times as large. The box it finds is the
frame, so FER2013's frame is a margin of 0 %, and a margin of 20 % is 48 × 1.4 pixels. What lies beyond the frame is not
known: the border is repeated, as the program repeats it where a square leaves the photo. Photos have hair and
background there. The program brings all of them to its own size again.

`--validation` takes FER2013's validation part: the test part is read for networks that are to ship alone.

`--sheet FILE.png` draws some images, a row a damage, for people to look at. It shows people who were not asked: keep
it, and never commit it.
"""

from __future__ import annotations

import hashlib
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measuring
import numpy as np
from peers_metrics import interval

LARGEST_DROP = 8.0  # points of accuracy
SIDE = 48  # pixels of FER2013's frame
AROUND, TIMES = 16, 4  # pixels repeated around it, and the enlargement, for the detector to find the face
SHEET_COLUMNS, SHEET_TILE, SHEET_CAPTION = 14, 96, 190  # images a row; pixels

Image = np.ndarray  # (h, w) uint8, grey


@dataclass(frozen=True)
class Damage:
    """A way to damage an image.

    Attributes:
        name: of the archive. reported: for people.
        change: what is done to the pixels.
        quality: of the JPEG it is stored as; None stores it without loss.
        claimed: whether the claim is about it.
    """

    name: str
    reported: str
    change: Callable[[Image], Image]
    quality: int | None = None
    claimed: bool = True


def turned(degrees: float) -> Callable[[Image], Image]:
    """Returns a turn about the middle, against the clock; the border is repeated."""

    def change(image: Image) -> Image:
        import cv2

        height, width = image.shape
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1)
        return cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    return change


def scaled(factor: float) -> Callable[[Image], Image]:
    """Returns a multiplication of all values."""
    return lambda image: np.clip(np.round(image * factor), 0, 255).astype(np.uint8)


def reduced(side: int) -> Callable[[Image], Image]:
    """Returns a reduction to so many pixels, by area; the image stays that small, the program enlarges it."""

    def change(image: Image) -> Image:
        import cv2

        return cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)

    return change


def blurred(sigma_px: float) -> Callable[[Image], Image]:
    """Returns a Gaussian blur."""

    def change(image: Image) -> Image:
        import cv2

        return cv2.GaussianBlur(image, (0, 0), sigma_px, borderType=cv2.BORDER_REPLICATE)

    return change


def framed(margin: float) -> Callable[[Image], Image]:
    """Returns a repetition of the border by so much on each side; below 0 that much is cut off."""
    edge = round(SIDE * margin)
    if edge < 0:
        return lambda image: np.ascontiguousarray(image[-edge:edge, -edge:edge])
    return lambda image: np.pad(image, edge, mode="edge")


def covered(first: float, last: float) -> Callable[[Image], Image]:
    """Returns a grey band over the rows from one share of the height to another."""

    def change(image: Image) -> Image:
        out = image.copy()
        out[round(first * len(image)) : round(last * len(image))] = 128
        return out

    return change


def as_it_is(image: Image) -> Image:
    """Returns the image."""
    return image


DAMAGES = (
    Damage("as_they_are", "as they are", as_it_is),
    Damage("turned_left", "turned by 15° against the clock", turned(15)),
    Damage("turned_right", "turned by 15° with the clock", turned(-15)),
    Damage("half_brightness", "half the brightness", scaled(0.5)),
    Damage("jpeg_30", "JPEG of quality 30", as_it_is, quality=30),
    Damage("24_px", "24 pixels wide", reduced(24)),
    Damage("blurred", "blurred, Gaussian of 1 pixel", blurred(1)),
    Damage("cut_10", "margin −10 %: the middle 38 pixels", framed(-0.1)),
    Damage("margin_0", "margin 0 %: FER2013's own frame", framed(0.0)),
    Damage("margin_10", "margin 10 %: 5 pixels repeated on each side", framed(0.1)),
    Damage("margin_20", "margin 20 %: 10 pixels repeated on each side", framed(0.2)),
    Damage("margin_30", "margin 30 %: 14 pixels repeated on each side", framed(0.3)),
    Damage("mouth_covered", "lower third covered", covered(2 / 3, 1), claimed=False),
    Damage("eyes_covered", "upper third covered", covered(0, 1 / 3), claimed=False),
)


# --- images -----------------------------------------------------------------------------------------------------------


def decoded(data: bytes) -> Image:
    """Returns the pixels of an encoded image."""
    import cv2

    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)


def encoded(image: Image, quality: int | None) -> bytes:
    """Returns a PNG, or a JPEG of that quality."""
    import cv2

    words = [] if quality is None else [cv2.IMWRITE_JPEG_QUALITY, quality]
    return cv2.imencode(".png" if quality is None else ".jpg", image, words)[1].tobytes()


def damaged(found: Sequence[tuple[str, bytes]], damage: Damage) -> Iterator[tuple[str, bytes]]:
    """Yields the members damaged; ids stay."""
    for name, data in found:
        yield name, encoded(damage.change(decoded(data)), damage.quality)


def draw_sheet(archives: Mapping[str, Path], path: Path) -> None:
    """Writes a PNG with a row a damage, the same images in each, as the program is given them."""
    import cv2

    rows = []
    for damage in DAMAGES:
        row = np.full((SHEET_TILE, SHEET_CAPTION + SHEET_COLUMNS * SHEET_TILE), 255, np.uint8)
        cv2.putText(row, damage.name, (4, SHEET_TILE // 2), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 0, 1, cv2.LINE_AA)
        listed = list(measuring.members(archives[damage.name]))
        for place, (_, data) in enumerate(listed[:: max(1, len(listed) // SHEET_COLUMNS)][:SHEET_COLUMNS]):
            left = SHEET_CAPTION + place * SHEET_TILE
            tile = cv2.resize(decoded(data), (SHEET_TILE, SHEET_TILE), interpolation=cv2.INTER_NEAREST)
            row[:, left : left + SHEET_TILE] = tile
        rows.append(row)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.concatenate(rows))
    measuring.progress(f"drawn: {path}")


# --- figures ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """Labels of one damage, in the order of the names: (n,) each."""

    right: np.ndarray
    labels: np.ndarray
    confidence: np.ndarray


def results(output: Path, names: Sequence[str]) -> dict[str, Result]:
    """Returns the labels by damage; ends the script if an image got none."""
    rows = {row["image_id"]: row for row in measuring.rows(output / "predictions")}
    found = {}
    for damage in DAMAGES:
        ids = [f"{damage.name}.tar/{name}" for name in names]
        missing = [image_id for image_id in ids if image_id not in rows]
        if missing:
            sys.exit(f"{len(missing)} images got no label, the first is {missing[0]}")
        labels = np.array([rows[image_id]["label"] for image_id in ids])
        right = labels == np.array([name.split("/")[0] for name in names])
        found[damage.name] = Result(right, labels, np.array([rows[image_id]["confidence"] for image_id in ids]))
    return found


def drop(before: Result, after: Result) -> float:
    """Returns the points of accuracy lost."""
    return 100 * float(before.right.mean() - after.right.mean())


def drop_interval(before: Result, after: Result) -> tuple[float, float]:
    """Returns the ends of the 95 % interval of the drop, in points: the same images, so differences count."""
    difference = before.right.astype(int) - after.right.astype(int)
    half = 196 * float(difference.std(ddof=1)) / len(difference) ** 0.5
    return drop(before, after) - half, drop(before, after) + half


def line(damage: Damage, before: Result, after: Result) -> list[Any]:
    """Returns a line of the table."""
    accuracy = after.right.mean()
    low, high = interval(after.right)
    shown = [damage.reported, f"{accuracy:.4f}", f"{low:.3f} … {high:.3f}"]
    if damage is DAMAGES[0]:
        return [*shown, None, None, None, f"{after.confidence.mean():.3f}"]
    least, most = drop_interval(before, after)
    changed = f"{100 * float((before.labels != after.labels).mean()):.1f} %"
    between = f"{least:.1f} … {most:.1f}"
    return [*shown, f"{drop(before, after):.1f}", between, changed, f"{after.confidence.mean():.3f}"]


def run(options: Namespace, place: Path) -> int:
    """Measures, prints, and returns the exit status."""
    part, name = ("validation", "val.tar.gz") if options.validation else ("test", "test.tar")
    source = options.data / "fer2013" / name
    measuring.needed(source)
    found = list(measuring.members(source))[:: 20 if options.small else 1]
    archives = {}
    for damage in DAMAGES:
        measuring.progress(f"making: {damage.reported}")
        archives[damage.name] = measuring.write_tar(place / f"{damage.name}.tar", damaged(found, damage))
    if options.sheet is not None:
        draw_sheet(archives, options.sheet)
    settings = ["faces.detector=none"]
    if options.weights is not None:
        settings.append(f"features.weights={options.weights.resolve()}")
    flags = () if options.head is None else ("--head", str(options.head))
    measuring.progress(f"labelling {len(DAMAGES) * len(found):,} images")
    ran = measuring.label(list(archives.values()), place / "out", *flags, settings=settings)
    by_damage = results(ran.output, [name for name, _ in found])
    before = by_damage[DAMAGES[0].name]
    head = ["damage", "accuracy", "95 % interval", "drop, points", "95 % interval", "labels changed", "mean confidence"]
    measuring.show(
        f"FER2013 {part}, {len(found):,} images",
        head,
        [line(damage, before, by_damage[damage.name]) for damage in DAMAGES],
    )
    same = _pixels(archives["as_they_are"]) == _pixels(archives["margin_0"])
    show_frame(found, place)
    return measuring.verdict([*_claims(before, by_damage), ("a margin of 0 % leaves every pixel as it is", same)])


def show_frame(found: Sequence[tuple[str, bytes]], place: Path) -> None:
    """Prints where Haar, as the program uses it, sees the face in FER2013's frame."""
    measuring.progress("where the frame lies")

    def larger(image: Image) -> Image:
        import cv2

        side = TIMES * (SIDE + 2 * AROUND)
        return cv2.resize(np.pad(image, AROUND, mode="edge"), (side, side), interpolation=cv2.INTER_LINEAR)

    some = found[::6]
    archive = measuring.write_tar(place / "larger.tar", damaged(some, Damage("larger", "", larger)))
    output = measuring.label(archive, place / "larger", settings=("write.no_face_label=neutral",)).output
    largest: dict[str, dict[str, Any]] = {}
    for row in measuring.rows(output / "predictions"):
        image_id = row["image_id"]
        if image_id not in largest or row["width"] > largest[image_id]["width"]:
            largest[image_id] = row
    quartiles = {
        "left edge": [row["x"] / TIMES - AROUND for row in largest.values()],
        "upper edge": [row["y"] / TIMES - AROUND for row in largest.values()],
        "side": [row["width"] / TIMES for row in largest.values()],
    }
    lines = [
        [what, *(f"{value:.1f}" for value in np.quantile(of, [0.25, 0.5, 0.75]))] for what, of in quartiles.items()
    ]
    title = f"Haar's box in FER2013's frame of {SIDE} pixels, found in {len(largest):,} of {len(some):,} images"
    measuring.show(title, ["pixels", "a quarter below", "median", "a quarter above"], lines)


def _claims(before: Result, by_damage: Mapping[str, Result]) -> list[tuple[str, bool]]:
    made = []
    for damage in DAMAGES[1:]:
        if damage.claimed:
            lost = drop(before, by_damage[damage.name])
            made.append(
                (f"{damage.reported}: {lost:.1f} points lost, at most {LARGEST_DROP:.0f}", lost <= LARGEST_DROP)
            )
    return made


def _pixels(archive: Path) -> str:
    digest = hashlib.sha256()
    for _, data in measuring.members(archive):
        digest.update(decoded(data).tobytes())
    return digest.hexdigest()


def main(words: Sequence[str]) -> int:
    made = measuring.parser(__doc__ or "")
    made.add_argument("--sheet", type=Path, help="a PNG with some of the images, a row a damage; none is drawn without")
    made.add_argument("--validation", action="store_true", help="the validation part, for what is not to ship")
    made.add_argument("--weights", type=Path, help="another network than the bundled one; needs a head of its own")
    made.add_argument("--head", type=Path, help="another head than the bundled one")
    options = made.parse_args(words)
    with measuring.workplace(options) as place:
        return run(options, place)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
