"""Turns what a caller gives as settings into settings."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from pipeline.settings.load import SettingsError, load_settings
from pipeline.settings.schema import Settings

SettingsLike: TypeAlias = Settings | Mapping[str, Any] | str | os.PathLike[str] | None
HEAD = "head.path"


def settings_from(given: SettingsLike, *, head: str | os.PathLike[str] | None = None) -> Settings:
    """Returns settings, checked as the command line checks them.

    Args:
        given: settings; a mapping, flat (`{"faces.margin": 0.1}`) or by section (`{"faces": {"margin": 0.1}}`); the
            path of a YAML file; None for the defaults.
        head: the trained head, over that of the settings; None keeps theirs.

    Raises:
        SettingsError: a setting is unknown, wrong, or contradicts another one, or the file cannot be read.
    """
    chosen = {} if head is None else {HEAD: os.fspath(head)}
    if given is None or isinstance(given, Mapping):
        return load_settings(flags={**dict(_flat(given or {})), **chosen}, origin="an argument")
    if isinstance(given, str | os.PathLike):
        return load_settings([Path(given)], flags=chosen, origin="an argument")
    if not isinstance(given, Settings):
        raise SettingsError(f"settings is {given!r:.60}; give Settings, a mapping, or the path of a YAML file")
    if not chosen:
        return given
    return given.model_copy(update={"head": given.head.model_copy(update={"path": chosen[HEAD]})})


def _flat(tree: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields dotted names and values of nested mappings."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
