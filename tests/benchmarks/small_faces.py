"""How small a face may be and still be labelled: FER2013 reduced to few pixels, labelled by the program as shipped.

Every image is reduced by area to 32, 24, 20, 16, 12 and 8 pixels, as a face of that size in a photo would be, and
enlarged again as the program enlarges a small crop. All are labelled in one run with no setting changed but
`faces.detector=none`. The table has accuracy, mean confidence and the gap between the two, and how the labels drift:
the shares of sad, angry and fear, which are called what nobody felt, beside their share in truth.

`faces.min_label_px` is the smallest of these sizes from which on, on the validation part, accuracy falls by no more
than 8 points, the limit that `robustness.py` sets for everyday damage. The test part is read to report, not to choose.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measuring
import numpy as np
from robustness import LARGEST_DROP, SIDE, Damage, Image, as_it_is, damaged, reduced

SIZES_PX = (32, 24, 20, 16, 12, 8)
DRIFTING = ("sad", "angry", "fear")  # what faces too small to tell are called
CACHE = "cache"  # below --work, where it stays: a measurement that was interrupted goes on
PARTS = {"validation": "val.tar.gz", "test": "test.tar"}
HEAD = ["side, px", "accuracy", "drop, points", "mean confidence", "confidence − accuracy", *DRIFTING, "the three"]


@dataclass(frozen=True)
class Figures:
    """What the labels of one size are worth.

    Attributes:
        accuracy, confidence: means.
        shares: of each of the labels that drift.
    """

    accuracy: float
    confidence: float
    shares: tuple[float, ...]

    @property
    def gap(self) -> float:
        """Confidence beyond accuracy."""
        return self.confidence - self.accuracy


def seen_small(side: int) -> Callable[[Image], Image]:
    """Returns a reduction to so many pixels, enlarged to what the network is fed: an image of 8 would be rejected."""

    def change(image: Image) -> Image:
        import cv2

        return cv2.resize(reduced(side)(image), (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)

    return change


def damages() -> list[Damage]:
    """Returns the images as they are, and each reduction."""
    sizes = [Damage(f"{side}_px", str(side), seen_small(side)) for side in SIZES_PX]
    return [Damage(f"{SIDE}_px", f"{SIDE}, as they are", as_it_is), *sizes]


def figures(rows: Mapping[str, Mapping[str, Any]], archive: str, names: Sequence[str]) -> Figures:
    """Returns the figures of one size."""
    found = [rows[f"{archive}/{name}"] for name in names]
    labels = np.array([row["label"] for row in found])
    return Figures(
        accuracy=float((labels == truth(names)).mean()),
        confidence=float(np.mean([row["confidence"] for row in found])),
        shares=tuple(float((labels == label).mean()) for label in DRIFTING),
    )


def truth(names: Sequence[str]) -> np.ndarray:
    """Returns (n,) the true labels: the images lie in folders of their class."""
    return np.array([name.split("/")[-2] for name in names])


def measured(options: Namespace, part: str, place: Path) -> dict[int, Figures]:
    """Labels one part in all sizes, prints its table and returns the figures by size in pixels."""
    source = options.data / "fer2013" / PARTS[part]
    measuring.needed(source)
    found = list(measuring.members(source))[:: 20 if options.small else options.every]
    names = [name for name, _ in found]
    archives = [
        measuring.write_tar(place / part / f"{damage.name}.tar", damaged(found, damage)) for damage in damages()
    ]
    measuring.progress(f"labelling {len(archives) * len(found):,} images of the {part} part")
    settings = ["faces.detector=none", *options.set]
    ran = measuring.label(archives, place / part / "out", settings=settings, cache=place / CACHE)
    rows = {row["image_id"]: row for row in measuring.rows(ran.output / "predictions")}
    by_size = {
        side: figures(rows, f"{damage.name}.tar", names)
        for side, damage in zip((SIDE, *SIZES_PX), damages(), strict=True)
    }
    lines = [line(damage.reported, by_size[SIDE], one) for damage, one in zip(damages(), by_size.values(), strict=True)]
    shares = [float((truth(names) == label).mean()) for label in DRIFTING]
    lines.append(["in truth", None, None, None, None, *(f"{share:.3f}" for share in [*shares, sum(shares)])])
    measuring.show(f"FER2013 {part}, {len(found):,} images", HEAD, lines)
    return by_size


def line(reported: str, before: Figures, after: Figures) -> list[Any]:
    """Returns a line of the table."""
    lost = None if after is before else f"{drop(before, after):.1f}"
    shares = [f"{share:.3f}" for share in [*after.shares, sum(after.shares)]]
    return [reported, f"{after.accuracy:.4f}", lost, f"{after.confidence:.3f}", f"{after.gap:+.3f}", *shares]


def drop(before: Figures, after: Figures) -> float:
    """Returns the points of accuracy lost."""
    return 100 * (before.accuracy - after.accuracy)


def smallest_told(by_size: Mapping[int, Figures]) -> int:
    """Returns the smallest size in pixels from which on accuracy falls by no more than the limit."""
    lost = [side for side in SIZES_PX if drop(by_size[SIDE], by_size[side]) > LARGEST_DROP]
    return min(side for side in (SIDE, *SIZES_PX) if side > max(lost, default=0))


def default_px() -> int:
    """Returns the default of `faces.min_label_px`, read in a process of its own."""
    code = "from pipeline.settings.schema import Settings; print(Settings().faces.min_label_px)"
    return int(measuring.start("-c", code).wait().done().out)


def main(words: Sequence[str]) -> int:
    made = measuring.parser(__doc__ or "")
    made.add_argument("--set", nargs="*", default=[], help="settings for `label`, such as features.precision=bfloat16")
    made.add_argument("--every", type=int, default=1, help="take every Nth image (default: all of them)")
    options = made.parse_args(words)
    with measuring.workplace(options, keep=(CACHE,)) as place:
        chosen = smallest_told(measured(options, "validation", place))
        measured(options, "test", place)
        rule = f"the smallest size that loses at most {LARGEST_DROP:.0f} points on validation is {chosen} px"
        return measuring.verdict([(f"{rule}, the default of faces.min_label_px", default_px() == chosen)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
