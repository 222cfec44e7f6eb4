"""Training the one-shot detector: scenes, targets, the loss, and a resume that changes nothing."""

from __future__ import annotations

import csv
import io
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from models.detectors.one_shot.cells import STRIDES, boxes_of, maps_of
from models.detectors.one_shot.shape import OneShotShape
from models.training.detection.photos import Photo, read_crops, read_photos, read_scenes, read_tiles
from models.training.detection.scenes import NO_BOXES, Material, SceneRecipe, changed, make_scene
from models.training.detection.targets import targets_for

SIDE = 64
RECIPE = SceneRecipe(side=SIDE, smallest=8, largest=40)
SMALL = OneShotShape(stem=(0, 4), widths=(4, 8, 8), depths=(0, 0, 0), join=4)


def photo_with_a_face(seed: int = 0) -> Photo:
    """Returns a dark photo of noise with one bright square: the face."""
    pixels = np.random.default_rng(seed).integers(0, 60, (80, 100, 3)).astype(np.uint8)
    pixels[20:40, 30:50] = 255
    return Photo(pixels, np.asarray([[30, 20, 20, 20]], np.float32), NO_BOXES, str(seed))


def empty(seed: int = 0, grey: int = 60) -> Photo:
    pixels = np.random.default_rng(seed).integers(0, grey, (70, 90, 3)).astype(np.uint8)
    return Photo(pixels, NO_BOXES, NO_BOXES)


@pytest.fixture(scope="module")
def material() -> Material:
    photos = [photo_with_a_face(seed) for seed in range(4)]
    return Material([(photos, 1.0)], [(photos, 1.0)], [empty(seed) for seed in range(5)])


# --- scenes -----------------------------------------------------------------------------------------------------------


def test_a_scene_is_a_function_of_its_seed(material: Material) -> None:
    for number in range(20):
        one, other = (make_scene(material, RECIPE, (0, 1, number)) for _ in range(2))
        assert np.array_equal(one.pixels, other.pixels)
        assert np.array_equal(one.boxes, other.boxes)
    assert not np.array_equal(
        make_scene(material, RECIPE, (0, 1, 1)).pixels, make_scene(material, RECIPE, (0, 2, 1)).pixels
    )


@pytest.mark.parametrize("photos, pasted", [(1.0, 0.0), (0.0, 1.0)])
def test_boxes_stay_on_their_faces_whatever_is_done_to_the_photo(
    material: Material, monkeypatch: pytest.MonkeyPatch, photos: float, pasted: float
) -> None:
    monkeypatch.setattr("models.training.detection.scenes.changed", lambda pixels, _: pixels)
    recipe = SceneRecipe(side=SIDE, smallest=10, largest=30, photos=photos, pasted=pasted, rotation=0.0)
    faces = 0
    for number in range(60):
        scene = make_scene(material, recipe, (7, number))
        assert (scene.pixels.shape, scene.pixels.dtype) == ((SIDE, SIDE, 3), np.uint8)
        for x, y, width, height in scene.boxes:
            faces += 1
            inside = scene.pixels[
                max(0, round(y + height * 0.25)) : round(y + height * 0.75),
                max(0, round(x + width * 0.25)) : round(x + width * 0.75),
            ]
            if inside.size and min(x, y) >= 0:
                assert np.median(inside) > 150, number
    assert faces > 10


