"""The shape of the one-shot detector's network: plain numbers, so that exporting needs no Keras."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class OneShotShape:
    """The shape of the network.

    Attributes:
        stem: channels of the first convolutions, at strides 2 and 4; the first 0: one convolution of 8x8 at stride 4.
        widths: channels at strides 8, 16 and 32.
        depths: residual blocks there.
        join: channels of the top-down path.
    """

    stem: tuple[int, int] = (0, 32)
    widths: tuple[int, int, int] = (48, 64, 96)
    depths: tuple[int, int, int] = (1, 2, 2)
    join: int = 48
