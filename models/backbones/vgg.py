"""VGG16 and VGG19 through `keras.applications`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from models.backbones.backbone import Backbone
from models.backbones.convolutions import Convolution, ConvolutionBlock
from models.backbones.keras_files import Shape, check_kernels, read_convolutions

if TYPE_CHECKING:
    import keras

_WIDTHS = (64, 128, 256, 512, 512)
_CONVOLUTIONS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}  # of each block


@dataclass(frozen=True)
class Vgg(Backbone):
    """VGG16 or VGG19, by its name."""

    def build(self, height: int, width: int, weights: Path | None = None) -> keras.Model:
        """Returns the base without the classifier; an output for each of its five blocks, after the max-pool."""
        import keras

        make = getattr(keras.applications, self.name.upper())
        base = make(include_top=False, weights=None, input_shape=(height, width, self.channels))
        blocks = [base.get_layer(f"block{i}_pool").output for i in range(1, 6)]
        return keras.Model(base.input, blocks, name=self.name)

    def check_file(self, path: Path) -> None:
        """Raises Misfit if a file of Keras's has other kernels than this network."""
        check_kernels(path, vgg_kernels(self.name))

    def convolutions(self, path: Path) -> list[ConvolutionBlock]:
        """Returns the blocks of a file of Keras's; its pools drop a last row or column without a partner."""
        weights = iter(read_convolutions(path, vgg_kernels(self.name)))
        return [
            ConvolutionBlock(
                tuple(Convolution(f"block{block}_conv{conv}", *next(weights)) for conv in range(1, count + 1)),
                pooled=True,
                keeps_odd=False,
            )
            for block, count in enumerate(_CONVOLUTIONS[self.name], 1)
        ]


def vgg_kernels(name: str) -> list[Shape]:
    """Returns the shape (height, width, in, out) of each kernel of a VGG's base, starting at the image.

    >>> vgg_kernels("vgg16")[:3]
    [(3, 3, 3, 64), (3, 3, 64, 64), (3, 3, 64, 128)]
    """
    shapes: list[Shape] = []
    channels = 3
    for width, count in zip(_WIDTHS, _CONVOLUTIONS[name], strict=True):
        for _ in range(count):
            shapes.append((3, 3, channels, width))
            channels = width
    return shapes
