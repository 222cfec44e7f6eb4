"""The table of runtimes: what each needs, and one line where it cannot compute."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pictures
import pytest
import runs

from models.backbones.backbone import BackboneError
from models.runtimes import runtime as module
from models.runtimes.feature_settings import FeatureSettings
from models.runtimes.registry import RUNTIMES, runtime, start_keras

needs_jax = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs JAX: pip install jax")


def without(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """Makes a package look as if it were not installed."""
    found = importlib.util.find_spec
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None if name == package else found(name))


@pytest.mark.parametrize("name", sorted(RUNTIMES))
def test_a_runtime_describes_itself_by_its_name(name: str) -> None:
    one = runtime(name)
    assert one.name == name
    assert one.describe()["backend"] == name
    assert "float32" in one.precisions


def test_an_unknown_runtime_is_refused_naming_the_known_ones() -> None:
    with pytest.raises(BackboneError, match="the runtime 'torch' is not one of tensorflow, jax") as refused:
        runtime("torch")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", sorted(RUNTIMES))
def test_a_runtime_that_is_not_installed_is_one_line_with_the_package_to_install(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    one = runtime(name)
    without(monkeypatch, one.package)
    install = f"pip install 'facelabel-pipeline{f'[{one.extra}]' if one.extra else ''}'"
    for ask in (one.check_installed, one.start):
        with pytest.raises(BackboneError) as refused:
            ask()
        text = str(refused.value)
        assert text.startswith(f"features.runtime={name}: the package {one.package} is not installed; {install}")
        assert "\n" not in text


def test_a_precision_that_a_runtime_lacks_is_refused() -> None:
    with pytest.raises(BackboneError, match=r"features\.precision=int4 is not one of float32, bfloat16, which feat"):
        runtime("tensorflow").check(FeatureSettings("face_vgg", "bundled", "avg", 48, 48, precision="int4"))


@pytest.mark.parametrize("how", ["features.runtime", "KERAS_BACKEND"])
def test_a_run_without_jax_ends_with_one_line_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    without(monkeypatch, "jax")
    monkeypatch.setenv("KERAS_BACKEND", "jax" if how == "KERAS_BACKEND" else "tensorflow")
    chosen = ["--set", "features.runtime=jax"] if how == "features.runtime" else []
    words = ["--runner=DirectRunner", "--input", str(tmp_path / "nothing"), "--output", str(tmp_path / "out"), *chosen]
    assert runs.main(words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "pip install 'facelabel-pipeline[jax]'" in lines[0]
    assert not (tmp_path / "out").exists()


def test_a_training_without_jax_ends_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = pictures.write_folder(tmp_path / "faces", runs.faces(40))
    without(monkeypatch, "jax")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    other = pictures.write_folder(tmp_path / "others", runs.faces(9, first=40))
    words = ["--input", str(source), "--validation", str(other), "--output", str(tmp_path / "out"), "--quiet"]
    assert runs.main(["train-backbone", *words, "--set", "train.batch_size=8"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install 'facelabel-pipeline[jax]'" in line


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_nothing_is_trained_on_a_runtime_without_keras(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("KERAS_BACKEND", name)
    with pytest.raises(BackboneError, match=f"nothing is trained on {name}; set KERAS_BACKEND to tensorflow or jax"):
        start_keras()


def test_a_package_that_does_not_load_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ImportError("libsome.so.1: cannot open\nmore lines\nand more")

    one = runtime("tensorflow")
    monkeypatch.setattr(one, "_import", broken)
    with pytest.raises(
        BackboneError, match=r"tensorflow cannot be loaded \(libsome\.so\.1: cannot open\); pip"
    ) as ended:
        one.start()
    assert "\n" not in str(ended.value)


@needs_jax
def test_a_process_that_computes_on_one_backend_refuses_another() -> None:
    runtime("tensorflow").start()
    with pytest.raises(BackboneError, match="already computes on tensorflow; set KERAS_BACKEND=jax before it starts"):
        runtime("jax").start()


def test_a_runtime_is_claimed_only_before_keras_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime("tensorflow").start()
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    runtime("jax").claim()
    assert os.environ["KERAS_BACKEND"] == "tensorflow"
    monkeypatch.delitem(sys.modules, "keras")
    runtime("jax").claim()
    assert os.environ["KERAS_BACKEND"] == "jax"


def test_start_keras_sets_the_seed() -> None:
    start_keras(7)
    import keras

    one = float(keras.random.uniform(()))
    start_keras(7)
    assert float(keras.random.uniform(())) == one
