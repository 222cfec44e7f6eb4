"""Our own compact VGG for faces: networks for inference and for training, and its weights from one to the other."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.backbones.backbone import Backbone, BackboneError, Misfit, TrainingOptions, channels_last, faults_of
from models.backbones.convolutions import Convolution, ConvolutionBlock
from models.backbones.keras_files import compare_shapes
from models.backbones.looks import Looks
from models.backbones.shape import FaceVggShape

if TYPE_CHECKING:
    import keras


BATCHNORM_EPSILON = 1e-3  # Keras's default, also needed to fold the statistics into the kernels
_NORMALISATION = ("gamma", "beta", "mean", "variance")
_KERNEL = re.compile(r"block(\d+)_conv(\d+)/kernel")


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


@dataclass(frozen=True)
class FaceVgg(Backbone):
    """3x3 convolutions and relu, with a max-pool between blocks; batch normalisation in training alone.

    `load` folds the trained normalisation into kernels and biases, so inference computes only convolutions.
    """

    is_convolutional = True

    def build(self, height: int, width: int, weights: Path | None = None) -> keras.Model:
        """Returns the network for inference; a file without a shape, or None, gives the default shape."""
        import keras

        shape = FaceVggShape() if weights is None else _shape_of(weights)
        image = keras.Input((height, width, 1), name="image")
        x, blocks, looks = image, [], self._looks(image, len(shape.widths))
        for filters, block, pooled in _blocks(shape):
            for conv in range(1, shape.convs + 1):
                name = f"block{block}_conv{conv}"
                x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu", name=name)(x)
            x = looks.at(block, x)
            x = keras.layers.MaxPooling2D(padding="same", name=f"block{block}_pool")(x) if pooled else looks.joined(x)
            blocks.append(x)
        return keras.Model(image, blocks, name=self.name)

    def _looks(self, unit: Any, blocks: int) -> Looks:
        """Returns what the network looks at besides the whole face.

        Args:
            unit: (n, height, width, 1) Keras tensor of pixels from 0 to 1.
            blocks: how many it has.
        """
        return Looks()

    def load(self, network: keras.Model, path: Path) -> None:
        """Loads trained weights with batch normalisation folded in, or what Keras saved of a network from `build`."""
        if path.suffix != ".npz":
            super().load(network, path)
            return
        folded = folded_convolutions(path)
        for layer in network.layers:
            if layer.name in folded:
                layer.set_weights(list(folded[layer.name]))

    def check_file(self, path: Path) -> None:
        """Raises Misfit if a file is not from `save`; widths and depth are the file's own."""
        if not zipfile.is_zipfile(path) or path.suffix == ".keras":
            raise Misfit("it is not an .npz file from train-backbone")
        channels = 1
        with np.load(path, allow_pickle=False) as stored:
            self.check_extras(stored)
            found = [match for match in map(_KERNEL.fullmatch, stored.files) if match is not None]
            places = sorted(found, key=lambda match: (int(match[1]), int(match[2])))
            if not places:
                raise Misfit("it has no arrays such as block1_conv1/kernel")
            for key in (place[0] for place in places):
                shape = stored[key].shape
                compare_shapes(key, shape, (3, 3, channels, shape[-1] if shape else 0))
                channels = shape[-1]
                for part in _NORMALISATION:
                    beside = key.replace("kernel", part)
                    if beside not in stored.files:
                        raise Misfit(f"{beside} is missing")
                    compare_shapes(beside, stored[beside].shape, (channels,))

    def check_extras(self, stored: Mapping[str, np.ndarray]) -> None:
        """Raises Misfit if a file has more than a plain face_vgg, or lacks what this network has more."""
        if odd := next((name for name in stored if name.startswith(("landmarks_", "regions/"))), ""):
            raise Misfit(f"{odd} is not part of it")

    def extras(self, trained: keras.Model) -> dict[str, np.ndarray]:
        """Returns the arrays that a file holds besides convolutions and normalisations, by name."""
        return {}

    def convolutions(self, path: Path) -> list[ConvolutionBlock]:
        """Returns the blocks of a file from `save`, with batch normalisation folded in."""
        if path.suffix != ".npz":
            raise BackboneError(f"{path} can only be read by Keras; set features.runtime to tensorflow or jax")
        shape, folded = _shape_of(path), folded_convolutions(path)
        return [
            ConvolutionBlock(
                tuple(
                    Convolution(name, *folded[name])
                    for name in (f"block{block}_conv{conv}" for conv in range(1, shape.convs + 1))
                ),
                pooled=pooled,
            )
            for _, block, pooled in _blocks(shape)
        ]

    @channels_last()
    def build_for_training(self, tasks: Mapping[str, int], options: TrainingOptions) -> keras.Model:
        """Returns the network for training, with batch normalisation and a classifier for each task."""
        import keras

        image = keras.Input((*options.size, 1), dtype="uint8", name="image")
        x = keras.layers.Rescaling(1 / 255, dtype="float32", name="unit")(image)
        for layer in options.augment:
            x = layer(x)
        looks = self._looks(x, len(options.shape.widths))
        for filters, block, pooled in _blocks(options.shape):
            for conv in range(1, options.shape.convs + 1):
                x = _trainable_convolution(x, filters, f"block{block}_conv{conv}", options)
            x = looks.at(block, x, options.dtype)
            if pooled:
                x = keras.layers.MaxPooling2D(padding="same", dtype=options.dtype, name=f"block{block}_pool")(x)
            if options.dropout:
                x = keras.layers.Dropout(
                    options.dropout, seed=options.seed + block, dtype=options.dtype, name=f"block{block}_dropout"
                )(x)
        x = keras.layers.GlobalAveragePooling2D(dtype="float32", name="features")(looks.joined(x))
        x = keras.layers.Dropout(options.top_dropout, seed=options.seed, dtype="float32", name="top_dropout")(x)
        logits = {name: keras.layers.Dense(classes, dtype="float32", name=name)(x) for name, classes in tasks.items()}
        return keras.Model(image, logits, name=f"trainable_{self.name}")

    def start_from(self, trained: keras.Model, path: Path) -> None:
        """Sets convolutions and normalisations to those of a file; classifiers keep what they have."""
        with faults_of(path, self.name), np.load(path, allow_pickle=False) as stored:
            there = {name.removesuffix("/kernel") for name in stored.files if _KERNEL.fullmatch(name)}
            here = {layer.name.removesuffix("_bn") for layer in trained.layers if layer.name.endswith("_bn")}
            if there != here:
                raise ValueError(f"it has {len(there)} convolutions, this network {len(here)}")
            for layer in trained.layers:
                parts = _NORMALISATION if layer.name.endswith("_bn") else ("kernel",)
                if layer.name.startswith("block") and layer.get_weights():
                    name = layer.name.removesuffix("_bn")
                    layer.set_weights([stored[f"{name}/{part}"].astype(np.float32) for part in parts])

    def save(self, trained: keras.Model) -> bytes:
        """Returns an npz file: shape, convolutions and normalisations as float16 by name."""
        arrays: dict[str, np.ndarray] = {}
        for layer in trained.layers:
            if layer.name.endswith("_bn"):
                convolution = layer.name.removesuffix("_bn")
                arrays[f"{convolution}/kernel"] = trained.get_layer(convolution).get_weights()[0]
                for part, value in zip(_NORMALISATION, layer.get_weights(), strict=True):
                    arrays[f"{convolution}/{part}"] = value
        shape = json.dumps(asdict(_shape_in(arrays)), sort_keys=True)
        arrays |= self.extras(trained)
        stored: dict[str, Any] = {name: np.asarray(value).astype(np.float16) for name, value in sorted(arrays.items())}
        stored["shape"] = np.frombuffer(shape.encode(), np.uint8)
        out = io.BytesIO()
        np.savez(out, **stored)
        return out.getvalue()


