"""The preprocessing between crop and first convolution. It belongs to the weights, so it is defined once, here.

Keras's ImageNet weights of VGG16 and VGG19 were trained with `CAFFE`: RGB becomes BGR, the ImageNet mean of each
channel is subtracted, no scaling (keras.applications.imagenet_utils); so were ResNet50's. MobileNet's were trained
with `SYMMETRIC`, pixels from -1 to 1. `UNIT` scales by 1/255.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

IMAGENET_MEAN_BGR = (103.939, 116.779, 123.68)  # of 0..255, in the order of the caffe weights


@dataclass(frozen=True)
class Preprocess:
    """A fixed affine map of uint8 pixels: optionally reverses the channels, then subtracts `mean`, times `scale`."""

    name: str
    reverse_channels: bool
    mean: tuple[float, ...]
    scale: float

    def apply(self, images: Any) -> Any:
        """Returns float pixels, same shape, for a float tensor of 0..255 (n, h, w, c) RGB or grey."""
        from keras import ops

        if self.reverse_channels:
            images = ops.flip(images, axis=-1)
        if any(self.mean):
            images = images - ops.convert_to_tensor(self.mean, dtype=images.dtype)
        if self.scale != 1:
            images = images * self.scale
        return images


CAFFE = Preprocess("caffe", reverse_channels=True, mean=IMAGENET_MEAN_BGR, scale=1.0)
SYMMETRIC = Preprocess("symmetric", reverse_channels=False, mean=(127.5,), scale=1 / 127.5)
UNIT = Preprocess("unit", reverse_channels=False, mean=(0.0,), scale=1 / 255)
PREPROCESSES = {kind.name: kind for kind in (CAFFE, SYMMETRIC, UNIT)}
