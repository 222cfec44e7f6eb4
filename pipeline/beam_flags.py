"""Flags that are not ours: Beam's are passed on; a mistyped one is refused with the nearest known name."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Sequence
from typing import Any

from models.runtimes.gpus import visible_gpus
from pipeline.commands.command import Command, Common
from pipeline.commands.registry import COMMANDS
from pipeline.errors import UsageError
from pipeline.flags import FlagParser, flags_of
from pipeline.settings.describe import nearest_setting

WORKERS, MODE, AUTO = "--direct_num_workers", "--direct_running_mode", "auto"


def with_auto_workers(words: Sequence[str]) -> list[str]:
    """Returns Beam's flags with `--direct_num_workers=auto` as a number: one process a GPU, one if there are none."""
    found: list[str] = []
    for word in words:
        joined = f"{found[-1]}={word}" if found and found[-1] == WORKERS and word == AUTO else word
        if joined != f"{WORKERS}={AUTO}":
            found.append(word)
            continue
        if joined != word:
            found.pop()
        gpus = len(visible_gpus())
        found += [f"{WORKERS}={max(1, gpus)}", *([f"{MODE}=multi_processing"] if gpus > 1 else [])]
    return found


def refuse_unknown_flags(command: Command, rest: list[str]) -> None:
    """Raises for the first of `rest` that is not one of Beam's flags; imports Beam only if `rest` is not empty."""
    rest = with_auto_workers(rest)
    if not rest:
        return
    own = own_flags(command)
    for token in rest:
        flag = token.partition("=")[0]
        if flag.startswith("--") and flag.replace("_", "-") in own:  # Beam has a --dry_run that would do nothing here
            raise UsageError(f"unknown flag {flag}; nearest is {flag.replace('_', '-')}")
    beam_parser = parser_of_beam() if command.beam else FlagParser(add_help=False, allow_abbrev=False)
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
        return f"{token} follows flags; the command comes first: python -m pipeline {token} ..."
    return f"unexpected {token!r}; every value follows a flag, such as --input {token}"


def own_flags(command: Command) -> list[str]:
    """Returns the flags that a command takes, as they are typed."""
    flags = (flag for kind in (command.options, Common) for flag in flags_of(kind) if flag.takes != "position")
    return [spelling for flag in flags for spelling in (flag.short, flag.spelled) if spelling]


def _nearest_flag(flag: str, known: Iterable[str]) -> str:
    """Returns the fix for a mistyped flag: the known flag or setting nearest to it."""
    words = flag.lstrip("-").replace("-", "_")
    by_words = {option.lstrip("-").replace("-", "_"): option for option in known}
    setting = nearest_setting(words)
    if setting:
        by_words.setdefault(setting.partition(".")[2], f"--set {setting}=...")
        by_words.setdefault(setting, f"--set {setting}=...")
    near = difflib.get_close_matches(words, by_words, n=1)
    return f"nearest is {by_words[near[0]]}" if near else "see --help; flags for the runner go after --"


def parser_of_beam() -> FlagParser:
    """Returns a parser of all flags that Beam knows. Imports Beam, one to two seconds."""
    with without_warnings():
        from apache_beam.options import pipeline_options
    parser = _BeamFlags(add_help=False, allow_abbrev=False, conflict_handler="resolve")
    for options in _subclasses(pipeline_options.PipelineOptions):
        options._add_argparse_args(parser)
    return parser


class _BeamFlags(FlagParser):
    """A parser that Beam's option classes can fill."""

    def add_value_provider_argument(self, *names: str, **details: Any) -> None:
        """Adds a flag whose value may come later; only its name matters here."""
        if names[0].startswith("-"):
            self.add_argument(*names, **details)


def _subclasses(kind: type[Any]) -> list[type[Any]]:
    found: dict[type[Any], None] = {}
    for child in kind.__subclasses__():
        found |= dict.fromkeys([child, *_subclasses(child)])
    return list(found)


class without_warnings:  # noqa: N801 - reads as a word in a `with`
    """Hides the warnings about missing optional packages that Beam logs on import."""

    def __enter__(self) -> None:
        self._level = logging.root.manager.disable
        logging.disable(logging.WARNING)

    def __exit__(self, *_: object) -> None:
        logging.disable(self._level)
