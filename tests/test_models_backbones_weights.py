"""Files of weights are recognised by their names and shapes: who fits, who is refused, and that Keras agrees."""

from __future__ import annotations

import errno
import itertools
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from models.backbones.backbone import BackboneError
from models.backbones.registry import BUNDLED_WEIGHTS, backbone
from models.backbones.vgg import vgg_kernels
from models.backbones.weights import check_weights_file

ROOT = Path(__file__).parents[1]
Shapes = Sequence[tuple[int, ...]]


def older(path: Path, kernels: Shapes, *, group: str = "") -> Path:
    """Writes a file as `keras.applications` ships them: a group a layer, some without weights."""
    with h5py.File(path, "w") as file:
        top = file.create_group(group) if group else file
        names = ["image", *(f"conv{number}" for number in range(len(kernels)))]
        top.attrs["layer_names"] = [name.encode() for name in names]
        for name, shape in itertools.zip_longest(names, [None, *kernels]):
            layer = top.create_group(name)
            layer.attrs["weight_names"] = (
                [] if shape is None else [f"{name}/kernel:0".encode(), f"{name}/bias:0".encode()]
            )
            if shape is not None:
                layer.create_dataset(f"{name}/kernel:0", shape, np.float32)
                layer.create_dataset(f"{name}/bias:0", shape[-1:], np.float32)
    return path


def newer(path: Path, kernels: Shapes) -> Path:
    """Writes a `.weights.h5` file."""
    with h5py.File(path, "w") as file:
        for number, shape in enumerate(kernels):
            name = f"layers/conv2d_{number}" if number else "layers/conv2d"
            file.create_dataset(f"{name}/vars/0", shape, np.float32)
            file.create_dataset(f"{name}/vars/1", shape[-1:], np.float32)
        file.create_group("layers/max_pooling2d/vars")
    return path


def packed(path: Path, kernels: Shapes) -> Path:
    """Writes a `.keras` file."""
    inner = newer(path.with_suffix(".inner"), kernels)
    with zipfile.ZipFile(path, "w") as file:
        file.write(inner, "model.weights.h5")
    return path


KINDS: dict[str, Callable[[Path, Shapes], Path]] = {
    "x.h5": older,
    "whole.h5": lambda path, kernels: older(path, kernels, group="model_weights"),
    "x.weights.h5": newer,
    "x.keras": packed,
}


def refusal(name: str, path: Path) -> str:
    with pytest.raises(BackboneError) as refused:
        check_weights_file(name, str(path))
    text = str(refused.value)
    assert text.startswith(f"{path} does not hold weights of {name}: ")
    assert "features.backbone" in text
    assert "\n" not in text
    return text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name, other", [("vgg16", "vgg19"), ("vgg19", "vgg16")])
def test_each_vgg_takes_its_own_and_refuses_the_other(tmp_path: Path, kind: str, name: str, other: str) -> None:
    path = KINDS[kind](tmp_path / kind, vgg_kernels(name))
    check_weights_file(name, str(path))
    refusal(other, path)
    refusal("face_vgg", path)


@pytest.mark.parametrize("kind", KINDS)
def test_another_shape_is_named(tmp_path: Path, kind: str) -> None:
    kernels = [(3, 3, 1, 64), *vgg_kernels("vgg16")[1:]]
    assert "kernel 1 has shape 3x3x1x64, not 3x3x3x64" in refusal("vgg16", KINDS[kind](tmp_path / kind, kernels))


def test_an_older_file_with_its_top_has_too_many_layers_as_keras_says(tmp_path: Path) -> None:
    path = older(tmp_path / "x.h5", [*vgg_kernels("vgg16"), (25088, 10)])
    assert "it has 14 layers with weights, not 13" in refusal("vgg16", path)


def test_a_newer_file_may_hold_more(tmp_path: Path) -> None:
    path = newer(tmp_path / "x.weights.h5", vgg_kernels("vgg16"))
    with h5py.File(path, "a") as file:
        file.create_dataset("layers/dense/vars/0", (25088, 10))
    check_weights_file("vgg16", str(path))


