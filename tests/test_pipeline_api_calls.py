"""`label`, `train_head` and `evaluate` as functions: the files of the commands, our errors, no end of a process."""

from __future__ import annotations

import inspect
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest
import runs
from apache_beam.utils import interactive_utils
from pictures import write_folder

from pipeline import api
from pipeline.api.given import settings_from
from pipeline.commands.registry import COMMANDS
from pipeline.flags import flags_of
from pipeline.run.interrupt import interruptible, never_leaving
from pipeline.settings.load import load_settings
from transforms.formats.records import FormatError
from transforms.storage import stopping

SETTINGS: dict[str, Any] = {
    "faces.detector": "none",
    "features": {"weights": "random", "pooling": "avg", "input_size": 16},
    "write.report": False,
    "write.no_face_label": "neutral",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 40 labelled images in `in/`, and a head in `head/`."""
    made = tmp_path_factory.mktemp("api")
    write_folder(made / "in", {**runs.faces(40), "happy/broken.png": b"words"})
    runs.make_head(made / "head")
    return made


@pytest.fixture(scope="module")
def run(place: Path) -> api.Run:
    return api.label(place / "in", place / "out", head=place / "head", settings=SETTINGS)


# --- label ------------------------------------------------------------------------------------------------------------


def test_the_files_are_those_of_the_command(place: Path, run: api.Run) -> None:
    bench = runs.Bench(place, place / "head")
    typed = bench.label(place / "in", "typed", "write.report=false", "write.no_face_label=neutral").done()
    assert runs.results(run.path) == runs.results(typed.output)


def test_a_run_tells_what_came_of_it(place: Path, run: api.Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert (run.counts["images"], run.counts["labelled"], run.counts["rejected"]) == (41, 40, 1)
    assert run.reasons == {"not_an_image": 1}
    assert run.classes == runs.CLASSES
    assert sum(run.labels.values()) == run.counts["faces"] == run.predictions.count_rows() == 40
    reported = run.images.to_table(filter=pc.field("status") == "rejected", columns=["image_id", "reason"]).to_pylist()
    assert reported == [{"image_id": "happy/broken.png", "reason": "not_an_image"}]
    assert (run.page, run.submission) == (None, run.path / "submission.csv")
    assert capsys.readouterr() == ("", "")


def test_a_finished_run_is_opened_again(run: api.Run) -> None:
    assert api.Run.open(run.path) == run
    assert api.Run.open(os.path.relpath(run.path)) == run


def test_a_line_and_a_table_for_people(run: api.Run) -> None:
    assert repr(run).startswith(f"<Run '{run.path}': 41 images, 40 labelled, 0 without a face, 1 rejected; 40 faces: ")
    html = run._repr_html_()
    assert "<b>40 faces in 41 images</b>" in html
    assert "not_an_image" in html
    assert html.count("<tr><td") == sum(count > 0 for count in run.labels.values()) + 1


def test_the_same_call_finds_everything_done(place: Path, run: api.Run) -> None:
    before = runs.tree(run.path)
    again = api.label([place / "in"], run.path, head=place / "head", settings=settings_from(SETTINGS))
    assert again == run
    assert runs.tree(run.path) == before


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"inputs": "nowhere"}, "nowhere"),
        ({"inputs": []}, "input is empty"),
        ({"head": "nowhere"}, "nowhere"),
        ({"settings": {"faces.detektor": "none"}}, "nearest is faces.detector"),
        ({"settings": {"faces.margin": -1}}, r"faces.margin is -1 \(an argument\)"),
        ({"settings": 7}, "settings is 7; give Settings"),
        ({"max_rejected": 5}, "max_rejected: '5' is not a fraction from 0 to 1"),
        ({"beam_options": ["--runner=NoSuchRunner"]}, "NoSuchRunner"),
    ],
)
def test_what_is_wrong_is_one_error_of_ours(place: Path, tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    given = {
        "inputs": place / "in",
        "output": tmp_path / "new",
        "head": place / "head",
        "settings": SETTINGS,
        **changed,
    }
    with pytest.raises(api.UsageError, match=words) as caught:
        api.label(given.pop("inputs"), given.pop("output"), **given)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "new" / "run.json").exists()


def test_another_run_in_the_folder_is_refused_and_overwritten_on_demand(place: Path, tmp_path: Path) -> None:
    given = {"head": place / "head", "settings": SETTINGS}
    first = api.label(place / "in" / "happy", tmp_path, **given)
    other = {**SETTINGS, "write.id_column": "name"}
    with pytest.raises(api.UsageError, match=r"write\.id_column"):
        api.label(place / "in" / "happy", tmp_path, head=place / "head", settings=other)
    anew = api.label(place / "in" / "happy", tmp_path, head=place / "head", settings=other, overwrite=True)
    assert anew.counts == first.counts
    assert runs.submission(tmp_path)[0] == "name,label"


def test_a_notebook_needs_none_of_beams_interactive_parts(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They fail to load without pandas and with pandas 3, and would rename the stages."""
    monkeypatch.setattr(interactive_utils, "is_in_ipython", lambda: True)
    monkeypatch.setitem(sys.modules, "apache_beam.runners.interactive.interactive_environment", None)
    run = api.label(place / "in" / "happy", tmp_path, head=place / "head", settings=SETTINGS)
    assert run.counts["labelled"] > 0


def test_faults_of_others_become_errors_of_ours(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.actions import label as action

    for raised, kind in ((FormatError("a.tar: broken"), api.StoppedError), (OSError(28, "No space"), api.StoppedError)):
        monkeypatch.setattr(action, "run", lambda options, context, raised=raised: (_ for _ in ()).throw(raised))
        with pytest.raises(kind, match=str(raised.args[-1])):
            api.label(place / "in", tmp_path)
    monkeypatch.setattr(action, "run", lambda options, context: 1 // 0)
    with pytest.raises(ZeroDivisionError):  # a bug stays one
        api.label(place / "in", tmp_path)


# --- train_head and evaluate ------------------------------------------------------------------------------------------


def test_a_head_is_trained_and_used(place: Path, run: api.Run, capsys: pytest.CaptureFixture[str]) -> None:
    head = api.train_head(
        place / "in", place / "mine", kind="ridge", holdout=0.5, classes=["happy", "sad"],
        settings=SETTINGS, cache=run.path / "cache",
    )  # fmt: skip
    assert head.classes == ("happy", "sad")
    assert head.metrics["accuracy"] >= 0
    assert repr(head).startswith(f"<TrainedHead '{head.path}': happy, sad, held-out accuracy 0.")
    assert api.TrainedHead.open(head.path) == head
    settings = {**SETTINGS, "write.no_face_label": "sad"}
    labelled = api.label(place / "in", place / "by_mine", head=head, settings=settings, cache=run.path / "cache")
    assert set(labelled.predictions.to_table(columns=["label"])["label"].to_pylist()) <= {"happy", "sad"}
    assert labelled.record["cache"]["computed"] == 0
    assert capsys.readouterr().out == ""


def test_a_run_and_images_are_judged_alike(place: Path, run: api.Run) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra 'evaluate'")
    of_run = api.evaluate(run, place / "judged_run", seed=1)
    of_images = api.evaluate(
        place / "in", place / "judged", head=place / "head", settings=SETTINGS, cache=run.path / "cache", seed=1
    )
    assert of_run.metrics["accuracy"] == of_images.metrics["accuracy"]
    assert repr(of_run).startswith(f"<Evaluation '{of_run.path}': accuracy 0.")
    assert of_run.page is not None and of_run.page.read_bytes().startswith(b"<!DOCTYPE html>")
    assert api.Evaluation.open(of_run.path) == of_run


def test_contradictions_are_those_of_the_command(place: Path, run: api.Run) -> None:
    with pytest.raises(api.UsageError, match="--validation and --holdout exclude each other"):
        api.train_head(place / "in", place / "no", validation=place / "in", holdout=0.5)
    with pytest.raises(api.UsageError, match="is not a head of this run; it has one head, without a name"):
        api.evaluate(run, place / "no", head=place / "head")
    with pytest.raises(api.UsageError, match=r"holdout: '1' is not a fraction above 0 and below 1"):
        api.train_head(place / "in", place / "no", holdout=1)


# --- results that are none --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [api.Run, api.TrainedHead, api.Evaluation])
@pytest.mark.parametrize(
    ("content", "words"), [(None, "cannot be read"), ("{", "damaged"), ("[]", "not a JSON object")]
)
def test_what_is_no_result_is_refused(tmp_path: Path, kind: Any, content: str | None, words: str) -> None:
    for name in ("run.json", "head.json", "metrics.json"):
        if content is not None:
            (tmp_path / name).write_text(content)
    with pytest.raises(api.UsageError, match=words):
        kind.open(tmp_path)


def test_a_run_whose_files_have_changed_is_refused(place: Path) -> None:
    run = api.label(place / "in" / "sad", place / "cut", head=place / "head", settings=SETTINGS)
    (file,) = (run.path / "predictions").glob("*.parquet")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(api.UsageError, match=r"part-00000-of-00001\.parquet is missing or has changed"):
        api.Run.open(run.path)
    (run.path / "run.json").write_text('{"parts": []}')
    with pytest.raises(api.UsageError, match="not written by label"):
        api.Run.open(run.path)


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------


def test_ctrl_c_ends_the_run_and_not_the_process() -> None:
    on_term = signal.getsignal(signal.SIGTERM)
    with never_leaving(), interruptible(lambda: ""):
        assert signal.getsignal(signal.SIGTERM) is on_term
        signal.raise_signal(signal.SIGINT)
        assert stopping.asked()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    stopping.forget()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# --- settings ---------------------------------------------------------------------------------------------------------


def test_settings_come_in_any_form(tmp_path: Path) -> None:
    (tmp_path / "some.yaml").write_text("faces:\n  margin: 0.2\n")
    expected = load_settings((), ["faces.margin=0.2", "head.path=mine"])
    for given in (
        {"faces.margin": 0.2}, {"faces": {"margin": 0.2}}, tmp_path / "some.yaml", str(tmp_path / "some.yaml"),
        load_settings((), ["faces.margin=0.2"]),
    ):  # fmt: skip
        assert settings_from(given, head__path="mine") == expected
    assert settings_from(None) == load_settings()
    assert settings_from({}, head__path=None) == load_settings()


@pytest.mark.parametrize("name", ["local", "kaggle", "recipes/face_vgg", "recipes/head_s1", "recipes/small"])
def test_settings_that_were_loaded_can_be_changed(name: str) -> None:
    loaded = load_settings([f"configs/{name}.yaml"])
    assert settings_from(loaded) is loaded
    changed = settings_from(loaded, head__path="mine")
    assert changed.head.path == "mine"
    assert changed.model_copy(update={"head": loaded.head}) == loaded


# --- nothing is left out ----------------------------------------------------------------------------------------------

ELSEWHERE = {
    "label": {"input": "inputs", "dry_run": None, "keep_parts": "settings"},
    "train-head": {"input": "inputs", "tensorboard": None, "compare": None},
    "evaluate": {"input": "inputs", "predictions": "inputs", "exact_csv": None},
}  # flag: the parameter that says the same, None for one that the functions do without


@pytest.mark.parametrize("name", ELSEWHERE)
def test_every_flag_of_a_command_is_a_parameter(name: str) -> None:
    parameters = inspect.signature(getattr(api, name.replace("-", "_"))).parameters
    flags = {flag.name for flag in flags_of(COMMANDS[name].options)}
    assert ELSEWHERE[name].keys() <= flags
    assert {ELSEWHERE[name].get(flag, flag) for flag in flags} - {None} <= parameters.keys()
