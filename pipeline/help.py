"""The text of `--help`."""

from __future__ import annotations

import textwrap

from pipeline.flags import COMMANDS, DEFAULT_COMMAND, parser_of
from pipeline.settings.describe import known_settings

HELP_WIDTH = 100
TRAINING_SECTIONS = {"train": "train-backbone", "mlp": "train-head"}  # settings that no other command has


def help_text(name: str | None) -> str:
    """Returns the help of a command, or of the program (which is that of `label`, and the other commands)."""
    lines = [
        "python -m pipeline [COMMAND] [--config FILE] [--set KEY=VALUE ...] [Beam options] [-- RUNNER OPTIONS]",
        "",
    ]
    if name is None:
        lines += ["Labels every face in a collection of images, and accounts for every image.", "", "commands:"]
        lines += [f"  {command:<18} {spec.summary}" for command, spec in COMMANDS.items()]
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
    for action in parser_of(name)._actions:
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
