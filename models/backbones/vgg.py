"""VGG16 and VGG19 through `keras.applications`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from models.backbones.applications import Application
from models.backbones.convolutions import Convolution, ConvolutionBlock
from models.backbones.keras_files import Shape, check_kernels, read_convolutions
from models.backbones.named_arrays import check_arrays, read_arrays

if TYPE_CHECKING:
    import keras

_WIDTHS = (64, 128, 256, 512, 512)
_CONVOLUTIONS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}  # of each block


@dataclass(frozen=True)
class Vgg(Application):
    """VGG16 or VGG19, by its name. Its five blocks end with a max-pool."""

    is_convolutional = True

    def load(self, network: keras.Model, path: Path) -> None:
        """Sets the weights to those of a file of Keras's, or of an .npz file with arrays by layer."""
        if path.suffix != ".npz":
            return super().load(network, path)
        for layer, weights in read_arrays(path, self._layers()).items():
            network.get_layer(layer).set_weights(list(weights))

    def check_file(self, path: Path) -> None:
        """Raises Misfit if a file has other kernels than this network."""
        if path.suffix == ".npz":
            check_arrays(path, self._layers())
        else:
            check_kernels(path, vgg_kernels(self.name))

    def convolutions(self, path: Path) -> list[ConvolutionBlock]:
        """Returns the blocks of a file; a pool drops a last row or column without a partner."""
        if path.suffix == ".npz":
            found = list(read_arrays(path, self._layers()).values())
        else:
            found = read_convolutions(path, vgg_kernels(self.name))
        weights = iter(found)
        return [
            ConvolutionBlock(
                tuple(Convolution(f"block{block}_conv{conv}", *next(weights)) for conv in range(1, count + 1)),
                pooled=True,
                keeps_odd=False,
            )
            for block, count in enumerate(_CONVOLUTIONS[self.name], 1)
        ]

    def _layers(self) -> dict[str, Shape]:
        """Returns the shape of each kernel by the name of its layer in Keras, starting at the image."""
        blocks = enumerate(_CONVOLUTIONS[self.name], 1)
        names = [f"block{block}_conv{conv}" for block, count in blocks for conv in range(1, count + 1)]
        return dict(zip(names, vgg_kernels(self.name), strict=True))


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
