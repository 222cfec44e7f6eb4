"""What happens to pixels between the crop and the first convolution. Belongs to the weights, so it is named once, here.

`CAFFE` is what Keras's ImageNet weights of VGG16 and VGG19 were trained with: RGB turned to BGR, the
ImageNet mean of each channel taken off, no scaling (keras.applications.imagenet_utils). `UNIT` is 1/255.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

IMAGENET_MEAN_BGR = (103.939, 116.779, 123.68)  # of 0..255, in the order the caffe weights want


@dataclass(frozen=True)
class Preprocess:
    """A fixed affine map of uint8 pixels: reversed channels or not, minus `mean`, times `scale`."""

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
UNIT = Preprocess("unit", reverse_channels=False, mean=(0.0,), scale=1 / 255)
