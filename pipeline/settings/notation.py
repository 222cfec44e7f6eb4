"""The YAML dialect of settings: dates and times are texts, 010 is ten."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import UsageError
from pipeline.settings.shipped import found

MAX_BYTES = 2**20  # settings and recipes take a page; a larger file is the wrong one


class SettingsLoader(yaml.SafeLoader):
    """YAML as people expect it: no and off are words, 1e-3 is a number, a key occurs once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue  # SafeLoader refuses it below
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key_node.value} is set twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def _plain_resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """Returns SafeLoader's table without dates, octals, base 60 and the words yes, no, on, off."""
    table = [
        ("tag:yaml.org,2002:bool", re.compile(r"true|True|TRUE|false|False|FALSE"), "tTfF"),
        ("tag:yaml.org,2002:null", re.compile(r"~|null|Null|NULL|"), "~nN"),
        ("tag:yaml.org,2002:int", re.compile(r"[-+]?[0-9][0-9_]*"), "-+0123456789"),
        (
            "tag:yaml.org,2002:float",
            re.compile(r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan"),
            "-+0123456789.",
        ),
        ("tag:yaml.org,2002:merge", re.compile(r"<<"), "<"),
    ]
    resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    for tag, pattern, first in table:
        for letter in first:
            resolvers.setdefault(letter, []).append((tag, re.compile(f"(?:{pattern.pattern})$")))
    resolvers[""] = [("tag:yaml.org,2002:null", re.compile(r"$"))]
    return resolvers


def _decimal(loader: SettingsLoader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node).replace("_", ""))


SettingsLoader.yaml_implicit_resolvers = _plain_resolvers()
SettingsLoader.add_constructor("tag:yaml.org,2002:int", _decimal)  # 010 is ten, not eight


def yaml_scalar(value: object) -> str:
    """Returns one value in YAML notation, on one line."""
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    if isinstance(value, str):
        plain = re.fullmatch(r"[A-Za-z_/][A-Za-z0-9_./-]*", value) and isinstance(_reread(value), str)
        return value if plain else yaml.safe_dump(value, default_style='"', allow_unicode=True, width=math.inf).strip()
    return json.dumps(value)


def _reread(text: str) -> object:
    return yaml.load(text, Loader=SettingsLoader)


def read_yaml(path: Path, flag: str, what: str, refused: type[UsageError] = UsageError) -> Any:
    """Returns the content of a YAML file of settings.

    Args:
        path: of the file; `configs/…` also finds a file that ships.
        flag: the flag that gave the path, for messages; `what` it should name.
        refused: the class of the error.

    Raises:
        UsageError: it cannot be read, is too large, or is not YAML; the message names flag and file.
    """
    try:
        with found(path).open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise refused(f"{flag} {path} cannot be read: {error.strerror or error}") from error
    if len(raw) > MAX_BYTES:
        raise refused(f"{flag} {path} is larger than {MAX_BYTES} bytes; name {what}")
    try:
        return yaml.load(raw, Loader=SettingsLoader)  # a subclass of SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise refused(f"{flag} {path} is not YAML: {yaml_fault(error)}") from error


def yaml_fault(error: Exception) -> str:
    """Returns the fault in YAML and its line, in a few words."""
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    mark = getattr(error, "problem_mark", None)
    return f"{problem}, line {mark.line + 1}" if mark else str(problem)
