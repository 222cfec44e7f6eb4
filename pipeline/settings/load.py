"""Reads settings from YAML files, `--set` and flags; refuses unknown, wrong or contradictory ones in one line."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from pipeline.errors import UsageError
from pipeline.settings.describe import known_settings, nearest_setting, sections_of_settings
from pipeline.settings.notation import SettingsLoader, read_yaml, yaml_fault
from pipeline.settings.schema import Settings


class SettingsError(UsageError):
    """A setting is unknown, of the wrong type, out of range, or contradicts another one."""


@dataclass(frozen=True, slots=True)
class _Value:
    value: Any
    origin: str  # the file or the flag, for error messages


def load_settings(
    files: Sequence[str | Path] = (),
    overrides: Sequence[str] = (),
    *,
    flags: Mapping[str, Any] | None = None,
    origin: str = "a flag",
    defaults: Mapping[str, Any] | None = None,
) -> Settings:
    """Returns the settings. Later files override earlier ones, `key=value` texts override files, flags override both.

    Args:
        flags: dotted names and values that were typed as dedicated flags.
        origin: where flags come from, for errors.
        defaults: dotted names and values that count where no file and no text says otherwise.

    Raises:
        SettingsError: a file cannot be read, a setting is unknown, wrong, or contradicts another one.
    """
    values = {name: _Value(value, "a default") for name, value in (defaults or {}).items()}
    for file in files:
        values |= _read_file(Path(file))
    for text in overrides:
        values |= _read_override(text)
    values |= {name: _Value(value, origin) for name, value in (flags or {}).items()}
    for name, value in values.items():
        _refuse_unknown(name, value.origin)
    tree: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        section, _, leaf = name.rpartition(".")
        tree.setdefault(section, {})[leaf] = value.value
    try:
        return Settings.model_validate(_sections(tree))
    except ValidationError as error:
        raise SettingsError(_clause(error, values)) from error


def _sections(tree: Mapping[str, Mapping[str, Any]], within: str = "") -> dict[str, BaseModel]:
    """Returns the sections directly within another one, innermost first, so that each reports its own errors.

    Args:
        tree: values by name, by dotted name of the section.
        within: dotted name of the section, "" for the settings as a whole.
    """
    made: dict[str, BaseModel] = {}
    for name, model in sections_of_settings():
        outer, _, leaf = name.rpartition(".")
        if outer == within and any(given == name or given.startswith(f"{name}.") for given in tree):
            made[leaf] = model.model_validate({**tree.get(name, {}), **_sections(tree, name)})
    return made


def _clause(error: ValidationError, values: Mapping[str, _Value]) -> str:
    """Returns one line for the first error in `error`."""
    first = error.errors()[0]
    if first["type"] == "contradiction":
        return str(first["msg"])
    section = "" if error.title == "Settings" else _section_of(error.title)
    parts = [*([section] if section else []), *(str(part) for part in first["loc"])]
    name = ".".join(parts)
    name = next((known for known in values if name == known or name.startswith(f"{known}.")), name)
    info = next(info for info in known_settings() if info.name == name)
    given = values[name]
    quotes = ": put it in quotes" if info.text and isinstance(given.value, bool | int | float) else ""
    return f"{name} is {_shown(given.value)} ({given.origin}); allowed is {info.allowed}{quotes}"


def _section_of(title: str) -> str:
    return next(name for name, model in sections_of_settings() if model.__name__ == title)


def _shown(value: object) -> str:
    text = json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _read_file(path: Path) -> dict[str, _Value]:
    tree = read_yaml(path, "--config", "a file of settings", SettingsError)
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise SettingsError(
            f"--config {path} contains {_shown(tree)}; write sections such as `faces:` with settings below"
        )
    values: dict[str, _Value] = {}
    for name, value in _flatten(tree):
        if name in values:
            raise SettingsError(f"{name} is set twice in {path}")
        values[name] = _Value(value, str(path))
    return values


def _flatten(tree: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields dotted names and values; an empty section yields nothing. Goes no deeper than settings are nested."""
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and name.count(".") < 2:  # a YAML alias may hold itself
            yield from _flatten(value, f"{name}.")
        elif value is not None or name not in dict(sections_of_settings()):
            yield name, value


def _read_override(text: str) -> dict[str, _Value]:
    name, equals, raw = text.partition("=")
    name = name.strip()
    if not equals or not name:
        raise SettingsError(f"--set {text!r} is not key=value, such as faces.detector=haar")
    _refuse_unknown(name, "--set")
    return {name: _Value(_text(raw) if _is_text(name) else _typed(text, raw), "--set")}


def _typed(text: str, raw: str) -> Any:
    try:
        return yaml.load(raw, Loader=SettingsLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise SettingsError(f"--set {text!r}: the value is not YAML: {yaml_fault(error)}") from error


def _text(raw: str) -> str | None:
    """Returns a text verbatim, so that a class called 7 or a folder called 2024 needs no quotes."""
    raw = raw.strip()
    if raw in ("", "~", "null"):
        return None
    if raw[0] in "'\"":
        with contextlib.suppress(yaml.YAMLError):
            value = yaml.load(raw, Loader=SettingsLoader)
            return value if isinstance(value, str) else raw
    return raw


def _is_text(name: str) -> bool:
    return any(info.text for info in known_settings() if info.name == name)


def _refuse_unknown(name: str, origin: str) -> None:
    names = [info.name for info in known_settings()]
    if name in names:
        return
    if name in dict(sections_of_settings()):
        example = next(known for known in names if known.startswith(f"{name}."))
        raise SettingsError(
            f"{name} ({origin}) is a section, not a setting; set one of its settings, such as {example}"
        )
    nearest = nearest_setting(name)
    hint = f"; nearest is {nearest}" if nearest else "; --help lists all settings"
    raise SettingsError(f"unknown setting {name} ({origin}){hint}")