@pytest.mark.parametrize("name", ["vgg16", "vgg19", "face_vgg"])
@pytest.mark.parametrize("file", ["x.h5", "x.weights.h5", "x.keras", "x.npz"])
@pytest.mark.parametrize("content", [b"", b"no weights at all", b"PK\3\4 cut", b"\x89HDF\r\n\x1a\n cut"])
def test_what_is_no_file_of_weights_is_refused(tmp_path: Path, name: str, file: str, content: bytes) -> None:
    (tmp_path / file).write_bytes(content)
    refusal(name, tmp_path / file)


@pytest.mark.parametrize("name", ["vgg16", "face_vgg"])
@pytest.mark.parametrize("file", ["x.h5", "x.npz"])
def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path, name: str, file: str) -> None:
    (tmp_path / file).mkdir()
    with pytest.raises(BackboneError):
        check_weights_file(name, str(tmp_path / file))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("name, file, at", [("face_vgg", "x.npz", "numpy.load"), ("vgg16", "x.h5", "h5py.File")])
@pytest.mark.parametrize("when", ["opened", "read"])
def test_storage_that_fails_says_nothing_about_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, name: str, file: str, at: str, when: str
) -> None:
    path = stored(tmp_path / file, arrays(8)) if file.endswith("npz") else older(tmp_path / file, vgg_kernels(name))

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(number, "words of a library\nof two lines")

    monkeypatch.setattr(*((Path, "open") if when == "opened" else (at,)), fail)
    with pytest.raises(OSError, match="Errno") as fault:
        check_weights_file(name, str(path))
    assert str(fault.value) == f"[Errno {number}] {os.strerror(number)}: '{path}'"


def test_a_layout_that_is_not_known_is_left_to_keras(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("something/else", (3,))
    check_weights_file("vgg16", str(tmp_path / "x.h5"))


def test_there_is_no_file_of_random_weights() -> None:
    check_weights_file("vgg16", "random")


# --- face_vgg ---------------------------------------------------------------------------------------------------------


def arrays(*widths: int, channels: int = 1) -> dict[str, np.ndarray]:
    """Returns the arrays of a network of two convolutions a block."""
    made = {}
    for block, conv in itertools.product(range(1, len(widths) + 1), (1, 2)):
        name, width = f"block{block}_conv{conv}", widths[block - 1]
        made[f"{name}/kernel"] = np.zeros((3, 3, channels, width), np.float16)
        made |= {f"{name}/{part}": np.zeros(width, np.float16) for part in ("gamma", "beta", "mean", "variance")}
        channels = width
    return made


def stored(path: Path, named: dict[str, Any]) -> Path:
    np.savez(path, **named)
    return path


@pytest.mark.parametrize("widths", [(32, 64, 128, 256), (8,), tuple(range(1, 13))])
def test_a_face_vgg_of_any_width_and_depth(tmp_path: Path, widths: tuple[int, ...]) -> None:
    check_weights_file("face_vgg", str(stored(tmp_path / "x.npz", arrays(*widths))))


def test_what_ships_fits() -> None:
    assert BUNDLED_WEIGHTS.is_file()
    check_weights_file("face_vgg", "bundled")


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda made: {}, "no arrays such as block1_conv1/kernel"),
        (lambda made: {"coef": np.zeros(3)}, "no arrays such as block1_conv1/kernel"),
        (lambda made: arrays(8, 8, channels=3), "block1_conv1/kernel has shape 3x3x3x8, not 3x3x1x8"),
        (lambda made: {**made, "block2_conv1/kernel": np.zeros((3, 3, 9, 8))}, "has shape 3x3x9x8, not 3x3x8x8"),
        (lambda made: {**made, "block2_conv1/kernel": np.zeros(())}, "block2_conv1/kernel has shape a number"),
        (lambda made: {**made, "block2_conv2/mean": np.zeros(9)}, "block2_conv2/mean has shape 9, not 8"),
        (lambda made: {k: v for k, v in made.items() if k != "block1_conv2/beta"}, "block1_conv2/beta is missing"),
    ],
)
def test_arrays_that_are_not_of_a_face_vgg(tmp_path: Path, spoil: Callable[[Any], Any], words: str) -> None:
    assert words in refusal("face_vgg", stored(tmp_path / "x.npz", spoil(arrays(8, 8))))


