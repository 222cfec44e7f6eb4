"""`train-head`: what is kept out of a training, whose labels count, and the table of all kinds."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pictures
import pytest
import runs

from models.backbones.shape import FaceVggShape
from models.training.checkpoint import load_checkpoint
from models.training.folds import Folds, cross_validated
from models.training.head_data import Rows
from models.training.imbalance import WAYS
from pipeline.actions.compare_heads import candidates_of, row_of
from pipeline.actions.head_training import head_training
from pipeline.cli import parse
from pipeline.errors import StoppedError, UsageError
from pipeline.run import answers, fitting, gathering
from pipeline.run.output_folder import OutputFolder
from pipeline.run.soft_labels import renamed
from transforms.formats.cache.feature_cache import FeatureCache
from transforms.formats.soft_labels import SoftLabels


def test_excluded_images_are_known_by_their_bytes_and_cost_no_features(tmp_path: Path) -> None:
    files = runs.faces(60)
    train = pictures.write_tar(tmp_path / "train.tar", files)
    unlabelled = {f"{i}.png": data for i, data in enumerate(list(files.values())[:20])}
    strange = {f"strange_{i}.png": data for i, data in enumerate(runs.faces(5, first=900).values())}
    held_out = pictures.write_tar(tmp_path / "held_out.tar.gz", {**unlabelled, **strange, "text.png": b"no image"})
    output = tmp_path / "head"
    given = ["--input", str(train), "--exclude-copies-of", str(held_out), "--output", str(output), "--set", *runs.SMALL]
    ended = runs.run("train-head", "--runner=DirectRunner", *given, output=output).done()
    assert "excluded: 26 images, 26 of them distinct" in ended.err
    assert "20 copies of validation or excluded images skipped" in ended.err
    assert len(FeatureCache.open(output / "cache")) == 60
    assert not (output / "work" / "excluded").exists()


def head(source: Path, output: Path, *more: str) -> runs.Ended:
    given = ["--input", str(source), "--output", str(output), "--set", *runs.SMALL]
    return runs.run("train-head", "--runner=DirectRunner", *given, *more, output=output)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures.write_tar(tmp_path_factory.mktemp("source") / "train.tar", runs.faces(60))


VOTES = "id,happy,neutral,sad,NF\n" + "".join(f"{name},3,2,1,0\n" for name in runs.faces(30))


@pytest.mark.parametrize(
    "text, more, status, said",
    [
        (VOTES, ("--reject", "unknown"), 2, "--reject unknown: --soft-labels has no such class; known: happy"),
        (VOTES, ("--classes", "bored"), 2, "--classes bored: --soft-labels has no such class"),
        ("id,a,b\nelsewhere.png,1,0\n", (), 2, "--soft-labels knows none of the images, whose ids are like"),
        ("id,a,b\nx.png,1\n", (), 3, "votes.csv, line 2: expected 2 numbers of 0 or more"),
        (VOTES, (), 3, "no training row has a vote for NF"),
    ],
)
def test_votes_that_do_not_fit_are_refused_in_one_line(
    source: Path, tmp_path: Path, text: str, more: tuple[str, ...], status: int, said: str
) -> None:
    (tmp_path / "votes.csv").write_text(text)
    ended = head(source, tmp_path / "head", "--soft-labels", str(tmp_path / "votes.csv"), "--quiet", *more)
    assert ended.status == status
    assert said in ended.err.splitlines()[-1]
    assert not (tmp_path / "head" / "head.json").exists()


def test_a_path_that_is_no_source_of_votes_is_refused_before_any_work(source: Path, tmp_path: Path) -> None:
    ended = head(source, tmp_path / "head", "--soft-labels", str(tmp_path / "nowhere"))
    assert ended.status == 2
    assert "neither a CSV file nor the folder of a finished run" in ended.line
    assert not (tmp_path / "head").exists()


def test_names_of_votes_leave_the_others_out(source: Path, tmp_path: Path) -> None:
    lines = [f"{name},{number % 3},{(number + 1) % 3},5" for number, name in enumerate(runs.faces(60))]
    (tmp_path / "votes.csv").write_text("\n".join(["id,happy,sad,neutral", *lines]))
    votes = ("--soft-labels", str(tmp_path / "votes.csv"), "--classes", "happy", "sad")
    ended = head(source, tmp_path / "head", *votes, "--kind", "ridge", "--set", "head.imbalance=inverse_sqrt").done()
    about = json.loads((ended.output / "head.json").read_text())
    assert (about["classes"], about["fitted_by"], about["recipe"]) == (
        ["happy", "sad"], "ridge", {"imbalance": "inverse_sqrt"},
    )  # fmt: skip


OTHERS = ("joy", "calm", "grief", "NF")  # names that annotators gave to runs.CLASSES, and one more


def votes_file(folder: Path, count: int) -> Path:
    """Writes votes that call every image by the class after its own, NF now and then, of so many images."""
    rows = []
    for number, name in enumerate(runs.faces(count)):
        votes = [4 * (place == (number + 1) % 3) for place in range(3)]
        rows.append(",".join(map(str, [name, *votes, number % 2])))
    (folder / "votes.csv").write_text("\n".join(["id," + ",".join(OTHERS), *rows]) + "\n")
    return folder / "votes.csv"


MAPPED = ("--rename-classes", "joy=happy", "calm=neutral", "grief=sad", "NF=")


SILENCED = ("--soft-labels", "V", "--set", "head.soft_share=0.5", "--reject")


def test_votes_beside_labels_are_learned_by_their_share_and_labels_stay_the_truth(source: Path, tmp_path: Path) -> None:
    votes = ("--soft-labels", str(votes_file(tmp_path, 50)), *MAPPED)
    found = {}
    for share in ("0.02", "0.98"):
        said = ("head.kind=ridge", f"head.soft_share={share}", "head.strength=0.01")
        ended = head(source, tmp_path / share, *votes, "--set", *said).done()
        assert "images without votes use only their label" in ended.err
        found[share] = json.loads((ended.output / "head.json").read_text())
    for share, about in found.items():
        assert about["classes"] == list(runs.CLASSES)
        assert about["recipe"] == {"soft_share": float(share)}
        assert "truth" not in about["metrics"]  # which would say that votes were
    said = [about["sweep"][0]["train_accuracy"] for about in found.values()]
    assert said[0] > 0.9 > 0.3 > said[1]  # the votes name another class than the label everywhere


def test_images_whose_votes_a_reject_class_leads_are_not_learned_beside_labels(source: Path, tmp_path: Path) -> None:
    names = list(runs.faces(60))
    led = set(names[:12])
    lines = [f"{name},{'1,1,1,5' if name in led else '5,1,1,1'}" for name in names[:50]]
    (tmp_path / "votes.csv").write_text("\n".join(["id," + ",".join(OTHERS), *lines]) + "\n")
    votes = ("--soft-labels", str(tmp_path / "votes.csv"), *MAPPED[:-1], "--reject", "NF", "--kind", "ridge")
    ended = head(source, tmp_path / "head", *votes, "--set", "head.soft_share=0.5").done()
    assert "12 images skipped because NF leads their votes" in ended.err
    assert "10 images without votes use only their label" in ended.err
    about = json.loads((ended.output / "head.json").read_text())
    assert about["split"]["train"] + about["split"]["held_out"] == 48
    assert about["classes"] == list(runs.CLASSES) and "reject" not in about

    judging = runs.faces(20, first=60)
    lines += [f"{name},1,1,1,5" for name in judging]
    (tmp_path / "votes.csv").write_text("\n".join(["id," + ",".join(OTHERS), *lines]) + "\n")
    given = ("--validation", str(pictures.write_tar(tmp_path / "judging.tar", judging)), *votes)
    ended = head(source, tmp_path / "other", *given, "--set", "head.soft_share=0.5").done()
    about = json.loads((ended.output / "head.json").read_text())
    assert (about["split"]["train"], about["split"]["held_out"]) == (48, 20)


def test_only_what_its_own_votes_say_silences_an_image() -> None:
    rows = {"happy/1.png": [5, 0, 0], "1.png": [0, 0, 5], "2.png": [2, 1, 2], "3.png": [1, 2, 2]}
    given = SoftLabels(("joy", "NF", "odd"), {name: np.asarray(row, np.float32) for name, row in rows.items()})
    shares = answers.Shares(given, given, ("odd", "NF"))
    said = {name: shares.silences(name) for name in ("a/happy/1.png", "sad/1.png", "2.png", "3.png", "4.png")}
    assert said == {"a/happy/1.png": False, "sad/1.png": True, "2.png": False, "3.png": True, "4.png": False}


def test_soft_labels_by_other_names_are_added_left_out_and_scaled() -> None:
    shares = {"a": [0.2, 0.3, 0.5, 0.0], "b": [0.0, 0.0, 0.0, 1.0], "c": [0.25, 0.25, 0.0, 0.5]}
    votes = SoftLabels(("joy", "glee", "calm", "NF"), {name: np.array(row, np.float32) for name, row in shares.items()})
    found = renamed(votes, {"joy": "happy", "glee": "happy", "NF": None})
    assert found.classes == ("happy", "calm")
    assert found.of("b") is None  # nothing is left of it
    assert np.allclose(found.shares["a"], [0.5, 0.5]) and np.allclose(found.shares["c"], [1, 0])
    assert renamed(votes, {}) is votes


def test_names_cut_votes_and_labels_alike_and_dense_layers_learn_blends(source: Path, tmp_path: Path) -> None:
    votes = ("--soft-labels", str(votes_file(tmp_path, 60)), *MAPPED, "--classes", "happy", "sad", "--kind", "mlp")
    small = ("mlp.layers=[4]", "mlp.epochs=2", "mlp.batch_size=8", "head.soft_share=0.3")
    ended = head(source, tmp_path / "head", *votes, "--set", *small).done()
    about = json.loads((ended.output / "head.json").read_text())
    assert (about["classes"], about["recipe"]["soft_share"]) == (["happy", "sad"], 0.3)


def test_a_damaged_checkpoint_of_dense_layers_stops_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*_: Any, folder: Path, **__: Any) -> None:
        folder.mkdir(parents=True)
        (folder / "checkpoint.npz").write_bytes(b"no arrays")
        load_checkpoint(folder / "checkpoint.npz", None)  # type: ignore[arg-type]

    monkeypatch.setattr("models.training.fit_mlp.fit_mlp_head", damaged)
    call = call_of(tmp_path, "head.kind=mlp")
    with pytest.raises(StoppedError, match=r"^[^\n]*checkpoint\.npz is damaged[^\n]*$"):
        fitted_by(call)


def test_the_table_learns_one_blend_in_all_its_lines(tmp_path: Path) -> None:
    recipe = tmp_path / "dense.yaml"
    recipe.write_text("head:\n  soft_share: 0.3\n")
    with pytest.raises(UsageError, match=r"head\.soft_share is 0\.3 in dense but 1\.0 in the command"):
        candidates_of((str(recipe),), call_of(tmp_path, "head.kind=logistic").context.settings)
    candidates_of((str(recipe),), call_of(tmp_path, "head.soft_share=0.3").context.settings)


@pytest.mark.parametrize(
    "more, said",
    [
        (("--set", "head.soft_share=0.5"), "head.soft_share needs --soft-labels; give both, or drop head.soft_share"),
        ((*SILENCED, "nf"), "--reject nf: --soft-labels has no such class"),
        ((*SILENCED, *OTHERS[1:]), "--reject leaves fewer than two classes of --soft-labels"),
        (
            (*SILENCED, "calm", "NF", "--rename-classes", "calm=sad"),
            "--reject calm: --rename-classes renames it to sad",
        ),
        (
            ("--soft-labels", "V", "--set", "head.soft_share=0.5"),
            "NF, calm, grief, joy; give --rename-classes NF=CLASS",
        ),
        (
            ("--soft-labels", "V", "--rename-classes", "bored=sad"),
            "--rename-classes bored=: --soft-labels has no such",
        ),
        (("--soft-labels", "V", "--rename-classes", "joy=", "calm=", "NF="), "fewer than two classes"),
        (
            ("--soft-labels", "V", "--classes", "x", "--set", "head.soft_share=0.5"),
            "--classes x: --soft-labels has none",
        ),
        (("--soft-labels", "V", "--rename-classes", "joy"), "give OTHER=CLASS, such as happiness=happy"),
    ],
)
def test_shares_beside_labels_that_cannot_be(source: Path, tmp_path: Path, more: tuple[str, ...], said: str) -> None:
    votes = str(votes_file(tmp_path, 60))
    ended = head(source, tmp_path / "head", "--quiet", *(votes if word == "V" else word for word in more))
    assert ended.status == 2
    assert said in ended.err.splitlines()[-1]


def test_votes_by_other_names_are_votes_by_these(source: Path, tmp_path: Path) -> None:
    votes = ("--soft-labels", str(votes_file(tmp_path, 60)), *MAPPED[:-1], "--reject", "NF", "--kind", "ridge")
    about = json.loads((head(source, tmp_path / "head", *votes).done().output / "head.json").read_text())
    assert (about["classes"], about["reject"]) == (list(runs.CLASSES), ["NF"])


def test_tensorboard_is_for_epochs(source: Path, tmp_path: Path) -> None:
    ended = head(source, tmp_path / "head", "--tensorboard")
    assert ended.status == 2
    assert "give --kind mlp or drop it" in ended.line


def test_the_table_of_all_kinds_has_one_split_and_keeps_no_head(source: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.yaml"
    text = "head:\n  imbalance: inverse_sqrt\nmlp:\n  layers: [4]\n  epochs: 2\n  batch_size: 8\n"
    recipe.write_text(text)
    ended = head(source, tmp_path / "out", "--compare", str(recipe)).done()
    with open(ended.output / "compare.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    heads = [
        ("logistic", "natural"), ("logistic", "inverse_sqrt"), ("logistic", "logit_adjustment"), ("ridge", "natural"),
        ("tiny", "inverse_sqrt"),
    ]  # fmt: skip
    assert [(row["features"], row["head"], row["imbalance"]) for row in rows] == [
        (features, *named) for features in ("last block", "all blocks", "all blocks, mirrored") for named in heads
    ]
    for figure in ("accuracy", "macro_f1", "balanced_accuracy", "ece"):
        assert all(0 <= float(row[figure]) <= 1 for row in rows)
    last, every = FaceVggShape().widths[-1], sum(FaceVggShape().widths)
    assert {row["width"] for row in rows} == {str(last), str(every)}
    assert {(row["train"], row["held_out"]) for row in rows} == {("48", "12")}
    assert {row["parameters"] for row in rows if row["head"] == "tiny"} == {str(n * 4 + 4 + 15) for n in (last, every)}
    assert ended.out.count("\n| ") == len(rows)
    assert sorted(path.name for path in ended.output.iterdir()) == [".lock", "cache", "command.json", "compare.csv"]
    assert len(list((ended.output / "cache").iterdir())) == 3


def test_a_comparison_of_fewer_images_than_a_batch_leaves_the_dense_layers_out(source: Path, tmp_path: Path) -> None:
    ended = head(source, tmp_path / "out", "--compare", "--set", "mlp.batch_size=64").done()
    assert "all blocks: skipped mlp: 48 training rows are fewer than one batch of 64" in ended.err
    with open(ended.output / "compare.csv", newline="") as file:
        assert {row["head"] for row in csv.DictReader(file)} == {"logistic", "ridge"}


def test_another_head_is_not_written_over_without_a_word(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "head"
    head(source, output, "--kind", "ridge").done()
    first = (output / "head.npz").read_bytes()
    again = head(source, output, "--kind", "ridge", "--quiet").done()
    assert (again.out, again.err) == ("", "")
    assert (output / "head.npz").read_bytes() == first
    refused = head(source, output, "--kind", "ridge", "--set", "head.strength=0.5")
    assert refused.status == 2
    assert "head.strength: null there, 0.5 here" in refused.line
    assert (output / "head.npz").read_bytes() == first
    head(source, output, "--kind", "ridge", "--set", "head.strength=0.5", "--overwrite").done()
    assert (output / "head.npz").read_bytes() != first
    assert json.loads((output / "head.json").read_text())["split"]["alpha"] == 0.5


def test_class_names_are_one_name_however_they_are_composed(tmp_path: Path) -> None:
    """A Mac stores the names of class folders decomposed; keyboards write them composed."""
    composed, decomposed = "Glu\u0308ck".replace("u\u0308", "\u00fc"), "Glu\u0308ck"
    files = {name.replace("happy", decomposed): data for name, data in runs.faces(30).items()}
    files |= {name.replace("happy", composed): data for name, data in runs.faces(30, first=30).items()}
    inputs = pictures.write_folder(tmp_path / "in", files)
    ended = head(inputs, tmp_path / "head", "--kind", "ridge", "--classes", decomposed, "sad").done()
    assert json.loads((ended.output / "head.json").read_text())["classes"] == [composed, "sad"]
    settings = ("--set", *runs.SMALL, f"write.no_face_label={decomposed}")
    flags = ("--input", str(inputs), "--output", str(tmp_path / "out"), "--head", str(ended.output))
    done = runs.run("label", "--runner=DirectRunner", *flags, *settings, output=tmp_path / "out").done()
    assert done.record["accuracy"]["known"] == 40
    assert {row["true_label"] for row in runs.rows(tmp_path / "out" / "images")} == {composed, "sad", None}


def rows_of_clouds() -> gathering.Gathered:
    """Returns 400 rows of which one class has 320."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(3), [320, 48, 32])
    features = (np.eye(3, 6)[y] * 2 + rng.normal(size=(400, 6))).astype(np.float16)
    labels = [runs.CLASSES[i] for i in y]
    return gathering.Gathered(None, answers.Labelled(Rows(features), labels, list(range(400))), None)  # type: ignore[arg-type]


