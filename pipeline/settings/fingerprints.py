"""Which settings change which results, and the digests that stand for them.

Not here: digests of weights and the `REVISION` numbers of the steps, which whoever runs the steps adds to
`features_settings` before taking its fingerprint.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.settings.describe import known_settings, section_of
from pipeline.settings.schema import Enters, Settings


def features_settings(settings: Settings, *, native_size: tuple[int, int] | None = None) -> dict[str, Any]:
    """Returns the settings that can change features, as JSON values.

    Paths do not enter, what lies there does: `features.weights` reads `file` for a path, and the caller adds
    the digests of weights and detector files.

    Args:
        native_size: the backbone's own (height, width), stated in place of an `input_size` left open, so that
            naming the default and leaving it out are the same features.
    """
    return _tree(settings, {Enters.FEATURES}, native_size)


def run_settings(settings: Settings, *, native_size: tuple[int, int] | None = None) -> dict[str, Any]:
    """Returns the settings that can change any result: those of features, and of labels, head and submission."""
    tree = _tree(settings, {Enters.FEATURES, Enters.RUN}, native_size)
    tree["head"]["path"] = "bundled" if settings.head.path == "bundled" else "file"
    return tree


def _tree(settings: Settings, kinds: set[Enters], native_size: tuple[int, int] | None) -> dict[str, Any]:
    tree = _entering(settings, kinds)
    if settings.features.weights not in ("bundled", "imagenet", "random"):
        tree["features"]["weights"] = "file"
    size = settings.features.input_size or native_size
    tree["features"]["input_size"] = None if size is None else list(size)
    return tree


def _entering(settings: Settings, kinds: set[Enters]) -> dict[str, dict[str, Any]]:
    tree: dict[str, Any] = {}
    for info in known_settings():
        if info.enters in kinds:
            section, _, leaf = info.name.rpartition(".")
            node = tree
            for part in section.split("."):
                node = node.setdefault(part, {})
            node[leaf] = getattr(section_of(settings, section), leaf)
    return tree


def canonical_json(value: Any) -> str:
    """Returns the one JSON text of `value`: keys sorted, no spaces, Unicode as it is.

    Raises:
        ValueError: a number is not finite.
        TypeError: a value is not of JSON, or a key is not text.
    """
    _refuse_odd_keys(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _refuse_odd_keys(value: Any) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise TypeError(f"key {key!r} is not text, so its JSON would not be the one of its value")
            _refuse_odd_keys(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _refuse_odd_keys(inner)


def fingerprint(value: Any) -> str:
    """Returns the SHA-256 of `canonical_json(value)`, 64 hex digits."""
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogateescape")).hexdigest()


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Returns a clause for each value that differs: `faces.detector: haar there, yunet here`."""
    there, here = dict(_leaves(old)), dict(_leaves(new))
    return [
        f"{name}: {_worded(there, name)} there, {_worded(here, name)} here"
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
