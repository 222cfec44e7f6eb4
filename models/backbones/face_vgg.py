"""Our own compact VGG for faces: networks for inference and for training, and its weights from one to the other."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.backbones.backbone import channels_last, faults_of
from models.training.recipe import FaceVggShape

if TYPE_CHECKING:
    import keras


BATCHNORM_EPSILON = 1e-3  # Keras's default, also needed to fold the statistics into the kernels


def _blocks(shape: FaceVggShape) -> Iterator[tuple[int, int, bool]]:
    """Yields (filters, number of the block, whether a max-pool follows it)."""
    for block, filters in enumerate(shape.widths, 1):
        yield filters, block, block < len(shape.widths)


def _shape_of(path: Path) -> FaceVggShape:
    """Returns the shape of the network whose weights a file holds; the default shape if the file states none."""
    if path.suffix != ".npz":
        return FaceVggShape()
    with np.load(path, allow_pickle=False) as stored:
        if "shape" not in stored.files:
            return FaceVggShape()
        fields = json.loads(stored["shape"].tobytes())
    return FaceVggShape(tuple(fields["widths"]), fields["convs"])


def face_vgg(height: int = 48, width: int = 48, weights: Path | None = None) -> keras.Model:
    """Returns `face_vgg` for inference: 3x3 convolutions with bias and relu, a max-pool between blocks.

    Loading weights (`load_face_vgg`) folds the trained batch normalisation into kernels and biases, so inference
    computes only convolutions.

    Args:
        weights: a file that states the network's shape; None, or a file that states none, gives the default shape.
    """
    import keras

    shape = FaceVggShape() if weights is None else _shape_of(weights)
    image = keras.Input((height, width, 1), name="image")
    x, blocks = image, []
    for filters, block, pooled in _blocks(shape):
        for conv in range(1, shape.convs + 1):
            name = f"block{block}_conv{conv}"
            x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu", name=name)(x)
        if pooled:
            x = keras.layers.MaxPooling2D(padding="same", name=f"block{block}_pool")(x)
        blocks.append(x)
    return keras.Model(image, blocks, name="face_vgg")


@channels_last()
def trainable_face_vgg(
    tasks: Mapping[str, int],
    shape: FaceVggShape | None = None,
    *,
    size: int = 48,
    dropout: float = 0.0,
    top_dropout: float = 0.3,
    statistics_momentum: float = 0.99,
    augment: Sequence[Any] = (),
    seed: int = 0,
    dtype: str = "float32",
) -> keras.Model:
    """Returns the training network of `face_vgg`: (n, size, size, 1) uint8 -> dict of (n, classes) float32 logits.

    Args:
        tasks: number of classes of each output, by its name.
        dropout: rate after each block; `top_dropout` is the rate before the classifiers.
        statistics_momentum: of the normalisation's running mean and variance.
        augment: Keras layers applied to the pixels, active only in training; the last ones may crop and reduce.
        dtype: a Keras policy; `mixed_bfloat16` halves the time on processors that support it.
    """
    import keras

    from models.training.normalisation import FusedBatchNormalization

    shape = shape or FaceVggShape()
    image = keras.Input((size, size, 1), dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 255, dtype="float32", name="unit")(image)
    for layer in augment:
        x = layer(x)
    for filters, block, pooled in _blocks(shape):
        for conv in range(1, shape.convs + 1):
            name = f"block{block}_conv{conv}"
            x = keras.layers.Conv2D(
                filters, 3, padding="same", use_bias=False, kernel_initializer="he_normal", dtype=dtype, name=name
            )(x)
            x = FusedBatchNormalization(
                momentum=statistics_momentum, epsilon=BATCHNORM_EPSILON, dtype=dtype, name=f"{name}_bn"
            )(x)
            x = keras.layers.Activation("relu", dtype=dtype, name=f"{name}_relu")(x)
        if pooled:
            x = keras.layers.MaxPooling2D(padding="same", dtype=dtype, name=f"block{block}_pool")(x)
        if dropout:
            x = keras.layers.Dropout(dropout, seed=seed + block, dtype=dtype, name=f"block{block}_dropout")(x)
    x = keras.layers.GlobalAveragePooling2D(dtype="float32", name="features")(x)
    x = keras.layers.Dropout(top_dropout, seed=seed, dtype="float32", name="top_dropout")(x)
    logits = {name: keras.layers.Dense(classes, dtype="float32", name=name)(x) for name, classes in tasks.items()}
    return keras.Model(image, logits, name="trainable_face_vgg")


def load_face_vgg(network: keras.Model, path: Path) -> None:
    """Loads trained weights (float16 arrays by name) into `face_vgg`, with batch normalisation folded in.

    With f = gamma / sqrt(variance + epsilon), f (conv(x) - mean) + beta is a convolution again: kernel f w, and bias
    beta - f mean. Example: gamma 2, variance + epsilon 4, mean 3, beta 1 give f = 1, so kernel w and bias -2.
    """
    with np.load(path, allow_pickle=False) as stored:
        for layer in network.layers:
            if not layer.name.count("_conv"):
                continue
            kernel, gamma, beta, mean, variance = (
                stored[f"{layer.name}/{part}"].astype(np.float32)
                for part in ("kernel", "gamma", "beta", "mean", "variance")
            )
            scale = gamma / np.sqrt(variance + np.float32(BATCHNORM_EPSILON))
            layer.set_weights([kernel * scale, beta - mean * scale])


def start_from(trained: keras.Model, path: Path) -> None:
    """Sets a training network's convolutions and normalisations to those of a file from `face_vgg_bytes`.

    Raises:
        BackboneError: the file does not hold weights of this network.
    """
    with faults_of(path, "face_vgg"), np.load(path, allow_pickle=False) as stored:
        there = {name.removesuffix("/kernel") for name in stored.files if name.endswith("/kernel")}
        here = {layer.name.removesuffix("_bn") for layer in trained.layers if layer.name.endswith("_bn")}
        if there != here:
            raise ValueError(f"it has {len(there)} convolutions, this network {len(here)}")
        for layer in trained.layers:
            parts = ("gamma", "beta", "mean", "variance") if layer.name.endswith("_bn") else ("kernel",)
            if "_conv" in layer.name and layer.get_weights():
                name = layer.name.removesuffix("_bn")
                layer.set_weights([stored[f"{name}/{part}"].astype(np.float32) for part in parts])


def face_vgg_bytes(trained: keras.Model, shape: FaceVggShape) -> bytes:
    """Returns the file of weights: shape, convolutions and normalisations of a trained network as float16 by name."""
    arrays: dict[str, np.ndarray] = {}
    for layer in trained.layers:
        if layer.name.endswith("_bn"):
            convolution = layer.name.removesuffix("_bn")
            arrays[f"{convolution}/kernel"] = trained.get_layer(convolution).get_weights()[0]
            for part, value in zip(("gamma", "beta", "mean", "variance"), layer.get_weights(), strict=True):
                arrays[f"{convolution}/{part}"] = value
    stored: dict[str, Any] = {name: np.asarray(value).astype(np.float16) for name, value in sorted(arrays.items())}
    stored["shape"] = np.frombuffer(json.dumps(asdict(shape), sort_keys=True).encode(), np.uint8)
    out = io.BytesIO()
    np.savez(out, **stored)
    return out.getvalue()