def call_of(output: Path, *settings: str) -> Any:
    return parse(["train-head", "--input", "a", "--output", str(output), "--quiet", "--set", *settings])


def fitted_by(call: Any) -> Any:
    settings = call.context.settings
    return fitting.fit(rows_of_clouds(), settings.head, settings.mlp, head_training(call.options, call.context).fitting)


@pytest.mark.parametrize("kind", ["logistic", "ridge", "mlp"])
def test_one_setting_for_rare_classes_holds_for_every_kind(tmp_path: Path, kind: str) -> None:
    small = ("mlp.layers=[4]", "mlp.epochs=4", "mlp.batch_size=20", "mlp.learning_rate=0.03", "mlp.keep=last")
    recalls, said = {}, {}
    for way in WAYS:
        call = call_of(tmp_path / way, f"head.kind={kind}", f"head.imbalance={way}", *small)
        fitted = fitted_by(call)
        recalls[way] = np.mean([row["recall"] for row in fitted.metrics["by_class"].values()])
        said[way] = fitted.recipe.get("imbalance")
    assert recalls["natural"] < min(recalls["inverse_sqrt"], recalls["logit_adjustment"])
    unsaid = "natural" if kind == "mlp" else None
    assert said == {"natural": unsaid, "inverse_sqrt": "inverse_sqrt", "logit_adjustment": "logit_adjustment"}