def _trainable_convolution(x: Any, filters: int, name: str, options: TrainingOptions) -> Any:
    import keras

    from models.backbones.normalisation import FusedBatchNormalization

    x = keras.layers.Conv2D(
        filters,
        3,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        dtype=options.dtype,
        name=name,
    )(x)
    x = FusedBatchNormalization(
        momentum=options.statistics_momentum, epsilon=BATCHNORM_EPSILON, dtype=options.dtype, name=f"{name}_bn"
    )(x)
    return keras.layers.Activation("relu", dtype=options.dtype, name=f"{name}_relu")(x)


def _shape_in(arrays: Mapping[str, np.ndarray]) -> FaceVggShape:
    """Returns the shape of a network from its kernels by name."""
    kernels = {tuple(map(int, found.groups())): name for name in arrays if (found := _KERNEL.fullmatch(name))}
    widths = tuple(arrays[name].shape[-1] for (_, conv), name in sorted(kernels.items()) if conv == 1)
    return FaceVggShape(widths, len(kernels) // len(widths))


def folded_convolutions(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns (kernel, bias), float32, of each convolution by name, with batch normalisation folded in.

    With f = gamma / sqrt(variance + epsilon), f (conv(x) - mean) + beta is a convolution again: kernel f w, and bias
    beta - f mean. Example: gamma 2, variance + epsilon 4, mean 3, beta 1 give f = 1, so kernel w and bias -2.
    """
    folded: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    with np.load(path, allow_pickle=False) as stored:
        for key in stored.files:
            if not _KERNEL.fullmatch(key):
                continue
            name = key.removesuffix("/kernel")
            kernel, gamma, beta, mean, variance = (
                stored[f"{name}/{part}"].astype(np.float32) for part in ("kernel", *_NORMALISATION)
            )
            scale = gamma / np.sqrt(variance + np.float32(BATCHNORM_EPSILON))
            folded[name] = (kernel * scale, beta - mean * scale)
    return folded
