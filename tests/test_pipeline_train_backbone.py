"""train-backbone around the training itself: what is read, what is held out, what is written."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import gradient, jpeg, plain, png, write_folder, write_tar

from pipeline import train_backbone
from pipeline.cli import Command
from pipeline.config import load_settings
from pipeline.errors import StoppedError, UsageError
from pipeline.train_backbone import LabelledImages, read_labelled, without
from transforms.formats.records import Limits


def crop(number: int) -> bytes:
    """A 48 by 48 grey picture of its own."""
    return png(np.roll(gradient(48, 48), number, axis=1) // 2 + np.uint8(number % 100))


def folder_of(path: Path, count: int, *, first: int = 0, classes: tuple[str, ...] = ("happy", "sad")) -> Path:
    return write_folder(
        path, {f"{classes[n % len(classes)]}/{n:03d}.png": crop(n) for n in range(first, first + count)}
    )


def options(tmp_path: Path, **other: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"input": [str(tmp_path / "in")], "output": str(tmp_path / "out")}
    return {**given, "validation": None, "exclude": None, "epochs": None, "seed": None, **other}


def data(tmp_path: Path, **other: Any) -> Any:
    return train_backbone._data(options(tmp_path, **other), Limits())


def test_labelled_images_of_any_input(tmp_path: Path) -> None:
    files = {f"happy/{number}.png": crop(number) for number in range(3)}
    write_folder(tmp_path / "in", {**files, "sad/cut.jpg": jpeg(gradient(48, 48))[:-9], "top.png": crop(9)})
    write_tar(tmp_path / "in" / "b.tar", {"sad/a.png": crop(5)})
    write_tar(tmp_path / "in" / "c.tar.gz", {"sad/big.png": png(plain(96, 96, (9, 9, 9)))})
    images, passed_over = read_labelled([str(tmp_path / "in")], (48, 48), Limits())
    assert images.labels == ["happy", "happy", "happy", "sad", "sad"]
    assert (images.images.shape, images.images.dtype) == ((5, 48, 48, 1), np.uint8)
    assert (images.images[-1] == 9).all()
    assert images.digests[0] == hashlib.sha256(crop(0)).digest()
    assert passed_over == 2


def test_without_a_label_there_is_nothing_to_train_on(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", {"a.png": crop(0)})
    with pytest.raises(UsageError, match="labels come from class folders"):
        read_labelled([str(tmp_path / "in")], (48, 48), Limits())


def test_copies_are_left_out_by_content() -> None:
    images = LabelledImages(np.arange(3).reshape(3, 1, 1, 1), ["a", "b", "c"], [b"x", b"y", b"z"])
    kept = without(images, {b"y", b"other"})
    assert (kept.images.ravel().tolist(), kept.labels, kept.digests) == ([0, 2], ["a", "c"], [b"x", b"z"])


def test_copies_of_validation_and_excluded_images_are_not_trained_on(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", 20)
    folder_of(tmp_path / "validation", 6)
    write_folder(tmp_path / "test", {f"{n}.png": crop(n) for n in range(10, 14)})  # no label is needed there
    train, validation, classes = data(
        tmp_path, validation=[str(tmp_path / "validation")], exclude=[str(tmp_path / "test")]
    )
    assert (len(train), len(validation), classes) == (10, 6, ["happy", "sad"])
    seen = {image.tobytes() for image in train.images}
    assert not seen & {image.tobytes() for image in validation.images}
    assert sorted(seen) == sorted(
        read_labelled([str(tmp_path / "in")], (48, 48), Limits())[0].images[row].tobytes()
        for row, number in enumerate([*range(0, 20, 2), *range(1, 20, 2)])
        if number in {*range(6, 10), *range(14, 20)}
    )
    assert train.labels.tolist() == [0] * 5 + [1] * 5


def test_a_split_goes_by_content_so_that_copies_stay_together(tmp_path: Path) -> None:
    for name in ("one", "two"):
        folder_of(tmp_path / "in" / name, 40)
    train, validation, _ = data(tmp_path)
    assert len(train) + len(validation) == 80
    assert 0 < len(validation) < 30
    seen = [image.tobytes() for image in train.images]
    held = [image.tobytes() for image in validation.images]
    assert not set(seen) & set(held)
    assert len(held) == 2 * len(set(held))
    again = data(tmp_path)
    assert np.array_equal(again[1].images, validation.images)


def test_more_images_change_the_side_of_none(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", 60)
    before = {image.tobytes() for image in data(tmp_path)[1].images}
    folder_of(tmp_path / "in", 40, first=60)
    train, validation, _ = data(tmp_path)
    assert before < {image.tobytes() for image in validation.images}
    assert not before & {image.tobytes() for image in train.images}


def test_too_few_images_to_hold_some_out(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", 1)
    with pytest.raises(StoppedError, match="give --validation"):
        data(tmp_path)


def test_one_class_is_not_enough(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", 40, classes=("happy",))
    with pytest.raises(UsageError, match=r"one class only \(happy\)"):
        data(tmp_path)


def test_a_class_that_is_never_trained_cannot_be_validated(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", 10)
    folder_of(tmp_path / "validation", 3, first=50, classes=("angry", "sad"))
    with pytest.raises(UsageError, match="--validation has classes that --input lacks: angry"):
        data(tmp_path, validation=[str(tmp_path / "validation")])


def test_when_copies_are_all_there_is_nothing_is_left(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", 6)
    with pytest.raises(UsageError, match="nothing is left to train on"):
        data(tmp_path, validation=[str(tmp_path / "in")])


def test_the_command_exports_weights_that_the_pipeline_loads_and_a_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from models.backbones import build_features

    folder_of(tmp_path / "in", 30)
    seen: dict[str, Any] = {}

    def fit(network: Any, train: Any, validation: Any, recipe: Any, folder: Path, **_: Any) -> list[dict[str, float]]:
        seen.update(recipe=recipe, folder=folder, outputs=network.output_shape[-1])
        folder.mkdir(parents=True)
        return [{"epoch": 1.0, "val_accuracy": 0.625}]

    monkeypatch.setattr("models.training.engine.fit", fit)
    command = Command("train-backbone", options(tmp_path, epochs=3, seed=7), load_settings((), ()), [])
    assert train_backbone.run(command) == 0
    weights = tmp_path / "out" / "face_vgg.npz"
    assert f"--set features.weights={weights}" in capsys.readouterr().out
    assert (seen["recipe"].epochs, seen["recipe"].seed, seen["outputs"]) == (3, 7, 2)
    assert seen["folder"] == tmp_path / "out"
    card = json.loads((tmp_path / "out" / "face_vgg.json").read_text())
    assert card["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert (card["classes"], card["validation_accuracy"], card["recipe"]["epochs"]) == (["happy", "sad"], 0.625, 3)
    assert sum(card["images"].values()) == 30
    assert build_features("face_vgg", str(weights), pooling="avg", size=(48, 48)).output_shape == (None, 256)
