"""`--rename-classes OTHER=CLASS`: the names that others give to classes, in labels or in votes."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.errors import UsageError


def class_pairs(given: Sequence[str], example: str) -> dict[str, str | None]:
    """Returns the class by its other name; None leaves out what has that name.

    Raises:
        UsageError: a text that is no pair, or one name twice.
    """
    pairs: dict[str, str | None] = {}
    for text in given:
        other, equals, name = text.partition("=")
        if not equals or not other:
            raise UsageError(f"--rename-classes {text}: give OTHER=CLASS, such as {example}, or OTHER= to leave out")
        if other in pairs:
            raise UsageError(f"--rename-classes gives {other} twice; give it once")
        pairs[other] = name or None
    return pairs
