"""Networks that look at places of a face: centres, attention, regions, and the way of their weights into a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_models_backbones import crops

from models.backbones.action_units import CENTRES, centre_matrices, even_centres
from models.backbones.backbone import BackboneError, TrainingOptions
from models.backbones.landmarks import BUNDLED_LANDMARKS, POINTS, landmark_kernels
from models.backbones.registry import backbone
from models.backbones.shape import FaceVggShape
from models.backbones.weights import check_weights_file
from models.runtimes.device import Device
from models.runtimes.feature_settings import FeatureSettings

NAMES = ("face_vgg_attention", "face_vgg_regions", "face_vgg_grid")
SHAPE = FaceVggShape((4, 6, 8, 8), 1)


def face(turn: float = 0.0) -> np.ndarray:
    """Returns (1, 68, 2) landmarks with inner eye corners 0.2 apart, turned by degrees about (0.5, 0.5)."""
    points = np.random.default_rng(0).uniform(0.2, 0.8, (POINTS, 2))
    points[39], points[42], points[21], points[18] = (0.4, 0.4), (0.6, 0.4), (0.42, 0.3), (0.25, 0.31)
    angle = np.radians(turn)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.asarray((points - 0.5) @ rotation.T + 0.5, np.float32)[None]


def centres_of(points: np.ndarray) -> np.ndarray:
    from models.backbones.region_layers import ActionUnitCentres

    return np.asarray(ActionUnitCentres()(points))


def test_centres_lie_where_the_table_says() -> None:
    found = centres_of(face())[0]
    assert found.shape == (2 * len(CENTRES), 2)
    assert found[0] == pytest.approx((0.42, 0.3 - 0.1))  # half a scale above the inner end of the brow
    assert found[1] == pytest.approx((0.25, 0.31 - 0.2 / 3))
    means, _ = centre_matrices()
    assert means.sum(1) == pytest.approx(1)


def test_centres_turn_with_the_face() -> None:
    angle = np.radians(30)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    assert centres_of(face(30)) == pytest.approx((centres_of(face()) - 0.5) @ rotation.T + 0.5, abs=1e-5)


def test_attention_is_one_at_a_centre_and_falls_off() -> None:
    from models.backbones.region_layers import SPREAD, attention

    centres = np.array([[[4.5 / 12, 7.5 / 12], [10.5 / 12, 1.5 / 12]]], np.float32)
    seen = np.asarray(attention(centres, 12, 12))[0, :, :, 0]
    assert (seen[7, 4], seen[1, 10]) == (pytest.approx(1), pytest.approx(1))
    assert seen[7, 6] == pytest.approx(np.exp(-((2 / 12) ** 2) / (2 * SPREAD**2)), rel=1e-4)
    assert seen[7, 4] > seen[7, 5] > seen[7, 6] > seen[11, 6] > 0
    assert seen.max() <= 1


def test_attention_raises_and_masks_nothing() -> None:
    from models.backbones.region_layers import SPREAD, Attention

    maps = np.random.default_rng(1).uniform(0.1, 1, (2, 6, 8, 3)).astype(np.float32)
    made = np.asarray(Attention()([maps, np.full((2, 1, 2), 0.5, np.float32)]))
    assert (made >= maps).all() and (made <= 2 * maps).all()
    near = np.exp(-((0.5 / 6) ** 2 + (0.5 / 8) ** 2) / (2 * SPREAD**2))
    assert made[:, 2, 3] == pytest.approx((1 + near) * maps[:, 2, 3], rel=1e-4)
    assert made[:, 0, 0] == pytest.approx(maps[:, 0, 0], rel=1e-3)


def test_regions_are_cut_linearly_around_their_centres() -> None:
    """On a map whose values are its places, a region's values are the places that it was sampled at."""
    from models.backbones.region_layers import REGION, REGION_PIXELS, cut_regions

    rows, columns = np.meshgrid((np.arange(16) + 0.5) / 16, (np.arange(12) + 0.5) / 12, indexing="ij")
    maps = np.stack([columns, rows], axis=-1)[None].astype(np.float32)
    centres = np.array([[[0.5, 0.4], [0.3, 0.7], [0.02, 0.5]]], np.float32)
    cut = np.asarray(cut_regions(maps, centres))[0]
    steps = ((np.arange(REGION_PIXELS) + 0.5) / REGION_PIXELS - 0.5) * REGION
    for region in (0, 1):
        x, y = centres[0, region]
        assert cut[region, 2, :, 0] == pytest.approx(x + steps, abs=1e-5)
        assert cut[region, :, 3, 1] == pytest.approx(y + steps, abs=1e-5)
    assert cut[2, 0, :, 0].min() == pytest.approx(0.5 / 12)  # beyond the map its border repeats