def test_the_balanced_accuracy_of_the_table_is_the_mean_recall(tmp_path: Path) -> None:
    call = call_of(tmp_path, "head.imbalance=logit_adjustment")
    first, _, adjusted, ridge, dense = candidates_of((), call.context.settings)
    assert [one.head.imbalance for one in (first, adjusted, ridge, dense)] == ["natural", *["logit_adjustment"] * 3]
    assert [one.head.kind for one in (first, adjusted, ridge, dense)] == ["logistic", "logistic", "ridge", "mlp"]
    how = head_training(call.options, call.context).fitting
    fitted = fitting.fit(rows_of_clouds(), adjusted.head, adjusted.mlp, how)
    row = row_of(rows_of_clouds(), "clouds", adjusted, how)
    assert row["balanced_accuracy"] == pytest.approx(
        np.mean([one["recall"] for one in fitted.metrics["by_class"].values()])
    )
    assert (row["ece"], row["imbalance"]) == (fitted.metrics["ece"], "logit_adjustment")


def test_recipes_of_one_name_are_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for path in (tmp_path / "r.yaml", tmp_path / "a" / "r.yaml"):
        path.write_text("mlp:\n  epochs: 1\n")
    ended = head(source, tmp_path / "out", "--compare", str(tmp_path / "r.yaml"), str(tmp_path / "a" / "r.yaml"))
    assert ended.status == 2
    assert "give files with distinct names" in ended.line


