"""The shape of a `face_vgg`: plain data, so that settings and `--help` need neither Keras nor numpy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FaceVggShape:
    """The shape of a `face_vgg`. It is stored in the weights file, so that files of other widths just work.

    Attributes:
        widths: channels of each block.
        convs: 3x3 convolutions per block.
    """

    widths: tuple[int, ...] = (32, 64, 128, 256, 384)
    convs: int = 2
