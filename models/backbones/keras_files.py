"""Reads convolutions in Keras's files of weights without Keras: `.h5` of both layouts, and `.keras`."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from models.backbones.backbone import Misfit

Shape = tuple[int, ...]

_INSIDE_KERAS = "model.weights.h5"  # the weights inside a .keras file, which is a zip file
_CONV = re.compile(r"conv2d(?:_(\d+))?")


def check_kernels(path: Path, expected: Sequence[Shape]) -> None:
    """Raises Misfit if the convolutions in a file have other kernels; a layout that is unknown here passes.

    Args:
        expected: (height, width, in, out) of each kernel, starting at the image.
    """
    with _opened(path) as file:
        _convolutions_in(file, expected)


def read_convolutions(path: Path, expected: Sequence[Shape]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns (kernel, bias), float32, of each convolution in a file.

    Args:
        expected: as in `check_kernels`.

    Raises:
        Misfit: the file has other kernels, or a layout that is unknown here.
    """
    with _opened(path) as file:
        found = _convolutions_in(file, expected)
        if len(found) < len(expected):
            raise Misfit("its layout is one that only Keras reads; set features.runtime to tensorflow or jax")
        return [(np.asarray(kernel[()], np.float32), np.asarray(bias[()], np.float32)) for kernel, bias in found]


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import h5py

    if path.suffix == ".npz":
        raise Misfit("an .npz file can only be of face_vgg")
    if path.suffix != ".keras":
        with h5py.File(path, "r") as file:
            yield file
        return
    with zipfile.ZipFile(path) as packed, packed.open(_INSIDE_KERAS) as inner, h5py.File(inner, "r") as file:
        yield file


def _convolutions_in(file: Any, expected: Sequence[Shape]) -> list[list[Any]]:
    """Returns the data sets [kernel, bias] of each convolution, checked; [] for a layout that is unknown here."""
    if "layer_names" not in file.attrs and "model_weights" in file:
        file = file["model_weights"]
    if "layer_names" in file.attrs:  # the older layout, in which Keras requires every layer
        found = list(_by_layer(file))
        if len(found) != len(expected):
            raise Misfit(f"it has {len(found)} layers with weights, not {len(expected)}")
    elif "layers" in file:
        found = _by_number(file["layers"])
        if found and len(found) < len(expected):
            raise Misfit(f"it has {len(found)} convolutions, not {len(expected)}")
    else:
        return []
    for number, (weights, wanted) in enumerate(zip(found, expected, strict=False), 1):
        compare_shapes(f"kernel {number}", weights[0].shape, wanted)
    return found[: len(expected)]


def _by_layer(file: Any) -> Iterator[list[Any]]:
    for name in _texts(file.attrs["layer_names"]):
        weights = _texts(file[name].attrs.get("weight_names", ()))
        if weights:
            yield [file[name][weight] for weight in weights]


def _by_number(layers: Any) -> list[list[Any]]:
    """Returns the weights of `conv2d`, `conv2d_1`, … in the order of their numbers."""
    numbered = {int(found[1] or 0): key for key in layers if (found := _CONV.fullmatch(key))}
    groups = [layers[numbered[number]]["vars"] for number in sorted(numbered)]
    return [[group[key] for key in sorted(group)] for group in groups]


def _texts(names: Any) -> list[str]:
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def compare_shapes(what: str, found: Shape, wanted: Shape) -> None:
    """Raises Misfit if two shapes differ."""
    if tuple(found) != wanted:
        raise Misfit(f"{what} has shape {_shown(found)}, not {_shown(wanted)}")


def _shown(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "a number"
