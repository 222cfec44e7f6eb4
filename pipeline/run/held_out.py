"""The digests of held-out images: they are read and digested, not decoded."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.run.notes import note
from pipeline.run.plan import Layout, make_plan
from pipeline.settings.schema import Settings
from transforms.formats.records import Limits
from transforms.read_again import read_digests


def digests_of(patterns: Sequence[str], folder: str, settings: Settings) -> set[bytes]:
    """Returns the SHA-256 of every image of --exclude-copies-of, labelled or not; reports their number.

    Args:
        folder: of the plan.

    Raises:
        UsageError: there are no images.
        InputFault: a file cannot be read.
    """
    read = settings.read
    limits = Limits(read.max_image_bytes, read.max_pixels)
    layout = Layout(read.block_images, read.block_bytes)
    plan = make_plan(patterns, folder, layout, limits, flag="--exclude-copies-of")
    count = 0
    digests = set()
    for digest in read_digests((line for _, line in plan.lines()), limits):
        digests.add(digest)
        count += 1
    note(f"excluded: {count:,} images, {len(digests):,} of them distinct")
    return digests
