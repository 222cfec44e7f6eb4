"""Compares what a run started with and what its stages load later, perhaps hours later or on another machine.

Files are named by path, results by digest. If a file were replaced in between, results would get the wrong digest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from transforms.storage.faults import FileChanged

WEIGHTS, REVISION, DETECTOR, HEAD = "weights", "device revision", "detector", "head"
LABELS = "labels"


@dataclass(frozen=True, slots=True)
class Source:
    """Something that stages load themselves.

    Attributes:
        name: one of the names here.
        path: where it is loaded from; "" where it comes with the program.
        text: its digest or description, when the run started.
    """

    name: str
    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Provenance:
    """What the stages of a run load themselves. Empty where nothing needs to be compared.

    Attributes:
        tell: where workers elsewhere say why they cannot start (`telling.py`); "" for a local run.
    """

    sources: tuple[Source, ...] = ()
    tell: str = ""


def provenance(values: Mapping[str, tuple[str, object]]) -> Provenance:
    """Returns the provenance of a run.

    Args:
        values: path, and digest or description, by name.
    """
    return Provenance(tuple(Source(name, path, _text(value)) for name, (path, value) in values.items()))


def refuse_another(begun_with: Provenance, found: Mapping[str, object]) -> None:
    """Raises FileChanged if a stage has loaded something other than what the run started with.

    Args:
        found: what was loaded, by its name here; names that the run does not have are ignored.
    """
    for source in begun_with.sources:
        if source.name in found and _text(found[source.name]) != source.text:
            raise FileChanged(None, _fault(source))


def _fault(source: Source) -> str:
    if source.name == REVISION:
        return "a worker has another version of this program; install the same version everywhere"
    return f"{source.name} {source.path} has changed since the run started; restore the file"


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
