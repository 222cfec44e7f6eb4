"""Differences between two trees of values, in words: `faces.detector: haar there, yunet here`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from transforms.formats.canonical import canonical_json


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Returns a clause for each value that differs: `faces.detector: haar there, yunet here`."""
    return [f"{name}: {there} there, {here} here" for name, there, here in differing(old, new)]


def differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Returns name, old value and new value of each value that differs, in words."""
    there, here = dict(_leaves(old)), dict(_leaves(new))
    return [
        (name, _worded(there, name), _worded(here, name))
        for name in sorted(there.keys() | here.keys())
        if name not in there or name not in here or canonical_json(there[name]) != canonical_json(here[name])
    ]


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _worded(values: Mapping[str, Any], name: str) -> str:
    if name not in values:
        return "not set"
    value = values[name]
    return value if isinstance(value, str) and value else canonical_json(value)
