"""`--dry-run`: the same planning code, then a few sampled blocks. Leaves no files behind."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from models.runtimes.device import get_device
from pipeline.run.output_folder import OutputFolder
from pipeline.run.plan import Layout, Plan, make_plan
from pipeline.settings.schema import Settings
from transforms.block import Block
from transforms.crop_faces import detect_rows, rows_to_detect, with_rows
from transforms.formats.cache.feature_cache import FeatureCache
from transforms.formats.cache.folders import FINGERPRINT_FILE, fingerprint_folders
from transforms.formats.canonical import digest_of_canonical
from transforms.job import CachePlace, Job
from transforms.read_blocks import PlannedBlock, read_block, stream_blocks
from transforms.storage.paths import is_object
from transforms.storage.stores import store_of
from transforms.store_cache import cache_of

SAMPLED_BLOCKS = 4
SAMPLED_IMAGES = 24  # computed in each of them: enough for a rate, few enough to be quick
OUTPUT_BYTES = 400  # per image in parts and final files: the final ones took 137 on FER2013's test part
CACHE_BYTES = 256  # per image in the cache besides features: digest, boxes, names, HDF5's overhead: 212 on FER2013


@dataclass
class Sampled:
    """Counts of the sampled blocks: images read, found in the cache, computed; faces; seconds."""

    images: int = 0
    cached: int = 0
    computed: int = 0
    faces: int = 0
    read_s: float = 0.0
    compute_s: float = 0.0
    width: int = 0


def show(
    patterns: Sequence[str],
    folder: OutputFolder,
    settings: Settings,
    job: Job,
    check: Callable[[Plan], None] = lambda plan: None,
) -> int:
    """Prints what would be read and done, with an estimate of the cost; returns exit status 0.

    Args:
        check: checks the plan, and raises if the run would.
    """
    with tempfile.TemporaryDirectory() as scratch:
        layout = Layout(settings.read.block_images, settings.read.block_bytes)
        plan = make_plan(patterns, scratch, layout, job.reading.limits, own=(folder.path, job.cache.root))
        check(plan)
        sampled = _sample(plan, job)
        print("\n".join(_words(plan, sampled, folder, job.cache.root)))
    return 0


def _sample(plan: Plan, job: Job) -> Sampled:
    chosen = {round(i) for i in np.linspace(0, plan.blocks - 1, min(SAMPLED_BLOCKS, plan.blocks))}
    cache = _standing_cache(job.cache)
    seen = Sampled()
    for index, (_, line) in enumerate(plan.lines()):
        if index in chosen:
            _look_into(PlannedBlock.from_json(line), job, cache, seen)
    return seen


def _standing_cache(place: CachePlace) -> FeatureCache | None:
    """Returns the cache of these features if it exists; never makes a folder."""
    fingerprint = digest_of_canonical(place.key_json)
    if is_object(place.root):
        here = store_of(f"{place.root}/{fingerprint[:16]}")
        return None if here.size(FINGERPRINT_FILE) is None else cache_of(place.root, place.key_json)
    if fingerprint[:16] not in fingerprint_folders(place.root):
        return None
    return FeatureCache.open(place.root, fingerprint, read_only=True)


def _look_into(planned: PlannedBlock, job: Job, cache: FeatureCache | None, seen: Sampled) -> None:
    start, reading = time.perf_counter(), job.reading
    if planned.streamed:
        size = reading.block_bytes
        blocks = stream_blocks(planned, reading.limits, block_images=64, block_bytes=size, finished=set())
        block = next(iter(blocks), None)
    else:
        block = read_block(replace(planned, entries=planned.entries[: reading.block_images]), reading.limits)
    seen.read_s += time.perf_counter() - start
    if block is None:
        return
    hit = np.zeros(len(block), bool) if cache is None else cache.lookup(block.digests)[0]
    seen.images += len(block)
    seen.cached += int(hit.sum())
    _compute(block, [row for row in rows_to_detect(block) if not hit[row]][:SAMPLED_IMAGES], job, seen)


def _compute(block: Block, rows: list[int], job: Job, seen: Sampled) -> None:
    if not rows:
        return
    device = get_device(job.features)  # built before timing starts
    detector = job.detecting.detector.load()
    seen.width = device.width
    start = time.perf_counter()
    detected = with_rows(block, [detect_rows(block, rows, job.detecting, detector)])
    crops = detected.fresh.crops
    if crops is not None:
        for first in range(0, len(crops), job.features.batch_size):
            device.features(crops[first : first + job.features.batch_size])
    # a partial last batch costs as much as a full one, so it counts by its content
    padded = -(-len(detected.fresh) // job.features.batch_size) * job.features.batch_size
    share = len(detected.fresh) / padded if padded else 1.0
    seen.compute_s += (time.perf_counter() - start) * max(share, 0.25)
    seen.computed += len(rows)
    seen.faces += len(detected.fresh)


def _words(plan: Plan, seen: Sampled, folder: OutputFolder, cache: str) -> list[str]:
    least = "at least " if plan.streamed else ""
    shards = ", ".join(f"{count:,} {kind}" for kind, count in sorted(plan.shards.items()))
    lines = [
        f"would read {least}{plan.images:,} images ({plan.input_bytes / 1e6:,.1f} MB) "
        f"in {least}{plan.blocks:,} blocks of shards: {shards}"
    ]
    if plan.streamed:
        lines.append(f"{plan.streamed:,} archives can only be streamed; their images are counted when they are read")
    if plan.skipped:
        lines.append(f"would skip {plan.skipped:,} files that are not images: {', '.join(plan.skipped_names)}")
    lines += _estimates(plan, seen)
    lines += _space(plan, seen, folder)
    lines.append(f"output: {folder.path}; feature cache: {cache}; nothing was written")
    return lines


def _estimates(plan: Plan, seen: Sampled) -> list[str]:
    if not seen.images:
        return []
    cached = seen.cached / seen.images
    lines = [f"estimate from {seen.images:,} sampled images: {cached:.0%} are already in the cache"]
    if seen.computed:
        least = "at least " if plan.streamed else ""
        each = seen.read_s / seen.images + (1 - cached) * seen.compute_s / seen.computed
        lines.append(
            f"estimate from {seen.computed:,} computed images: {seen.faces / seen.computed:.1f} faces per image, "
            f"{least}{_duration(each * plan.images)} in all on this machine, without the startup"
        )
    return lines


def _space(plan: Plan, seen: Sampled, folder: OutputFolder) -> list[str]:
    faces = seen.faces / seen.computed if seen.computed else 1.0
    missing = 1 - (seen.cached / seen.images if seen.images else 0.0)
    needed = plan.images * (OUTPUT_BYTES + missing * (CACHE_BYTES + 2 * seen.width * faces))
    place = folder.path
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    free = shutil.disk_usage(place).free
    warning = "" if needed < free else "  NOT ENOUGH"
    return [f"space: about {needed / 1e6:,.1f} MB needed, {free / 1e6:,.1f} MB free{warning}"]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"about {hours} h {minutes} min"
    return f"about {minutes} min {rest} s" if minutes else f"about {max(1, rest)} s"
