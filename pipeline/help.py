"""The text of `--help` for the program or for one command, with the flags and settings that it uses."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from pipeline.commands.command import ABOUT_SETTINGS, Command, Common
from pipeline.commands.registry import COMMANDS, DEFAULT_COMMAND
from pipeline.flags import Flag, flags_of
from pipeline.settings.describe import known_settings
from pipeline.settings.notation import yaml_scalar

HELP_WIDTH = 100
COLUMN = 34  # where the second column begins
PROGRAM = "python -m pipeline"
EXIT_STATUS = "exit status: 0 done, 2 the command or a setting is wrong, 3 stopped, 130 interrupted"


def help_text(name: str | None) -> str:
    """Returns the help of a command. The program's own help is that of `label` with a list of all commands."""
    command = COMMANDS[name or DEFAULT_COMMAND]
    head = _of_the_program() if name is None else [_usage(command), "", f"{command.name}: {command.summary}"]
    lines = [*head, "", "example:", f"  {PROGRAM} {command.example}", "", f"flags of {command.name}:"]
    lines += _flag_lines(flags_of(command.options))
    lines += ["", "flags of every command:"]
    lines += _flag_lines(flag for flag in flags_of(Common) if command.settings or flag.name not in ABOUT_SETTINGS)
    if command.beam:
        lines += ["  --runner, --direct_num_workers and all other flags of Beam are passed to Beam"]
    if command.settings:
        lines += ["", "settings, for --set and as sections of a YAML file:", *_setting_lines(command)]
    return "\n".join([*lines, "", EXIT_STATUS]) + "\n"


def _of_the_program() -> list[str]:
    return [
        f"{PROGRAM} [COMMAND] [flags] [--set KEY=VALUE ...] [Beam options] [-- RUNNER OPTIONS]",
        "",
        "Labels every face in a collection of images and accounts for every image.",
        "",
        "commands:",
        *(f"  {command.name:<18} {command.summary}" for command in COMMANDS.values()),
        f"  {PROGRAM} COMMAND --help shows the flags and settings of one command",
    ]


def _usage(command: Command) -> str:
    flags = list(flags_of(command.options))
    words = [flag.metavar for flag in flags if flag.takes == "position"]
    words += [_words(flag) for flag in flags if flag.required and flag.takes != "position"]
    words += ["[flags]", *(["[Beam options] [-- RUNNER OPTIONS]"] if command.beam else [])]
    return " ".join([PROGRAM, command.name, *words])


def _words(flag: Flag) -> str:
    if flag.takes in ("nothing", "position"):
        return flag.spelled
    return f"{flag.spelled} {flag.metavar}" + (" ..." if flag.takes in ("many", "any") else "")


def _flag_lines(flags: Iterable[Flag]) -> list[str]:
    lines: list[str] = []
    for flag in flags:
        words = f"{flag.short}, {_words(flag)}" if flag.short else _words(flag)
        value = "true" if flag.takes == "nothing" else flag.metavar
        same = f"; same as --set {flag.setting}={value}" if flag.setting else ""
        same += f" {flag.rest}=[{value}, ...]" if flag.rest else ""
        lines += _entry(words, flag.help + same)
    return lines


def _setting_lines(command: Command) -> list[str]:
    lines: list[str] = []
    for info in known_settings():
        if command.uses(info.name):
            default = yaml_scalar(command.defaults.get(info.name)) if info.name in command.defaults else info.default
            lines += _entry(f"{info.name}={default}", f"{info.description} ({info.allowed})")
    return lines


def _entry(words: str, text: str) -> list[str]:
    wrapped = textwrap.wrap(text, HELP_WIDTH - COLUMN)
    room = COLUMN - 3
    first = [f"  {words:<{room}} {wrapped[0]}"] if len(words) <= room else [f"  {words}", " " * COLUMN + wrapped[0]]
    return [*first, *(" " * COLUMN + line for line in wrapped[1:])]
