"""Turns a caller's arguments into settings and options, with the checks of the command line."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from pipeline.errors import UsageError
from pipeline.flag_values import text
from pipeline.flags import Options, flags_of
from pipeline.settings.load import SettingsError, load_settings
from pipeline.settings.schema import Settings

PathLike: TypeAlias = str | os.PathLike[str]
Paths: TypeAlias = PathLike | Iterable[PathLike]
SettingsLike: TypeAlias = Settings | Mapping[str, Any] | PathLike | None
Some = TypeVar("Some", bound=Options)


def settings_from(given: SettingsLike, **over: object) -> Settings:
    """Returns settings.

    Args:
        given: settings; a mapping, flat (`{"faces.margin": 0.1}`) or by section (`{"faces": {"margin": 0.1}}`); the
            path of a YAML file; None for the defaults.
        over: values that override those of `given`, by dotted name with `__` for the dot; None changes nothing.

    Raises:
        SettingsError: a setting is unknown, wrong, or contradicts another one, or the file cannot be read.
    """
    values = {name.replace("__", "."): value for name, value in over.items() if value is not None}
    files: list[Path] = []
    if isinstance(given, Settings):
        if not values:
            return given
        values = {**dict(_flat(given.model_dump())), **values}
    elif isinstance(given, Mapping):
        values = {**dict(_flat(given)), **values}
    elif isinstance(given, str | os.PathLike):
        files = [Path(given)]
    elif given is not None:
        raise SettingsError(f"settings is {given!r:.60}; give Settings, a mapping, or the path of a YAML file")
    return load_settings(files, flags=values, origin="an argument")


def _flat(tree: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields dotted names and values of nested mappings."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def options_of(kind: type[Some], /, **given: Any) -> Some:
    """Returns the options of a command.

    Args:
        given: values by the names of the fields; None leaves the default.

    Raises:
        UsageError: a value is not allowed, or two contradict each other.
    """
    values = {name: value for name, value in given.items() if value is not None}
    for flag in flags_of(kind):
        if flag.name in values and flag.takes == "one" and flag.parse is not text:
            try:
                values[flag.name] = flag.parse(str(values[flag.name]))
            except argparse.ArgumentTypeError as error:
                raise UsageError(f"{flag.name}: {error}") from error
        if flag.required and not values.get(flag.name):
            raise UsageError(f"{flag.name} is empty")
    return kind(**values)


def path_text(path: PathLike | None) -> str | None:
    """Returns a path in the form of the command line."""
    return None if path is None else os.fspath(path)


def path_texts(paths: Paths) -> tuple[str, ...]:
    """Returns one path or several in the form of the command line."""
    return (os.fspath(paths),) if isinstance(paths, str | os.PathLike) else tuple(os.fspath(path) for path in paths)


def head_settings(head: Paths | None) -> dict[str, object]:
    """Returns the settings, as `settings_from` takes them, that one head or several state; None states none."""
    if head is None:
        return {}
    first, *more = path_texts(head)
    return {"head__path": first, "head__more": more}


def pairs(renames: Mapping[str, str]) -> tuple[str, ...]:
    """Returns OTHER=CLASS texts."""
    return tuple(f"{other}={name}" for other, name in renames.items())
