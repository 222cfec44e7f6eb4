"""The command line: what is taken, what is refused and in which words, and what is not imported meanwhile."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TypeVar, get_type_hints

import pytest

import pipeline
from pipeline import beam_flags
from pipeline.beam_flags import with_auto_workers
from pipeline.cli import Call, main, parse
from pipeline.commands.cache import CacheOptions
from pipeline.commands.command import Command, Context
from pipeline.commands.label import LabelOptions
from pipeline.commands.registry import COMMANDS
from pipeline.commands.train_backbone import TrainBackboneOptions
from pipeline.commands.train_head import TrainHeadOptions
from pipeline.errors import Interrupted, PipelineError, StoppedError, UsageError
from pipeline.flags import Options, flags_of
from pipeline.help import help_text
from pipeline.house import check_house
from pipeline.settings.describe import known_settings, sections_of_settings
from pipeline.settings.load import load_settings
from pipeline.settings.schema import Settings
from transforms.formats.records import FormatError

ROOT = Path(__file__).parents[1]
LABEL = ["--input", "photos", "--output", "out"]
Some = TypeVar("Some", bound=Options)
HEAVY = ("tensorflow", "keras", "apache_beam", "numpy", "cv2", "pyarrow", "h5py", "sklearn", "tqdm")


def refusal(*arguments: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse(arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def call(*arguments: str) -> Call:
    parsed = parse(arguments)
    assert isinstance(parsed, Call)
    return parsed


def settings(*arguments: str) -> Settings:
    return call(*arguments).context.settings


def options(kind: type[Some], *arguments: str) -> Some:
    found = call(*arguments).options
    assert isinstance(found, kind)
    return found


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


# --- what is taken


@pytest.mark.parametrize("arguments", [LABEL, ["label", *LABEL]])
def test_without_a_command_it_labels(arguments: list[str]) -> None:
    parsed = call(*arguments)
    assert parsed.command is COMMANDS["label"]
    assert parsed.context == Context(load_settings(), (), quiet=False, verbose=False)
    assert parsed.options == LabelOptions(
        input=("photos",),
        output="out",
        cache=None,
        head=(),
        sample_submission=None,
        dry_run=False,
        overwrite=False,
        max_rejected=None,
        keep_parts=False,
    )


def test_all_flags_of_label() -> None:
    parsed = call(
        *[
            "label",
            "--input",
            "a",
            "b",
            "--input",
            "n=c/*.jpg",
            "--output=o",
            "--cache",
            "c",
            "--dry-run",
            "--overwrite",
        ],
        *["--sample-submission", "s.csv", "--max-rejected", "0.25", "--verbose", "--quiet"],
    )
    assert parsed.options == LabelOptions(
        input=("a", "b", "n=c/*.jpg"),
        output="o",
        cache="c",
        sample_submission="s.csv",
        dry_run=True,
        overwrite=True,
        max_rejected=0.25,
    )
    assert (parsed.context.verbose, parsed.context.quiet) == (True, True)


def test_files_then_set_then_flags(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("head: {path: from_file}\nfaces: {margin: 0.2}\n")
    found = settings(*LABEL, "--config", str(tmp_path / "a.yaml"), "--set", "faces.margin=0.3", "faces.max_faces=2")
    assert (found.head.path, found.faces.margin, found.faces.max_faces) == ("from_file", 0.3, 2)
    flagged = settings(*LABEL, "--set", "head.path=from_set", "--head", "from_flag", "--keep-parts")
    assert (flagged.head.path, flagged.write.keep_parts) == ("from_flag", True)


@pytest.mark.parametrize("head", ["null", "2024", "'quoted'", "a=b", "true"])
def test_a_head_of_any_name_is_a_path(head: str) -> None:
    assert settings(*LABEL, "--head", head).head.path == head


def test_beams_flags_pass_through_as_typed() -> None:
    typed = ["--runner=DirectRunner", "--direct_num_workers", "2", "--direct_running_mode=multi_processing"]
    assert call(*LABEL, *typed).context.beam_options == tuple(typed)
    assert call(*typed, *LABEL).context.beam_options == tuple(typed)


@pytest.mark.parametrize("typed", [["--direct_num_workers=auto"], ["--direct_num_workers", "auto"]])
def test_auto_workers_are_one_a_gpu(typed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    call(*LABEL, *typed)  # is no mistyped flag
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    assert with_auto_workers(["--x", *typed]) == [
        *("--x", "--direct_num_workers=3", "--direct_running_mode=multi_processing")
    ]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert with_auto_workers([*typed, "--x"]) == ["--direct_num_workers=1", "--x"]


def test_what_follows_bare_dashes_is_not_looked_at() -> None:
    parsed = call(*LABEL, "--runner=DirectRunner", "--", "--made_up", "x", "--help", "--")
    assert parsed.context.beam_options == ("--runner=DirectRunner", "--made_up", "x", "--help", "--")


def test_train_head() -> None:
    more = ("--validation", "v1", "v2", "--classes", "sad", "happy", "--cache", "c")
    parsed = options(TrainHeadOptions, "train-head", *LABEL, *more)
    assert parsed.validation == ("v1", "v2")
    assert parsed.classes == ("sad", "happy")
    assert parsed.holdout is None
    assert options(TrainHeadOptions, "train-head", *LABEL, "--holdout", "0.2").holdout == 0.2
    assert (parsed.compare, parsed.soft_labels, parsed.reject) == (None, None, ())
    assert settings("train-head", *LABEL).head.kind == "logistic"


def test_the_kind_of_a_head_is_a_setting_that_a_recipe_may_state(tmp_path: Path) -> None:
    assert settings("train-head", *LABEL, "--kind", "ridge").head.kind == "ridge"
    recipe = tmp_path / "dense.yaml"
    recipe.write_text("head:\n  kind: mlp\nmlp:\n  layers: [8, 4]\n")
    found = settings("train-head", *LABEL, "--config", str(recipe))
    assert (found.head.kind, found.mlp.layers) == ("mlp", [8, 4])


@pytest.mark.parametrize("name, optimiser, rate, epochs, batch", [
    ("head_s1", "adam", 1e-4, 100, 128), ("head_s2", "rmsprop", 2e-5, 30, 20),
])  # fmt: skip
def test_the_recipes_of_heads_say_what_their_sources_say(
    name: str, optimiser: str, rate: float, epochs: int, batch: int
) -> None:
    recipe = Path(__file__).parents[1] / "configs" / "recipes" / f"{name}.yaml"
    found = settings("train-head", *LABEL, "--config", str(recipe))
    mlp = found.mlp
    assert found.head.kind == "mlp"
    assert (mlp.optimiser, mlp.learning_rate, mlp.epochs, mlp.batch_size) == (optimiser, rate, epochs, batch)
    assert (mlp.layers[0], mlp.dropout, mlp.schedule, mlp.weight_decay, mlp.ema_decay) == (256, 0.5, "constant", 0, 0)


def test_comparing_takes_files_or_none() -> None:
    assert options(TrainHeadOptions, "train-head", *LABEL, "--compare").compare == ()
    two = options(TrainHeadOptions, "train-head", *LABEL, "--compare", "a.yaml", "b.yaml")
    assert two.compare == ("a.yaml", "b.yaml")


@pytest.mark.parametrize(
    "more, said",
    [
        (("--reject", "NF"), "--reject names classes of --soft-labels"),
        (("--rename-classes", "joy=happy"), "--rename-classes names classes of --soft-labels"),
        (("--compare", "--kind", "mlp"), "--compare fits every kind and keeps no head; drop --kind"),
        (("--compare", "--tensorboard"), "drop --tensorboard"),
        (("--kind", "forest"), "allowed is one of logistic, ridge, mlp"),
        (("--set", "mlp.epoch=3"), "nearest is mlp.epochs"),
    ],
)
def test_what_a_head_cannot_be_trained_by(more: tuple[str, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        call("train-head", *LABEL, *more)


def test_train_backbone() -> None:
    typed = ("train-backbone", *LABEL, "--exclude-copies-of", "test.tar", "--epochs", "3", "--seed", "0")
    parsed = options(TrainBackboneOptions, *typed)
    assert (parsed.exclude_copies_of, parsed.validation) == (("test.tar",), ())
    assert (settings(*typed).train.epochs, settings(*typed).train.seed) == (3, 0)


@pytest.mark.parametrize("folder", [["out/cache"], ["--cache", "out/cache"]])
def test_cache(folder: list[str]) -> None:
    parsed = options(CacheOptions, "cache", "prune", *folder, "--keep", "ab", "cd")
    assert (parsed.action, parsed.place, parsed.keep) == ("prune", "out/cache", ("ab", "cd"))


# --- what is refused


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["lable", *LABEL], "unknown command lable; nearest is label"),
        (
            ["frobnicate"],
            "known are label, label-local, live, train-head, train-backbone, train-detector, evaluate, calibrate, "
            "describe-head, evaluate-detector, report, render, export, compare, runtimes, cache",
        ),
        (["label"], "label needs --input and --output"),
        (["--input", "a"], "label needs --output"),
        (["--input", "", "--output", "b"], "--input: is empty"),
        (["--input"], "--input: expected at least one argument"),
        ([*LABEL, "--batch_sise", "3"], "unknown flag --batch_sise; nearest is --set features.batch_size=..."),
        ([*LABEL, "--batch-size=3"], "nearest is --set features.batch_size=..."),
        ([*LABEL, "--faces.detector=haar"], "nearest is --set faces.detector=..."),
        ([*LABEL, "--runer=DirectRunner"], "unknown flag --runer; nearest is --runner"),
        ([*LABEL, "--dry_run"], "unknown flag --dry_run; nearest is --dry-run"),
        ([*LABEL, "--max_rejected=1"], "unknown flag --max_rejected; nearest is --max-rejected"),
        ([*LABEL, "--over"], "nearest is --overwrite"),
        ([*LABEL, "--zzzzqqqq"], "go after --"),
        ([*LABEL, "-x"], "unknown flag -x"),
        ([*LABEL, "--runner=DirectRunner", "stray"], "unexpected 'stray'"),
        (["--runner=DirectRunner", "train-head"], "the command comes first: python -m pipeline train-head"),
        ([*LABEL, "--direct_num_workers", "two"], "--direct_num_workers: invalid int value: 'two'"),
        ([*LABEL, "--max-rejected", "2"], "'2' is not a fraction from 0 to 1"),
        ([*LABEL, "--max-rejected", "nan"], "is not a fraction"),
        ([*LABEL, "--max-rejected", "-1"], "is not a fraction"),
        ([*LABEL, "--set", "faces.detecter=haar"], "nearest is faces.detector"),
        (["train-head", *LABEL, "--holdout", "1"], "above 0 and below 1"),
        (["train-head", *LABEL, "--holdout", "0.1", "--validation", "v"], "exclude each other"),
        (
            ["train-head", *LABEL, "--holdout", "0.1", "--select-folds", "3"],
            "--holdout and --select-folds exclude each",
        ),
        (["train-head", *LABEL, "--compare", "--select-folds", "3"], "drop it, or drop --compare"),
        (["train-head", *LABEL, "--select-folds", "1"], "select-folds: '1' is not"),
        (["train-backbone", *LABEL, "--epochs", "0"], "not a whole number of at least 1"),
        (["train-backbone", *LABEL, "--runner=DirectRunner"], "unknown flag --runner"),
        (["train-backbone", *LABEL, "--", "--x"], "starts no runner"),
        (["cache"], "one of info, verify, prune"),
        (["cache", "inform", "c"], "not 'inform'"),
        (["report"], "report needs RUN"),
        (["report", "a", "b"], "unexpected 'b'"),
        (["cache", "info"], "needs the folder"),
        (["cache", "info", "a", "--cache", "b"], "takes one folder"),
        (["cache", "info", "a", "--keep", "b"], "--keep is for cache prune"),
        (["cache", "info", "a", "b"], "unexpected 'b'"),
    ],
)
def test_wrong_commands_are_refused_in_one_line(arguments: list[str], words: str) -> None:
    assert words in refusal(*arguments)


def test_every_flag_of_beam_is_known() -> None:
    from apache_beam.options import pipeline_options

    known = {option for action in beam_flags.parser_of_beam()._actions for option in action.option_strings}
    assert {"--runner", "--direct_num_workers", "--project", "--temp_location", "--experiments"} <= known
    for options in pipeline_options.PipelineOptions.__subclasses__():
        parser = pipeline_options._BeamArgumentParser(add_help=False)
        options._add_argparse_args(parser)
        assert {option for action in parser._actions for option in action.option_strings} <= known


# --- help


@pytest.mark.parametrize("name", [None, *COMMANDS])
def test_help_tells_every_flag_and_setting(name: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*([name] if name else []), "--help"]) == 0
    shown = capsys.readouterr().out
    command = COMMANDS[name or "label"]
    for flag in flags_of(command.options):
        assert f"  {flag.spelled} " in shown
    for info in known_settings():
        assert (f"  {info.name}=" in shown) == command.uses(info.name)
    assert ("--set" in shown) == bool(command.settings)
    assert f"python -m pipeline {command.example}\n" in shown
    assert max(map(len, shown.splitlines())) <= 110


def test_help_of_a_command_without_settings_is_short() -> None:
    assert len(help_text("cache").splitlines()) < 25
    assert "faces." not in help_text("cache")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_of_a_command_is_accepted(name: str) -> None:
    assert call(*shlex.split(COMMANDS[name].example)).command is COMMANDS[name]


def test_every_setting_is_used_by_a_command() -> None:
    assert [info.name for info in known_settings() if not any(one.uses(info.name) for one in COMMANDS.values())] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_what_a_command_is_said_to_use_exists(name: str) -> None:
    command = COMMANDS[name]
    known = {info.name for info in known_settings()} | dict(sections_of_settings()).keys()
    assert {*command.settings, *command.settings_unused} <= known
    assert {flag.setting for flag in flags_of(command.options)} <= known | {""}


def test_a_setting_that_the_command_does_not_use_is_accepted() -> None:
    assert settings("report", "out", "--set", "faces.margin=0.5").faces.margin == 0.5  # files of settings are shared


def test_help_of_the_program_tells_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    main(["-h"])
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"facelabel-pipeline {pipeline.__version__}\n"


def test_print_config_reads_back(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--print-config", "--set", "faces.margin=0.5"]) == 0  # needs neither --input nor --output
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    assert load_settings([tmp_path / "printed.yaml"]).faces.margin == 0.5


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["cache", "-h"], ["--version"], ["--print-config"], ["lable"], ["label"], ["cache", "info", "/gone"]],
)
def test_answers_without_anything_heavy(arguments: list[str]) -> None:
    done = python(f"""
        import sys
        from pipeline.cli import main
        status = main({arguments!r})
        heavy = {HEAVY!r} if {arguments!r}[0] != "cache" else {HEAVY!r}[:3]
        loaded = [name for name in heavy if name in sys.modules]
        sys.exit(f"loaded {{loaded}}" if loaded or status not in (0, 2) else 0)
    """)
    assert done.returncode == 0, done.stderr


def test_a_mistyped_flag_is_one_line_of_stderr() -> None:
    done = python("from pipeline.cli import main; main(['--input', 'a', '--output', 'b', '--batch_sise', '3'])")
    assert done.stderr == "pipeline: error: unknown flag --batch_sise; nearest is --set features.batch_size=...\n"
    assert done.stdout == ""


# --- running


def fake_command(monkeypatch: pytest.MonkeyPatch, run) -> None:
    module = ModuleType("pipeline.fake")
    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pipeline.fake", module)
    monkeypatch.setattr(Command, "module", "pipeline.fake")


def test_the_command_is_handed_over_and_its_status_back(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    fake_command(monkeypatch, lambda given, context: seen.append((given, context)) or 3)
    assert main(LABEL) == 3
    assert seen == [(call(*LABEL).options, call(*LABEL).context)]


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (PipelineError("a\nb"), 3, "pipeline: error: a b\n"),
        (UsageError("wrong"), 2, "pipeline: error: wrong\n"),
        (StoppedError("full"), 3, "pipeline: error: full\n"),
        (Interrupted("stopped"), 130, "pipeline: error: stopped\n"),
        (KeyboardInterrupt(), 130, "pipeline: error: interrupted; progress is saved"),
        (FormatError("a.tar is none"), 3, "pipeline: error: a.tar is none\n"),
        (OSError(28, "No space left on device", "/x"), 3, "No space left on device: '/x'; once that is fixed"),
    ],
)
@pytest.mark.parametrize("verbose", [False, True])
def test_errors_are_one_line_and_a_status(error, status, line, verbose, monkeypatch, capsys) -> None:
    def run(_: Options, __: Context) -> int:
        raise error

    fake_command(monkeypatch, run)
    assert main([*LABEL, *(["--verbose"] if verbose else [])]) == status
    shown = capsys.readouterr().err
    assert line in shown
    assert ("Traceback" in shown) == verbose
    assert verbose or shown.count("\n") == 1


def test_a_fault_of_the_program_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_: Options, __: Context) -> int:
        raise ZeroDivisionError

    fake_command(monkeypatch, run)
    with pytest.raises(ZeroDivisionError):
        main(LABEL)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_work_of_a_command_takes_its_options(name: str) -> None:
    action = importlib.import_module(COMMANDS[name].module)
    parameters = {kind for place, kind in get_type_hints(action.run).items() if place != "return"}
    assert parameters == {COMMANDS[name].options, Context}


def test_a_reader_that_leaves_is_no_error() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "pipeline", "--help"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()  # before it has begun to write
        assert process.stderr.read() == b""


# --- the guard


def test_packages_of_others_in_our_place_are_named(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    places = {"pipeline": "/a/pipeline", "transforms": "/a/transforms", "models": "/b/models"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace(origin=f"{places[name]}/__init__.py"))
    assert main(["--help"]) == 2
    shown = capsys.readouterr().err
    assert all(place in shown for place in places.values())
    assert "separate environment" in shown
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "models in no place" in refused_house()


def refused_house() -> str:
    with pytest.raises(UsageError) as caught:
        check_house()
    return str(caught.value)


@pytest.mark.parametrize("theirs", ["models", "transforms"])
def test_a_package_of_the_user_in_the_current_folder_is_one_line_with_the_cure(tmp_path: Path, theirs: str) -> None:
    (tmp_path / theirs).mkdir()
    (tmp_path / theirs / "__init__.py").write_text("")
    words = [sys.executable, "-m", "pipeline", "--help"]
    ended = subprocess.run(
        words, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert f"{theirs} in {tmp_path / theirs}" in ended.stderr
    assert "from another folder or with its command, facelabel" in ended.stderr


def test_beams_flags_may_come_from_a_file_and_typed_ones_follow(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("beam: {flags: [--runner=FlinkRunner, --parallelism=4]}\n")
    parsed = call(*LABEL, "--config", str(tmp_path / "a.yaml"), "--runner=DirectRunner")
    assert parsed.context.beam_options == ("--runner=FlinkRunner", "--parallelism=4", "--runner=DirectRunner")


@pytest.mark.parametrize(
    "flags, words",
    [("[--runer=X]", "unknown flag --runer; nearest is --runner"), ("[runner]", "beam.flags is .*runner")],
)
def test_beams_flags_of_a_file_are_checked_too(flags: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"beam: {{flags: {flags}}}\n")
    with pytest.raises(UsageError, match=words):
        call(*LABEL, "--config", str(tmp_path / "a.yaml"))
