"""The networks that turn face crops into features, and what each of them must be fed.

Not here: compiling, batching and padding (`device.py`), and anything that trains (`training/`).

A backbone is one line in `BACKBONES`. Sources: VGG16 and VGG19 are Simonyan and Zisserman 2014
(arXiv:1409.1556) through `keras.applications`; `face_vgg` is our own compact member of that family.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.preprocess import CAFFE, UNIT, Preprocess
from models.training.recipe import FaceVggShape

if TYPE_CHECKING:
    import keras

REVISION = 2  # part of the features fingerprint: raise it when any network here computes other numbers
BATCHNORM_EPSILON = 1e-3  # Keras's default, needed again when the statistics are folded away
BUNDLED_WEIGHTS = Path(__file__).parent / "weights" / "face_vgg.npz"
POOLINGS = ("avg", "multi", "flatten")


class BackboneError(ValueError):
    """A backbone cannot be built as asked; the message names the setting and the cure."""


@dataclass(frozen=True)
class Backbone:
    """What the rest of the program has to know of a network before it is built.

    Attributes:
        name: the word used in settings.
        channels: 1 for grey, 3 for RGB: what the crops must have.
        native_size: (height, width) in pixels that the weights were trained at.
        smallest_size: the least height or width that does not collapse to nothing.
        preprocess: what happens to uint8 pixels inside the compiled function.
        build: (height, width, file of the weights or None) -> a Keras model from float images to the list of block
            outputs.
        bundled: the file with our own weights, where we ship some.
    """

    name: str
    channels: int
    native_size: tuple[int, int]
    smallest_size: int
    preprocess: Preprocess
    build: Callable[[int, int, Path | None], keras.Model]
    bundled: Path | None = None
    imagenet: str | None = None

    def check_size(self, height: int, width: int) -> None:
        """Raises BackboneError for crops of which the last block's map would have no pixel."""
        if min(height, width) < self.smallest_size:
            raise BackboneError(
                f"features.input_size={height}x{width} is too small: {self.name} needs {self.smallest_size} at least"
            )

    def weights_path(self, weights: str) -> Path:
        """Returns the file that `weights` means: `bundled`, `imagenet` or a path.

        Raises:
            BackboneError: there is none; says where it was looked for and what to do.
        """
        if weights == "bundled":
            if self.bundled is None:
                raise BackboneError(
                    f"no weights ship for {self.name}: set features.weights to a path, imagenet or random"
                )
            path = self.bundled
        elif weights == "imagenet":
            if self.imagenet is None:
                raise BackboneError(f"there are no ImageNet weights for {self.name}: give features.weights a path")
            path = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "models" / self.imagenet
        else:
            path = Path(weights)
        if not path.is_file():
            raise BackboneError(
                f"features.weights={weights}: no file {path}; nothing is downloaded, so put it there or give its path"
            )
        return path


def _vgg(application: str, height: int, width: int) -> keras.Model:
    import keras

    make = getattr(keras.applications, application)
    base = make(include_top=False, weights=None, input_shape=(height, width, 3))
    blocks = [base.get_layer(f"block{i}_pool").output for i in range(1, 6)]
    return keras.Model(base.input, blocks, name=application.lower())


def _vgg16(height: int, width: int, _: Path | None = None) -> keras.Model:
    return _vgg("VGG16", height, width)


def _vgg19(height: int, width: int, _: Path | None = None) -> keras.Model:
    return _vgg("VGG19", height, width)


def _blocks(shape: FaceVggShape) -> Iterator[tuple[int, int, bool]]:
    """Yields (filters, number of the block, whether a max-pool follows it)."""
    for block, filters in enumerate(shape.widths, 1):
        yield filters, block, block < len(shape.widths)


def _shape_of(path: Path) -> FaceVggShape:
    """Returns the shape of the network whose weights a file holds; a file that does not say is of the usual one."""
    if path.suffix != ".npz":
        return FaceVggShape()
    with np.load(path, allow_pickle=False) as stored:
        if "shape" not in stored.files:
            return FaceVggShape()
        fields = json.loads(stored["shape"].tobytes())
    return FaceVggShape(tuple(fields["widths"]), fields["convs"])


