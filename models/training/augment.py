"""Random augmentation of pixels as Keras layers: computed on the device, active only in training.

All layers map (n, h, w, c) float32 pixels of 0..1 to the same. Their random state is a variable of the model, so a
checkpoint includes it. One warp does flip, rotation, scale and shift, since each resampling blurs.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from models.detectors.cropping import resized
from models.training.recipe import Recipe
from models.training.thirty_changes import FILTERS, POSITIONS


class _Random(keras.layers.Layer):
    """A layer that changes pixels at random in training and passes them through otherwise."""

    def __init__(self, seed: int, **options: Any) -> None:
        super().__init__(dtype="float32", **options)
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, images: Any, training: bool = False) -> Any:
        return self.change(images) if training else images

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def change(self, images: Any) -> Any:
        raise NotImplementedError

    def uniform(self, images: Any, low: float, high: float) -> Any:
        """Returns (n,) random numbers, one per image."""
        return keras.random.uniform((ops.shape(images)[0],), low, high, seed=self.seed_generator)


@keras.saving.register_keras_serializable("pipeline")
class RandomWarp(_Random):
    """Mirrors, rotates, scales and shifts in one bilinear resampling; the border pixels repeat outwards.

    Args:
        flip: True to mirror half of the images.
        shift: largest shift, as a fraction of the side.
        rotation: largest rotation in degrees.
        scale: largest enlargement, as a fraction. At 0.2, half of the images get a factor from 1 to 1.2.
        shrink: largest reduction, as a fraction. At 0.6, the other half get a factor from 1/1.6 to 1. Small reductions
            are more frequent (the square of a uniform draw), as frames that are far too wide are rare.
    """

    def __init__(
        self, *, flip: bool, shift: float, rotation: float, scale: float, shrink: float, seed: int, **options: Any
    ) -> None:
        super().__init__(seed, **options)
        self.flip, self.shift, self.rotation, self.scale, self.shrink = flip, shift, rotation, scale, shrink

    def change(self, images: Any) -> Any:
        height, width = images.shape[1], images.shape[2]
        angle = self.uniform(images, -1, 1) * (self.rotation * math.pi / 180)
        drawn = self.uniform(images, -1, 1)
        larger, smaller = drawn * math.log1p(self.scale), ops.square(drawn) * math.log1p(self.shrink)
        size = ops.exp(ops.where(drawn > 0, larger, -smaller))
        mirror = ops.where(self.uniform(images, 0, 1) < (0.5 if self.flip else 0.0), -1.0, 1.0)
        down = self.uniform(images, -1, 1) * (self.shift * height)
        right = self.uniform(images, -1, 1) * (self.shift * width)
        cosine, sine = ops.cos(angle) / size, ops.sin(angle) / size
        # output pixel -> input pixel, about the middle of the image
        a0, a1, b0, b1 = mirror * cosine, -mirror * sine, sine, cosine
        x, y = (width - 1) / 2, (height - 1) / 2
        a2 = x - a0 * x - a1 * y + right
        b2 = y - b0 * x - b1 * y + down
        none = ops.zeros_like(a0)
        return ops.image.affine_transform(
            images,
            ops.stack([a0, a1, a2, b0, b1, b2, none, none], axis=1),
            interpolation="bilinear",
            fill_mode="nearest",
            data_format="channels_last",
        )


@keras.saving.register_keras_serializable("pipeline")
class ThirtyChanges(_Random):
    """Gives each image one of thirty fixed changes: a filter of `FILTERS`, then a position of `POSITIONS`."""

    def change(self, images: Any) -> Any:
        count = len(FILTERS) * len(POSITIONS)
        drawn = ops.minimum(ops.cast(self.uniform(images, 0, count), "int32"), count - 1)
        return self.changed(images, drawn)

    def changed(self, images: Any, numbers: Any) -> Any:
        """Returns the images with the changes of (n,) int32 numbers: filter times six, plus position."""
        height, width, channels = images.shape[1:]
        margin = FILTERS.shape[1] // 2
        around = ops.pad(images, ((0, 0), (margin, margin), (margin, margin), (0, 0)), mode="symmetric")
        kernels = np.tile(FILTERS.transpose(1, 2, 0)[:, :, None], (1, 1, channels, 1))
        made = ops.depthwise_conv(around, kernels, padding="valid", data_format="channels_last")
        made = ops.reshape(made, (-1, height, width, channels, len(FILTERS)))
        chosen = ops.one_hot(numbers // len(POSITIONS), len(FILTERS), dtype="float32")
        filtered = ops.clip(ops.sum(made * chosen[:, None, None, None], axis=-1), 0.0, 1.0)
        return ops.image.affine_transform(
            filtered,
            ops.take(position_matrices(height, width), numbers % len(POSITIONS), axis=0),
            interpolation="bilinear",
            fill_mode="nearest",
            data_format="channels_last",
        )


def position_matrices(height: int, width: int) -> np.ndarray:
    """Returns (6, 8) float32 maps from output pixel to input pixel, one for each of `POSITIONS`."""
    y, x = (height - 1) / 2, (width - 1) / 2
    rows = []
    for degrees, right, down in POSITIONS:
        cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        across = (cosine, -sine, x - cosine * x + sine * y - right * width)
        rows.append((*across, sine, cosine, y - sine * x - cosine * y - down * height, 0.0, 0.0))
    return np.asarray(rows, np.float32)


@keras.saving.register_keras_serializable("pipeline")
class RandomTone(_Random):
    """Changes contrast around the image's mean, then multiplies brightness, and clips to 0..1.

    Brightening goes half as far as darkening, because clipped white loses detail and darkening does not.
    """

    def __init__(self, *, contrast: float, brightness: float, seed: int, **options: Any) -> None:
        super().__init__(seed, **options)
        self.contrast, self.brightness = contrast, brightness

    def change(self, images: Any) -> Any:
        contrast = _per_image(1 + self.contrast * self.uniform(images, -1, 1))
        brightness = _per_image(1 + self.brightness * self.uniform(images, -1, 0.5))
        mean = ops.mean(images, axis=(1, 2, 3), keepdims=True)
        return ops.clip(((images - mean) * contrast + mean) * brightness, 0.0, 1.0)


@keras.saving.register_keras_serializable("pipeline")
class RandomBlur(_Random):
    """Mixes a random share of a 3x3 mean into half of the images, like a soft lens."""

    def __init__(self, *, share: float, seed: int, **options: Any) -> None:
        super().__init__(seed, **options)
        self.share = share

    def change(self, images: Any) -> Any:
        soft = ops.average_pool(images, 3, strides=1, padding="same", data_format="channels_last")
        share = ops.maximum(self.uniform(images, -1, 1), 0.0) * self.share
        return images + _per_image(share) * (soft - images)


@keras.saving.register_keras_serializable("pipeline")
class RandomReduction(_Random):
    """Reduces a share of the images to fewer pixels and enlarges them again, as happens to small faces.

    Both steps are the program's own `resized`, as one matrix for each side from a third of the image's side up:
    reducing by area and enlarging linearly are sums over rows, then over columns.
    """

    SMALLEST = 1 / 3  # of the side

    def __init__(self, *, share: float, seed: int, **options: Any) -> None:
        super().__init__(seed, **options)
        self.share = share

    def change(self, images: Any) -> Any:
        down, across = (self.there_and_back(side) for side in images.shape[1:3])
        place = self.uniform(images, 0, 1)
        chosen = self.uniform(images, 0, 1) < self.share
        rows, columns = (
            ops.take(table, ops.where(chosen, ops.cast(place * (len(table) - 1), "int32"), len(table) - 1), axis=0)
            for table in (down, across)
        )
        made = ops.matmul(rows[:, None], ops.transpose(images, (0, 3, 1, 2)))
        return ops.transpose(ops.matmul(made, ops.transpose(columns, (0, 2, 1))[:, None]), (0, 2, 3, 1))

    def there_and_back(self, side: int) -> np.ndarray:
        """Returns (m, side, side) float32 matrices, fewest pixels first; the last is the identity."""
        whole = np.eye(side, dtype=np.float32)
        fewest = max(1, round(side * self.SMALLEST))
        return np.stack([resized(resized(whole, (pixels, side)), (side, side)) for pixels in range(fewest, side + 1)])


@keras.saving.register_keras_serializable("pipeline")
class RandomCompression(_Random):
    """Rounds a share of the images as JPEG of a random quality does, each channel as a separate grey image.

    Each block of 8 x 8 pixels is cosine-transformed, divided by the table of Annex K.1 of ITU-T T.81 (scaled by quality
    as in libjpeg), rounded, and transformed back. If a side is not a multiple of 8, the image is mirrored at the far
    border for this.
    """

    BLOCK = 8
    QUALITIES = 10, 90
    TABLE = (
        (16, 11, 10, 16, 24, 40, 51, 61),
        (12, 12, 14, 19, 26, 58, 60, 55),
        (14, 13, 16, 24, 40, 57, 69, 56),
        (14, 17, 22, 29, 51, 87, 80, 62),
        (18, 22, 37, 56, 68, 109, 103, 77),
        (24, 35, 55, 64, 81, 104, 113, 92),
        (49, 64, 78, 87, 103, 121, 120, 101),
        (72, 92, 95, 98, 112, 100, 103, 99),
    )  # fmt: skip

    def __init__(self, *, share: float, seed: int, **options: Any) -> None:
        super().__init__(seed, **options)
        self.share = share

    def change(self, images: Any) -> Any:
        quality = self.uniform(images, *self.QUALITIES)
        chosen = self.uniform(images, 0, 1) < self.share
        return ops.where(_per_image(chosen), self.compressed(images, quality), images)

    def compressed(self, images: Any, quality: Any) -> Any:
        """Returns the images as decoded from JPEG of (n,) qualities from 1 to 100."""
        height, width, channels = images.shape[1:]
        pixels = ops.pad(
            images, ((0, 0), (0, -height % self.BLOCK), (0, -width % self.BLOCK), (0, 0)), mode="symmetric"
        )
        down, across = (math.ceil(side / self.BLOCK) for side in (height, width))
        blocks = ops.reshape(pixels * 255.0 - 128.0, (-1, down, self.BLOCK, across, self.BLOCK, channels))
        values = ops.reshape(ops.transpose(blocks, (0, 1, 3, 5, 2, 4)), (-1, down * across * channels, self.BLOCK**2))
        cosines = self.cosines()
        steps = self.steps(quality)[:, None]
        rounded = ops.round(ops.matmul(values, cosines.T) / steps) * steps
        back = ops.clip(ops.round(ops.matmul(rounded, cosines) + 128.0), 0.0, 255.0) / 255.0
        blocks = ops.reshape(back, (-1, down, across, channels, self.BLOCK, self.BLOCK))
        pixels = ops.reshape(ops.transpose(blocks, (0, 1, 4, 2, 5, 3)), ops.shape(pixels))
        return pixels[:, :height, :width]

    def cosines(self) -> np.ndarray:
        """Returns the (64, 64) float32 orthonormal transform of the 64 values of a block."""
        places = np.arange(self.BLOCK)
        lines = np.cos((2 * places + 1) * places[:, None] * math.pi / (2 * self.BLOCK)) * math.sqrt(2 / self.BLOCK)
        lines[0] /= math.sqrt(2)
        return np.kron(lines, lines).astype(np.float32)

    def steps(self, quality: Any) -> Any:
        """Returns (n, 64), the divisor of each coefficient, for (n,) qualities."""
        percent = ops.where(quality < 50, 5000.0 / quality, 200.0 - 2.0 * quality)[:, None]
        table = np.asarray(self.TABLE, np.float32).reshape(1, -1)
        return ops.clip(ops.floor((table * percent + 50.0) / 100.0), 1.0, 255.0)


@keras.saving.register_keras_serializable("pipeline")
class RandomErasing(_Random):
    """Replaces a rectangle of 2 to 20 % of the area with noise (Zhong et al. 2017, arXiv:1708.04896).

    Keras's layer of that name draws one rectangle per batch; this one draws one per image.
    """

    SMALLEST, LARGEST, LONGEST = 0.02, 0.2, 3.3  # of the area, and the largest ratio of the sides

    def __init__(self, *, share: float, seed: int, **options: Any) -> None:
        super().__init__(seed, **options)
        self.share = share

    def change(self, images: Any) -> Any:
        height, width = images.shape[1], images.shape[2]
        area = self.uniform(images, self.SMALLEST, self.LARGEST)
        ratio = ops.exp(self.uniform(images, -1, 1) * math.log(self.LONGEST))
        tall = height * ops.sqrt(area * ratio)
        wide = width * ops.sqrt(area / ratio)
        top = self.uniform(images, 0, 1) * ops.maximum(height - tall, 0.0)
        left = self.uniform(images, 0, 1) * ops.maximum(width - wide, 0.0)
        rows, columns = ops.arange(height, dtype="float32")[None, :], ops.arange(width, dtype="float32")[None, :]
        in_rows = ops.logical_and(rows >= top[:, None], rows < (top + tall)[:, None])
        in_columns = ops.logical_and(columns >= left[:, None], columns < (left + wide)[:, None])
        erased = ops.logical_and(in_rows[:, :, None], in_columns[:, None, :])
        chosen = (self.uniform(images, 0, 1) < self.share)[:, None, None]
        noise = keras.random.uniform(ops.shape(images), seed=self.seed_generator)
        return ops.where(ops.logical_and(erased, chosen)[..., None], noise, images)


@keras.saving.register_keras_serializable("pipeline")
class MiddleCrop(keras.layers.Layer):
    """Cuts a square from the middle in training, which is faster; otherwise passes the whole image.

    For networks that end in a mean over the map, as they take either size.
    """

    def __init__(self, side: int, **options: Any) -> None:
        super().__init__(dtype="float32", **options)
        self.side = side

    def call(self, images: Any, training: bool = False) -> Any:
        if not training:
            return images
        top, left = (images.shape[1] - self.side) // 2, (images.shape[2] - self.side) // 2
        return images[:, top : top + self.side, left : left + self.side]

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0], None, None, input_shape[3])


@keras.saving.register_keras_serializable("pipeline")
class TrainingSide(keras.layers.Layer):
    """Reduces images by area to squares of `side` pixels in training; otherwise, or with None, passes them unchanged.

    A caller may set `side` between epochs if it then makes the training function again. For networks that end in a mean
    over the map, as they take any size.
    """

    def __init__(self, side: int | None = None, **options: Any) -> None:
        super().__init__(dtype="float32", **options)
        self.side = side

    def call(self, images: Any, training: bool = False) -> Any:
        height, width = images.shape[1:3]
        if not training or self.side is None or self.side == height == width:
            return images
        down, across = (resized(np.eye(n, dtype=np.float32), (self.side, n)) for n in (height, width))
        made = ops.matmul(ops.matmul(down, ops.transpose(images, (0, 3, 1, 2))), across.T)
        return ops.transpose(made, (0, 2, 3, 1))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0], None, None, input_shape[3])


def _per_image(values: Any) -> Any:
    return values[:, None, None, None]


def augmentation(recipe: Recipe) -> list[Any]:
    """Returns the layers that the recipe requires, in the order of application."""
    layers: list[Any] = []
    if recipe.thirtyfold:
        layers.append(ThirtyChanges(recipe.seed + 107, name="thirtyfold"))
    if recipe.flip or recipe.shift or recipe.rotation or recipe.scale or recipe.shrink:
        layers.append(
            RandomWarp(
                flip=recipe.flip,
                shift=recipe.shift,
                rotation=recipe.rotation,
                scale=recipe.scale,
                shrink=recipe.shrink,
                seed=recipe.seed + 101,
                name="warp",
            )
        )
    if recipe.blur:
        layers.append(RandomBlur(share=recipe.blur, seed=recipe.seed + 102, name="blur"))
    if recipe.zoom_out:
        layers.append(RandomReduction(share=recipe.zoom_out, seed=recipe.seed + 105, name="reduce"))
    if recipe.contrast or recipe.brightness:
        layers.append(
            RandomTone(contrast=recipe.contrast, brightness=recipe.brightness, seed=recipe.seed + 103, name="tone")
        )
    if recipe.compress:
        layers.append(RandomCompression(share=recipe.compress, seed=recipe.seed + 106, name="compress"))
    if recipe.erase:
        layers.append(RandomErasing(share=recipe.erase, seed=recipe.seed + 104, name="erase"))
    if recipe.crop:
        layers.append(MiddleCrop(recipe.crop, name="crop"))
    if recipe.progressive_sizes:
        layers.append(TrainingSide(recipe.side_in(0), name="side"))
    return layers
