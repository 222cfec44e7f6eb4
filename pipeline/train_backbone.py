"""`train-backbone`: trains face_vgg on labelled face crops and exports what the pipeline loads.

Reads any input that `label` reads; every image is one face, as `faces.detector=none` takes it. Training
itself is `models/training/engine.py`.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import StoppedError, UsageError
from pipeline.plan import Layout, make_plan
from transforms.formats.records import Limits

if TYPE_CHECKING:
    from models.training.engine import ImageSet, Recipe
    from pipeline.cli import Command

HOLDOUT = 0.1  # of the images, where no validation input is given


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """Decoded crops with labels: `images` (n, h, w, 1) uint8, `labels`, `digests` of the encoded bytes."""

    images: np.ndarray
    labels: list[str]
    digests: list[bytes]


def read_labelled(
    patterns: Sequence[str], size: tuple[int, int], limits: Limits, flag: str = "--input"
) -> tuple[LabelledImages, int]:
    """Returns the labelled images of the inputs in plan order, and how many were passed over.

    Raises:
        UsageError: nothing there, or nothing with a label.
    """
    images, labels, digests, passed_over = [], [], [], 0
    for label, digest, image in _decoded(patterns, size, limits):
        if image is None or label is None:
            passed_over += 1
            continue
        images.append(image)
        labels.append(label)
        digests.append(digest)
    if not images:
        raise UsageError(f"{flag} {' '.join(patterns)}: no image with a label; labels come from class folders")
    return LabelledImages(np.stack(images)[..., None], labels, digests), passed_over


def _decoded(
    patterns: Sequence[str], size: tuple[int, int], limits: Limits
) -> Iterator[tuple[str | None, bytes, np.ndarray | None]]:
    from models.detectors.cropping import resized
    from transforms.formats.decode import decode
    from transforms.formats.records import RejectedContent
    from transforms.read_blocks import PlannedBlock, read_block, stream_blocks

    with tempfile.TemporaryDirectory() as folder:
        plan = make_plan(patterns, folder, Layout(256, 64 * 2**20), limits)
        for _, line in plan.lines():
            planned = PlannedBlock.from_json(line)
            blocks = (
                stream_blocks(planned, limits, block_images=256, block_bytes=64 * 2**20, finished=set())
                if planned.streamed
                else [read_block(planned, limits)]
            )
            for block in blocks:
                for label, data in zip(block.labels, block.data, strict=True):
                    digest = hashlib.sha256(data or b"").digest()
                    try:
                        image = resized(decode(data or b"", channels=1, limits=limits).image, size)
                    except RejectedContent:
                        image = None
                    yield label, digest, image


def without(images: LabelledImages, digests: set[bytes]) -> LabelledImages:
    """Returns the images whose bytes are none of these."""
    kept = [row for row, digest in enumerate(images.digests) if digest not in digests]
    return LabelledImages(images.images[kept], [images.labels[r] for r in kept], [images.digests[r] for r in kept])


def run(command: Command) -> int:
    """Trains, continuing from the output folder's checkpoint if there is one, and exports the weights."""
    from models.backbones import export_face_vgg, trainable_face_vgg
    from models.training.engine import Recipe, augmentation, fit

    options = command.options
    output = Path(options["output"])
    recipe = replace(Recipe(), **{k: options[k] for k in ("epochs", "seed") if options.get(k) is not None})
    limits = Limits(command.settings.read.max_image_bytes, command.settings.read.max_pixels)
    train, validation, classes = _data(options, limits)
    import keras

    keras.utils.set_random_seed(recipe.seed)
    network = trainable_face_vgg(
        len(classes),
        dropout=recipe.dropout,
        top_dropout=recipe.top_dropout,
        augment=augmentation(recipe),
        seed=recipe.seed,
        dtype=recipe.precision,
    )
    history = fit(network, train, validation, recipe, output, report=_say)
    weights = output / "face_vgg.npz"
    export_face_vgg(network, weights)
    _write_card(output, weights, classes, recipe, history, train, validation)
    print(f"weights: {weights} (use them with --set features.weights={weights})")
    return 0


def _say(row: dict[str, float]) -> None:
    print(
        f"epoch {row['epoch']:.0f}: loss {row['loss']:.4f}, accuracy {row['accuracy']:.4f}, "
        f"validation accuracy {row['val_accuracy']:.4f}",
        file=sys.stderr,
        flush=True,
    )


def _data(options: Mapping[str, Any], limits: Limits) -> tuple[ImageSet, ImageSet, list[str]]:
    """Returns training and validation images and the classes. Copies of images under test are taken out of training."""
    size = (48, 48)
    train, passed_over = read_labelled(options["input"], size, limits)
    print(f"{len(train.labels):,} labelled images, {passed_over:,} passed over", file=sys.stderr)
    held_out: set[bytes] = set()
    validation = None
    if options.get("validation"):
        validation, _ = read_labelled(options["validation"], size, limits, "--validation")
        held_out.update(validation.digests)
    if options.get("exclude"):
        held_out.update(digest for _, digest, _ in _decoded(options["exclude"], size, limits))
    if held_out:
        before = len(train.labels)
        train = without(train, held_out)
        print(f"{before - len(train.labels):,} copies of validation or excluded images left out", file=sys.stderr)
    if not train.labels:
        raise UsageError("--input holds nothing but copies of --validation and --exclude: nothing is left to train on")
    if validation is None:
        train, validation = _split(train)
    classes = sorted(set(train.labels))
    unknown = sorted(set(validation.labels) - set(classes))
    if unknown:
        raise UsageError(f"--validation has classes that --input lacks: {', '.join(unknown)}")
    if len(classes) < 2:
        raise UsageError(f"--input has one class only ({classes[0]}); at least two are needed")
    return _as_set(train, classes), _as_set(validation, classes), classes


def _split(images: LabelledImages) -> tuple[LabelledImages, LabelledImages]:
    """Returns (training, validation), decided by the digest alone, so that copies stay on one side."""
    held_out = {d for d in images.digests if int.from_bytes(d[:8], "big") / 2**64 < HOLDOUT}
    rows = [row for row, digest in enumerate(images.digests) if digest in held_out]
    if not rows or len(rows) == len(images.labels):
        raise StoppedError(f"{len(images.labels)} images are too few to hold some out: give --validation")
    validation = LabelledImages(
        images.images[rows], [images.labels[r] for r in rows], [images.digests[r] for r in rows]
    )
    return without(images, held_out), validation


def _as_set(images: LabelledImages, classes: list[str]) -> ImageSet:
    from models.training.engine import ImageSet

    return ImageSet(images.images, np.asarray([classes.index(label) for label in images.labels], np.int64))


def _write_card(
    output: Path,
    weights: Path,
    classes: list[str],
    recipe: Recipe,
    history: list[dict[str, float]],
    train: ImageSet,
    validation: ImageSet,
) -> None:
    card = {
        "backbone": "face_vgg",
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "classes": classes,
        "images": {"training": len(train), "validation": len(validation)},
        "recipe": asdict(recipe),
        "validation_accuracy": history[-1]["val_accuracy"] if history else None,
    }
    path = output / "face_vgg.json"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(card, indent=1) + os.linesep)
    os.replace(temporary, path)
