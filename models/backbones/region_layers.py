"""Keras layers that look at places of a face: centres from landmarks, an attention map, and regions cut from a map.

All are the same for a row whatever else is in the batch, and pass gradients to the maps that they change or cut.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from models.backbones.action_units import INNER_CORNERS, centre_matrices

SPREAD = 0.07  # standard deviation of the attention around a centre, in shares of the side
REGION = 0.25  # side of a region, in shares of the map's side
REGION_PIXELS = 6  # side that a region is enlarged to
REGION_FILTERS = 16  # of the convolution that each region has for itself


@keras.saving.register_keras_serializable("pipeline")
class ActionUnitCentres(keras.layers.Layer):
    """(n, 68, 2) landmarks -> (n, 20, 2) centres of action units, in shares of the side.

    Attributes:
        jitter: standard deviation of an error added to each landmark along x and y, in shares of the side; for
            measuring how much landmark error harms. 0 adds none.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(dtype="float32", **options)
        self.jitter = 0.0
        self.seed_generator = keras.random.SeedGenerator(7)

    def call(self, points: Any) -> Any:
        if self.jitter:
            points = points + keras.random.normal(ops.shape(points), stddev=self.jitter, seed=self.seed_generator)
        means, down = centre_matrices()
        left, right = INNER_CORNERS
        across = points[:, right] - points[:, left]  # its length is a scale
        below = ops.stack([-across[:, 1], across[:, 0]], axis=1)
        return ops.matmul(means, points) + down[None, :, None] * below[:, None, :]

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0], len(centre_matrices()[1]), 2)


@keras.saving.register_keras_serializable("pipeline")
class FixedCentres(keras.layers.Layer):
    """Gives every image of a batch the same (k, 2) places."""

    def __init__(self, places: Any, **options: Any) -> None:
        super().__init__(dtype="float32", **options)
        self.places = np.asarray(places, np.float32)

    def call(self, images: Any) -> Any:
        return ops.broadcast_to(self.places[None], (ops.shape(images)[0], *self.places.shape))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0], *self.places.shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "places": self.places.tolist()}


def attention(centres: Any, height: Any, width: Any) -> Any:
    """Returns (n, height, width, 1) maps for (n, k, 2) centres: 1 at a centre, falling off as a Gaussian.

    Where centres lie close, the largest value counts, so no place has more than 1.
    """
    down, across = (_middles(side) for side in (height, width))
    x = ops.square(across - centres[:, :, :1])
    y = ops.square(down - centres[:, :, 1:])
    distance = y[:, :, :, None] + x[:, :, None, :]
    return ops.exp(-ops.min(distance, axis=1) / (2 * SPREAD**2))[..., None]


def _middles(side: Any) -> Any:
    """Returns the places of the middles of `side` pixels, in shares of the side."""
    return (ops.arange(side, dtype="float32") + 0.5) / ops.cast(side, "float32")


@keras.saving.register_keras_serializable("pipeline")
class Attention(keras.layers.Layer):
    """[(n, h, w, c) map, (n, k, 2) centres] -> the map times 1 + attention, as in a residual: nothing is masked."""

    def call(self, inputs: Any) -> Any:
        features, centres = inputs
        height, width = ops.shape(features)[1:3]
        seen = attention(ops.cast(centres, "float32"), height, width)
        return features * (1 + ops.cast(seen, features.dtype))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape[0]


@keras.saving.register_keras_serializable("pipeline")
class RegionConvolutions(keras.layers.Layer):
    """[(n, h, w, c) map, (n, k, 2) centres] -> (n, k * 16): each region enlarged, with a convolution of its own.

    A region is a square around its centre, sampled bilinearly at 6 x 6 places; beyond the map its border repeats. The
    3 x 3 convolution, relu and mean that follow have weights of their own for every region.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(autocast=False, **options)  # bfloat16 would round the centres

    def build(self, input_shape: Any) -> None:
        (*_, channels), (_, regions, _) = input_shape
        size = (regions, 9 * channels, REGION_FILTERS)
        draw = keras.initializers.RandomNormal(stddev=(2 / (9 * channels)) ** 0.5)
        self.kernel = self.add_weight(name="kernel", shape=size, initializer=draw)
        bias = (regions, 1, REGION_FILTERS)
        self.bias = self.add_weight(name="bias", shape=bias, initializer="zeros", autocast=False)

    def call(self, inputs: Any) -> Any:
        features, centres = inputs
        cut = cut_regions(ops.cast(features, self.compute_dtype), centres)
        _, regions, side, _, channels = cut.shape
        # All nine taps of the kernel at every place, then their sum over neighbours. Gathering the neighbours first is
        # the same sum and takes three times the CPU time, for it writes nine copies of the regions.
        kernel = ops.reshape(ops.cast(self.kernel, self.compute_dtype), (regions, 9, channels, REGION_FILTERS))
        taps = ops.reshape(ops.transpose(kernel, (0, 2, 1, 3)), (regions, channels, 9 * REGION_FILTERS))
        tapped = ops.matmul(ops.reshape(cut, (-1, regions, side * side, channels)), taps)
        tapped = ops.reshape(tapped, (-1, regions, side, side, 9, REGION_FILTERS))
        inner = side - 2
        shifts = [(y, x) for y in range(3) for x in range(3)]
        answers = sum(tapped[:, :, y : y + inner, x : x + inner, tap] for tap, (y, x) in enumerate(shifts))
        answers = ops.relu(ops.cast(answers, "float32") + self.bias[None, :, None])
        return ops.reshape(ops.mean(answers, axis=(2, 3)), (-1, regions * REGION_FILTERS))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0][0], input_shape[1][1] * REGION_FILTERS)


def cut_regions(features: Any, centres: Any) -> Any:
    """Returns (n, k, 6, 6, c) regions of an (n, h, w, c) map around (n, k, 2) centres, in the dtype of the map."""
    height, width, channels = features.shape[1:]
    regions, side = centres.shape[1], REGION_PIXELS
    centres = ops.cast(centres, "float32")
    across = _sampling(centres[:, :, 0], width)[:, :, None, :, None, :]
    down = _sampling(centres[:, :, 1], height)[:, :, :, None, :, None]
    weights = ops.cast(ops.reshape(down * across, (-1, regions * side * side, height * width)), features.dtype)
    cut = ops.matmul(weights, ops.reshape(features, (-1, height * width, channels)))
    return ops.reshape(cut, (-1, regions, side, side, channels))


def _sampling(centres: Any, side: Any) -> Any:
    """Returns (n, k, 6, side) weights that sample a region along one axis linearly."""
    length = ops.cast(side, "float32")
    steps = ((np.arange(REGION_PIXELS, dtype=np.float32) + 0.5) / REGION_PIXELS - 0.5) * REGION
    places = ops.clip((centres[:, :, None] + steps) * length - 0.5, 0.0, length - 1)
    return ops.relu(1 - ops.abs(places[..., None] - ops.arange(side, dtype="float32")))


@keras.saving.register_keras_serializable("pipeline")
class BesideMap(keras.layers.Layer):
    """[(n, h, w, c) map, (n, d)] -> (n, h, w, c + d): the vector at every place, so that a mean over it is itself."""

    def __init__(self, **options: Any) -> None:
        super().__init__(dtype="float32", **options)

    def call(self, inputs: Any) -> Any:
        features, vector = inputs
        height, width = ops.shape(features)[1:3]
        spread = ops.broadcast_to(vector[:, None, None], (ops.shape(vector)[0], height, width, vector.shape[-1]))
        return ops.concatenate([features, spread], axis=-1)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[0][:-1], input_shape[0][-1] + input_shape[1][-1])
