"""VGG16 and VGG19 through `keras.applications`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


def _vgg(application: str, height: int, width: int) -> keras.Model:
    import keras

    make = getattr(keras.applications, application)
    base = make(include_top=False, weights=None, input_shape=(height, width, 3))
    blocks = [base.get_layer(f"block{i}_pool").output for i in range(1, 6)]
    return keras.Model(base.input, blocks, name=application.lower())


def vgg16(height: int, width: int, _: Path | None = None) -> keras.Model:
    return _vgg("VGG16", height, width)


def vgg19(height: int, width: int, _: Path | None = None) -> keras.Model:
    return _vgg("VGG19", height, width)
