"""The command line: what may be typed, what is refused, and which function does the work.

No logic: a command is a line in `COMMANDS`, its function is imported when it is asked for. `--help`, a mistyped
setting and a mistyped flag answer without Beam or TensorFlow; Beam is imported only to tell its own flags
from mistyped ones.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import importlib.util
import logging
import os
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pipeline import __version__
from pipeline.config import Settings, known_settings, load_settings, nearest_setting, to_yaml
from pipeline.errors import Interrupted, PipelineError, StoppedError, UsageError
from pipeline.memory_limit import lack_of_memory
from transforms.formats.records import FormatError

DISTRIBUTION = "facelabel-pipeline"
PACKAGES = ("pipeline", "transforms", "models")
DEFAULT_COMMAND = "label"
CACHE_ACTIONS = ("info", "verify", "prune")
INTERRUPTED = "interrupted; what is finished is kept, and the same command goes on"
HELP_WIDTH = 100
TRAINING_SECTIONS = {"train": "train-backbone", "mlp": "train-head"}  # settings that no other command has


# --- what a command is given ---------------------------------------------------------------------------------


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


# --- flags ---------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
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
        "pipeline.label:run",
        _add_label,
        ("input", "output"),
        beam=True,
    ),
    "train-head": CommandSpec(
        "train the small classifier on features",
        "pipeline.train_head:run",
        _add_train_head,
        ("input", "output"),
        beam=True,
    ),
    "train-backbone": CommandSpec(
        "train the network that computes features",
        "pipeline.train_backbone:run",
        _add_train_backbone,
        ("input", "output"),
    ),
    "evaluate": CommandSpec(
        "how good labels are: figures, plots and a page",
        "pipeline.evaluate:run",
        _add_evaluate,
        ("output",),
        beam=True,
    ),
    "cache": CommandSpec("info, verify or prune of a feature cache", "pipeline.cache_tools:run", _add_cache, ()),
}


def _parser(name: str) -> _Parser:
    parser = _Parser(prog="python -m pipeline", add_help=False, allow_abbrev=False)
    COMMANDS[name].add_flags(parser)
    _add_common(parser)
    return parser


# --- reading the command line --------------------------------------------------------------------------------


def parse(arguments: Sequence[str]) -> Command | str:
    """Returns the command that `arguments` state, or the text that `--help`, `--version`, `--print-config` ask for.

    Raises:
        UsageError: unknown command, flag or setting, or a value that is not allowed.
    """
    name, rest = _split_command(arguments)
    checked, unchecked = _split_at_dashes(rest)
    wanted = set(checked)
    if wanted & {"-h", "--help"}:
        return help_text(name)
    if "--version" in wanted:
        return f"{DISTRIBUTION} {__version__}\n"
    name = name or DEFAULT_COMMAND
    given, beam_options = _parser(name).parse_known_args(checked)
    _refuse_unknown(name, beam_options)
    if unchecked and not COMMANDS[name].beam:
        raise UsageError(f"{name} starts no runner, so nothing may follow --")
    settings = load_settings(given.config or (), given.set or (), flags=_settings_flags(given))
    if given.print_config:
        return to_yaml(settings)
    return Command(name, _options(name, given), settings, [*beam_options, *unchecked])


def _split_command(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """Returns the command, None where none is named, and the rest."""
    if not arguments or arguments[0].startswith("-"):
        return None, list(arguments)
    if arguments[0] in COMMANDS:
        return arguments[0], list(arguments[1:])
    near = difflib.get_close_matches(arguments[0], COMMANDS, n=1)
    hint = f"nearest is {near[0]}" if near else f"known are {', '.join(COMMANDS)}"
    raise UsageError(f"unknown command {arguments[0]}; {hint}")


def _split_at_dashes(arguments: list[str]) -> tuple[list[str], list[str]]:
    if "--" not in arguments:
        return arguments, []
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


def _settings_flags(given: argparse.Namespace) -> dict[str, Any]:
    """Returns the flags that stand for a setting."""
    flags: dict[str, Any] = {}
    if hasattr(given, "epochs"):
        flags |= {f"train.{key}": getattr(given, key) for key in ("epochs", "seed") if getattr(given, key) is not None}
    if getattr(given, "head", None):
        flags["head.path"] = given.head
    if getattr(given, "kind", None):
        flags["head.kind"] = given.kind
    if getattr(given, "keep_parts", False):
        flags["write.keep_parts"] = True
    return flags


def _options(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Returns the flags of the command and those of every command, but for what has become settings."""
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


