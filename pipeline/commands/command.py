"""What a command is: its options, its help text, and the context that it gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.flags import Options, many, switch
from pipeline.settings.schema import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Common(Options):
    """Flags that every command takes."""

    config: tuple[str, ...] = many("FILE", "settings, YAML; later files override earlier ones")
    set: tuple[str, ...] = many("KEY=VALUE", "one setting; overrides --config")
    print_config: bool = switch("print the settings in force and exit")
    verbose: bool = switch("show log lines, and tracebacks of errors")
    quiet: bool = switch("no progress bar, no closing summary")
    version: bool = switch("print the version and exit")
    help: bool = switch("print this page and exit", short="-h")


ABOUT_SETTINGS = ("config", "set", "print_config")  # flags of no use to a command without settings


@dataclass(frozen=True, slots=True)
class Context:
    """What every command gets in addition to its own options.

    Attributes:
        settings: from files, `--set` and flags.
        beam_options: flags for Beam as typed; their names are checked, except after a bare `--`.
        quiet: True for no progress bar and no closing summary.
        verbose: True for log lines.
    """

    settings: Settings
    beam_options: tuple[str, ...] = ()
    quiet: bool = False
    verbose: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command.

    Attributes:
        name: as it is typed. The module of that name in `pipeline/actions/`, with `_` for `-`, does the work.
        summary: one clause for `--help`.
        example: a realistic command line, without `python -m pipeline`.
        options: the class of its options.
        settings: sections and single settings that it reads, by dotted name.
        settings_unused: those in these sections that it does not read.
        defaults: settings, by dotted name, that have another default here than elsewhere.
        beam: True if it starts Beam and so takes Beam's flags.
    """

    name: str
    summary: str
    example: str
    options: type[Options]
    settings: tuple[str, ...] = ()
    settings_unused: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    beam: bool = False

    @property
    def module(self) -> str:
        """Dotted name of the module whose `run(options, context)` does the work."""
        return f"pipeline.actions.{self.name.replace('-', '_')}"

    def uses(self, setting: str) -> bool:
        """Returns True if the command reads a setting, given by its dotted name."""
        return _lies_in(setting, self.settings) and not _lies_in(setting, self.settings_unused)


def _lies_in(setting: str, parts: tuple[str, ...]) -> bool:
    return any(setting == part or setting.startswith(f"{part}.") for part in parts)
