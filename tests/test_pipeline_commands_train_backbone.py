"""train-backbone around the training itself: what is read, what is held out, what is written."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
from pictures import gradient, jpeg, plain, png, write_folder, write_tar

from models.backbones.landmarks import BUNDLED_LANDMARKS
from models.heads.registry import load_head
from models.training.checkpoint import CHECKPOINT
from models.training.recipe import Recipe
from models.training.stored_rows import StoredRows
from pipeline.actions import train_backbone
from pipeline.commands.command import Context
from pipeline.commands.train_backbone import TrainBackboneOptions
from pipeline.errors import StoppedError, UsageError
from pipeline.run import labelled_images
from pipeline.run.labelled_images import Form, LabelledImages, read_labelled
from pipeline.run.network_head import flags_for, settings_for
from pipeline.run.output_folder import OutputFolder
from pipeline.settings.load import load_settings
from transforms.formats.publish import StorageError
from transforms.formats.records import Limits

FORM = Form((48, 48))
RECIPES = Path(__file__).parents[1] / "configs" / "recipes"


def crop(number: int) -> bytes:
    """A 48 by 48 grey picture of its own."""
    return png(np.roll(gradient(48, 48), number, axis=1) // 2 + np.uint8(number % 100))


def folder_of(path: Path, count: int, *, first: int = 0, classes: tuple[str, ...] = ("happy", "sad")) -> Path:
    return write_folder(
        path, {f"{classes[n % len(classes)]}/{n:03d}.png": crop(n) for n in range(first, first + count)}
    )


def read(tmp_path: Path, **other: Any) -> Any:
    return labelled_images.read_data([str(tmp_path / "in")], load_settings((), ()), FORM, **other)


def data(tmp_path: Path, **other: Any) -> Any:
    found = read(tmp_path, **other)
    return found.train, found.validation, list(found.classes)


def test_labelled_images_of_any_input(tmp_path: Path) -> None:
    files = {f"happy/{number}.png": crop(number) for number in range(3)}
    write_folder(tmp_path / "in", {**files, "sad/cut.jpg": jpeg(gradient(48, 48))[:-9], "top.png": crop(9)})
    write_tar(tmp_path / "in" / "b.tar", {"sad/a.png": crop(5)})
    write_tar(tmp_path / "in" / "c.tar.gz", {"sad/big.png": png(plain(96, 96, (9, 9, 9)))})
    images, passed_over = read_labelled([str(tmp_path / "in")], FORM, Limits())
    assert images.labels == ["happy", "happy", "happy", "sad", "sad"]
    assert (images.images.shape, images.images.dtype) == ((5, 48, 48, 1), np.uint8)
    assert (images.images[-1] == 9).all()
    assert images.digests[0] == hashlib.sha256(crop(0)).digest()
    assert passed_over == 2


def test_without_a_label_there_is_nothing_to_train_on(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", {"a.png": crop(0)})
    with pytest.raises(UsageError, match="labels come from class folders"):
        read_labelled([str(tmp_path / "in")], FORM, Limits())


def test_copies_are_left_out_by_content() -> None:
    images = LabelledImages(np.arange(3).reshape(3, 1, 1, 1), ["1", "2", "3"], ["a", "b", "c"], [b"x", b"y", b"z"])
    kept = images.without({b"y", b"other"})
    assert kept.ids == ["1", "3"]
    assert (kept.images.ravel().tolist(), kept.labels, kept.digests) == ([0, 2], ["a", "c"], [b"x", b"z"])


def test_copies_of_validation_and_excluded_images_are_not_trained_on(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", 20)
    folder_of(tmp_path / "validation", 6)
    write_folder(tmp_path / "test", {f"{n}.png": crop(n) for n in range(10, 14)})  # no label is needed there
    train, validation, classes = data(
        tmp_path, validation=[str(tmp_path / "validation")], exclude_copies_of=[str(tmp_path / "test")]
    )
    assert (len(train.ids), len(validation.ids), classes) == (10, 6, ["happy", "sad"])
    seen = {image.tobytes() for image in train.images}
    assert not seen & {image.tobytes() for image in validation.images}
    assert sorted(seen) == sorted(
        read_labelled([str(tmp_path / "in")], FORM, Limits())[0].images[row].tobytes()
        for row, number in enumerate([*range(0, 20, 2), *range(1, 20, 2)])
        if number in {*range(6, 10), *range(14, 20)}
    )
    assert train.labels == ["happy"] * 5 + ["sad"] * 5


def test_a_split_goes_by_content_so_that_copies_stay_together(tmp_path: Path) -> None:
    for name in ("one", "two"):
        folder_of(tmp_path / "in" / name, 40)
    train, validation, _ = data(tmp_path)
    assert len(train.ids) + len(validation.ids) == 80
    assert 0 < len(validation.ids) < 30
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
    with pytest.raises(UsageError, match=r"fewer than two classes \(happy\)"):
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


def test_pictures_of_one_value_are_left_out_and_counted(tmp_path: Path, capsys: Any) -> None:
    folder_of(tmp_path / "in", 40)
    write_folder(tmp_path / "in", {"sad/blank.png": png(plain(48, 48, (7, 7, 7)))})
    found = read(tmp_path)
    assert len(found.train.ids) + len(found.validation.ids) == 40
    assert found.left_out["pictures of one value"] == 1
    assert "1 pictures of one value" in capsys.readouterr().err


def votes_file(tmp_path: Path) -> Path:
    path = tmp_path / "votes.csv"
    path.write_text("member,joy,NF\nhappy/000.png,3,1\nsad/001.png,1,9\nelse.png,1,0\n")
    return path


def test_soft_labels_are_a_task_of_their_own_and_no_face_silences_the_hard_label(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", 4)
    folder_of(tmp_path / "validation", 2, first=50)
    found = read(tmp_path, validation=[str(tmp_path / "validation")], soft_labels=(f"votes={votes_file(tmp_path)}",))
    settings = load_settings((), ("train.reject=[NF]", "train.soft_weight=0.5")).train
    tasks = labelled_images.tasks_of(found, settings)
    assert [(t.name, t.classes, t.weight, t.soft) for t in tasks] == [
        ("labels", ("happy", "sad"), 1.0, False),
        ("votes", ("joy", "NF"), 0.5, True),
    ]
    examples = labelled_images.examples_of(found.train, found, settings.reject)
    order = [found.train.ids.index(name) for name in ("happy/000.png", "sad/001.png", "happy/002.png")]
    assert examples.targets["votes"][order].tolist() == [[0.75, 0.25], [pytest.approx(0.1), pytest.approx(0.9)], [0, 0]]
    assert examples.weights["votes"][order].tolist() == [1, 1, 0]
    assert examples.weights["labels"][order].tolist() == [1, 0, 1]


def test_an_image_without_a_label_learns_soft_labels_alone(tmp_path: Path, capsys: Any) -> None:
    folder_of(tmp_path / "in", 4)
    write_folder(tmp_path / "in", {"else.png": crop(70), "other.png": crop(71)})
    folder_of(tmp_path / "validation", 2, first=50)
    found = read(tmp_path, validation=[str(tmp_path / "validation")], soft_labels=(f"votes={votes_file(tmp_path)}",))
    assert "5 images to learn from, 1 of them with soft labels only; skipped: 1 without" in capsys.readouterr().err
    row = found.train.ids.index("else.png")
    assert found.train.labels[row] is None and found.classes == ("happy", "sad")
    examples = labelled_images.examples_of(found.train, found, ())
    assert examples.targets["labels"][row].tolist() == [0, 0] and examples.weights["labels"][row] == 0
    assert examples.targets["votes"][row].tolist() == [1, 0] and examples.weights["votes"][row] == 1
    assert examples.weights["labels"].sum() == 4


def test_images_without_a_label_are_not_held_out(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", 40)
    loose = {f"loose{n:02d}.png": crop(100 + n) for n in range(40)}
    write_folder(tmp_path / "in", loose)
    votes = tmp_path / "votes.csv"
    votes.write_text("member,joy,NF\n" + "".join(f"{name},3,1\n" for name in loose))
    found = read(tmp_path, soft_labels=(f"votes={votes}",))
    assert None not in found.validation.labels and found.validation.labels
    assert found.train.labels.count(None) == 40


@pytest.mark.parametrize(
    "source, words",
    [
        ("votes.csv", "give NAME=PATH"),
        ("labels={votes}", "with a new name"),
        ("a={nowhere}", "neither a CSV file nor the folder of a finished run"),
    ],
)
def test_soft_labels_that_cannot_be_are_one_line(tmp_path: Path, source: str, words: str) -> None:
    text = source.format(votes=votes_file(tmp_path), nowhere=tmp_path / "nowhere")
    with pytest.raises(UsageError, match=f"--soft-labels .*{words}"):
        labelled_images.read_soft_labels((text,))


def test_soft_labels_that_know_no_image_or_no_such_class(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", 40, first=10)
    found = read(tmp_path, soft_labels=(f"votes={votes_file(tmp_path)}",))
    examples = labelled_images.examples_of(found.train, found, ())
    with pytest.raises(UsageError, match="votes knows none of the images"):
        labelled_images.check_soft_labels(examples, found, ())
    with pytest.raises(UsageError, match=r"train.reject NX: no --soft-labels has that class; known: none"):
        labelled_images.check_soft_labels(examples, read(tmp_path), ("NX",))


def test_settings_make_the_recipe() -> None:
    settings = load_settings((), ("train.rates=[block1=0, block2=0.5]", "train.frozen=[block1]", "train.epochs=3"))
    recipe = train_backbone.recipe_of(settings.train)
    assert (recipe.rates, recipe.frozen, recipe.epochs) == ({"block1": 0.0, "block2": 0.5}, ("block1",), 3)
    assert train_backbone.recipe_of(
        load_settings((), ("train.progressive_sizes=[24, 40]",)).train
    ).progressive_sizes == (24, 40)
    assert train_backbone.recipe_of(load_settings((), ()).train) == Recipe()


def test_the_bundled_recipe_ends_on_what_the_network_is_applied_to() -> None:
    recipe = train_backbone.recipe_of(load_settings([RECIPES / "face_vgg.yaml"], ()).train)
    assert (recipe.side_in(recipe.epochs - 1), recipe.crop) == (48, 0)


@pytest.mark.parametrize("sides", ["[12]", "[49]", "24", "[24.5]"])
def test_a_side_that_collapses_or_enlarges_is_refused(sides: str) -> None:
    with pytest.raises(UsageError, match=r"train\.progressive_sizes"):
        load_settings((), (f"train.progressive_sizes={sides}",))


def test_sides_larger_than_the_crop_are_a_contradiction() -> None:
    with pytest.raises(
        UsageError, match=r"train\.progressive_sizes has 48, but train\.crop leaves 40 pixels: set train\.crop=0"
    ):
        load_settings((), ("train.progressive_sizes=[24, 48]",))


@pytest.mark.parametrize("other", ["train.stop_patience=5", "train.schedule=plateau"])
def test_what_goes_by_validation_contradicts_sides(other: str) -> None:
    load_settings((), (other,))
    with pytest.raises(UsageError, match=r"train\.progressive_sizes makes early epochs look bad[^\n]*$"):
        load_settings((), ("train.progressive_sizes=[24, 40]", other))


def train(tmp_path: Path, *settings: str, **other: Any) -> int:
    options = TrainBackboneOptions(**{"input": (str(tmp_path / "in"),), "output": str(tmp_path / "out"), **other})
    return train_backbone.run(options, Context(load_settings((), settings)))


def test_the_command_exports_weights_that_the_pipeline_loads_and_a_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from models.backbones.features import build_features

    folder_of(tmp_path / "in", 30)
    seen: dict[str, Any] = {}

    def fit(network: Any, train: Any, validation: Any, tasks: Any, recipe: Any, folder: Path, **_: Any) -> Any:
        seen.update(recipe=recipe, folder=folder, outputs=network.output["labels"].shape)
        row = {"loss": 1.0, "accuracy": 0.5, "val_loss": 1.0, "val_accuracy": 0.625}
        return [{"epoch": 1.0, **row}]

    monkeypatch.setattr("models.training.trainer.fit", fit)
    small = ("train.epochs=3", "train.seed=7", "train.widths=[4, 8, 16]", "train.batch_size=8")
    assert train(tmp_path, *small) == 0
    weights = tmp_path / "out" / "face_vgg.npz"
    assert f"features.weights={weights} features.pooling=avg" in capsys.readouterr().out
    assert (seen["recipe"].epochs, seen["recipe"].seed, seen["outputs"]) == (3, 7, (None, 2))
    assert seen["folder"] == tmp_path / "out"
    card = json.loads((tmp_path / "out" / "face_vgg.json").read_text())
    assert card["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert (card["classes"], card["validation_accuracy"], card["recipe"]["epochs"]) == (["happy", "sad"], 0.625, 3)
    assert sum(card["images"].values()) == 30
    for pooling, width in (("avg", 16), ("multi", 28)):
        features = build_features("face_vgg", str(weights), pooling=pooling, size=(48, 48))
        assert features.output_shape == (None, width)


@pytest.mark.parametrize("setting", ["train.frozen=[blok1]", "train.rates=[blok1=0.5]"])
def test_a_layer_that_is_not_there_is_one_line(tmp_path: Path, setting: str) -> None:
    folder_of(tmp_path / "in", 30)
    with pytest.raises(UsageError, match=r"no layer's name begins with blok1; layers: .*block1_conv1"):
        train(tmp_path, "train.widths=[4]", "train.batch_size=8", setting)


@pytest.mark.parametrize("factor", ["1.2.3", "", "-1", "e3", "many"])
def test_a_factor_that_is_no_number_is_refused(factor: str) -> None:
    with pytest.raises(UsageError, match=r"train\.rates is .*allowed is a list"):
        load_settings((), (f"train.rates=['block1={factor}']",))


def untrained(*given: Any, **_: Any) -> list[Any]:
    """Stands for the training: leaves a checkpoint behind and no epoch."""
    (given[5] / CHECKPOINT).touch()
    return []


def test_another_recipe_does_not_go_on_from_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of(tmp_path / "in", 30)
    monkeypatch.setattr("models.training.trainer.fit", untrained)
    small = ("train.widths=[4]", "train.batch_size=8")
    assert train(tmp_path, *small) == 0
    assert train(tmp_path, *small) == 0
    with pytest.raises(UsageError, match=r"another recipe \(recipe.epochs: 60 there, 3 here\)"):
        train(tmp_path, *small, "train.epochs=3")
    (tmp_path / "out" / CHECKPOINT).unlink()
    with pytest.raises(UsageError, match="another recipe"):  # its weights still stand there
        train(tmp_path, *small, "train.epochs=3")
    (tmp_path / "out" / "face_vgg.npz").unlink()  # as where the first epoch did not end
    assert train(tmp_path, *small, "train.epochs=3") == 0
    with pytest.raises(UsageError, match=r"recipe.epochs: 3 there, 60 here"):
        train(tmp_path, *small)


def test_a_training_begun_before_a_setting_existed_goes_on_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_of(tmp_path / "in", 30)
    monkeypatch.setattr("models.training.trainer.fit", untrained)
    small = ("train.widths=[4]", "train.batch_size=8")
    assert train(tmp_path, *small) == 0
    path = tmp_path / "out" / "recipe.json"
    provenance = json.loads(path.read_text())
    del provenance["recipe"]["zoom_out"]
    path.write_text(json.dumps(provenance))
    assert train(tmp_path, *small) == 0
    with pytest.raises(UsageError, match=r"recipe.zoom_out: 0.0 there, 0.5 here"):
        train(tmp_path, *small, "train.zoom_out=0.5")


@pytest.mark.parametrize("text", ["", '{"recipe": ', "[]", "{}"])
def test_a_damaged_recipe_of_a_training_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    folder_of(tmp_path / "in", 30)
    monkeypatch.setattr("models.training.trainer.fit", untrained)
    small = ("train.widths=[4]", "train.batch_size=8")
    assert train(tmp_path, *small) == 0
    (tmp_path / "out" / "recipe.json").write_text(text)
    with pytest.raises(UsageError, match=r"^[^\n]*recipe\.json is damaged \([^\n]*use another --output$"):
        train(tmp_path, *small)


def test_two_trainings_do_not_share_a_folder(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", 30)
    with OutputFolder(str(tmp_path / "out")).locked(), pytest.raises(StoppedError, match="another run is using this"):
        train(tmp_path, "train.widths=[4]", "train.batch_size=8")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("image", "images_and_labels"),
        ("label", "images_and_labels"),
        ("reject", "reject: "),
        ("weight", "soft_weight"),
    ],
)
def test_other_images_or_labels_do_not_go_on_from_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, words: str
) -> None:
    folder_of(tmp_path / "in", 30)
    votes = [f"happy/{n:03d}.png,{n % 3},1,0" for n in range(0, 30, 2)]
    (tmp_path / "votes.csv").write_text("\n".join(["image,yes,no,nothing", *votes]))
    monkeypatch.setattr("models.training.trainer.fit", untrained)
    small = ["train.widths=[4]", "train.batch_size=8"]
    soft = {"soft_labels": [f"votes={tmp_path / 'votes.csv'}"]}
    assert train(tmp_path, *small, **soft) == 0
    if change == "image":
        (tmp_path / "in" / "happy" / "000.png").write_bytes(crop(77))
    elif change == "label":
        (tmp_path / "in" / "happy" / "000.png").rename(tmp_path / "in" / "sad" / "000.png")
    else:
        small.append({"reject": "train.reject=[nothing]", "weight": "train.soft_weight=0.5"}[change])
    with pytest.raises(UsageError, match=rf"another recipe \(.*{words}"):
        train(tmp_path, *small, **soft)


def test_training_starts_from_weights_of_the_same_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of(tmp_path / "in", 30)
    networks: list[Any] = []
    monkeypatch.setattr("models.training.trainer.fit", lambda network, *_, **__: networks.append(network) or [])
    small = ("train.widths=[4, 8]", "train.batch_size=8")
    assert train(tmp_path, *small, "train.seed=5") == 0
    start = f"train.start={tmp_path / 'out' / 'face_vgg.npz'}"
    assert train(tmp_path, *small, start, output=str(tmp_path / "fine")) == 0
    first, fine = (network.get_layer("block2_conv1").get_weights()[0] for network in networks)
    assert np.array_equal(first.astype(np.float16), fine)
    card = json.loads((tmp_path / "fine" / "face_vgg.json").read_text())
    assert card["start"] == hashlib.sha256((tmp_path / "out" / "face_vgg.npz").read_bytes()).hexdigest()
    for widths in ("[4, 6]", "[4]", "[4, 8, 16]"):
        with pytest.raises(UsageError, match=r"train\.widths and train\.convs must match train\.start"):
            train(tmp_path, f"train.widths={widths}", small[1], start, output=str(tmp_path / widths))
    for name, data in {"cut": (tmp_path / "out" / "face_vgg.npz").read_bytes()[:900], "text": b"weights"}.items():
        (tmp_path / f"{name}.npz").write_bytes(data)
        with pytest.raises(UsageError, match=rf"{name}\.npz does not hold weights of face_vgg: [^\n]*$"):
            train(tmp_path, *small, f"train.start={tmp_path / name}.npz", output=str(tmp_path / "no"))
    with pytest.raises(UsageError, match=r"train\.start=.*no\.npz: no file"):
        train(tmp_path, *small, f"train.start={tmp_path / 'no.npz'}")


def test_the_bundled_weights_are_those_of_their_card() -> None:
    folder = Path(train_backbone.__file__).parents[2] / "models" / "weights"
    card = json.loads((folder / "face_vgg.json").read_text())
    weights = (folder / "face_vgg.npz").read_bytes()
    assert len(weights) <= 8_000_000
    assert card["sha256"] == hashlib.sha256(weights).hexdigest()
    with np.load(folder / "face_vgg.npz") as stored:
        assert json.loads(stored["shape"].tobytes())["widths"] == card["network"]["widths"]
    for head in ("fer2013", "ferplus", "smile"):
        about = json.loads((folder / head / "head.json").read_text())
        assert about["features"]["weights"] == card["sha256"]


def test_fewer_images_than_a_batch_are_one_line(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", 30)
    with pytest.raises(UsageError, match=r"fewer than one batch of 128; .*train\.batch_size"):
        train(tmp_path, "train.widths=[4]", "train.precision=float32")


def test_the_script_of_the_bundled_model_makes_network_and_heads_and_goes_on(tmp_path: Path) -> None:
    """With tiny networks and pictures: that its commands fit each other, not what they reach."""
    classes = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
    voted = "neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
    data, rows = tmp_path / "with space", [f"member,{voted}"]
    data.mkdir()
    for first, count, name in ((0, 70, "train.tar.gz"), (100, 280, "val.tar.gz"), (500, 14, "test.tar")):
        members = {f"{classes[n % 7]}/{name[:3]}_{n:03d}.png": crop(n) for n in range(first, first + count)}
        write_tar(data / name, members)
        rows += [
            f"{member},{n % 3},{n % 4},1,{n % 5},{n % 2},1,2,1,{n % 7},{n % 2}" for n, member in enumerate(members)
        ]
    (data / "ferplus.csv").write_text("\n".join(rows))
    script = RECIPES / "bundled.sh"
    small = ["train.widths=[4, 8]", "train.epochs=1", "train.batch_size=8", "train.precision=float32"]
    for _ in range(2):  # a second time finds everything done
        done = subprocess.run(
            ["sh", str(script), str(data), str(tmp_path / "out"), "--set", *small],
            env={**os.environ, "PYTHON": sys.executable}, cwd=script.parents[2], capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    for head, count in (("fer2013", 7), ("ferplus", 8)):
        about = json.loads((tmp_path / "out" / head / "head.json").read_text())
        weights = (tmp_path / "out" / "face_vgg" / "face_vgg.npz").read_bytes()
        assert (len(about["classes"]), about["features"]["weights"]) == (count, hashlib.sha256(weights).hexdigest())
    for head in ("ferplus", "smile"):
        with_intensity = load_head(tmp_path / "out" / f"{head}_with_intensity")
        assert "intensity" in [column.name for column in with_intensity.output.columns]
    card = json.loads((tmp_path / "out" / "face_vgg" / "face_vgg.json").read_text())
    first = tmp_path / "out" / "first"
    assert (card["recipe"]["progressive_sizes"], card["recipe"]["mixup"], card["network"]["widths"]) == (
        [40, 48],
        0,
        [4, 8],
    )
    assert card["start"] == hashlib.sha256((first / "face_vgg.npz").read_bytes()).hexdigest()
    before = json.loads((first / "face_vgg.json").read_text())
    assert (before["recipe"]["progressive_sizes"], before["recipe"]["mixup"], before["start"]) == (
        [24, 32, 40, 48],
        0.2,
        None,
    )
    assert json.loads((tmp_path / "out" / "fer2013" / "head.json").read_text())["recipe"]["soft_share"] == 0.15


# --- other networks ---------------------------------------------------------------------------------------------------


def coloured(path: Path, count: int) -> Path:
    """Pictures of 40 by 56 that are reddish or bluish, by their folder."""
    draw = np.random.default_rng(count)
    files = {}
    for n in range(count):
        pixels = draw.integers(0, 80, (40, 56, 3), np.uint8)
        pixels[..., 0 if n % 2 else 2] += 160
        files[f"{'red' if n % 2 else 'blue'}/{n:03d}.png"] = png(pixels)
    return write_folder(path, files)


def test_any_network_trains_and_labels_with_its_own_classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `label` answers with the exported weights and head is what the network answered on validation."""
    monkeypatch.setattr(train_backbone, "ENOUGH_MOMENTUM", 0.5)  # so few steps would hardly move the statistics
    coloured(tmp_path / "in", 48)
    others = coloured(tmp_path / "validation", 12)
    more = ("train.batch_size=16", "train.epochs=8", "train.learning_rate=0.001", "train.flip=false", "train.erase=0",
            "train.optimiser=adam", "train.warmup_epochs=0", "train.top_dropout=0", "train.blur=0")  # fmt: skip
    network = ("train.backbone=mobilenet", "train.input_size=32x48", "train.precision=float32", "train.ema_decay=0")
    plain = ("train.shift=0", "train.rotation=0", "train.scale=0", "train.shrink=0", "train.brightness=0")
    assert train(tmp_path, *more, *network, *plain, validation=(str(others),)) == 0
    card = json.loads((tmp_path / "out" / "mobilenet.json").read_text())
    assert card["network"] == {"backbone": "mobilenet", "input_size": [32, 48]}
    assert card["validation_accuracy"] > 0.9
    features = {"backbone": "mobilenet", "weights": tmp_path / "out" / "mobilenet.npz", "pooling": "avg"}
    flags = [f"features.{name}={value}" for name, value in (features | {"input_size": "32x48"}).items()]
    bench = runs.Bench(tmp_path, tmp_path / "out" / "head", ("faces.detector=none", *flags))
    ended = bench.label(others, "labelled").done()
    rows = runs.predictions(ended.output)
    right = [row["label"] == row["image_id"].partition("/")[0] for row in rows]
    assert sum(right) / len(right) == pytest.approx(card["validation_accuracy"])