# --- flags that are not ours ---------------------------------------------------------------------------------


def _refuse_unknown(name: str, rest: list[str]) -> None:
    """Raises for the first of `rest` that is no flag of Beam; looks Beam up only if there is something to look up."""
    if not rest:
        return
    own = _own_flags(name)
    for token in rest:
        flag = token.partition("=")[0]
        if flag.startswith("--") and flag.replace("_", "-") in own:  # Beam has a --dry_run that would do nothing here
            raise UsageError(f"unknown flag {flag}; nearest is {flag.replace('_', '-')}")
    beam_parser = _beam_parser() if COMMANDS[name].beam else _Parser(add_help=False, allow_abbrev=False)
    _, unknown = beam_parser.parse_known_args(rest)
    if not unknown:
        return
    flags = [token.partition("=")[0] for token in unknown if token.startswith("-") and token != "-"]
    if not flags:
        raise UsageError(_stray(unknown[0]))
    known = [*own, *(option for action in beam_parser._actions for option in action.option_strings)]
    raise UsageError(f"unknown flag {flags[0]}; {_nearest_flag(flags[0], known)}")


def _stray(token: str) -> str:
    if token in COMMANDS:
        return f"{token} stands behind flags; the command comes first: python -m pipeline {token} ..."
    return f"unexpected {token!r}; every value follows a flag, such as --input {token}"


def _own_flags(name: str) -> list[str]:
    return [option for action in _parser(name)._actions for option in action.option_strings]


def _nearest_flag(flag: str, known: Iterable[str]) -> str:
    """Returns the cure for a mistyped flag: the known flag or setting that reads most like it."""
    words = flag.lstrip("-").replace("-", "_")
    by_words = {option.lstrip("-").replace("-", "_"): option for option in known}
    setting = nearest_setting(words)
    if setting:
        by_words.setdefault(setting.partition(".")[2], f"--set {setting}=...")
        by_words.setdefault(setting, f"--set {setting}=...")
    near = difflib.get_close_matches(words, by_words, n=1)
    return f"nearest is {by_words[near[0]]}" if near else "see --help; what is meant for the runner goes behind --"


def _beam_parser() -> _Parser:
    """Returns a parser of all flags that Beam knows. Imports Beam, one to two seconds."""
    with _without_warnings():
        from apache_beam.options import pipeline_options
    parser = _BeamFlags(add_help=False, allow_abbrev=False, conflict_handler="resolve")
    for options in _subclasses(pipeline_options.PipelineOptions):
        options._add_argparse_args(parser)
    return parser


class _BeamFlags(_Parser):
    """A parser that Beam's option classes can fill."""

    def add_value_provider_argument(self, *names: str, **details: Any) -> None:
        """Adds a flag whose value may come later, which makes no difference to its name."""
        if names[0].startswith("-"):
            self.add_argument(*names, **details)


def _subclasses(kind: type[Any]) -> list[type[Any]]:
    found: dict[type[Any], None] = {}
    for child in kind.__subclasses__():
        found |= dict.fromkeys([child, *_subclasses(child)])
    return list(found)


class _without_warnings:  # noqa: N801 - reads as a word in a `with`
    """Keeps warnings of optional parts that Beam misses while it is imported away from the user."""

    def __enter__(self) -> None:
        self._level = logging.root.manager.disable
        logging.disable(logging.WARNING)

    def __exit__(self, *_: object) -> None:
        logging.disable(self._level)


# --- help ----------------------------------------------------------------------------------------------------


def help_text(name: str | None) -> str:
    """Returns the help of a command, or of the program (which is that of `label`, and the other commands)."""
    lines = [
        "python -m pipeline [COMMAND] [--config FILE] [--set KEY=VALUE ...] [Beam options] [-- RUNNER OPTIONS]",
        "",
    ]
    if name is None:
        lines += ["Labels every face in a collection of images, and accounts for every image.", "", "commands:"]
        lines += [f"  {command:<16} {spec.summary}" for command, spec in COMMANDS.items()]
        lines += ["  python -m pipeline COMMAND --help tells the flags of a command", ""]
    spec = COMMANDS[name or DEFAULT_COMMAND]
    lines += [f"flags of {name or DEFAULT_COMMAND} ({spec.summary}):", *_flag_lines(name or DEFAULT_COMMAND)]
    if spec.beam:
        lines += ["  --runner, --direct_num_workers and all other flags of Beam pass through to it"]
    lines += ["", "settings, for --set and as sections of a YAML file:", *_setting_lines(name or DEFAULT_COMMAND), ""]
    lines += ["exit status: 0 done, 2 the command or a setting is wrong, 3 stopped, 130 interrupted"]
    return "\n".join(lines) + "\n"


