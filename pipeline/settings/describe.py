"""The settings in words: names, defaults, limits; and the settings in force as YAML."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pipeline.settings.notation import yaml_scalar
from pipeline.settings.schema import Settings
from pipeline.settings.section import Enters


@dataclass(frozen=True, slots=True)
class SettingInfo:
    """What documents and error messages say about one setting.

    Attributes:
        name: dotted, as in `--set`.
        default: in YAML notation.
        allowed: the allowed values, in words.
        description: one clause, with the unit.
        enters: the fingerprint that it is part of.
        text: True if the value is a text, which `--set` takes verbatim.
    """

    name: str
    default: str
    allowed: str
    description: str
    enters: Enters
    text: bool


@functools.cache
def known_settings() -> tuple[SettingInfo, ...]:
    """Returns every setting, in order of declaration."""
    return tuple(
        _info(section, name, field) for section, model in sections_of_settings() for name, field in _fields(model)
    )


def sections_of_settings(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Yields dotted names and models of all sections, nested ones after their parent."""
    for name, field in model.model_fields.items():
        if is_section(field):
            section = cast("type[BaseModel]", field.annotation)
            yield f"{prefix}{name}", section
            yield from sections_of_settings(section, f"{prefix}{name}.")


def is_section(field: FieldInfo) -> bool:
    """Returns True if a field is a section, not a setting."""
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def _fields(model: type[BaseModel]) -> Iterator[tuple[str, FieldInfo]]:
    yield from ((name, field) for name, field in model.model_fields.items() if not is_section(field))


def section_of(settings: Settings, name: str) -> BaseModel:
    """Returns the values of a section by its dotted name."""
    found: Any = settings
    for part in name.split("."):
        found = getattr(found, part)
    return cast(BaseModel, found)


def _extra(field: FieldInfo) -> dict[str, Any]:
    assert isinstance(field.json_schema_extra, dict)
    return field.json_schema_extra


def _info(section: str, name: str, field: FieldInfo) -> SettingInfo:
    default = getattr(section_of(Settings(), section), name)
    return SettingInfo(
        name=f"{section}.{name}",
        default=yaml_scalar(default),
        allowed=_extra(field)["allowed"] or _allowed(field),
        description=field.description or "",
        enters=Enters(_extra(field)["enters"]),
        text=get_origin(field.annotation) is not list
        and (field.annotation is str or str in get_args(field.annotation)),
    )


def _allowed(field: FieldInfo) -> str:
    """Returns the values that a field's type and limits allow, in words: `a whole number from 1 to 256`."""
    kind = field.annotation
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    if kind is bool:
        return "true or false"
    words = {int: "a whole number", float: "a number"}.get(kind, "text")  # type: ignore[arg-type]
    limits = {}
    for constraint in field.metadata:
        for bound in ("ge", "gt", "le"):
            if (value := getattr(constraint, bound, None)) is not None:
                limits[bound] = value
    if "ge" in limits:
        words += f" from {limits['ge']}"
    if "gt" in limits:
        words += f" above {limits['gt']}"
    if "le" in limits:
        words += f" to {limits['le']}"
    return words


def nearest_setting(name: str) -> str | None:
    """Returns the known setting nearest to `name`, dotted or not, or None if none is near."""
    # train and mlp repeat names of other sections: suggest them only if the section is given
    shut = tuple(section for section in ("train.", "mlp.") if not name.startswith(section[:2]))
    known = {info.name: info.name for info in known_settings() if not info.name.startswith(shut)}
    if "." not in name:
        # if sections share a name, the first section wins: features.batch_size before train.batch_size
        known = {info.name.rpartition(".")[2]: info.name for info in reversed(known_settings())}
    found = difflib.get_close_matches(name, known, n=1)
    if found:
        return known[found[0]]
    leaf = name.rpartition(".")[2]
    return nearest_setting(leaf) if leaf != name else None


def to_yaml(settings: Settings) -> str:
    """Returns the settings in force as YAML that `--config` reads back to the same settings."""
    lines = []
    for section, model in sections_of_settings():
        depth = "  " * section.count(".")
        lines.append(f"{depth}{section.rpartition('.')[2]}:")
        values = section_of(settings, section)
        lines += [f"{depth}  {name}: {yaml_scalar(getattr(values, name))}" for name, _ in _fields(model)]
    return "\n".join(lines) + "\n"