def test_arrays_of_a_face_vgg_are_not_of_a_vgg(tmp_path: Path) -> None:
    refusal("vgg16", stored(tmp_path / "x.npz", arrays(8, 8)))


def by_layer(name: str, *, half: bool = False) -> dict[str, np.ndarray]:
    """Returns arrays by layer, as some people pass ImageNet's weights on; drawn, so that a mix-up shows."""
    draw = np.random.default_rng(0)
    made = {}
    network = backbone(name)
    for layer, shape in network._layers().items():  # type: ignore[attr-defined]  # of a VGG
        made[f"{layer}/kernel"] = draw.normal(0, 0.05, shape).astype(np.float16 if half else np.float32)
        made[f"{layer}/bias"] = draw.normal(0, 0.05, shape[-1:]).astype(np.float16 if half else np.float32)
    return made


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda made: {k: v for k, v in made.items() if "block5_conv3" not in k}, "it has 12 convolutions, not 13"),
        (lambda made: {k: v for k, v in made.items() if k != "block2_conv1/bias"}, "block2_conv1 has no bias"),
        (
            lambda made: {**made, "block1_conv1/kernel": made["block1_conv2/kernel"]},
            "has shape 3x3x64x64, not 3x3x3x64",
        ),
    ],
)
def test_arrays_that_are_not_of_a_vgg16(tmp_path: Path, spoil: Callable[[Any], Any], words: str) -> None:
    np.savez(tmp_path / "x.npz", **spoil(by_layer("vgg16", half=True)))
    assert words in refusal("vgg16", tmp_path / "x.npz")


# --- the real thing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vgg16", "vgg19"])
def test_files_that_keras_writes_are_told_right(tmp_path: Path, name: str) -> None:
    from keras.src.legacy.saving import legacy_h5_format

    network = backbone(name).build(32, 32, None)
    kernels = [tuple(v.shape) for v in network.trainable_variables if len(v.shape) == 4]
    assert kernels == vgg_kernels(name)
    network.save_weights(tmp_path / "x.weights.h5")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, network)
    other = {"vgg16": "vgg19", "vgg19": "vgg16"}[name]
    for file in ("x.weights.h5", "x.h5"):
        check_weights_file(name, str(tmp_path / file))
        refusal(other, tmp_path / file)


def test_arrays_by_layer_give_the_same_network_as_a_file_of_keras(tmp_path: Path) -> None:
    arrays_by_layer = by_layer("vgg16", half=True)
    np.savez(tmp_path / "x.npz", **arrays_by_layer)  # type: ignore[arg-type]
    check_weights_file("vgg16", str(tmp_path / "x.npz"))
    network = backbone("vgg16").build(32, 32, None)
    for layer in network.layers:
        if layer.weights:
            parts = (arrays_by_layer[f"{layer.name}/{part}"].astype(np.float32) for part in ("kernel", "bias"))
            layer.set_weights(list(parts))
    network.save_weights(tmp_path / "x.weights.h5")
    image = np.random.default_rng(1).normal(0, 50, (2, 32, 32, 3)).astype(np.float32)
    found = []
    for file in ("x.npz", "x.weights.h5"):
        other = backbone("vgg16").build(32, 32, None)
        backbone("vgg16").load(other, tmp_path / file)
        found.append([np.asarray(block) for block in other(image)])
    assert all((one == another).all() for one, another in zip(*found, strict=True))
    of_npz, of_keras = (backbone("vgg16").convolutions(tmp_path / file) for file in ("x.npz", "x.weights.h5"))
    for one, another in zip(of_npz, of_keras, strict=True):
        assert [c.name for c in one.convolutions] == [c.name for c in another.convolutions]
        assert all((a.kernel == b.kernel).all() for a, b in zip(one.convolutions, another.convolutions, strict=True))


def test_no_engine_is_loaded(tmp_path: Path) -> None:
    path = older(tmp_path / "x.h5", vgg_kernels("vgg16"))
    code = (
        "import sys\nfrom models.backbones.weights import check_weights_file\n"
        f"check_weights_file('vgg16', {str(path)!r})\ncheck_weights_file('face_vgg', 'bundled')\n"
        "assert not {'keras', 'tensorflow', 'jax'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
