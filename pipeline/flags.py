"""The commands and their flags: what may be typed, and what contradicts what.

No logic: a command is a line in `COMMANDS`, its function is imported when it is asked for.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from pipeline.errors import UsageError
from pipeline.settings.schema import Settings

DEFAULT_COMMAND = "label"
CACHE_ACTIONS = ("info", "verify", "prune")


@dataclass(frozen=True, slots=True)
class Command:
    """What was typed, checked.

    Attributes:
        name: a key of `COMMANDS`.
        options: its flags by name, with `_` for `-`: None, or False, where one was not given; lists as tuples.
        settings: files and `--set` together.
        beam_options: flags for Beam as typed, checked by name; behind a bare `--` not checked.
    """

    name: str
    options: Mapping[str, Any]
    settings: Settings
    beam_options: list[str]


@dataclass(frozen=True, slots=True)
class CommandSpec:
    """A line of the table of commands.

    Attributes:
        summary: one clause for `--help`.
        target: `module:function` that takes a `Command` and returns the exit status.
        add_flags: adds the flags to a parser.
        required: flags that must be given, without dashes.
        beam: True if it starts Beam and so takes Beam's flags.
    """

    summary: str
    target: str
    add_flags: Callable[[argparse.ArgumentParser], None]
    required: tuple[str, ...]
    beam: bool = False


class FlagParser(argparse.ArgumentParser):
    """Never guesses an abbreviation, never exits: a fault is a `UsageError`."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message.replace('argument ', '')}; see --help")


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:  # also refuses nan
        raise argparse.ArgumentTypeError(f"{text!r} is not a fraction from 0 to 1")
    return value


