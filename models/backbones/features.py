"""Builds the feature extractor: preprocessing, backbone and pooling as one Keras model.

Not here: compiling, batching and padding (`runtimes/device.py`), and anything that trains (`training/`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.backbones.backbone import POOLINGS, Backbone, BackboneError, channels_last, faults_of
from models.backbones.preprocess import Preprocess
from models.backbones.registry import backbone

if TYPE_CHECKING:
    import keras


@channels_last()
def build_features(
    name: str,
    weights: str,
    *,
    pooling: str,
    size: tuple[int, int],
    precision: str = "float32",
    seed: int = 0,
    flip_average: bool = False,
    flip_cut: float = 0.0,
    preprocess: str | None = None,
) -> keras.Model:
    """Returns the feature extractor with preprocessing inside: (n, h, w, c) uint8 -> (n, d) float32.

    Args:
        pooling: `avg` (mean of the last block's map), `multi` (means of all blocks' maps, joined) or
            `flatten` (the last block's map, unchanged).
        size: (height, width) of the crops.
        precision: `bfloat16` computes convolutions in that type; weights stay in float32.
        flip_average: True for the mean of the features of the crop and of its mirror image, at twice the work.
        flip_cut: fraction of the side cut off each edge of the mirror image, which is then enlarged to `size`. This
            averages two frames, because some detectors draw wider boxes than others.
        preprocess: `caffe`, `symmetric` or `unit`; None for the network's own.

    Raises:
        BackboneError: a name is unknown, the size too small, or the weights are missing or of another network.
    """
    import keras

    kind = backbone(name)
    height, width = size
    kind.check_size(height, width)
    if pooling not in POOLINGS:
        raise BackboneError(f"features.pooling={pooling} is not one of {', '.join(POOLINGS)}")
    path = None if weights == "random" else kind.weights_path(weights)
    pixels = kind.preprocess_named(preprocess)
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
        with faults_of(path, kind.name):
            kind.load(base, path)
    image = keras.Input((height, width, kind.channels), dtype="uint8", name="crops")
    x = _Preprocessing(pixels, dtype="float32", name="preprocess")(image)
    if not flip_average:
        return keras.Model(image, _pool(base(x), pooling), name=f"{name}_features")
    # two calls of one shape, not one of twice the batch, so that neither kernels nor bits depend on `flip_average`
    mirror = _Mirror(height, width, flip_cut, dtype="float32", name="mirror")(x)
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
    with faults_of(path, kind.name):
        return kind.build(height, width, path)
