"""Dark, bright, blurry and nearly empty pictures: each flag on a picture made for it, and none on others."""

from __future__ import annotations

import numpy as np
import pytest

from models.evaluation.picture_quality import picture_quality


def noise(low: int, high: int) -> np.ndarray:
    return np.random.default_rng(0).integers(low, high, (120, 160, 3)).astype(np.uint8)


def blocks() -> np.ndarray:
    """Returns sharp squares of many shades."""
    return np.kron(np.random.default_rng(0).integers(0, 256, (12, 16, 3)), np.ones((10, 10, 1))).astype(np.uint8)


def slope() -> np.ndarray:
    """Returns a soft change of brightness from side to side, as an unfocused photo has it."""
    row = np.linspace(90, 170, 160)
    return np.broadcast_to(row[None, :, None], (120, 160, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    "image, flags",
    [
        (blocks(), ()),
        (noise(0, 256), ()),
        (noise(0, 60), ("dark",)),
        (noise(248, 256), ("bright", "blurry", "low_information")),
        (slope(), ("blurry",)),
        (np.zeros((5, 7, 3), np.uint8), ("dark", "low_information")),
        (np.full((1, 1, 3), 255, np.uint8), ("bright", "blurry", "low_information")),
        (np.repeat(np.repeat(np.uint8([[[0], [255]], [[255], [0]]]), 60, 0), 80, 1).repeat(3, 2), ("low_information",)),
    ],
)  # fmt: skip
def test_each_flag_has_its_pictures(image: np.ndarray, flags: tuple[str, ...]) -> None:
    found = picture_quality(image).flags
    assert found == flags


def test_measures_are_in_their_ranges_and_do_not_depend_on_a_bigger_file() -> None:
    small = picture_quality(blocks())
    large = picture_quality(np.kron(blocks(), np.ones((4, 4, 1), np.uint8)))
    assert 0 <= small.p5 <= small.p99 <= 1 and 0 <= small.bits <= 8 and small.spread <= 0.5
    assert large.edges == pytest.approx(small.edges, rel=0.1) and large.bits == pytest.approx(small.bits)
