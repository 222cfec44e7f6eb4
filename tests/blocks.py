"""Blocks and jobs as the stages get them, of few images, for tests that need no run.

Not a test: other tests `import blocks`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.detectors.registry import DetectorSpec
from models.runtimes.feature_settings import FeatureSettings
from transforms.block import Block, BlockRef, Faces, Reason, Status
from transforms.detect_faces import DetectFaces
from transforms.extract_features import ExtractFeatures
from transforms.formats.records import Limits
from transforms.job import CachePlace, Cropping, Detecting, Job, Reading, Writing
from transforms.read_blocks import PlannedBlock, ReadBlocks

FINGERPRINT = "f" * 64


FEATURES = FeatureSettings("face_vgg", "random", "avg", 16, 16, batch_size=8)
CROPPING = Cropping(16, 16, channels=1, margin=0.0, limits=Limits(), smallest_side=1)


def job(folder: Path, *, threads: int = 2, **other: Any) -> Job:
    """Returns the settings of a run without a detector on 16 by 16 grey crops; its folder of parts stands.

    Args:
        other: fields of `Job`, or `detector`, `cropping`, `cache_key_json`, `block_images` of what holds them.
    """
    (folder / "parts").mkdir(parents=True, exist_ok=True)
    detector, cropping = other.pop("detector", DetectorSpec("none")), other.pop("cropping", CROPPING)
    given: dict[str, Any] = {
        "reading": Reading(Limits(), other.pop("block_images", 4), 2**20),
        "cache": CachePlace(str(folder / "cache"), other.pop("cache_key_json", '{"features":"test"}')),
        "detecting": Detecting(detector, cropping, threads),
        "features": FEATURES,
        "labelling": None,
        "writing": Writing(str(folder / "parts"), FINGERPRINT),
        **other,
    }
    return Job(**given)


def reads(given: Job) -> ReadBlocks:
    """Returns the stage with the settings of a job."""
    parts = given.writing.parts
    return ReadBlocks(given.reading, parts=parts, heartbeat=given.heartbeat, provenance=given.provenance)


def detects(given: Job) -> DetectFaces:
    """Returns the stage with the settings of a job."""
    return DetectFaces(given.detecting, given.provenance)


def extracts(given: Job) -> ExtractFeatures:
    """Returns the stage with the settings of a job."""
    return ExtractFeatures(given.features, given.cache, given.provenance, accelerator=given.accelerator)


def raw(contents: Sequence[bytes | None], *, key: str = "k", prefix: str = "", **other: Any) -> Block:
    """Returns a block as ReadBlocks leaves it: `None` stands for an image that could not be read."""
    digests = [hashlib.sha256(data).digest() if data is not None else bytes(32) for data in contents]
    count = len(contents)
    given: dict[str, Any] = {
        "key": key,
        "position": 0,
        "ids": tuple(f"{prefix}{number}.png" for number in range(count)),
        "sources": ("in.tar",) * count,
        "labels": (None,) * count,
        "sizes": np.asarray([len(data or b"") for data in contents], np.int64),
        "digests": np.asarray([list(digest) for digest in digests], np.uint8).reshape(count, 32),
        "data": tuple(contents),
        "same_as": np.asarray([row if c is None else contents.index(c) for row, c in enumerate(contents)], np.int32),
        "cached": np.zeros(count, bool),
        "width": np.zeros(count, np.int32),
        "height": np.zeros(count, np.int32),
        "status": tuple(None if data is not None else Status.REJECTED for data in contents),
        "reason": tuple(None if data is not None else Reason.DAMAGED_MEMBER for data in contents),
        **other,
    }
    return Block(**given)


def finished(chosen: Sequence[int | None], *, key: str = "k", prefix: str = "", **other: Any) -> Block:
    """Returns a block after the head, of two classes: an image a class, `None` for one that was rejected."""
    faces = [row for row, label in enumerate(chosen) if label is not None]
    count = len(faces)
    given: dict[str, Any] = {
        "status": tuple(Status.REJECTED if label is None else Status.LABELLED for label in chosen),
        "reason": tuple(Reason.TRUNCATED if label is None else None for label in chosen),
        "faces": Faces(
            image=np.asarray(faces, np.int32),
            box=np.tile(np.asarray([[0, 0, 9, 9]], np.int32), (count, 1)),
            score=np.ones(count, np.float32),
            features=np.zeros((count, 3), np.float16),
            answers=np.asarray([[0.25, 0.75] if chosen[row] else [0.75, 0.25] for row in faces]).reshape(-1, 2),
        ),
        **other,
    }
    block = raw([f"{key}{row}".encode() for row in range(len(chosen))], key=key, prefix=prefix)
    return Block(**{name: getattr(block, name) for name in block.__slots__} | {"data": (None,) * len(chosen)} | given)


def references(plan: Path, planned: Sequence[PlannedBlock]) -> list[BlockRef]:
    """Writes a plan file and returns a reference to each of its lines."""
    found, offset = [], 0
    with plan.open("wb") as file:
        for block in planned:
            line = block.to_json().encode() + b"\n"
            file.write(line)
            found.append(BlockRef(str(plan), offset, len(line)))
            offset += len(line)
    return found


def through(stage: Any, values: Sequence[Any]) -> list[Any]:
    """Returns what a stage makes of the values of one bundle, as a runner would ask it."""
    stage.setup()
    try:
        out = [made for value in values for made in stage.process(value)]
        return out + [made.value for made in stage.finish_bundle() or ()]
    finally:
        stage.teardown()
