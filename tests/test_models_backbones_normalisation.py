"""Batch normalisation in one kernel computes what Keras's layer computes."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from models.backbones.normalisation import FusedBatchNormalization

SHAPE = (16, 5, 5, 3)


def both(dtype: str = "float32") -> tuple[Any, Any]:
    """Returns Keras's layer and ours, with the same weights, none of which is trivial."""
    draw = np.random.default_rng(0)
    weights = [draw.uniform(0.5, 1.5, SHAPE[-1]).astype(np.float32) for _ in range(4)]  # gamma, beta, mean, variance
    kinds = keras.layers.BatchNormalization, FusedBatchNormalization
    layers = [kind(momentum=0.9, epsilon=1e-3, dtype=dtype, name=f"normalise{i}") for i, kind in enumerate(kinds)]
    for layer in layers:
        layer.build(SHAPE)
        layer.set_weights(weights)
    return layers[0], layers[1]


def maps() -> np.ndarray:
    return np.random.default_rng(1).normal([0.0, 2.0, -5.0], [1.0, 0.1, 3.0], SHAPE).astype(np.float32)


def gradients(layer: Any, pixels: np.ndarray) -> list[np.ndarray]:
    """Returns the gradients of a weighed sum of the outputs: of maps, gamma and beta."""
    import tensorflow as tf

    weigh = tf.constant(np.random.default_rng(2).normal(size=SHAPE).astype(np.float32))
    with tf.GradientTape() as tape:
        x = tf.constant(pixels)
        tape.watch(x)
        total = tf.reduce_sum(tf.cast(layer(x, training=True), "float32") * weigh)
    wanted = [x, layer.gamma.value, layer.beta.value]
    return [gradient.numpy() for gradient in tape.gradient(total, wanted)]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the kernel is TensorFlow's")
@pytest.mark.parametrize("dtype, near", [("float32", 1e-4), ("mixed_bfloat16", 0.06)])
def test_outputs_gradients_and_statistics_are_those_of_keras(dtype: str, near: float) -> None:
    theirs, ours = both(dtype)
    expected, made = theirs(maps(), training=True), ours(maps(), training=True)
    assert expected.dtype == made.dtype
    assert np.abs(np.float32(expected) - np.float32(made)).max() < near
    assert np.allclose(theirs.moving_mean, ours.moving_mean, atol=near / 10)
    for one, other in zip(*(gradients(layer, maps()) for layer in both(dtype)), strict=True):
        assert np.abs(np.float32(one) - np.float32(other)).max() < near * max(1.0, np.abs(np.float32(one)).max())


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the kernel is TensorFlow's")
def test_the_running_variance_is_corrected_for_the_mean() -> None:
    (theirs, ours), rows = both(), np.prod(SHAPE[:3])
    before = np.asarray(theirs.moving_variance.numpy())
    theirs(maps(), training=True), ours(maps(), training=True)
    expected = (theirs.moving_variance.numpy() - 0.9 * before) * (rows / (rows - 1)) + 0.9 * before
    assert np.allclose(expected, ours.moving_variance.numpy(), rtol=1e-4)
    assert not np.allclose(theirs.moving_variance.numpy(), ours.moving_variance.numpy(), rtol=1e-4)


@pytest.mark.parametrize("options", [{"axis": 1}, {"scale": False}, {"center": False}])
def test_what_the_kernel_has_not_is_left_to_keras(options: dict[str, Any]) -> None:
    theirs, ours = (kind(**options) for kind in (keras.layers.BatchNormalization, FusedBatchNormalization))
    for training in (True, False):
        expected, made = (layer(maps(), training=training).numpy() for layer in (theirs, ours))
        assert np.array_equal(expected, made)
    rows = maps()[:, 0, 0]
    one, other = (kind()(rows, training=True).numpy() for kind in (type(theirs), type(ours)))
    assert np.array_equal(one, other)


def test_frozen_it_uses_the_running_statistics() -> None:
    theirs, ours = both()
    ours.trainable = False
    before = ours.moving_mean.numpy()
    assert np.allclose(theirs(maps()).numpy(), ours(maps(), training=True).numpy(), atol=1e-6)
    assert np.array_equal(before, ours.moving_mean.numpy())