def _proper_fraction(text: str) -> float:
    value = _fraction(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a fraction above 0 and below 1")
    return value


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _seed(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) >= 2**31:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {2**31 - 1}")
    return int(text)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return value


def _pixels(text: str) -> float:
    value = _number(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of pixels from 0")
    return value


HEAD_HELP = "the trained head: bundled (default), bundled/ferplus or a folder; same as --set head.path=PATH"


def _path(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty")
    return text


def _patterns(parser: argparse.ArgumentParser, flag: str, help_text: str) -> None:
    parser.add_argument(flag, nargs="+", action="extend", metavar="PATTERN", type=_path, help=help_text)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", nargs="+", action="extend", metavar="FILE", type=_path, help="settings, YAML")
    parser.add_argument("--set", nargs="+", action="extend", metavar="KEY=VALUE", help="a setting, over --config")
    parser.add_argument("--print-config", action="store_true", help="show the settings in force and leave")
    parser.add_argument("--verbose", action="store_true", help="log lines, and tracebacks of errors")
    parser.add_argument("--quiet", action="store_true", help="neither a bar nor closing words")
    parser.add_argument("--version", action="store_true", help="show the version and leave")
    parser.add_argument("-h", "--help", action="store_true", help="show this and leave")


def _add_label(parser: argparse.ArgumentParser) -> None:
    _patterns(parser, "--input", "folders, archives, tables or wildcards; NAME=PATTERN puts NAME/ before the ids")
    parser.add_argument("--output", metavar="DIR", type=_path, help="folder of the results")
    parser.add_argument("--cache", metavar="DIR", type=_path, help="feature cache; default OUTPUT/cache")
    parser.add_argument("--head", metavar="PATH", type=_path, help=HEAD_HELP)
    parser.add_argument(
        "--sample-submission", metavar="FILE", type=_path, help="CSV whose columns, ids and order to follow"
    )
    parser.add_argument("--dry-run", action="store_true", help="show what would be read and leave")
    parser.add_argument("--overwrite", action="store_true", help="start anew in the folder of another run")
    parser.add_argument(
        "--max-rejected", metavar="F", type=_fraction, help="stop once this fraction of the images is rejected"
    )
    parser.add_argument("--keep-parts", action="store_true", help="keep plan/ and parts/; same as write.keep_parts")


def _add_train_head(parser: argparse.ArgumentParser) -> None:
    _patterns(parser, "--input", "labelled images: a folder a class, archives or tables")
    parser.add_argument("--output", metavar="DIR", type=_path, help="folder of the trained head")
    parser.add_argument("--cache", metavar="DIR", type=_path, help="feature cache; default OUTPUT/cache")
    _patterns(parser, "--validation", "labelled images to choose by")
    _patterns(parser, "--exclude", "images that must not be trained on")
    parser.add_argument(
        "--holdout", metavar="F", type=_proper_fraction, help="fraction of the input to choose by instead"
    )
    parser.add_argument(
        "--names", nargs="+", action="extend", metavar="CLASS", type=_path, help="classes that count; default all"
    )
    parser.add_argument("--kind", metavar="KIND", type=_path, help="logistic, ridge or mlp; same as head.kind")
    parser.add_argument(
        "--soft-labels",
        metavar="PATH",
        type=_path,
        help="shares in place of the input's labels, or beside them (head.soft_share): a CSV of votes by image, or a "
        "finished run as teacher",
    )
    _list_of(
        parser, "--classes-map", "OTHER=CLASS", "OTHER of --soft-labels is CLASS of the labels; OTHER= leaves it out"
    )
    _list_of(
        parser,
        "--reject",
        "CLASS",
        "classes of --soft-labels that say that there is no label; beside labels, images that one leads are left out",
    )
    parser.add_argument("--tensorboard", action="store_true", help="with mlp: also write the curves for TensorBoard")
    parser.add_argument(
        "--compare",
        nargs="*",
        action="extend",
        metavar="FILE",
        type=_path,
        help="fit every kind on several features and write a table, no head; each FILE of settings is one more mlp",
    )


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    _patterns(parser, "--input", "labelled images: a folder a class, archives or tables")
    parser.add_argument("--predictions", metavar="DIR", type=_path, help="instead of --input: output of a finished run")
    parser.add_argument("--output", metavar="DIR", type=_path, help="folder of figures, plots and the page")
    parser.add_argument("--cache", metavar="DIR", type=_path, help="feature cache; default OUTPUT/cache")
    parser.add_argument("--head", metavar="PATH", type=_path, help=HEAD_HELP)
    _patterns(parser, "--exclude", "images that must not count: those of the same bytes are left out")
    _patterns(parser, "--images", "with --predictions: where the pictures lie now, if not where the run read them")
    parser.add_argument(
        "--soft-labels",
        metavar="PATH",
        type=_path,
        help="truth in place of the input's labels: the class of most votes in a CSV, or what a finished run says",
    )
    _list_of(
        parser,
        "--classes-map",
        "OTHER=CLASS",
        "labels of the input or the votes by other names; OTHER= leaves its images out",
    )
    _list_of(parser, "--positive", "CLASS", "ask only for these classes, together, against all others")
    _list_of(parser, "--positive-labels", "LABEL", "labels that count as positive; default those of --positive")
    parser.add_argument("--seed", metavar="N", type=_seed, help="of the bootstrap; default 0")
    parser.add_argument(
        "--exact-csv",
        action="store_true",
        help="ids and labels in label_errors.csv as they are; default: a ' before = + - @, or a spreadsheet runs them",
    )


def _list_of(parser: argparse.ArgumentParser, flag: str, word: str, help_text: str) -> None:
    parser.add_argument(flag, nargs="+", action="extend", metavar=word, type=_path, help=help_text)


def _add_train_backbone(parser: argparse.ArgumentParser) -> None:
    _patterns(
        parser, "--input", "images with labels: a folder a class, archives or tables; others learn --soft-labels alone"
    )
    parser.add_argument("--output", metavar="DIR", type=_path, help="folder of weights, curves and state")
    _patterns(parser, "--validation", "labelled images to choose by")
    _patterns(parser, "--exclude", "images that must not be trained on")
    parser.add_argument(
        "--soft-labels",
        nargs="+",
        action="extend",
        metavar="NAME=PATH",
        type=_path,
        help="shares of classes learned beside the labels: a CSV of votes by image, or a finished run as teacher",
    )
    parser.add_argument("--tensorboard", action="store_true", help="also write the curves for TensorBoard")
    parser.add_argument("--epochs", metavar="N", type=_count, help="the same as --set train.epochs=N")
    parser.add_argument("--seed", metavar="N", type=_seed, help="the same as --set train.seed=N")


def _add_describe_head(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--head", metavar="FILE.keras", type=_path, help="a Keras model from features to classes")
    parser.add_argument(
        "--classes", nargs="+", action="extend", metavar="NAME", type=_path, help="in the order of the model's outputs"
    )


def _add_train_detector(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--recipe", metavar="FILE", type=_path, help="network, training, scenes and sets, YAML")
    parser.add_argument("--data", metavar="DIR", type=_path, help="folder of the sets that the recipe names")
    parser.add_argument("--output", metavar="DIR", type=_path, help="folder of model, curves and state")
    parser.add_argument("--start", metavar="FILE", type=_path, help="weights.npz of an earlier training to go on from")
    parser.add_argument("--epochs", metavar="N", type=_count, help="in place of the recipe's training.epochs")
    parser.add_argument("--seed", metavar="N", type=_seed, help="in place of the recipe's training.seed")


def _add_evaluate_detector(parser: argparse.ArgumentParser) -> None:
    _patterns(parser, "--images", "folders, archives, tables or wildcards: images whose faces are known")
    parser.add_argument(
        "--boxes",
        nargs="+",
        action="extend",
        metavar="FILE",
        type=_path,
        help="the known faces: a CSV (image, x, y, w, h), FDDB's lists of ellipses or WIDER's lists of boxes",
    )
    parser.add_argument("--output", metavar="DIR", type=_path, help="folder of tables, figures, plots and the page")
    _list_of(parser, "--ignore", "WORD", "faces of which --boxes says so count neither as found nor as missed: mask")
    parser.add_argument(
        "--min-face", metavar="PX", type=_pixels, help="nor do faces whose longer side has fewer pixels; default 0"
    )
    parser.add_argument(
        "--threshold", metavar="S", type=_number, help="boxes of a lower score count in the curves only; default all"
    )
    _list_of(parser, "--by", "COLUMN", "also the share found by what this column of --boxes says: skin, age, sex, pose")
    parser.add_argument(
        "--changes", action="store_true", help="also search the photos turned, half-lit, small and grey"
    )
    parser.add_argument(
        "--steps", action="store_true", help="also show what each step of the detector leaves and costs"
    )
    parser.add_argument("--explain", metavar="ID", type=_path, help="draw the detector at work on this image")


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", metavar="RUN", type=_path, help="output folder of a finished run")
    _patterns(parser, "--images", "where the pictures lie now, if not where the run read them")


def _add_cache(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", metavar="info|verify|prune", help="what to do")
    parser.add_argument("folder", nargs="?", metavar="DIR", type=_path, help="folder of the feature cache")
    parser.add_argument("--cache", metavar="DIR", type=_path, help="the same, as a flag")
    parser.add_argument(
        "--keep",
        nargs="+",
        action="extend",
        metavar="FINGERPRINT",
        type=_path,
        help="prune: leave these (first digits are enough) and remove all others",
    )


COMMANDS: dict[str, CommandSpec] = {
    "label": CommandSpec(
        "label every face (without COMMAND, this)",
        "pipeline.commands.label:run",
        _add_label,
        ("input", "output"),
        beam=True,
    ),
    "train-head": CommandSpec(
        "train the small classifier on features",
        "pipeline.commands.train_head:run",
        _add_train_head,
        ("input", "output"),
        beam=True,
    ),
    "train-backbone": CommandSpec(
        "train the network that computes features",
        "pipeline.commands.train_backbone:run",
        _add_train_backbone,
        ("input", "output"),
    ),
    "train-detector": CommandSpec(
        "train the network that finds faces",
        "pipeline.commands.train_detector:run",
        _add_train_detector,
        ("recipe", "data", "output"),
    ),
    "evaluate": CommandSpec(
        "how good labels are: figures, plots and a page",
        "pipeline.commands.evaluate:run",
        _add_evaluate,
        ("output",),
        beam=True,
    ),
    "describe-head": CommandSpec(
        "write the head.json of a Keras model of your own",
        "pipeline.commands.describe_head:run",
        _add_describe_head,
        ("head", "classes"),
    ),
    "evaluate-detector": CommandSpec(
        "how well a detector finds known faces: curves, pictures and a page",
        "pipeline.commands.evaluate_detector:run",
        _add_evaluate_detector,
        ("images", "boxes", "output"),
    ),
    "report": CommandSpec(
        "write the page of a finished run, also of an older one", "pipeline.commands.report:run", _add_report, ()
    ),
    "cache": CommandSpec("info, verify or prune of a feature cache", "pipeline.commands.cache:run", _add_cache, ()),
}


def parser_of(name: str) -> FlagParser:
    parser = FlagParser(prog="python -m pipeline", add_help=False, allow_abbrev=False)
    COMMANDS[name].add_flags(parser)
    _add_common(parser)
    return parser


def settings_of_flags(given: argparse.Namespace) -> dict[str, Any]:
    """Returns the flags that stand for a setting."""
    flags: dict[str, Any] = {}
    if hasattr(given, "epochs") and not hasattr(given, "recipe"):  # a recipe has its own
        flags |= {f"train.{key}": getattr(given, key) for key in ("epochs", "seed") if getattr(given, key) is not None}
    if getattr(given, "head", None):
        flags["head.path"] = given.head
    if getattr(given, "kind", None):
        flags["head.kind"] = given.kind
    if getattr(given, "keep_parts", False):
        flags["write.keep_parts"] = True
    return flags


def options_of(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Returns the flags of the command and those of every command, but for what has become settings."""
    if name == "report" and not given.run:
        raise UsageError("report needs RUN, the output folder of a finished run; see --help")
    if missing := [f"--{flag}" for flag in COMMANDS[name].required if not getattr(given, flag)]:
        raise UsageError(f"{name} needs {' and '.join(missing)}; see --help")
    spent = {"config", "set", "print_config", "version", "help", "head", "kind", "keep_parts"}
    options = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in vars(given).items()
        if key not in spent
    }
    if options.get("validation") and options.get("holdout"):
        raise UsageError("--validation and --holdout exclude each other; give one of them")
    if name == "train-head":
        _check_train_head(options, given.kind)
    if name == "cache":
        _check_cache(options)
    if name == "evaluate":
        _check_evaluate({**options, "head": given.head})
    return options


def _check_train_head(options: dict[str, Any], kind: str | None) -> None:
    if options["reject"] and not options["soft_labels"]:
        raise UsageError("--reject names classes of --soft-labels; give those, or drop it")
    if options["classes_map"] and not options["soft_labels"]:
        raise UsageError("--classes-map names classes of --soft-labels; give those, or drop it")
    if options["compare"] is not None and (kind or options["tensorboard"]):
        raise UsageError(f"--compare fits every kind and keeps none; drop --{'kind' if kind else 'tensorboard'}")


def _check_evaluate(options: dict[str, Any]) -> None:
    if bool(options["input"]) == bool(options["predictions"]):
        raise UsageError("evaluate needs labelled images, --input, or the output of a run, --predictions: one of them")
    alien = ("images",) if options["input"] else ("head", "cache")
    if strangers := [flag for flag in alien if options[flag]]:
        needed = "--predictions" if options["input"] else "--input"
        raise UsageError(f"--{strangers[0]} goes with {needed}; drop it, or give {needed} instead")


def _check_cache(options: dict[str, Any]) -> None:
    action, folder = options["action"], options.pop("folder")
    if action not in CACHE_ACTIONS:
        given = f", not {action!r}" if action else ""
        raise UsageError(f"cache wants one of {', '.join(CACHE_ACTIONS)} and a folder{given}")
    if folder and options["cache"]:
        raise UsageError(f"cache {action} takes one folder, but it was given {folder} and {options['cache']}")
    options["cache"] = folder or options["cache"]
    if not options["cache"]:
        raise UsageError(f"cache {action} needs the folder of a feature cache")
    if action != "prune" and options["keep"]:
        raise UsageError(f"--keep is for cache prune, not for cache {action}")