def face_vgg(height: int = 48, width: int = 48, weights: Path | None = None) -> keras.Model:
    """Returns `face_vgg` for inference: 3x3 convolutions with bias and relu, a max-pool between blocks.

    The batch normalisation of the trained network is folded into kernels and biases when weights
    are loaded (`load_face_vgg`), so that inference pays for convolutions alone.

    Args:
        weights: the file that says the network's shape; None builds the usual one, as do files that do not say.
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


@contextmanager
def _channels_last() -> Iterator[None]:
    """Networks are built for (height, width, channels), whatever the user's keras.json says."""
    import keras

    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_last")
    try:
        yield
    finally:
        keras.config.set_image_data_format(before)


@_channels_last()
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
    """Returns `face_vgg` as it is trained: (n, size, size, 1) uint8 -> dict of (n, classes) float32 logits.

    Args:
        tasks: classes of each output by its name.
        dropout: rate after each block; `top_dropout` the rate before the classifiers.
        statistics_momentum: of the normalisation's running mean and variance.
        augment: Keras layers applied to the pixels, active in training alone; the last ones may crop and reduce.
        dtype: a Keras policy, `mixed_bfloat16` halves the time on processors that have it.
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


BACKBONES: dict[str, Backbone] = {
    "face_vgg": Backbone("face_vgg", 1, (48, 48), 16, UNIT, face_vgg, bundled=BUNDLED_WEIGHTS),
    "vgg16": Backbone(
        "vgg16", 3, (224, 224), 32, CAFFE, _vgg16, imagenet="vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
    ),
    "vgg19": Backbone(
        "vgg19", 3, (224, 224), 32, CAFFE, _vgg19, imagenet="vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5"
    ),
}


def backbone(name: str) -> Backbone:
    """Returns the backbone of that name.

    Raises:
        BackboneError: there is none; lists the known names.
    """
    if name not in BACKBONES:
        raise BackboneError(f"features.backbone={name} is not one of {', '.join(BACKBONES)}")
    return BACKBONES[name]


@_channels_last()
def build_features(
    name: str,
    weights: str,
    *,
    pooling: str,
    size: tuple[int, int],
    precision: str = "float32",
    seed: int = 0,
    mirrored: bool = False,
    mirror_cut: float = 0.0,
) -> keras.Model:
    """Returns the whole feature extractor: (n, h, w, c) uint8 -> (n, d) float32, preprocessing inside.

    Args:
        pooling: `avg` (mean of the last block's map), `multi` (means of every block's map, joined),
            `flatten` (the last block's map as it is).
        size: (height, width) of the crops.
        precision: `bfloat16` computes convolutions in it and keeps the weights in float32.
        mirrored: features are the mean of those of the crop and of its mirror image, at twice the work.
        mirror_cut: fraction of the side cut off each edge of the mirror image, which is enlarged to `size` again: so
            two frames are averaged, as detectors draw theirs now wider, now narrower.

    Raises:
        BackboneError: unknown name, a size that collapses, weights that are missing or of another network.
    """
    import keras

    kind = backbone(name)
    height, width = size
    kind.check_size(height, width)
    if pooling not in POOLINGS:
        raise BackboneError(f"features.pooling={pooling} is not one of {', '.join(POOLINGS)}")
    path = None if weights == "random" else kind.weights_path(weights)
    policy = "mixed_bfloat16" if precision == "bfloat16" else "float32"
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        if weights == "random":
            keras.utils.set_random_seed(seed)
        base = _built(kind, height, width, path)
    finally:
        keras.config.set_dtype_policy(before)
    if path is not None:
        with _faults_of(path, kind):
            _load_weights(base, path)
    image = keras.Input((height, width, kind.channels), dtype="uint8", name="crops")
    x = _Preprocessing(kind.preprocess, dtype="float32", name="preprocess")(image)
    if not mirrored:
        return keras.Model(image, _pool(base(x), pooling), name=f"{name}_features")
    # two calls of one shape, not one of twice the batch: the kernels, and with them the bits, stay those of any batch
    mirror = _Mirror(height, width, mirror_cut, dtype="float32", name="mirror")(x)
    both = [_pool(base(x), pooling), _pool(base(mirror), pooling, "mirrored_")]
    mean = keras.layers.Average(dtype="float32", name="mean_of_both")(both)
    return keras.Model(image, mean, name=f"{name}_mirrored_features")


def _pool(blocks: list[Any], pooling: str, prefix: str = "") -> Any:
    import keras

    if pooling == "flatten":
        return keras.layers.Flatten(dtype="float32", name=f"{prefix}features")(blocks[-1])
    means = [
        keras.layers.GlobalAveragePooling2D(dtype="float32", name=f"{prefix}mean{i}")(block)
        for i, block in enumerate(blocks if pooling == "multi" else blocks[-1:], 1)
    ]
    join = keras.layers.Concatenate(dtype="float32", name=f"{prefix}features")
    return means[0] if len(means) == 1 else join(means)


def _Mirror(height: int, width: int, cut: float, **options: Any) -> Any:  # noqa: N802 - makes a layer
    import keras

    down, across = (int(side * cut + 0.5) for side in (height, width))

    def mirror(x: Any) -> Any:
        inner = keras.ops.flip(x, axis=2)[:, down : height - down, across : width - across]
        if not (down or across):
            return inner
        return keras.ops.image.resize(inner, (height, width), interpolation="bilinear", antialias=False)

    return keras.layers.Lambda(mirror, **options)


def _Preprocessing(preprocess: Preprocess, **options: Any) -> Any:  # noqa: N802 - makes a layer
    import keras

    return keras.layers.Lambda(lambda x: preprocess.apply(keras.ops.cast(x, "float32")), **options)


def _built(kind: Backbone, height: int, width: int, path: Path | None) -> keras.Model:
    if path is None:
        return kind.build(height, width, None)
    with _faults_of(path, kind):
        return kind.build(height, width, path)


def _load_weights(base: keras.Model, path: Path) -> None:
    if path.suffix == ".npz":
        load_face_vgg(base, path)
    else:
        base.load_weights(str(path))


@contextmanager
def _faults_of(path: Path, kind: Backbone) -> Iterator[None]:
    """Turns what a file of other weights, or a damaged one, raises into one line."""
    try:
        yield
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        fault = (str(error).splitlines() or [type(error).__name__])[0]
        raise BackboneError(f"{path} does not hold weights of {kind.name}: {fault}; give another file") from error


def load_face_vgg(network: keras.Model, path: Path) -> None:
    """Loads trained weights (float16 arrays by name) into `face_vgg`, folding batch normalisation into them.

    y = gamma (conv(x) - mean) / sqrt(variance + epsilon) + beta is again a convolution with a bias.
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
    """Sets the convolutions and normalisations of a network to be trained to those of a file of `export_face_vgg`.

    Raises:
        BackboneError: the file holds another network, or none.
    """
    with _faults_of(path, BACKBONES["face_vgg"]), np.load(path, allow_pickle=False) as stored:
        there = {name.removesuffix("/kernel") for name in stored.files if name.endswith("/kernel")}
        here = {layer.name.removesuffix("_bn") for layer in trained.layers if layer.name.endswith("_bn")}
        if there != here:
            raise ValueError(f"{len(there)} convolutions there, {len(here)} here")
        for layer in trained.layers:
            parts = ("gamma", "beta", "mean", "variance") if layer.name.endswith("_bn") else ("kernel",)
            if "_conv" in layer.name and layer.get_weights():
                name = layer.name.removesuffix("_bn")
                layer.set_weights([stored[f"{name}/{part}"].astype(np.float32) for part in parts])


def export_face_vgg(trained: keras.Model, shape: FaceVggShape, path: Path) -> None:
    """Writes the shape, and the convolutions and normalisations of a trained network as float16 arrays by name."""
    arrays: dict[str, np.ndarray] = {}
    for layer in trained.layers:
        if layer.name.endswith("_bn"):
            convolution = layer.name.removesuffix("_bn")
            arrays[f"{convolution}/kernel"] = trained.get_layer(convolution).get_weights()[0]
            for part, value in zip(("gamma", "beta", "mean", "variance"), layer.get_weights(), strict=True):
                arrays[f"{convolution}/{part}"] = value
    stored: dict[str, Any] = {name: np.asarray(value).astype(np.float16) for name, value in sorted(arrays.items())}
    stored["shape"] = np.frombuffer(json.dumps(asdict(shape), sort_keys=True).encode(), np.uint8)
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        np.savez(file, **stored)
    os.replace(temporary, path)
