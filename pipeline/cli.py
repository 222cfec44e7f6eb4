"""The command line: parses, imports the requested command, runs it, and reports errors in one line.

`--help` and errors in settings or flags need neither Beam nor TensorFlow. Beam is imported only to tell its flags from
mistyped ones. Not here: which flags a command has (`commands/`), and how help looks (`help.py`).
"""

from __future__ import annotations

import difflib
import importlib
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from pipeline import __version__
from pipeline.beam_flags import refuse_unknown_flags, without_warnings
from pipeline.commands.command import Command, Common, Context
from pipeline.commands.registry import COMMANDS, DEFAULT_COMMAND
from pipeline.errors import Interrupted, UsageError
from pipeline.flags import Options, options_from, parser_of, settings_of
from pipeline.help import help_text
from pipeline.house import DISTRIBUTION, check_house
from pipeline.packed import check_packed
from pipeline.settings.describe import to_yaml
from pipeline.settings.load import load_settings
from pipeline.uncaught import as_ours

INTERRUPTED = "interrupted; progress is saved; run the same command to resume"


@dataclass(frozen=True, slots=True)
class Call:
    """A checked command line: the command, its options, and the context that every command gets."""

    command: Command
    options: Options
    context: Context


def parse(arguments: Sequence[str]) -> Call | str:
    """Returns the call that `arguments` describe, or the text for `--help`, `--version` or `--print-config`.

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
    command = COMMANDS[name or DEFAULT_COMMAND]
    given, beam_options = parser_of(command.options, Common).parse_known_args(checked)
    refuse_unknown_flags(command, beam_options)
    if unchecked and not command.beam:
        raise UsageError(f"{command.name} starts no runner, so nothing may follow --")
    common = options_from(Common, given)
    settings = load_settings(
        common.config, common.set, flags=settings_of(command.options, given), defaults=command.defaults
    )
    of_files = settings.beam.flags if command.beam else []
    refuse_unknown_flags(command, of_files)
    if common.print_config:
        return to_yaml(settings)
    options = options_from(command.options, given, needs=command.name)
    context = Context(settings, (*of_files, *beam_options, *unchecked), quiet=common.quiet, verbose=common.verbose)
    return Call(command, options, context)


def _split_command(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """Returns the command, or None if none is named, and the remaining arguments."""
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status; an error is one line on stderr."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    verbose = "--verbose" in arguments
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return _report(INTERRUPTED, Interrupted.exit_status, verbose)
    except BrokenPipeError:
        return _reader_left()
    except Exception as error:
        known = as_ours(error)
        if known is None:
            raise
        return _report(str(known), known.exit_status, verbose)


def _run(arguments: list[str]) -> int:
    check_house()
    level = logging.INFO if "--verbose" in arguments else logging.ERROR if "--quiet" in arguments else logging.WARNING
    # first of all: Beam warns on import, which would configure logging its way
    logging.basicConfig(level=level, format="pipeline: %(levelname)s: %(name)s: %(message)s")
    logging.getLogger("pipeline").setLevel(level)  # in case logging was already configured
    call = parse(arguments)
    if isinstance(call, str):
        sys.stdout.write(call)
        sys.stdout.flush()
        return 0
    with without_warnings():
        check_packed(call.command.name, call.command.module)
        action = importlib.import_module(call.command.module)
        if call.command.beam:
            importlib.import_module("pipeline.run.runners").connect_storage(call.context.beam_options)
    status: int = action.run(call.options, call.context)
    return status


def _report(message: str, status: int, verbose: bool) -> int:
    if verbose:
        traceback.print_exc()
    sys.stderr.write(f"pipeline: error: {' '.join(message.split())}\n")
    return status


def _reader_left() -> int:
    """Exits quietly when the reader of stdout has closed it (`--help | head`)."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def entry_point() -> NoReturn:
    """Exits with the status of `main`; the console script."""
    _open_what_is_closed()
    sys.exit(main())


def _open_what_is_closed() -> None:
    """Reopens a closed stdin, stdout or stderr (`2>&-`): otherwise the next opened file would get its descriptor."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
    sys.stdout = sys.stdout or open(1, "w")  # noqa: SIM115 - for the life of the process
    sys.stderr = sys.stderr or open(2, "w")  # noqa: SIM115