def test_covered_faces_stay_faces_but_look_otherwise(material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.training.detection.scenes.changed", lambda pixels, _: pixels)
    plain = SceneRecipe(side=SIDE, smallest=20, largest=40, photos=1.0, joined=0.0, rotation=0.0)
    covering = replace(plain, covered=1.0)
    shares = []
    for number in range(40):
        bare, covered = (make_scene(material, recipe, (3, number)) for recipe in (plain, covering))
        for x, y, width, height in covered.boxes.round().astype(int):
            part = covered.pixels[max(0, y) : y + height, max(0, x) : x + width]
            shares.append(float((part.max(axis=-1) > 150).mean()))
        assert len(bare.boxes) == len(covered.boxes)
    assert 0.3 < np.median(shares) < 0.85  # of each bright square a quarter to a half is dark


def test_photos_out_of_focus_keep_their_faces_and_lose_their_edges(
    material: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.training.detection.scenes.changed", lambda pixels, _: pixels)
    plain = SceneRecipe(side=SIDE, smallest=20, largest=40, photos=1.0, joined=0.0, rotation=0.0, seen=0.0)
    blurred = replace(plain, blurred=1.0)
    for number in range(20):
        sharp, soft = (make_scene(material, recipe, (3, number)) for recipe in (plain, blurred))
        assert np.array_equal(sharp.boxes[:, 2:], soft.boxes[:, 2:])  # one may be flipped
        steepest = [int(np.abs(np.diff(one.pixels.astype(int), axis=1)).max()) for one in (sharp, soft)]
        assert steepest[1] < steepest[0]


def test_scenes_without_faces_have_none(material: Material) -> None:
    recipe = SceneRecipe(side=SIDE, photos=0.0, pasted=0.0)
    assert all(len(make_scene(material, recipe, (1, number)).boxes) == 0 for number in range(10))


def test_hard_scenes_are_drawn_by_weight() -> None:
    photos = [photo_with_a_face()]
    bright = Photo(np.full((70, 90, 3), 200, np.uint8), NO_BOXES, NO_BOXES)
    weights = np.asarray([0.0, 1.0])
    material = Material([(photos, 1.0)], [(photos, 1.0)], [empty(grey=2), bright], weights)
    recipe = SceneRecipe(side=SIDE, photos=0.0, pasted=0.0, hard=1.0)
    means = [make_scene(material, recipe, (1, number)).pixels.mean() for number in range(20)]
    assert np.median(means) > 60  # padding is black, light is changed


def test_changes_of_pixels_keep_shape_and_type() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    for seed in range(60):
        out = changed(image, np.random.default_rng(seed))
        assert (out.shape, out.dtype) == (image.shape, np.uint8)


# --- targets ----------------------------------------------------------------------------------------------------------


def test_a_face_is_learned_on_the_map_of_its_size_by_the_cells_around_its_centre() -> None:
    maps = maps_of(128, 128)
    box = np.asarray([[40, 40, 20, 24]], np.float32)
    target = targets_for(maps, box, NO_BOXES)
    found = target[:, 0] == 1
    assert np.flatnonzero(found).max() < 16 * 16  # on the finest map
    assert target[found, 1].sum() == pytest.approx(1)  # each face counts once
    answers = np.zeros((16, 16, 5), np.float32)
    answers[..., 1:] = target[: 16 * 16, 2:].reshape(16, 16, 4)
    assert np.allclose(boxes_of(answers, STRIDES[0]).reshape(-1, 4)[found[: 16 * 16]], box, atol=1e-3)
    assert (target[: 16 * 16, 0].reshape(16, 16)[10:] == 0).all()


def test_what_is_ignored_is_neither_a_face_nor_none() -> None:
    maps = maps_of(64, 64)
    target = targets_for(maps, NO_BOXES, np.asarray([[0, 0, 64, 64]], np.float32))
    assert (target[:, 0] == -1).all()
    assert (targets_for(maps, NO_BOXES, NO_BOXES) == 0).all()


def test_every_face_has_a_cell_however_small() -> None:
    for side in (1.0, 5.0, 9.0, 31.0, 100.0, 500.0):
        for corner in np.linspace(0, 40, 9):
            target = targets_for(maps_of(128, 128), np.asarray([[corner, corner, side, side]], np.float32), NO_BOXES)
            middle = corner + side / 2
            if middle < 128:
                assert (target[:, 0] == 1).any(), (side, corner)


# --- files ------------------------------------------------------------------------------------------------------------


def archive(path: Path, images: dict[str, np.ndarray]) -> Path:
    with tarfile.open(path, "w") as out:
        for name, pixels in images.items():
            data = cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            out.addfile(entry, io.BytesIO(data))
    return path


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as out:
        writer = csv.DictWriter(out, fieldnames=list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_photos_are_read_with_tight_boxes_where_there_are_some(tmp_path: Path) -> None:
    from models.evaluation.box_map import BoxMap

    images = {name: np.full((40, 50, 3), value, np.uint8) for name, value in (("a.png", 10), ("mt_b.png", 20))}
    rows = [
        {"image": "a.png", "x": 1, "y": 2, "w": 10, "h": 10, "tx": 2, "ty": 3, "tw": 6, "th": 7, "group": "g"},
        {"image": "a.png", "x": 20, "y": 20, "w": 4, "h": 4, "tx": "", "ty": "", "tw": "", "th": "", "group": "g"},
        {"image": "mt_b.png", "x": 10, "y": 10, "w": 20, "h": 20},
    ]
    found = read_photos(
        archive(tmp_path / "a.tar", images), table(tmp_path / "a.csv", rows), {"mt_": BoxMap(sw=0.5, sh=0.5)}
    )
    assert found[0].boxes.tolist() == [[2, 3, 6, 7]]
    assert found[0].ignored.tolist() == [[20, 20, 4, 4]]  # no map for its convention
    assert (found[0].group, int(found[0].pixels[0, 0, 0])) == ("g", 10)
    assert found[1].boxes.tolist() == [[15, 15, 10, 10]]


def test_tiles_are_cut_from_their_sheet(tmp_path: Path) -> None:
    from models.evaluation.box_map import BoxMap

    sheet = np.zeros((192, 192, 3), np.uint8)
    sheet[96:, :96] = 77
    row = {"sheet": "s.png", "row": 1, "col": 0, "x": 5, "y": 6, "w": 50, "h": 60, "occlusion": "none"}
    rows = [
        {**row, "box_from": "human", "group": "one"},
        {**row, "box_from": "human", "group": "two", "occlusion": "mask"},
        {**row, "box_from": "other", "group": "three"},
    ]
    path = archive(tmp_path / "s.tar", {"s.png": sheet})
    (tile,) = read_tiles(path, table(tmp_path / "s.csv", rows), {"human": BoxMap()})
    assert (tile.pixels == 77).all()
    assert (tile.pixels.shape, tile.boxes.tolist(), tile.group) == ((96, 96, 3), [[5, 6, 50, 60]], "one")


def test_masked_faces_are_tiles_only_if_wanted(tmp_path: Path) -> None:
    from models.evaluation.box_map import BoxMap

    path = archive(tmp_path / "s.tar", {"s.png": np.zeros((96, 192, 3), np.uint8)})
    row = {"sheet": "s.png", "row": 0, "x": 1, "y": 1, "w": 9, "h": 9, "box_from": "human", "group": "g"}
    listed = table(
        tmp_path / "s.csv", [{**row, "col": i, "occlusion": word} for i, word in enumerate(("none", "mask"))]
    )
    assert [len(read_tiles(path, listed, {"human": BoxMap()}, covered=covered)) for covered in (False, True)] == [1, 2]


def test_crops_have_their_face_where_the_frame_says(tmp_path: Path) -> None:
    path = archive(tmp_path / "c.tar", {"a.png": np.zeros((40, 20, 3), np.uint8)})
    (crop,) = read_crops(path, np.asarray([0.1, 0.0, 0.8, 0.5]))
    assert crop.boxes.tolist() == [[2, 0, 16, 20]]


def test_scenes_may_be_left_out(tmp_path: Path) -> None:
    images = {name: np.full((9, 9, 3), value, np.uint8) for value, name in enumerate("abc")}
    found = read_scenes(archive(tmp_path / "s.tar", images), frozenset("b"))
    assert [int(scene.pixels[0, 0, 0]) for scene in found] == [0, 2]


# --- a small network --------------------------------------------------------------------------------------------------


def lesson(material: Material, recipe: Any) -> Any:
    from models.training.detection.lesson import Detection

    validation = [photo_with_a_face(9), empty(9)]
    return Detection(material, RECIPE, validation, recipe, an_epoch=16, mine_every=2)


def trained(folder: Path, material: Material, **other: Any) -> tuple[Any, list[dict[str, float]]]:
    import keras

    from models.training.detection.network import build
    from models.training.loop import train
    from models.training.recipe import Recipe

    recipe = Recipe(
        epochs=3, batch_size=8, optimiser="adam", learning_rate=1e-2, weight_decay=0.01, ema_decay=0.9,
        warmup_epochs=0.0, precision="float32",
    )  # fmt: skip
    keras.utils.set_random_seed(1)
    network = build(SMALL, statistics_momentum=0.9)
    return network, train(network, lesson(material, recipe), recipe, folder, **other)


def test_a_training_that_was_stopped_ends_with_the_same_weights(tmp_path: Path, material: Material) -> None:
    whole, curves = trained(tmp_path / "whole", material)
    for _ in range(3):
        parts, resumed = trained(tmp_path / "parts", material, stop_after=1)
    assert resumed == curves
    assert set(curves[-1]) == {"epoch", "learning_rate", "loss", "val_recall", "val_threshold"}
    for one, other in zip(whole.get_weights(), parts.get_weights(), strict=True):
        assert np.array_equal(one, other)


def test_the_loss_falls_with_better_boxes_and_surer_faces() -> None:
    from models.training.detection.loss import DetectionLoss

    maps = maps_of(SIDE, SIDE)
    target = targets_for(maps, np.asarray([[20, 20, 20, 20]], np.float32), NO_BOXES)[None]
    right = np.zeros((1, target.shape[1], 5), np.float32)
    right[..., 0] = np.where(target[..., 0] == 1, 4, -4)
    right[..., 1:] = target[..., 2:]
    loss = DetectionLoss()

    def of(answers: np.ndarray) -> float:
        return float(np.asarray(loss(target, answers)).sum())

    unsure, shifted = right.copy(), right.copy()
    unsure[..., 0] /= 4
    shifted[..., 1] += 1
    assert of(right) < of(unsure)
    assert of(right) < of(shifted)
    far = right.copy()
    far[..., 1] += 100  # no overlap any more, yet it matters how far
    assert of(shifted) < of(far)
    assert np.isfinite(of(np.full_like(right, 50.0)))
