"""Networks of `keras.applications`: VGG, MobileNet, MobileNetV2 and ResNet50, for inference and for training.

Weights are Keras's own files, or an `.npz` file with an array per variable: `conv1/kernel`, `conv1_bn/gamma`, …
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.backbones.backbone import Backbone, BackboneError, Misfit, TrainingOptions, channels_last, faults_of

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Application(Backbone):
    """A network of `keras.applications`.

    Attributes:
        maker: its function there.
        blocks: the layers whose outputs are the blocks, starting at the image; the last one is the network's output.
        ends: the first and the last layer with weights; a file of weights must have them.
    """

    maker: str = ""
    blocks: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()

    @property
    def keras_name(self) -> str:
        """The function of `keras.applications` that builds it."""
        return self.maker

    def build(self, height: int, width: int, weights: Path | None = None) -> keras.Model:
        """Returns the base without the classifier; an output for each of its blocks."""
        import keras

        base = self._base(input_shape=(height, width, self.channels))
        return keras.Model(base.input, [base.get_layer(name).output for name in self.blocks], name=self.name)

    def _base(self, **given: Any) -> keras.Model:
        import keras

        return getattr(keras.applications, self.maker)(include_top=False, weights=None, **given)

    def load(self, network: keras.Model, path: Path) -> None:
        """Sets the weights to those of a file of Keras's, or of an .npz file with an array per variable."""
        if path.suffix != ".npz":
            super().load(network, path)
            return
        with np.load(path, allow_pickle=False) as stored:
            for layer in network.layers:
                if layer.weights:
                    layer.set_weights([_found(stored, key, variable) for key, variable in _variables(layer)])

    def check_file(self, path: Path) -> None:
        """Raises Misfit if an .npz file lacks the first or the last layer."""
        if path.suffix != ".npz":
            return  # only Keras knows the order of the layers in its files
        with np.load(path, allow_pickle=False) as stored:
            layers = {name.rpartition("/")[0] for name in stored.files}
        for name in self.ends:
            if name not in layers:
                raise Misfit(f"it has no arrays of the layer {name}")

    @channels_last()
    def build_for_training(self, tasks: Mapping[str, int], options: TrainingOptions) -> keras.Model:
        """Returns the network for training: preprocessing, base, mean of the last map, a classifier for each task."""
        import keras

        self.check_size(*options.size)
        image = keras.Input((*options.size, self.channels), dtype="uint8", name="image")
        x = keras.layers.Rescaling(1 / 255, dtype="float32", name="unit")(image)
        for layer in options.augment:
            x = layer(x)
        x = keras.layers.Lambda(lambda unit: self.preprocess.apply(unit * 255.0), dtype="float32", name="preprocess")(x)
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(options.dtype)
        try:
            keras.utils.set_random_seed(options.seed)
            base = self._base(input_tensor=x)
        finally:
            keras.config.set_dtype_policy(before)
        for layer in base.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = options.statistics_momentum
        x = base.get_layer(self.blocks[-1]).output
        x = keras.layers.GlobalAveragePooling2D(dtype="float32", name="features")(x)
        x = keras.layers.Dropout(options.top_dropout, seed=options.seed, dtype="float32", name="top_dropout")(x)
        # From zero: features of VGG reach 290, and what a random classifier makes of them kills the last blocks.
        how = {"kernel_initializer": "zeros", "dtype": "float32"}
        logits = {name: keras.layers.Dense(classes, name=name, **how)(x) for name, classes in tasks.items()}
        return keras.Model(image, logits, name=f"trainable_{self.name}")

    def start_from(self, trained: keras.Model, path: Path) -> None:
        """Sets the base to the weights of a file, Keras's or from `save`; classifiers keep what they have."""
        height, width = trained.input_shape[1:3]
        with faults_of(path, self.name):
            self.check_file(path)
            base = self.build(height, width)
            self.load(base, path)
        for layer in base.layers:
            if layer.weights:
                trained.get_layer(layer.name).set_weights(layer.get_weights())

    def save(self, trained: keras.Model) -> bytes:
        """Returns an npz file with an array per variable of the base: kernels in float16, all else in float32."""
        base = self.build(*trained.input_shape[1:3])
        arrays: dict[str, np.ndarray] = {}
        for layer in filter(lambda layer: layer.weights, base.layers):
            for (key, _), value in zip(_variables(layer), trained.get_layer(layer.name).get_weights(), strict=True):
                kept = np.asarray(value, np.float32)
                arrays[key] = kept.astype(np.float16) if "kernel" in key else kept
        if wide := [key for key, value in arrays.items() if not np.isfinite(value).all()]:
            raise BackboneError(f"{self.name}: {wide[0]} is not finite after training; lower train.learning_rate")
        out = io.BytesIO()
        np.savez(out, **dict(sorted(arrays.items())))  # type: ignore[arg-type]
        return out.getvalue()


def _variables(layer: Any) -> Iterator[tuple[str, Any]]:
    """Yields (key in a file, variable) for the variables of a layer, in Keras's order."""
    for variable in layer.weights:
        yield f"{layer.name}/{variable.path.rpartition('/')[2]}", variable


def _found(stored: Any, key: str, variable: Any) -> np.ndarray:
    if key not in stored.files:
        raise Misfit(f"{key} is missing")
    array = np.asarray(stored[key], np.float32)
    if array.shape != tuple(variable.shape):
        raise Misfit(f"{key} has shape {array.shape}, not {tuple(variable.shape)}")
    return array
