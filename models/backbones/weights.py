"""Checks if a weights file fits a network, from names and shapes only, before anything is loaded or computed.

It refuses only files that Keras would certainly refuse. A layout that is unknown here passes and is checked when it is
loaded (`features.py`). Not here: loading.
"""

from __future__ import annotations

import errno
import os
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.backbones.backbone import BackboneError
from models.backbones.registry import backbone

Shape = tuple[int, ...]

_VGG_WIDTHS = (64, 128, 256, 512, 512)
_CONVOLUTIONS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}  # of each block
_NORMALISATION = ("gamma", "beta", "mean", "variance")
_INSIDE_KERAS = "model.weights.h5"  # the weights inside a .keras file, which is a zip file
_KERNEL = re.compile(r"block(\d+)_conv(\d+)/kernel")
_CONV = re.compile(r"conv2d(?:_(\d+))?")
_UNREADABLE = (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile)
_OF_CONTENT = (None, errno.EINVAL, errno.EISDIR)  # OSError numbers with which readers report bad content


class _Misfit(Exception):
    """The file does not fit; the message is a clause."""


def check_weights_file(name: str, weights: str) -> None:
    """Raises BackboneError unless the file may hold weights of the network.

    Args:
        name: of the backbone.
        weights: `bundled`, `imagenet`, `random` (there is no file) or a path.

    Raises:
        OSError: the storage fails, so the file is not judged; one line with its path.
    """
    if weights == "random":
        return
    kind = backbone(name)
    path = kind.weights_path(weights)
    try:
        path.open("rb").close()  # gives a clearer error than h5py and zipfile
        if name == "face_vgg":
            _check_face_vgg(path)
        elif name in _CONVOLUTIONS:
            _check_vgg(path, vgg_kernels(name))
    except (_Misfit, *_UNREADABLE) as error:
        if isinstance(error, OSError) and error.errno not in _OF_CONTENT:
            raise OSError(error.errno, os.strerror(error.errno or 0), str(path)) from error
        fault = (str(error).splitlines() or [type(error).__name__])[0]
        raise BackboneError(
            f"{path} does not hold weights of {name}: {fault}; set features.weights to another file, "
            "or features.backbone to the network of this one"
        ) from error


def vgg_kernels(name: str) -> list[Shape]:
    """Returns the shape (height, width, in, out) of each kernel of a VGG's base, starting at the image.

    >>> vgg_kernels("vgg16")[:3]
    [(3, 3, 3, 64), (3, 3, 64, 64), (3, 3, 64, 128)]
    """
    shapes: list[Shape] = []
    channels = 3
    for width, count in zip(_VGG_WIDTHS, _CONVOLUTIONS[name], strict=True):
        for _ in range(count):
            shapes.append((3, 3, channels, width))
            channels = width
    return shapes


# --- face_vgg: named arrays; widths and depth are the file's own ------------------------------------------------------


def _check_face_vgg(path: Path) -> None:
    if not zipfile.is_zipfile(path) or path.suffix == ".keras":
        raise _Misfit("it is not an .npz file from train-backbone")
    channels = 1
    with np.load(path, allow_pickle=False) as stored:
        places = sorted((*map(int, found.groups()), key) for key in stored.files if (found := _KERNEL.fullmatch(key)))
        if not places:
            raise _Misfit("it has no arrays such as block1_conv1/kernel")
        for _, _, key in places:
            shape = stored[key].shape
            _compare(key, shape, (3, 3, channels, shape[-1] if shape else 0))
            channels = shape[-1]
            for part in _NORMALISATION:
                beside = key.replace("kernel", part)
                if beside not in stored.files:
                    raise _Misfit(f"{beside} is missing")
                _compare(beside, stored[beside].shape, (channels,))


# --- VGG: Keras's own files ----------------------------------------------------------------------------------------


def _check_vgg(path: Path, expected: Sequence[Shape]) -> None:
    import h5py

    if path.suffix == ".npz":
        raise _Misfit("an .npz file can only be of face_vgg")
    if path.suffix != ".keras":
        with h5py.File(path, "r") as file:
            _check_hdf5(file, expected)
        return
    with zipfile.ZipFile(path) as packed, packed.open(_INSIDE_KERAS) as inner, h5py.File(inner, "r") as file:
        _check_hdf5(file, expected)


def _check_hdf5(file: Any, expected: Sequence[Shape]) -> None:
    if "layer_names" not in file.attrs and "model_weights" in file:
        file = file["model_weights"]
    if "layer_names" in file.attrs:  # the older layout, in which Keras requires every layer
        kernels = list(_kernels_by_layer(file))
        if len(kernels) != len(expected):
            raise _Misfit(f"it has {len(kernels)} layers with weights, not {len(expected)}")
    elif "layers" in file:
        kernels = _kernels_by_number(file["layers"])
        if kernels and len(kernels) < len(expected):
            raise _Misfit(f"it has {len(kernels)} convolutions, not {len(expected)}")
    else:
        return
    for number, (found, wanted) in enumerate(zip(kernels, expected, strict=False), 1):
        _compare(f"kernel {number}", found, wanted)


def _kernels_by_layer(file: Any) -> Iterator[Shape]:
    for name in _texts(file.attrs["layer_names"]):
        weights = _texts(file[name].attrs.get("weight_names", ()))
        if weights:
            yield file[name][weights[0]].shape


def _kernels_by_number(layers: Any) -> list[Shape]:
    """Returns the kernels of `conv2d`, `conv2d_1`, … in the order of their numbers."""
    numbered = {int(found[1] or 0): key for key in layers if (found := _CONV.fullmatch(key))}
    return [layers[numbered[number]]["vars"]["0"].shape for number in sorted(numbered)]


def _texts(names: Any) -> list[str]:
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _compare(what: str, found: Shape, wanted: Shape) -> None:
    if tuple(found) != wanted:
        raise _Misfit(f"{what} has shape {_shown(found)}, not {_shown(wanted)}")


def _shown(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "a number"
