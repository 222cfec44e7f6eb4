"""Several heads that act as one: all take the same features, and their answers stand side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.heads.outputs import Head, HeadError, digest_of_parts
from models.heads.side_by_side import SideBySide


@dataclass(frozen=True, slots=True)
class NamedHead:
    """A head of a run: its name, the path it was loaded from, and the head."""

    name: str
    path: str
    head: Head


class SeveralHeads:
    """Heads of one feature space, applied together: see `Head`.

    Args:
        heads: two or more, with different names.
        deciding: index of the head whose labels a submission states.

    Raises:
        HeadError: two heads or two of their columns would have the same name.
    """

    reject: tuple[str, ...] = ()  # each head's own are in its output

    def __init__(self, heads: Sequence[NamedHead], deciding: int = 0) -> None:
        self.heads = tuple(heads)
        names, outputs = tuple(one.name for one in heads), tuple(one.head.output for one in heads)
        try:
            self.output = SideBySide(names, outputs, deciding)
        except ValueError as error:
            raise HeadError(str(error)) from error

    @property
    def classes(self) -> tuple[str, ...]:
        """Those of the deciding head."""
        return self.output.classes

    @property
    def feature_space(self) -> str:
        """That of the first head; a run checks each."""
        return self.heads[0].head.feature_space

    @property
    def features(self) -> Mapping[str, Any]:
        return self.heads[0].head.features

    @property
    def digest(self) -> str:
        """SHA-256 over names and digests, in their order."""
        return digest_of_parts(kind="several", heads=[[one.name, one.head.digest] for one in self.heads])

    def prepare(self, width: int) -> None:
        for one in self.heads:
            one.head.prepare(width)

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Returns those of the deciding head."""
        return self.heads[self.output.deciding].head.probabilities(features)

    def answers(self, features: np.ndarray) -> np.ndarray:
        """Returns the answers of all heads, side by side."""
        return np.column_stack([one.head.answers(features) for one in self.heads])
