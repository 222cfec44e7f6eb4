"""Training of the cascade: what is drawn, thresholds for a recall, and a run that goes on exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cascades import SMALL

from models.detectors.cascade.calibration import OFFSETS, PATTERNS, SCALES
from models.detectors.cascade.detector import Cascade
from models.detectors.cascade.overlaps import overlap
from models.detectors.cascade.weights import read_weights
from models.training.detection.cascade import variants
from models.training.detection.cascade.levels import CascadeMaterial, CascadeTraining, train_cascade
from models.training.detection.cascade.mining import threshold_for
from models.training.detection.cascade.one_network import NetworkRecipe, train_network
from models.training.detection.cascade.variants import VARIANTS, train_variants
from models.training.detection.cascade.windows import (
    APART,
    FacePatches,
    apart,
    calibration_pairs,
    empty_windows,
    face_patches,
    face_windows,
    near_patterns,
    relit,
    squares_of,
)
from models.training.detection.photos import Photo
from models.training.detection.scenes import Material

NOTHING = np.zeros((0, 4), np.float32)
FACE, GROUND = (220, 180, 150), 90  # a face is a plain square here, with a dark bar where the eyes are


def photo(x: int = 30, y: int = 20, side: int = 40, size: tuple[int, int] = (120, 160)) -> Photo:
    pixels = np.full((*size, 3), GROUND, np.uint8)
    pixels[y : y + side, x : x + side] = FACE
    pixels[y + side // 4 : y + side // 2, x : x + side] = 20
    return Photo(pixels, np.array([[x, y, side, side]], np.float32), NOTHING)


def scene(seed: int) -> Photo:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 10, 3), np.uint8)
    return Photo(coarse.repeat(12, axis=0).repeat(12, axis=1), NOTHING, NOTHING)


def material() -> Material:
    photos = [photo(x, y, side) for x, y, side in ((30, 20, 40), (80, 60, 48), (10, 70, 32), (100, 10, 24))]
    return Material([(photos, 0.7)], [([photo(4, 4, 90, (96, 96))], 0.3)], [scene(number) for number in range(4)])


def test_a_square_has_the_longer_side_and_the_same_centre():
    assert squares_of(np.array([[10, 10, 20, 40]], np.float32)).tolist() == [[0, 10, 40]]


def test_patches_show_faces_in_their_middle():
    patches = face_patches(material(), seed=0)
    assert patches.pixels.shape == (5, 96, 96, 3)
    assert patches.chances.sum() == pytest.approx(1) and patches.chances[-1] == pytest.approx(0.3)
    middle = patches.pixels[:, 60:68, 30:66]
    assert np.abs(middle.astype(int) - FACE).max() <= 2
    reduced = patches.reduced_to(12)
    assert reduced.pixels.shape == (5, 24, 24, 3) and reduced.chances.sum() == pytest.approx(1)


def test_faces_that_are_too_small_for_a_network_are_left_to_smaller_ones():
    tiny = replace(material(), photos=[([photo(side=40), photo(side=16)], 1.0)], tiles=[])
    patches = face_patches(tiny, seed=0)
    assert (patches.chances > 0).all()
    assert (patches.reduced_to(24).chances > 0).all()
    last = FacePatches(patches.pixels, 48, patches.chances, patches.sizes).reduced_to(48)
    assert (last.chances > 0).tolist() == [True, False]


def bar_of(window: np.ndarray) -> np.ndarray:
    """Returns the rows that the dark bar covers in the middle column."""
    return np.flatnonzero(window[:, len(window) // 2, 0] < 60)


def test_windows_lie_to_their_face_as_the_pattern_says():
    patches = face_patches(replace(material(), tiles=[]), seed=0)
    for scale, dy in ((1.0, 0.0), (1.21, 0.0), (0.83, 0.17), (1.0, -0.17)):
        patterns = np.array([[scale, 0, dy]] * 6, np.float32)
        for window in face_windows(patches, patterns, np.random.default_rng(0), turn=0.0):
            # The bar lies from 1/4 to 1/2 of the face; the window from 0.5 + dy -+ scale / 2.
            top, bottom = ((share - (0.5 + dy - scale / 2)) / scale * 48 for share in (0.25, 0.5))
            rows = bar_of(window)
            assert abs(rows[0] - top) <= 1.5 and abs(rows[-1] + 1 - bottom) <= 1.5


def test_mirrored_faces_keep_their_pattern():
    patches = face_patches(replace(material(), tiles=[]), seed=0)
    patterns = np.array([[1.0, 0.17, 0]] * 32, np.float32)  # the window lies to the right: its left part is the face
    for window in face_windows(patches, patterns, np.random.default_rng(0), turn=0.0):
        row = window[-6, :, 2]  # 150 in the face
        assert abs(int(row[2]) - FACE[2]) < 8 and abs(int(row[-2]) - FACE[2]) > 8


def test_calibration_pairs_are_drawn_evenly_and_are_a_function_of_the_draw():
    patches = face_patches(material(), seed=0).reduced_to(12)
    pixels, classes = calibration_pairs(patches, 2000, np.random.default_rng(3))
    assert pixels.shape == (2000, 12, 12, 3) and pixels.dtype == np.uint8
    counts = np.bincount(classes, minlength=len(PATTERNS))
    assert len(counts) == 45 and counts.min() > 15
    again = calibration_pairs(patches, 2000, np.random.default_rng(3))
    assert np.array_equal(pixels, again[0]) and np.array_equal(classes, again[1])


def test_detection_meets_windows_within_what_calibration_puts_right():
    patterns = near_patterns(500, np.random.default_rng(0))
    assert patterns[:, 0].min() >= SCALES[0] - 1e-6 and patterns[:, 0].max() <= SCALES[-1] + 1e-6
    assert np.abs(patterns[:, 1:]).max() <= OFFSETS[-1] + 1e-6


def test_windows_without_faces_show_none():
    some = material()
    draw = np.random.default_rng(0)
    anywhere = np.concatenate([draw.uniform(-20, 120, (500, 2)), draw.uniform(10, 80, (500, 1))], axis=1)
    kept = apart(anywhere.astype(np.float32), some.photos[0][0][0])
    assert 0 < len(kept) < 500
    assert overlap(kept, squares_of(some.photos[0][0][0].boxes)).max() < APART
    found = empty_windows(some, 400, seed=0)
    assert found.shape[1:] == (48, 48, 3) and 300 < len(found) < 500


def test_light_changes_pixels_not_shapes():
    windows = np.random.default_rng(0).integers(0, 256, (40, 24, 24, 3), np.uint8)
    other = relit(windows, np.random.default_rng(1))
    assert other.shape == windows.shape and other.dtype == np.uint8
    grey = (other == other[..., :1]).all(axis=(1, 2, 3))
    assert 3 <= grey.sum() <= 24
    assert not (other == windows).all(axis=(1, 2, 3)).any()


def test_thresholds_let_the_stated_share_pass():
    scores = np.sort(np.random.default_rng(0).random(1000).astype(np.float32))
    threshold = threshold_for(0.97, scores)
    assert (scores >= threshold).mean() == pytest.approx(0.97, abs=0.002)
    lost = np.concatenate([np.zeros(500, np.float32), scores])  # lost before: not this level's fault
    assert threshold_for(0.97, lost) == threshold


# --- runs ---------------------------------------------------------------------------------------------------------


def batches(step: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(step)
    classes = draw.integers(0, 2, 8).astype(np.int32)
    return (draw.integers(0, 128, (8, 24, 24, 3)) + classes[:, None, None, None] * 100).astype(np.uint8), classes


def test_an_interrupted_network_ends_as_one_that_was_not(tmp_path):
    shape = replace(SMALL["detect24"], dropout=(0.1, 0.3, 0.3), normalised=True)
    recipe = NetworkRecipe(steps=9, every=3)
    whole = train_network("one", shape, batches, recipe, tmp_path, lambda _: None)

    def stops(step: int) -> tuple[np.ndarray, np.ndarray]:
        if step == 7:
            raise KeyboardInterrupt
        return batches(step)

    seen: list[object] = []
    with pytest.raises(KeyboardInterrupt):
        train_network("two", shape, stops, recipe, tmp_path, lambda _: None)
    resumed = train_network("two", shape, batches, recipe, tmp_path, lambda line: seen.append(line["step"]))
    assert seen == [9]  # it went on at step 6
    assert whole.keys() == resumed.keys()
    assert all(np.array_equal(whole[name], resumed[name]) for name in whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.npz", "two.npz"]


def test_a_cascade_is_trained_level_by_level_and_runs(tmp_path):
    recipes = {name: NetworkRecipe(steps=4, every=2) for name in SMALL}
    training = CascadeTraining(shapes=SMALL, recipes=recipes, batches=(32, 32, 16), empty=100, each=4)
    some = CascadeMaterial(material(), (photo(50, 40, 44),))
    lines: list[dict[str, object]] = []
    weights = train_cascade(tmp_path, some, training, lines.append)
    order = [line.get("network", line.get("level")) for line in lines if line.get("step", 4) == 4]
    assert order == ["detect12", "calibrate12", 1, "detect24", "calibrate24", 2, "detect48", "calibrate48", 3]
    assert len(weights.thresholds) == 3
    assert (tmp_path / "mined24.npz").exists() and (tmp_path / "mined48.npz").exists()
    detections = Cascade(replace(training.search, model=str(tmp_path / "cascade.npz"))).detect_batch([photo().pixels])[
        0
    ]
    assert detections.boxes.shape[1] == 4
    lines.clear()
    again = train_cascade(tmp_path, some, training, lines.append)
    assert again == weights and not any("network" in line for line in lines)


def test_variants_are_trained_and_share_the_levels_that_do_not_differ(tmp_path):
    some = CascadeMaterial(material(), (photo(50, 40, 44),))
    lines: list[dict[str, object]] = []
    train_variants(tmp_path, some, ["mined", "inceptron"], lines.append, length=0.001)
    assert [line["variant"] for line in lines if "level" in line] == ["mined"] * 3 + ["inceptron"] * 3
    mined, other = (read_weights(tmp_path / name / "cascade.npz") for name in ("mined", "inceptron"))
    assert {name for name in mined.networks if mined.networks[name] != other.networks[name]} == {"detect48"}
    assert mined.thresholds[:2] == other.thresholds[:2]
    lines.clear()
    train_variants(tmp_path, some, ["inceptron"], lines.append, length=0.001)  # nothing is made again
    assert not any("network" in line for line in lines)


def test_every_variant_can_be_built_and_one_learns_from_one_set_alone(tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(variants, "train_cascade", lambda folder, some, training, _: seen.update({folder.name: some}))
    photos = [([photo()], 0.5), ([photo(20)], 0.5)]
    some = CascadeMaterial(Material(photos, material().tiles, material().empty), (photo(),))
    train_variants(tmp_path, some, VARIANTS, lambda _: None)
    assert seen.keys() == VARIANTS.keys()
    assert (len(seen["one_set"].training.photos), len(seen["one_set"].training.tiles)) == (1, 0)
    assert seen["mined"] is some
