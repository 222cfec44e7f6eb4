"""Flags as the fields of a dataclass: each flag of a command is declared once, with its type.

    @dataclass(frozen=True, slots=True, kw_only=True)
    class CountOptions(Options):
        input: tuple[str, ...] = many("PATTERN", "folders of images", required=True)
        output: str = needed("FILE", "where the table goes")
        seed: int | None = parsed(flag_values.seed, "N", "of the sample; default 0")
        overwrite: bool = switch("replace a table")

The field `soft_labels` is the flag `--soft-labels`. The parser, the check of required flags and the help text
are made from the fields. Not here: the list of commands (`commands/registry.py`).
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeVar, cast

from pipeline.errors import UsageError
from pipeline.flag_values import text

Value = TypeVar("Value")
Some = TypeVar("Some", bound="Options")


class Options:
    """Base class of the options of all commands. `__post_init__` refuses flags that contradict each other."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag, or one positional value.

    Attributes:
        name: of the field.
        help: one clause.
        metavar: the placeholder of the value in `--help`.
        takes: no value, one, at least one, or any number of them; `position` is a value without a flag before it.
        parse: turns the text into the value.
        required: True if the command needs it.
        setting: dotted name of the setting that the flag sets, or "".
        rest: of a flag with several values: the setting of all but the first; `setting` has the first.
        short: another spelling, such as `-h`.
    """

    name: str = ""
    help: str = ""
    metavar: str = ""
    takes: Literal["nothing", "one", "many", "any", "position"] = "one"
    parse: Callable[[str], Any] = text
    required: bool = False
    setting: str = ""
    rest: str = ""
    short: str = ""

    @property
    def spelled(self) -> str:
        """The flag as it is typed: `--soft-labels`; the metavar of a positional value."""
        return self.metavar if self.takes == "position" else f"--{self.name.replace('_', '-')}"


def needed(metavar: str, help_text: str) -> str:
    """Declares a required flag with one text."""
    return _declared(Flag(metavar=metavar, help=help_text, required=True))


def one(metavar: str, help_text: str, *, setting: str = "") -> str | None:
    """Declares a flag with one text."""
    return _declared(Flag(metavar=metavar, help=help_text, setting=setting), default=None)


def parsed(parse: Callable[[str], Value], metavar: str, help_text: str, *, setting: str = "") -> Value | None:
    """Declares a flag with one value, parsed by `parse`."""
    return _declared(Flag(metavar=metavar, help=help_text, parse=parse, setting=setting), default=None)


def many(
    metavar: str,
    help_text: str,
    *,
    required: bool = False,
    parse: Callable[[str], str] = text,
    setting: str = "",
    rest: str = "",
) -> tuple[str, ...]:
    """Declares a flag with one or more texts, which may be repeated; () if not given."""
    flag = Flag(
        metavar=metavar, help=help_text, takes="many", parse=parse, required=required, setting=setting, rest=rest
    )
    return _declared(flag) if required else _declared(flag, default=())


def any_number(metavar: str, help_text: str) -> tuple[str, ...] | None:
    """Declares a flag with any number of texts, including none; None if not given."""
    return _declared(Flag(metavar=metavar, help=help_text, takes="any"), default=None)


def switch(help_text: str, *, setting: str = "", short: str = "") -> bool:
    """Declares a flag without a value."""
    return _declared(Flag(help=help_text, takes="nothing", setting=setting, short=short), default=False)


def position(metavar: str, help_text: str, *, required: bool = False) -> str:
    """Declares a positional value; "" if not given."""
    flag = Flag(metavar=metavar, help=help_text, takes="position", required=required)
    return _declared(flag) if required else _declared(flag, default="")


def _declared(flag: Flag, **default: Any) -> Value:  # type: ignore[type-var]  # of the field, as dataclasses.field
    return cast(Value, dataclasses.field(metadata={"flag": flag}, **default))


def flags_of(options: type[Options]) -> Iterator[Flag]:
    """Yields the flags that a class declares, in order."""
    for field in dataclasses.fields(options):  # type: ignore[arg-type]  # each subclass is a dataclass
        yield dataclasses.replace(field.metadata["flag"], name=field.name)


class FlagParser(argparse.ArgumentParser):
    """Accepts no abbreviations and never exits: an error is a `UsageError`."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message.replace('argument ', '')}; see --help")


def parser_of(*kinds: type[Options]) -> FlagParser:
    """Returns a parser of all flags of these classes; flags that are not typed are absent from its namespace."""
    parser = FlagParser(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    for flag in (flag for kind in kinds for flag in flags_of(kind)):
        _add(parser, flag)
    return parser


def _add(parser: FlagParser, flag: Flag) -> None:
    if flag.takes == "position":
        parser.add_argument(flag.name, nargs="?", metavar=flag.metavar, type=flag.parse)
        return
    spellings = [*([flag.short] if flag.short else []), flag.spelled]
    if flag.takes == "nothing":
        parser.add_argument(*spellings, dest=flag.name, action="store_true", default=argparse.SUPPRESS)
    elif flag.takes == "one":
        parser.add_argument(*spellings, dest=flag.name, metavar=flag.metavar, type=flag.parse)
    else:
        nargs = "+" if flag.takes == "many" else "*"
        action = "store" if flag.rest else "extend"  # a flag that sets a setting: the last one counts
        parser.add_argument(
            *spellings, dest=flag.name, nargs=nargs, action=action, metavar=flag.metavar, type=flag.parse
        )


def options_from(kind: type[Some], given: argparse.Namespace, *, needs: str = "") -> Some:
    """Returns the options that were typed.

    Args:
        needs: the command, for the message about a missing flag.

    Raises:
        UsageError: a required flag is missing, or flags contradict each other.
    """
    flags = list(flags_of(kind))
    if missing := [flag for flag in flags if flag.required and not hasattr(given, flag.name)]:
        raise UsageError(f"{needs} needs {' and '.join(map(_in_words, missing))}; see --help")
    typed = {flag.name: getattr(given, flag.name) for flag in flags if hasattr(given, flag.name)}
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in typed.items()})


def _in_words(flag: Flag) -> str:
    return f"{flag.metavar}, the {flag.help}" if flag.takes == "position" else flag.spelled


def settings_of(kind: type[Options], given: argparse.Namespace) -> dict[str, Any]:
    """Returns the typed flags that set settings, by dotted name."""
    found: dict[str, Any] = {}
    for flag in flags_of(kind):
        if flag.setting and hasattr(given, flag.name):
            value = getattr(given, flag.name)
            found |= {flag.setting: value[0], flag.rest: value[1:]} if flag.rest else {flag.setting: value}
    return found