@pytest.mark.parametrize(("kind", "name"), [("logistic", "c"), ("ridge", "alpha")])
def test_a_strength_that_is_given_is_the_one_that_is_fitted(source: Path, tmp_path: Path, kind: str, name: str) -> None:
    ended = head(source, tmp_path / "head", "--kind", kind, "--set", "head.strength=0.25").done()
    assert json.loads((ended.output / "head.json").read_text())["split"][name] == 0.25


def test_a_strength_of_dense_layers_is_refused(source: Path, tmp_path: Path) -> None:
    ended = head(source, tmp_path / "head", "--kind", "mlp", "--set", "head.strength=0.25")
    assert ended.status == 2
    assert "head.strength is for logistic and ridge, but head.kind is mlp" in ended.line


def test_a_killed_comparison_goes_on_though_other_features_were_the_last(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "head"
    left = OutputFolder(str(output / "work" / "training"))
    left.prepare({"purpose": "training", "features": {"space": {"pooling": "multi"}}})
    Path(left.parts, f"{0:032x}.npz").write_bytes(b"PK\3\4 of other features")
    assert head(source, output, "--quiet").done().status == 0
    assert not (output / "work").exists()


def test_one_training_an_output_folder(source: Path, tmp_path: Path) -> None:
    with OutputFolder(str(tmp_path / "head")).locked():
        for more in ((), ("--compare",)):
            refused = head(source, tmp_path / "head", *more)
            assert refused.status == 3
            assert "another run is using this folder; wait for it" in refused.line
    assert not (tmp_path / "head" / "work").exists()


def test_validation_may_lack_a_class_that_is_named(source: Path, tmp_path: Path) -> None:
    judging = {name: data for name, data in runs.faces(20, first=60).items() if not name.startswith("sad/")}
    given = ("--validation", str(pictures.write_tar(tmp_path / "judging.tar", judging)))
    ended = head(source, tmp_path / "head", *given, "--classes", "happy", "sad").done()
    about = json.loads((ended.output / "head.json").read_text())
    assert about["classes"] == ["happy", "sad"]
    assert about["split"]["held_out"] == sum(name.startswith("happy/") for name in judging)

    refused = head(source, tmp_path / "other", *given, "--classes", "sad", "bored")
    assert "--classes bored: no image of --input has that label; known: happy, neutral, sad" in refused.err
    only = {name: data for name, data in judging.items() if name.startswith("neutral/")}
    given = ("--validation", str(pictures.write_tar(tmp_path / "only.tar", only)))
    refused = head(source, tmp_path / "other", *given, "--classes", "happy", "sad")
    assert (refused.status, "no image of --validation has that label; known: neutral" in refused.err) == (2, True)


def test_what_is_not_there_is_named_with_its_flag(source: Path, tmp_path: Path) -> None:
    refused = head(source, tmp_path / "head", "--validation", str(tmp_path / "nowhere"))
    assert refused.status == 2
    assert f"--validation {tmp_path / 'nowhere'}: nothing is there" in refused.err


def test_folds_judge_every_image_once_and_keep_groups_whole(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[np.ndarray] = []
    judged: list[np.ndarray] = []

    def spied(*values: Any, **how: Any) -> Folds:
        found = cross_validated(*values, **how)
        given.append(values[3])
        judged.append(found.fold)
        return found

    monkeypatch.setattr(fitting, "cross_validated", spied)
    ended = head(source, tmp_path / "head", "--folds", "3", "--group-by", r"\w+/000\d").done()
    found = json.loads((tmp_path / "head" / "folds.json").read_text())
    assert sum(row["rows"] for row in found["folds"]) == found["all_rows"]["rows"] == 60
    assert len(set(given[0].tolist())) == 18, "a class and the tens of a number"
    assert all(len(set(judged[0][given[0] == group].tolist())) == 1 for group in set(given[0].tolist()))
    assert "3 folds: accuracy" in ended.out and "fold 3 of 3" in ended.err
    assert (tmp_path / "head" / "head.json").exists()
    again = head(source, tmp_path / "head", "--overwrite", "--quiet").done()
    assert not (again.output / "folds.json").exists(), "they are those of another training"


def test_a_head_selected_by_folds_learns_from_every_image(source: Path, tmp_path: Path) -> None:
    ended = head(source, tmp_path / "head", "--select-folds", "3", "--group-by", r"\w+/000\d").done()
    stored = json.loads((tmp_path / "head" / "head.json").read_text())
    assert (stored["split"]["kind"], stored["split"]["folds"], stored["split"]["train"]) == ("folds", 3, 60)
    assert stored["metrics"]["rows"] == 60
    assert "by 3 folds accuracy" in ended.out
    both = head(source, tmp_path / "both", "--select-folds", "3", "--folds", "2").done()
    assert "2 folds: accuracy" in both.out
    assert json.loads((tmp_path / "both" / "folds.json").read_text())["all_rows"]["rows"] == 60


def test_dense_layers_cannot_be_selected_by_folds(source: Path, tmp_path: Path) -> None:
    ended = head(source, tmp_path / "head", "--select-folds", "3", "--kind", "mlp")
    assert ended.status == 2 and "--select-folds is for" in ended.line
    assert not (tmp_path / "head").exists()


def test_repeats_deal_the_images_into_other_folds(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[np.ndarray] = []

    def spied(*values: Any, **how: Any) -> Folds:
        found = cross_validated(*values, **how)
        judged.append(found.fold)
        return found

    monkeypatch.setattr(fitting, "cross_validated", spied)
    ended = head(source, tmp_path / "head", "--folds", "3", "--repeats", "2").done()
    found = json.loads((tmp_path / "head" / "folds.json").read_text())
    assert len(judged) == 2 and (judged[0] != judged[1]).any()
    repeats = found["repeats"]
    assert [row["seed"] for row in repeats["deals"]] == [0, 1]
    assert repeats["deals"][0]["accuracy"] == found["all_rows"]["accuracy"]["value"]
    for name in ("accuracy", "auc_macro"):
        values = [row[name] for row in repeats["deals"]]
        assert repeats[name] == {"mean": np.mean(values), "low": min(values), "high": max(values)}
    assert "3 folds, dealt 2 times: accuracy" in ended.out and "fold 3 of 3, repeat 2 of 2" in ended.err


@pytest.mark.parametrize(
    "image_id, key",
    [("dog_12.jpg", "dog_"), ("lake_3.jpg", "lake_"), ("12.jpg", ""), ("other", "other")],
)
def test_an_id_is_grouped_by_the_first_group_of_the_match(image_id: str, key: str) -> None:
    assert answers.group_key(re.compile(r"^(.*?)\d+\.jpg"), image_id) == key


@pytest.mark.parametrize(
    "flags, words",
    [
        (("--folds", "1"), "--folds: '1' is not a whole number of at least 2"),
        (("--group-by", "("), r"--group-by: '\(' is not a regular expression"),
        (("--repeats", "3"), "--repeats deals folds anew; give --folds too"),
        (("--folds", "3", "--repeats", "1"), "--repeats: '1' is not a whole number of at least 2"),
        (("--folds", "3", "--validation", "x"), "drop it, or drop --validation"),
        (("--folds", "3", "--soft-labels", "x.csv"), "drop it, or drop --soft-labels"),
    ],
)
def test_flags_of_folds_that_cannot_be_meant(flags: tuple[str, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse(["train-head", "--input", "a", "--output", "b", *flags])
