"""Small pictures of the images that two runs differ in, by a second read of the inputs of either run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pipeline.report.photo import Photo
from pipeline.report.run_pictures import Lines, Picture, read_run_pictures
from pipeline.report.run_samples import Samples
from pipeline.report.two_runs.differences import Kind
from pipeline.report.two_runs.pair_samples import Example, PhotoPair
from transforms.formats.records import Limits


@dataclass(frozen=True, slots=True)
class Source:
    """Where the pictures of a run come from.

    Attributes:
        lines: of a plan of its inputs; None where they cannot be found. `fault`: why.
        limits: of images that are read again.
    """

    lines: Lines | None
    limits: Limits
    fault: str = ""


@dataclass(frozen=True, slots=True)
class PairPictures:
    """What could be read again: pictures by row of the pair, how many could not be, and the first reason."""

    photos: Mapping[int, Picture]
    missing: int
    fault: str


def read_pair_pictures(examples: Mapping[Kind, Iterable[Example]], a: Source, b: Source) -> PairPictures:
    """Returns a picture of each image that is shown: from A's inputs, and from B's those that A's no longer give."""
    pairs = {example.pair.row: example.pair for some in examples.values() for example in some}
    of_a = [pair.a for pair in pairs.values() if pair.a is not None and pair.a.digest]
    found = read_run_pictures(_only(of_a), a.lines, a.limits, fault=a.fault)
    photos, fault = dict(found.photos), found.fault
    rest = [pair.b for pair in pairs.values() if pair.b is not None and pair.b.digest and _wants_b(pair, photos)]
    if rest:
        more = read_run_pictures(_only(rest), b.lines, b.limits, fault=b.fault)
        photos |= more.photos
        fault = fault or more.fault
    readable = sum(bool((pair.a and pair.a.digest) or (pair.b and pair.b.digest)) for pair in pairs.values())
    return PairPictures(photos, readable - len(photos), fault)


def _wants_b(pair: PhotoPair, photos: Mapping[int, Picture]) -> bool:
    """True if B's picture may stand for the pair: A has none that can be decoded, or had the same bytes."""
    same = pair.a is not None and pair.b is not None and pair.a.digest == pair.b.digest
    return pair.row not in photos and (same or pair.either is pair.b)


def _only(photos: Iterable[Photo]) -> Samples:
    return Samples((), tuple(photos), (), (), {})
