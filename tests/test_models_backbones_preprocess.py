"""What the networks are fed is what their weights were trained with."""

from __future__ import annotations

import numpy as np
import pytest

from models.backbones.features import build_features
from models.backbones.preprocess import CAFFE, UNIT
from models.backbones.registry import BACKBONES


def pixels(channels: int, shape: tuple[int, int] = (32, 40)) -> np.ndarray:
    """Returns (2, h, w, channels) uint8 with every value from 0 to 255 in every channel."""
    values = np.random.default_rng(0).integers(0, 256, (2, *shape, channels), np.uint8)
    values.reshape(-1, channels)[:256] = np.arange(256)[:, None]
    return values


@pytest.mark.parametrize("name", ["vgg16", "vgg19"])
def test_imagenet_networks_are_fed_as_keras_feeds_them(name: str) -> None:
    import keras

    images = pixels(3)
    theirs = getattr(keras.applications, name).preprocess_input(images.astype(np.float32))
    assert BACKBONES[name].preprocess is CAFFE
    assert np.array_equal(np.asarray(CAFFE.apply(images.astype(np.float32))), theirs)


@pytest.mark.parametrize("name", ["vgg16", "face_vgg"])
def test_it_happens_once_inside_the_extractor(name: str) -> None:
    import keras

    kind = BACKBONES[name]
    extractor = build_features(name, "random", pooling="avg", size=(32, 40))
    inside = keras.Model(extractor.input, extractor.get_layer("preprocess").output)
    images = pixels(kind.channels)
    expected = kind.preprocess.apply(images.astype(np.float32))
    assert extractor.input.dtype == "uint8"
    assert np.array_equal(np.asarray(inside(images)), np.asarray(expected))
    assert [layer.name for layer in extractor.layers].count("preprocess") == 1


def test_grey_crops_become_numbers_from_zero_to_one() -> None:
    fed = np.asarray(UNIT.apply(np.asarray([[[[0.0], [51.0], [255.0]]]], np.float32))).ravel()
    assert np.allclose(fed, [0, 0.2, 1], atol=1e-7)
    assert BACKBONES["face_vgg"].preprocess is UNIT


def test_channels_are_turned_before_the_mean_is_taken_off() -> None:
    fed = np.asarray(CAFFE.apply(np.asarray([[[[255.0, 128.0, 0.0]]]], np.float32))).ravel()
    assert np.allclose(fed, [0 - 103.939, 128 - 116.779, 255 - 123.68], atol=1e-5)
