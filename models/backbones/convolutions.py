"""A network of 3x3 convolutions as plain arrays: what runtimes without Keras compute from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Convolution:
    """A 3x3 convolution that keeps the size (zeros around the map), then relu.

    Attributes:
        name: unique in the network.
        kernel: (3, 3, channels in, channels out) float32.
        bias: (channels out,) float32.
    """

    name: str
    kernel: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True)
class ConvolutionBlock:
    """Convolutions, then a 2x2 max-pool with stride 2 or none; its output is one of the network's.

    Attributes:
        convolutions: in order.
        pooled: True for a max-pool at the end.
        keeps_odd: True if the pool keeps a last row or column without a partner, False if it drops it.
    """

    convolutions: tuple[Convolution, ...]
    pooled: bool
    keeps_odd: bool = True
