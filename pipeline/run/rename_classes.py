"""`--rename-classes OTHER=CLASS`: other names of classes, in labels or in votes."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.errors import UsageError


def class_pairs(given: Sequence[str], example: str) -> dict[str, str | None]:
    """Returns the class for each other name; None excludes what has that name.

    Raises:
        UsageError: a text is not a pair, or a name occurs twice.
    """
    pairs: dict[str, str | None] = {}
    for text in given:
        other, equals, name = text.partition("=")
        if not equals or not other:
            raise UsageError(f"--rename-classes {text}: give OTHER=CLASS, such as {example}, or OTHER= to exclude it")
        if other in pairs:
            raise UsageError(f"--rename-classes gives {other} twice; give it once")
        pairs[other] = name or None
    return pairs
