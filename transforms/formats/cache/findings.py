"""What checking and pruning a cache found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Report:
    """What `verify` found: counts over the intact segments, and (segment, what is wrong) for the damaged ones.

    Counts are of rows, so an image in two segments counts twice. `in_place` names the damaged segments that could
    not be moved aside.
    """

    segments: int
    images: int
    faces: int
    labelled: int
    no_face: int
    rejected: int
    damaged: tuple[tuple[str, str], ...]
    in_place: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pruned:
    """What `prune` removed: the paths, sorted, and their total size in bytes."""

    paths: tuple[str, ...]
    size: int
