"""What several heads say of a face, side by side: one `OutputSpec` made of theirs.

The first head keeps the names of its columns. Those of every other head begin with the head's name: `smile_label`.
Not here: the heads themselves (`several.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from models.heads.output_spec import Column, Field, Kind, OutputSpec


def prefix_of(name: str, *, first: bool) -> str:
    """Returns what the columns of a head begin with."""
    return "" if first else f"{name}_"


@dataclass(frozen=True, slots=True)
class SideBySide:
    """The outputs of several heads; of each face, one head decides the label of the image.

    Args:
        names: of the heads, all different.
        outputs: of the heads, in that order.
        deciding: index of the head whose labels a submission states.

    Raises:
        ValueError: two heads, or two columns, would have the same name.
    """

    names: tuple[str, ...]
    outputs: tuple[OutputSpec, ...]
    deciding: int = 0

    def __post_init__(self) -> None:
        if twice := _repeated(self.names):
            raise ValueError(f"two heads are called {twice!r}; give one another name: --head NAME=PATH")
        for names in ([f.name for f in self.fields], [c.name for c in self.columns]):
            if twice := _repeated(names):
                raise ValueError(f"two heads would write the column {twice!r}; give one another name: --head NAME=PATH")

    @property
    def members(self) -> tuple[tuple[str, OutputSpec], ...]:
        """The prefix of each head's columns, and its output."""
        return tuple(
            (prefix_of(name, first=place == 0), output)
            for place, (name, output) in enumerate(zip(self.names, self.outputs, strict=True))
        )

    @property
    def _decides(self) -> tuple[str, OutputSpec]:
        return self.members[self.deciding]

    @property
    def kind(self) -> Kind:
        """That of the deciding head; so are `classes`, `label`, `confidence` and `none`."""
        return self._decides[1].kind

    @property
    def classes(self) -> tuple[str, ...]:
        return self._decides[1].classes

    @property
    def label(self) -> str:
        prefix, output = self._decides
        return prefix + output.label

    @property
    def confidence(self) -> str:
        prefix, output = self._decides
        return prefix + output.confidence if output.confidence else ""

    @property
    def none(self) -> np.generic:
        return self._decides[1].none

    @property
    def width(self) -> int:
        """The numbers of all heads together."""
        return sum(output.width for output in self.outputs)

    @property
    def fields(self) -> tuple[Field, ...]:
        return tuple(
            replace(field, name=prefix + field.name) for prefix, output in self.members for field in output.fields
        )

    @property
    def columns(self) -> tuple[Column, ...]:
        return tuple(
            replace(column, name=prefix + column.name, field=prefix + column.field)
            for prefix, output in self.members
            for column in output.columns
        )

    def stored(self, answers: np.ndarray) -> Mapping[str, np.ndarray]:
        """Returns the values of the fields of all heads, see `OutputSpec`."""
        found: dict[str, np.ndarray] = {}
        start = 0
        for prefix, output in self.members:
            values = output.stored(answers[:, start : start + output.width])
            found |= {prefix + name: value for name, value in values.items()}
            start += output.width
        return found

    def texts(self, labels: np.ndarray, *, names: bool) -> Sequence[str]:
        return self._decides[1].texts(labels, names=names)

    def label_of(self, text: str) -> int | float:
        return self._decides[1].label_of(text)


def members_of(spec: OutputSpec) -> tuple[tuple[str, OutputSpec], ...]:
    """Returns the outputs in a spec, each with the prefix of its columns: several side by side, or the one."""
    return spec.members if isinstance(spec, SideBySide) else (("", spec),)


def label_names(spec: OutputSpec) -> frozenset[str] | None:
    """Returns the names of all classes; None if a head gives numbers, so that any text may be a true label."""
    outputs = [output for _, output in members_of(spec)]
    return frozenset().union(*(o.classes for o in outputs)) if all(o.classes for o in outputs) else None


def _repeated(names: Sequence[str]) -> str:
    return next((name for name, count in Counter(names).items() if count > 1), "")
