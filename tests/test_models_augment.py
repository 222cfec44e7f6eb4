"""Random changes of pixels: only in training, within their bounds, an image at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from models.detectors.cropping import resized
from models.training.augment import (
    MiddleCrop,
    RandomBlur,
    RandomCompression,
    RandomErasing,
    RandomReduction,
    RandomTone,
    RandomWarp,
    ThirtyChanges,
    TrainingSide,
    augmentation,
)
from models.training.recipe import Recipe
from models.training.thirty_changes import FILTERS, POSITIONS

STILL = {"flip": False, "shift": 0.0, "rotation": 0.0, "scale": 0.0, "shrink": 0.0}


def images(count: int = 8, side: int = 12) -> np.ndarray:
    return np.random.default_rng(0).random((count, side, side, 1)).astype(np.float32)


def change(layer: Any, pixels: np.ndarray) -> np.ndarray:
    return np.asarray(layer(pixels, training=True))


def test_a_warp_of_nothing_changes_nothing() -> None:
    assert np.allclose(change(RandomWarp(**STILL, seed=1), images()), images(), atol=1e-5)


def test_a_flip_mirrors_about_half_of_the_images_exactly() -> None:
    pixels = images(200, 6)
    made = change(RandomWarp(**{**STILL, "flip": True}, seed=1), pixels)
    mirrored = np.isclose(made, pixels[:, :, ::-1], atol=1e-5).all((1, 2, 3))
    same = np.isclose(made, pixels, atol=1e-5).all((1, 2, 3))
    assert (mirrored | same).all()
    assert 70 < mirrored.sum() < 130


def test_a_turn_by_a_right_angle_and_no_more() -> None:
    pixels = np.zeros((64, 21, 21, 1), np.float32)
    pixels[:, 10, 16] = 1  # a point right of the middle
    made = change(RandomWarp(**{**STILL, "rotation": 90.0}, seed=1), pixels)
    rows, columns = np.divmod(made.reshape(64, -1).argmax(1), 21)
    assert (columns >= 9).all()  # never past the middle
    assert rows.min() < 7 and rows.max() > 13  # to either side
    assert np.hypot(rows - 10, columns - 10) == pytest.approx(6, abs=1.0)


def test_shift_and_scale_stay_within_their_bounds() -> None:
    pixels = np.zeros((64, 41, 41, 1), np.float32)
    pixels[:, 20, 20] = 1
    made = change(RandomWarp(**{**STILL, "shift": 0.1}, seed=1), pixels)
    rows, columns = np.divmod(made.reshape(64, -1).argmax(1), 41)
    assert max(abs(rows - 20).max(), abs(columns - 20).max()) <= 5
    assert rows.std() > 1 and columns.std() > 1
    square = np.zeros((64, 41, 41, 1), np.float32)
    square[:, 10:31, 10:31] = 1
    larger = change(RandomWarp(**{**STILL, "scale": 0.2}, seed=1), square).sum((1, 2, 3)) / 21**2
    assert larger.min() >= 1 - 0.02 and 1.3 < larger.max() <= 1.2**2 + 0.02
    assert 20 < np.isclose(larger, 1, atol=1e-3).sum() < 44  # half stay
    smaller = change(RandomWarp(**{**STILL, "shrink": 0.6}, seed=1), square).sum((1, 2, 3)) / 21**2
    assert 1 / 1.6**2 - 0.02 <= smaller.min() < 0.5 and smaller.max() <= 1 + 0.02
    changed = smaller[~np.isclose(smaller, 1, atol=1e-3)]
    assert np.median(changed) == pytest.approx(1.6 ** (-2 / 4), abs=0.1)  # small reductions are more frequent


def test_tone_keeps_to_0_to_1_and_darkens_to_half_at_most() -> None:
    pixels = np.full((200, 4, 4, 1), 0.5, np.float32)
    made = change(RandomTone(contrast=0.3, brightness=0.5, seed=1), pixels)[:, 0, 0, 0]
    assert 0.25 <= made.min() < 0.3 and 0.6 < made.max() <= 0.625
    assert change(RandomTone(contrast=1.0, brightness=1.0, seed=1), images(200)).max() <= 1


def test_blur_is_a_mean_of_neighbours_for_half_of_the_images() -> None:
    pixels = np.zeros((200, 5, 5, 1), np.float32)
    pixels[:, 2, 2] = 1
    middle = change(RandomBlur(share=1.0, seed=1), pixels)[:, 2, 2, 0]
    assert 70 < (middle == 1).sum() < 130
    assert middle.min() >= 1 / 9 - 1e-6


def drawn(side: int = 48, channels: int = 1) -> np.ndarray:
    """Returns (h, w, c) uint8: bright shapes on a ramp, as compressible as a photo."""
    image = np.tile(np.linspace(20, 120, side), (side, 1))
    cv2.circle(image, (side // 2, side // 3), side // 4, 220, -1, cv2.LINE_AA)
    cv2.rectangle(image, (side // 8, side * 2 // 3), (side * 3 // 4, side - 3), 30, 2)
    return np.stack([np.roll(image, 5 * channel, axis=0) for channel in range(channels)], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("pixels", [16, 24, 47])
def test_fewer_pixels_are_what_the_program_makes_of_a_small_face(pixels: int) -> None:
    image = drawn()[..., 0]
    table = RandomReduction(share=1.0, seed=1).there_and_back(48)
    down_and_up = table[pixels - 16]
    small = resized(image.astype(np.float32), (pixels, pixels))
    assert np.allclose(down_and_up @ image.astype(np.float32) @ down_and_up.T, resized(small, (48, 48)), atol=1e-2)
    assert np.array_equal(table[-1], np.eye(48))


def test_a_share_of_the_images_is_reduced_each_to_its_own_size() -> None:
    pixels = np.repeat(drawn(channels=3)[None] / np.float32(255), 200, axis=0)
    made = change(RandomReduction(share=0.5, seed=1), pixels)
    lost = np.abs(made - pixels).mean((1, 2, 3))
    assert 70 < (lost > 1e-6).sum() < 130
    assert len({round(float(value), 4) for value in lost}) > 20
    wide = np.repeat(drawn()[None, :, :30] / np.float32(255), 4, axis=0)  # no square either
    assert change(RandomReduction(share=1.0, seed=1), wide).shape == wide.shape


@pytest.mark.parametrize("quality", [10, 30, 50, 75, 90])
def test_compression_rounds_as_a_jpeg_codec_does(quality: int) -> None:
    image = drawn(40)
    decoded = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_GRAYSCALE)
    layer = RandomCompression(share=1.0, seed=1)
    made = np.asarray(layer.compressed(image[None] / np.float32(255), np.array([quality], np.float32)))[0, ..., 0]
    lost = np.abs(decoded.astype(float) - image[..., 0]).mean()
    assert lost > 0.5
    assert np.abs(made * 255 - decoded).mean() < 0.1 * lost


def test_compression_takes_any_side_and_its_share_of_the_images() -> None:
    pixels = np.repeat(drawn(44, channels=3)[None, :, :30] / np.float32(255), 200, axis=0)
    made = change(RandomCompression(share=0.5, seed=1), pixels)
    lost = np.abs(made - pixels).mean((1, 2, 3))
    assert made.shape == pixels.shape and made.min() >= 0 and made.max() <= 1
    assert 70 < (lost > 1e-6).sum() < 130
    assert lost.max() < 0.1


def test_erasing_spares_the_rest_and_takes_its_share_of_the_images() -> None:
    pixels = np.full((300, 20, 20, 1), 2.0, np.float32)
    made = change(RandomErasing(share=0.5, seed=1), pixels)
    gone = (made != 2.0).sum((1, 2, 3)) / 400
    assert 110 < (gone > 0).sum() < 190
    assert gone.max() <= 0.3
    assert len({value.tobytes() for value in made}) > 100  # each image its own rectangle


def test_the_crop_is_for_training_alone() -> None:
    layer = MiddleCrop(8)
    assert np.array_equal(change(layer, images()), images()[:, 2:10, 2:10])
    assert np.array_equal(np.asarray(layer(images(), training=False)), images())


def test_a_side_reduces_by_area_as_the_program_does() -> None:
    colour = np.concatenate([images(), images()[::-1]], axis=-1)
    wide = change(TrainingSide(8), colour[:, :10])
    assert np.allclose(wide[0], cv2.resize(colour[0, :10], (8, 8), interpolation=cv2.INTER_AREA), atol=1e-6)
    made = change(TrainingSide(9), colour)
    assert made.shape == (8, 9, 9, 2)
    expected = np.stack([cv2.resize(image, (9, 9), interpolation=cv2.INTER_AREA) for image in colour])
    assert np.allclose(made, expected, atol=1e-6)
    assert np.array_equal(change(TrainingSide(12), colour), colour)
    assert np.array_equal(change(TrainingSide(None), colour), colour)


def test_sides_share_the_epochs_equally_and_the_last_one_ends() -> None:
    assert [Recipe(epochs=8, progressive_sizes=(24, 32, 48)).side_in(epoch) for epoch in range(8)] == [24] * 2 + [
        32
    ] * 3 + [48] * 3
    assert [Recipe(epochs=88, progressive_sizes=(24, 32)).side_in(epoch) for epoch in (0, 43, 44, 87)] == [
        24,
        24,
        32,
        32,
    ]
    assert all(Recipe(epochs=n, progressive_sizes=(24, 32, 40, 48)).side_in(n - 1) == 48 for n in range(1, 100))
    assert Recipe(epochs=2).side_in(1) is None


def test_without_training_nothing_changes() -> None:
    for layer in augmentation(Recipe(crop=8, zoom_out=1.0, compress=1.0, progressive_sizes=(6, 8))):
        assert np.array_equal(np.asarray(layer(images(), training=False)), images())


def test_the_same_seed_draws_the_same_and_another_call_something_else() -> None:
    first, again = (RandomErasing(share=1.0, seed=3) for _ in range(2))
    assert np.array_equal(change(first, images()), change(again, images()))
    assert not np.array_equal(change(first, images()), change(RandomErasing(share=1.0, seed=3), images()))


def test_a_recipe_has_the_layers_that_it_names() -> None:
    assert [layer.name for layer in augmentation(Recipe())] == ["warp", "blur", "tone", "erase", "crop"]
    every = augmentation(Recipe(zoom_out=0.1, compress=0.1))
    assert [layer.name for layer in every] == ["warp", "blur", "reduce", "tone", "compress", "erase", "crop"]
    none = replace(
        Recipe(),
        **STILL,
        contrast=0.0,
        brightness=0.0,
        blur=0.0,
        erase=0.0,
        crop=0,  # type: ignore[arg-type]
    )
    assert augmentation(none) == []


@pytest.mark.parametrize("channels", [1, 3])
def test_thirty_changes_are_a_filter_and_a_position_each(channels: int) -> None:
    """OpenCV's own filter and warp say what each of the thirty looks like."""
    draw = np.random.default_rng(4)
    picture = cv2.GaussianBlur(draw.random((25, 24, channels)).astype(np.float32), (0, 0), 1.5).reshape(
        25, 24, channels
    )
    made = np.asarray(ThirtyChanges(1).changed(np.repeat(picture[None], 30, axis=0), np.arange(30, dtype=np.int32)))
    assert np.allclose(made[0], picture, atol=1e-5)
    differ = np.abs(made[:, None] - made[None]).max((2, 3, 4)) + np.eye(30)
    assert differ.min() > 1e-3
    for number, (kernel, (degrees, right, down)) in enumerate((k, p) for k in FILTERS for p in POSITIONS):
        filtered = np.clip(cv2.filter2D(picture, -1, kernel, borderType=cv2.BORDER_REFLECT), 0, 1)
        matrix = cv2.getRotationMatrix2D(((24 - 1) / 2, (25 - 1) / 2), degrees, 1.0)
        matrix[:, 2] += (right * 24, down * 25)
        moved = cv2.warpAffine(filtered, matrix, (24, 25), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        assert np.abs(made[number] - moved.reshape(picture.shape)).mean() < 0.004, (number, degrees, right, down)


def test_each_of_the_thirty_is_drawn() -> None:
    layer = ThirtyChanges(3)
    pixels = np.repeat(images(1, 16), 400, axis=0)
    made = change(layer, pixels).reshape(400, -1)
    assert len(np.unique(made.round(4), axis=0)) == 30
    assert np.array_equal(np.asarray(layer(pixels)), pixels)  # only in training