def _flag_lines(name: str) -> list[str]:
    lines: list[str] = []
    for action in _parser(name)._actions:
        words = ", ".join(action.option_strings) or str(action.metavar)
        if action.option_strings and action.nargs != 0:
            words += f" {action.metavar}" + (" ..." if action.nargs == "+" else "")
        lines += _entry(words, action.help or "")
    return lines


def _setting_lines(command: str) -> list[str]:
    lines: list[str] = []
    for info in known_settings():
        section = info.name.partition(".")[0]
        if TRAINING_SECTIONS.get(section, command) != command:
            continue
        lines += _entry(f"{info.name}={info.default}", f"{info.description} ({info.allowed})")
    return lines


def _entry(words: str, text: str) -> list[str]:
    wrapped = textwrap.wrap(text, HELP_WIDTH - 34)
    first = [f"  {words:<31} {wrapped[0]}"] if len(words) <= 31 else [f"  {words}", " " * 34 + wrapped[0]]
    return [*first, *(" " * 34 + line for line in wrapped[1:])]


# --- running -------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status; an error is one line on stderr."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    verbose = "--verbose" in arguments
    try:
        return _run(arguments)
    except PipelineError as error:
        return _report(str(error), error.exit_status, verbose)
    except KeyboardInterrupt:
        return _report(INTERRUPTED, Interrupted.exit_status, verbose)
    except FormatError as error:
        return _report(str(error), StoppedError.exit_status, verbose)
    except BrokenPipeError:
        return _reader_left()
    except Exception as error:
        if lack := lack_of_memory(error):
            return _report(lack, StoppedError.exit_status, verbose)
        if not isinstance(error, OSError):
            raise
        return _report(f"{error}; once that is cured, the same command goes on", StoppedError.exit_status, verbose)


def _run(arguments: list[str]) -> int:
    check_house()
    level = logging.INFO if "--verbose" in arguments else logging.ERROR if "--quiet" in arguments else logging.WARNING
    # before anything else can: Beam warns while it is imported, which would set up a log of its own
    logging.basicConfig(level=level, format="pipeline: %(levelname)s: %(name)s: %(message)s")
    command = parse(arguments)
    if isinstance(command, str):
        sys.stdout.write(command)
        sys.stdout.flush()
        return 0
    module, _, function = COMMANDS[command.name].target.partition(":")
    with _without_warnings():
        loaded = importlib.import_module(module)
    status: int = getattr(loaded, function)(command)
    return status


def _report(message: str, status: int, verbose: bool) -> int:
    if verbose:
        traceback.print_exc()
    sys.stderr.write(f"pipeline: error: {' '.join(message.split())}\n")
    return status


def _reader_left() -> int:
    """Ends quietly when the reader of stdout has gone (`--help | head`)."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def check_house() -> None:
    """Raises if the three packages do not lie side by side.

    `models` and `transforms` are common words: another distribution that brings one silently takes the place of ours.

    Raises:
        UsageError: names the three places and the cure.
    """
    places = {name: _place(name) for name in PACKAGES}
    if len({None if place is None else place.parent for place in places.values()}) == 1 and None not in places.values():
        return
    shown = ", ".join(f"{name} in {place or 'no place'}" for name, place in places.items())
    raise UsageError(
        f"the packages of this program must lie side by side, but it found {shown}: something else brings a package "
        f"of that name; install {DISTRIBUTION} into an environment of its own and start it from another folder"
    )


def _place(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).resolve().parent if spec is not None and spec.origin else None


def entry_point() -> NoReturn:
    """Ends the process with the exit status of `main`; the console script."""
    _open_what_is_closed()
    sys.exit(main())


def _open_what_is_closed() -> None:
    """Gives a closed stdin, stdout or stderr (`2>&-`) an end: else the next file opened would take its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
    sys.stdout = sys.stdout or open(1, "w")  # noqa: SIM115 - for the life of the process
    sys.stderr = sys.stderr or open(2, "w")  # noqa: SIM115
