"""Networks by name: what they give, which weights they take, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.backbones.backbone import BackboneError, TrainingOptions
from models.backbones.features import build_features
from models.backbones.registry import BACKBONES, backbone
from models.backbones.shape import FaceVggShape
from models.detectors.cropping import resized
from models.training.augment import MiddleCrop


def crops(count: int, height: int, width: int, channels: int) -> np.ndarray:
    """Returns smooth uint8 pictures, no two alike."""
    draw = np.random.default_rng(3)
    coarse = draw.integers(0, 256, (count, 4, 4, channels))
    return np.kron(coarse, np.ones((1, -(-height // 4), -(-width // 4), 1)))[:, :height, :width].astype(np.uint8)


def write_npz(path: Path, *, seed: int = 0, without: str = "") -> Path:
    """Writes face_vgg weights drawn from a seed, normalisation away from its defaults."""
    draw = np.random.default_rng(seed)
    arrays: dict[str, np.ndarray] = {}
    before = 1
    for block, width in enumerate(FaceVggShape().widths, 1):
        for conv in (1, 2):
            name = f"block{block}_conv{conv}"
            arrays[f"{name}/kernel"] = draw.normal(0, (2 / (9 * before)) ** 0.5, (3, 3, before, width))
            arrays[f"{name}/gamma"] = draw.uniform(0.8, 1.2, width)
            arrays[f"{name}/beta"] = draw.normal(0.1, 0.1, width)
            arrays[f"{name}/mean"] = draw.normal(0, 0.1, width)
            arrays[f"{name}/variance"] = draw.uniform(0.5, 1.5, width)
            before = width
    np.savez(path, **{name: value.astype(np.float16) for name, value in arrays.items() if name != without})
    return path


def of(model: Any, images: np.ndarray) -> np.ndarray:
    return np.asarray(model(images, training=False))


@pytest.mark.parametrize(
    "name, pooling, size, width",
    [
        ("face_vgg", "avg", (48, 48), 384),
        ("face_vgg", "multi", (48, 48), 32 + 64 + 128 + 256 + 384),
        ("face_vgg", "flatten", (48, 64), 3 * 4 * 384),
        ("face_vgg", "multi", (16, 16), 864),
        ("vgg16", "avg", (32, 32), 512),
        ("vgg16", "multi", (32, 32), 64 + 128 + 256 + 512 + 512),
        ("vgg19", "flatten", (32, 64), 1 * 2 * 512),
    ],
)
def test_the_width_of_features(name: str, pooling: str, size: tuple[int, int], width: int) -> None:
    model = build_features(name, "random", pooling=pooling, size=size)
    assert model.output_shape == (None, width)
    assert model.input_shape == (None, *size, BACKBONES[name].channels)


def test_pooled_features_are_means_and_their_parts_agree(tmp_path: Path) -> None:
    weights = str(write_npz(tmp_path / "w.npz"))
    images = crops(3, 48, 64, 1)
    features = {
        pooling: of(build_features("face_vgg", weights, pooling=pooling, size=(48, 64)), images)
        for pooling in ("avg", "multi", "flatten")
    }
    maps = features["flatten"].reshape(3, 3 * 4, 384)
    assert np.allclose(features["avg"], maps.mean(1), rtol=1e-5, atol=1e-6)
    assert np.array_equal(features["multi"][:, -384:], features["avg"])
    assert np.abs(features["avg"][0] - features["avg"][1]).max() > 1e-3


@pytest.mark.parametrize("name, pooling, size", [
    ("face_vgg", "multi", (48, 64)), ("face_vgg", "flatten", (16, 32)), ("vgg16", "avg", (32, 32)),
])  # fmt: skip
def test_mirrored_features_are_the_mean_of_both_sides(name: str, pooling: str, size: tuple[int, int]) -> None:
    images = crops(3, *size, BACKBONES[name].channels)
    plain, both = (
        build_features(name, "random", pooling=pooling, size=size, seed=4, flip_average=mirrored)
        for mirrored in (False, True)
    )
    assert both.output_shape == plain.output_shape
    turned = np.ascontiguousarray(images[:, :, ::-1])
    assert np.allclose(of(both, images), (of(plain, images) + of(plain, turned)) / 2, rtol=1e-5, atol=1e-6)
    assert np.array_equal(of(both, images), of(both, turned))
    assert np.abs(of(both, images) - of(plain, images)).max() > 1e-4


def test_pixels_may_be_scaled_as_other_weights_expect() -> None:
    """Symmetric pixels are unit pixels of twice the contrast, less 1: images of another contrast give the same."""
    images = crops(3, 48, 48, 1) // 2 + 128  # unit: 0.5 to 1; symmetric: 0 to 1
    as_symmetric = np.clip(2.0 * images - 255, 0, 255).astype(np.uint8)
    how: Any = {"pooling": "avg", "size": (48, 48), "seed": 4}
    symmetric = of(build_features("face_vgg", "random", preprocess="symmetric", **how), images)
    unit = of(build_features("face_vgg", "random", preprocess="unit", **how), as_symmetric)
    np.testing.assert_allclose(symmetric, unit, rtol=1e-4, atol=1e-5)
    assert (of(build_features("face_vgg", "random", **how), as_symmetric) == unit).all(), "unit is its own"
    with pytest.raises(BackboneError, match="is not one of caffe, symmetric, unit"):
        build_features("face_vgg", "random", preprocess="torch", **how)


@pytest.mark.parametrize("size, cut", [((48, 64), 0.0625), ((64, 48), 0.25)])
def test_a_mirror_image_may_be_a_narrower_frame(size: tuple[int, int], cut: float) -> None:
    """Enlarged as the program enlarges crops elsewhere, but for its rounding to whole values."""
    height, width = size
    down, across = int(height * cut + 0.5), int(width * cut + 0.5)
    images = crops(3, *size, BACKBONES["face_vgg"].channels)
    how: Any = {"pooling": "multi", "size": size, "seed": 4}
    plain = build_features("face_vgg", "random", **how)
    both = build_features("face_vgg", "random", flip_average=True, flip_cut=cut, **how)
    inner = images[:, down : height - down, across : width - across, :][:, :, ::-1]
    narrower = np.stack([resized(np.ascontiguousarray(one), size).reshape(*size, 1) for one in inner])
    expected = (of(plain, images) + of(plain, narrower)) / 2
    near = np.abs(of(both, images) - expected).max()
    whole = build_features("face_vgg", "random", flip_average=True, **how)
    assert near < 0.1 * np.abs(of(whole, images) - expected).max()


@pytest.mark.parametrize(
    "name, size", [("face_vgg", (15, 48)), ("face_vgg", (48, 15)), ("vgg16", (31, 64)), ("vgg19", (64, 31))]
)
def test_a_size_that_collapses_is_refused(name: str, size: tuple[int, int]) -> None:
    with pytest.raises(
        BackboneError, match=rf"features\.input_size={size[0]}x{size[1]} is too small for {name}; use \d\d or"
    ):
        build_features(name, "random", pooling="avg", size=size)


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_the_smallest_size_is_the_smallest_that_leaves_a_pixel(name: str) -> None:
    kind = BACKBONES[name]
    assert kind.build(kind.smallest_size, kind.smallest_size, None).outputs[-1].shape[1:3] == (1, 1)
    kind.check_size(*kind.native_size)


def test_unknown_words_are_refused_naming_the_known_ones() -> None:
    with pytest.raises(BackboneError, match=r"features\.backbone=vgg17 is not one of face_vgg, .*, vgg16, vgg19"):
        backbone("vgg17")
    with pytest.raises(BackboneError, match=r"features\.pooling=max is not one of avg, multi, flatten"):
        build_features("face_vgg", "random", pooling="max", size=(16, 16))


@pytest.mark.parametrize(
    "name, weights, words",
    [
        ("face_vgg", "nowhere.npz", "no file nowhere.npz; nothing is downloaded"),
        ("face_vgg", "imagenet", "there are no ImageNet weights for face_vgg"),
        ("vgg16", "bundled", "there are no bundled weights for vgg16"),
        (
            "vgg16",
            "imagenet",
            "python -c 'import keras; keras.applications.VGG16(include_top=False)', which leaves it in",
        ),
        ("vgg16", "imagenet", "models/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5; nothing is downloaded"),
        ("vgg19", "imagenet", "models/vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5; nothing is downloaded"),
    ],
)
def test_weights_that_are_missing_are_one_line_that_names_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, weights: str, words: str
) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(BackboneError) as refused:
        backbone(name).weights_path(weights)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_bundled_weights_load() -> None:
    features = of(build_features("face_vgg", "bundled", pooling="avg", size=(48, 48)), crops(2, 48, 48, 1))
    assert np.isfinite(features).all()
    assert features.std() > 0


def test_random_weights_come_from_the_seed() -> None:
    images = crops(2, 16, 16, 1)
    one, again, other = (
        of(build_features("face_vgg", "random", pooling="avg", size=(16, 16), seed=seed), images) for seed in (1, 1, 2)
    )
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


# --- files of weights -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape",
    [FaceVggShape(), FaceVggShape((8, 16, 24, 32)), FaceVggShape((8, 16), convs=3)],
)
def test_folding_the_normalisation_changes_no_feature_and_the_file_says_the_shape(
    tmp_path: Path, shape: FaceVggShape
) -> None:
    import keras

    trained = backbone("face_vgg").build_for_training({"labels": 3}, TrainingOptions(shape))
    draw = np.random.default_rng(5)
    for layer in trained.layers:
        if layer.name.endswith("_bn"):
            count = layer.gamma.shape[0]
            spread = [draw.uniform(0.5, 1.5, count), draw.normal(0, 0.3, count), draw.normal(0, 0.3, count)]
            layer.set_weights([*spread, draw.uniform(0.3, 2, count)])
        if layer.get_weights():  # as they are stored, so that folding is all that differs
            layer.set_weights([value.astype(np.float16).astype(np.float32) for value in layer.get_weights()])
    (tmp_path / "w.npz").write_bytes(backbone("face_vgg").save(trained))
    images = crops(4, 48, 48, 1)
    expected = of(keras.Model(trained.input, trained.get_layer("features").output), images)
    found = of(build_features("face_vgg", str(tmp_path / "w.npz"), pooling="avg", size=(48, 48)), images)
    assert np.abs(expected).max() > 0.1
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-4)
    joined = build_features("face_vgg", str(tmp_path / "w.npz"), pooling="multi", size=(48, 48))
    assert joined.output_shape == (None, sum(shape.widths))


def test_training_sees_the_crop_and_everything_else_the_whole_image() -> None:
    trained = backbone("face_vgg").build_for_training(
        {"labels": 3}, TrainingOptions(FaceVggShape((4, 8)), top_dropout=0.0, augment=[MiddleCrop(16)])
    )
    images = crops(2, 48, 48, 1)
    other = 255 - images
    other[:, 16:32, 16:32] = images[:, 16:32, 16:32]
    for training in (True, False):
        one, two = (np.asarray(trained(pixels, training=training)["labels"]) for pixels in (images, other))
        assert np.array_equal(one, two) == training


def test_weights_that_keras_saved_load_from_their_path(tmp_path: Path) -> None:
    made = BACKBONES["face_vgg"].build(16, 16, None)
    made.save_weights(tmp_path / "own.weights.h5")
    loaded = build_features("face_vgg", str(tmp_path / "own.weights.h5"), pooling="avg", size=(16, 16))
    images = crops(2, 16, 16, 1)
    expected = np.asarray(made(images / np.float32(255))[-1])
    assert np.allclose(of(loaded, images), expected.mean((1, 2)), rtol=1e-5, atol=1e-6)


def test_vgg16_takes_the_file_that_keras_ships_and_one_that_keras_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    made = keras.applications.VGG16(include_top=False, weights=None, input_shape=(32, 32, 3))
    home = tmp_path / "models"
    home.mkdir()
    made.save_weights(tmp_path / "own.weights.h5")
    made.save(home / str(BACKBONES["vgg16"].imagenet))  # an HDF5 file of the old kind, as the published one is
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    images = crops(2, 32, 32, 3)
    fed = keras.applications.vgg16.preprocess_input(images.astype(np.float32))
    expected = np.asarray(made(fed)).mean((1, 2))
    for weights in ("imagenet", str(tmp_path / "own.weights.h5")):
        model = build_features("vgg16", weights, pooling="avg", size=(32, 32))
        assert np.allclose(of(model, images), expected, rtol=1e-5, atol=1e-6)


def damaged(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / ("w.npz" if kind != "other network" else "w.weights.h5")
    if kind == "other network":
        BACKBONES["vgg16"].build(32, 32, None).save_weights(path)
    elif kind == "array missing":
        write_npz(path, without="block3_conv1/mean")
    elif kind == "cut short":
        data = write_npz(path).read_bytes()
        path.write_bytes(data[: len(data) // 2])
    else:
        path.write_bytes({"empty": b"", "no archive": b"no weights at all"}[kind])
    return path


@pytest.mark.parametrize("kind", ["other network", "array missing", "cut short", "empty", "no archive"])
def test_a_file_that_holds_no_such_weights_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    path = damaged(tmp_path, kind)
    with pytest.raises(BackboneError) as refused:
        build_features("face_vgg", str(path), pooling="avg", size=(48, 48))
    assert str(refused.value).startswith(f"{path} does not hold weights of face_vgg: ")
    assert "\n" not in str(refused.value)


def test_face_vgg_weights_are_refused_by_vgg16(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "w.npz")
    with pytest.raises(BackboneError, match="does not hold weights of vgg16"):
        build_features("vgg16", str(path), pooling="avg", size=(32, 32))


def test_keras_may_be_set_to_channels_first() -> None:
    import keras

    images = crops(2, 16, 16, 1)
    how = {"pooling": "multi", "size": (16, 16), "flip_average": True}
    before = of(build_features("face_vgg", "random", **how), images)
    keras.config.set_image_data_format("channels_first")
    try:
        after = of(build_features("face_vgg", "random", **how), images)
        assert keras.config.image_data_format() == "channels_first"
    finally:
        keras.config.set_image_data_format("channels_last")
    np.testing.assert_array_equal(before, after)