def test_a_network_that_looks_at_places_trains_and_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixels go in and labels come out: the landmarks are found by what the exported file holds."""
    monkeypatch.setattr(train_backbone, "ENOUGH_MOMENTUM", 0.5)
    coloured(tmp_path / "in", 32)
    others = coloured(tmp_path / "validation", 12)
    more = ("train.batch_size=8", "train.epochs=6", "train.learning_rate=0.02", "train.precision=float32",
            "train.ema_decay=0", "train.warmup_epochs=0", "train.top_dropout=0", "train.crop=0", "train.erase=0",
            "train.brightness=0", "train.contrast=0")  # fmt: skip
    network = ("train.backbone=face_vgg_attention", "train.widths=[4, 8, 8, 8]", "train.convs=1")
    assert train(tmp_path, *more, *network, validation=(str(others),)) == 0
    card = json.loads((tmp_path / "out" / "face_vgg_attention.json").read_text())
    landmarks = hashlib.sha256(BUNDLED_LANDMARKS.read_bytes()).hexdigest()
    assert (card["network"]["backbone"], card["network"]["landmarks"]) == ("face_vgg_attention", landmarks)
    features = {"backbone": "face_vgg_attention", "weights": tmp_path / "out" / "face_vgg_attention.npz"}
    flags = [f"features.{name}={value}" for name, value in (features | {"pooling": "avg"}).items()]
    bench = runs.Bench(tmp_path, tmp_path / "out" / "head", ("faces.detector=none", *flags))
    rows = runs.predictions(bench.label(others, "labelled").done().output)
    right = [row["label"] == row["image_id"].partition("/")[0] for row in rows]
    assert sum(right) / len(right) == pytest.approx(card["validation_accuracy"])
    assert card["validation_accuracy"] > 0.8


@pytest.mark.parametrize("name", sorted(path.name for path in RECIPES.glob("*.yaml")))
def test_every_recipe_is_a_file_of_settings(name: str) -> None:
    load_settings([RECIPES / name], ())


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folder_of(tmp_path / "in", 2)
    monkeypatch.setattr(labelled_images.RowsWriter, "add", full)
    with pytest.raises(StorageError, match=rf"cannot write a temporary file in {tmp_path}: No space left on device; "):
        read_labelled([str(tmp_path / "in")], Form((48, 48), 1, tmp_path), Limits())


def test_images_too_small_for_the_network_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^train\.input_size=8x8 is too small for face_vgg; use 16 or more$"):
        train(tmp_path, "train.input_size=8", "train.crop=0")
    assert not (tmp_path / "out").exists()


def test_the_printed_flags_survive_a_shell() -> None:
    chosen = settings_for(load_settings((), ()), "face_vgg", Path("my out/face_vgg.npz"), (48, 48))
    words = shlex.split(flags_for(chosen, Path("my out/head")))
    assert words[:3] == ["--head", "my out/head", "--set"] and "features.weights=my out/face_vgg.npz" in words


def test_pixels_wait_in_a_file_that_goes_with_the_process(tmp_path: Path) -> None:
    folder_of(tmp_path / "in", 20)
    (tmp_path / "room").mkdir()
    read, _ = read_labelled([str(tmp_path / "in")], Form((48, 48), 1, tmp_path / "room"), Limits())
    whole, _ = read_labelled([str(tmp_path / "in")], FORM, Limits())
    assert isinstance(read.images, StoredRows) and os.listdir(tmp_path / "room") == []
    assert np.array_equal(read.images, whole.images)
    assert np.array_equal(read.of([3, 1]).images, whole.images[[3, 1]])