def test_each_region_has_a_convolution_of_its_own() -> None:
    """As written down: nine neighbours times nine taps, relu, mean."""
    from models.backbones.region_layers import REGION_FILTERS, RegionConvolutions, cut_regions

    draw = np.random.default_rng(2)
    maps, centres = (
        draw.normal(size=(2, 9, 8, 5)).astype(np.float32),
        draw.uniform(0.1, 0.9, (2, 3, 2)).astype("float32"),
    )
    layer = RegionConvolutions()
    layer.build([maps.shape, centres.shape])
    layer.bias.assign(draw.normal(size=layer.bias.shape))
    found = np.asarray(layer([maps, centres])).reshape(2, 3, REGION_FILTERS)
    kernel = np.asarray(layer.kernel).reshape(3, 3, 3, 5, REGION_FILTERS)
    cut = np.asarray(cut_regions(maps, centres))
    for row, region in np.ndindex(2, 3):
        answers = np.zeros((4, 4, REGION_FILTERS), np.float32)
        for y, x in np.ndindex(4, 4):
            near = cut[row, region, y : y + 3, x : x + 3]
            answers[y, x] = np.tensordot(near, kernel[region], 3) + np.asarray(layer.bias)[region, 0]
        assert found[row, region] == pytest.approx(np.maximum(answers, 0).mean((0, 1)), abs=1e-5)
    half = RegionConvolutions(dtype="mixed_bfloat16")
    half.build([maps.shape, centres.shape])
    half.set_weights(layer.get_weights())
    near = np.asarray(half([maps, centres])).reshape(found.shape)
    assert near.dtype == np.float32 and np.abs(near - found).max() < 0.02 * np.abs(found).max()


def test_an_even_grid_has_as_many_places_as_there_are_centres() -> None:
    assert even_centres().shape == (2 * len(CENTRES), 2)
    assert even_centres().mean(0) == pytest.approx((0.5, 0.5))


def trained(name: str, seed: int = 0) -> Any:
    """Returns a tiny network after two steps, and its features' function."""
    import keras

    keras.utils.set_random_seed(seed)
    options = TrainingOptions(shape=SHAPE, top_dropout=0.0, statistics_momentum=0.5, seed=seed)
    network = backbone(name).build_for_training({"labels": 2}, options)
    network.compile(optimizer="adam", loss=keras.losses.CategoricalCrossentropy(from_logits=True), jit_compile=False)
    images, labels = crops(16, 48, 48, 1), np.eye(2, dtype=np.float32)[np.arange(16) % 2]
    network.fit(images, {"labels": labels}, batch_size=8, epochs=1, verbose=0)
    return network


@pytest.mark.parametrize("name", NAMES)
def test_a_file_gives_the_features_that_the_training_had(name: str, tmp_path: Path) -> None:
    import keras

    network = trained(name)
    kind = backbone(name)
    path = tmp_path / f"{name}.npz"
    path.write_bytes(kind.save(network))
    check_weights_file(name, str(path))
    images = crops(11, 48, 48, 1)
    inner = keras.Model(network.input, network.get_layer("features").output)
    wanted = np.asarray(inner.predict(images, verbose=0))
    device = Device(FeatureSettings(name, str(path), pooling="avg", height=48, width=48, batch_size=16))
    found = device.features(images)
    assert found.shape == (11, device.width) and device.width >= 8
    assert np.abs(found - wanted).max() < 0.01 * np.abs(wanted).max()
    alone = np.concatenate([device.features(images[row : row + 1]) for row in range(len(images))])
    assert np.array_equal(alone, found)
    other = Device(FeatureSettings(name, str(path), pooling="avg", height=48, width=48, batch_size=8))
    assert np.array_equal(np.concatenate([other.features(images[:8]), other.features(images[8:])]), found)
    again = backbone(name).build_for_training({"labels": 2}, TrainingOptions(shape=SHAPE, seed=5))
    kind.start_from(again, path)
    assert kind.save(again) == path.read_bytes()


@pytest.mark.parametrize("name", ["face_vgg_attention", "face_vgg_regions"])
def test_landmarks_are_looked_for_but_not_trained(name: str) -> None:
    network = trained(name)
    with np.load(BUNDLED_LANDMARKS) as stored:
        for layer in landmark_kernels():
            kernel = network.get_layer(layer).get_weights()[0]
            assert np.array_equal(kernel.astype(np.float16), stored[f"{layer}/kernel"])
    assert not [v.path for v in network.trainable_variables if v.path.startswith("landmarks_")]


def test_features_depend_on_where_the_landmarks_are() -> None:
    import keras

    kind = backbone("face_vgg_attention")
    keras.utils.set_random_seed(0)
    network = kind.build(48, 48)
    images = crops(2, 48, 48, 1).astype(np.float32) / 255
    before = np.asarray(network(images)[-1])
    network.get_layer("centres").jitter = 0.1
    assert np.abs(np.asarray(network(images)[-1]) - before).max() > 1e-4


@pytest.mark.parametrize("given", ["face_vgg", *NAMES])
@pytest.mark.parametrize("asked", ["face_vgg", *NAMES])
def test_weights_of_another_network_are_refused(given: str, asked: str, tmp_path: Path) -> None:
    kind = backbone(given)
    path = tmp_path / "weights.npz"
    path.write_bytes(kind.save(kind.build_for_training({"labels": 2}, TrainingOptions(shape=SHAPE))))
    if given == asked:
        check_weights_file(asked, str(path))
        return
    with pytest.raises(BackboneError, match=rf"weights\.npz does not hold weights of {asked}: .*; set features"):
        check_weights_file(asked, str(path))


@pytest.mark.parametrize("name", NAMES)
def test_a_training_starts_from_a_plain_face_vgg(name: str, tmp_path: Path) -> None:
    plain = backbone("face_vgg")
    start = plain.build_for_training({"labels": 2}, TrainingOptions(shape=SHAPE, seed=3))
    path = tmp_path / "face_vgg.npz"
    path.write_bytes(plain.save(start))
    network = backbone(name).build_for_training({"labels": 2}, TrainingOptions(shape=SHAPE))
    backbone(name).start_from(network, path)
    kernel = start.get_layer("block2_conv1").get_weights()[0]
    assert network.get_layer("block2_conv1").get_weights()[0] == pytest.approx(kernel, abs=1e-2)
