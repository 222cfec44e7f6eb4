"""Batch normalisation in one kernel computes what Keras's layer computes."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from models.training.normalisation import FusedBatchNormalization

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
    return [np.asarray(gradient) for gradient in tape.gradient(total, wanted)]


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-4), ("mixed_bfloat16", 0.1)])
def test_outputs_gradients_and_statistics_are_those_of_keras(dtype: str, tolerance: float) -> None:
    pytest.importorskip("tensorflow")
    theirs, ours = both(dtype)
    expected, made = (np.asarray(layer(maps(), training=True)).astype(np.float32) for layer in (theirs, ours))
    assert np.abs(expected - made).max() < tolerance
    assert np.allclose(theirs.moving_mean, ours.moving_mean, atol=1e-2 if "16" in dtype else 1e-5)
    rows = np.prod(SHAPE[:3])
    before = both(dtype)[0].moving_variance
    corrected = (np.asarray(theirs.moving_variance) - 0.9 * before) * (rows / (rows - 1)) + 0.9 * np.asarray(before)
    assert np.allclose(corrected, ours.moving_variance, rtol=1e-2 if "16" in dtype else 1e-4)
    if dtype == "float32":
        for one, other in zip(*(gradients(layer, maps()) for layer in both()), strict=True):
            assert np.allclose(one, other, atol=2e-3, rtol=1e-3)


def test_without_training_and_frozen_it_uses_the_running_statistics() -> None:
    theirs, ours = both()
    assert np.allclose(theirs(maps()), ours(maps()), atol=1e-6)
    ours.trainable = False
    before = np.array(ours.moving_mean)
    assert np.allclose(theirs(maps()), ours(maps(), training=True), atol=1e-6)
    assert np.array_equal(before, ours.moving_mean)
