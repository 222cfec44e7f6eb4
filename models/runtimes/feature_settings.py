"""What a runtime is asked to compile: a network, its weights, its input and its precision."""

from __future__ import annotations

from dataclasses import dataclass, field

from models.runtimes.default import default_runtime


@dataclass(frozen=True, slots=True)
class FeatureSettings:
    """The settings that determine the compiled function.

    Attributes:
        backbone: a key of `BACKBONES`.
        weights: `bundled`, `imagenet`, `random` or a path.
        pooling: `avg`, `multi` or `flatten`.
        height, width: of the crops, in pixels.
        batch_size: crops per call, at least the runtime's smallest batch; does not change features.
        precision: `float32` or `bfloat16`.
        seed: of random weights.
        flip_average: True for the mean of the features of the crop and of its mirror image.
        flip_cut: fraction of the side cut off each edge of that mirror image.
        preprocess: a key of `PREPROCESSES`; None for the network's own.
        runtime: a key of `RUNTIMES`.
        at_once: calls that may run at the same time; runtimes that can do so split the cores among them. Does not
            change features.
    """

    backbone: str
    weights: str
    pooling: str
    height: int
    width: int
    batch_size: int = 64
    precision: str = "float32"
    seed: int = 0
    flip_average: bool = False
    flip_cut: float = 0.0
    preprocess: str | None = None
    runtime: str = field(default_factory=default_runtime)
    at_once: int = 1
