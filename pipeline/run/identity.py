"""What the results of a run depend on, and the fingerprints of that. The only place where they are composed.

- The *feature space* is what a head is trained for: network, weights, pooling, input size, preprocessing.
- The *cache key* adds everything else that can change features: reading, faces, runtime, precision.
- The *run* adds the head and the output's settings.

A head is bound to the space, not to the detector: one that was trained on crops serves whatever finds the faces.

Each setting states which of them it enters (`settings/schema.py`). It enters by its own name and value unless this
module says otherwise, so a new setting cannot be forgotten here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from models.backbones.backbone import BackboneError
from models.backbones.registry import backbone
from models.backbones.weights import check_weights_file
from models.detectors import cropping
from models.detectors.options import DetectorError
from models.detectors.registry import BUNDLED, DETECTORS, DetectorSpec
from models.heads.outputs import Head
from models.runtimes import device
from models.runtimes.default import default_runtime
from models.runtimes.feature_settings import FeatureSettings
from models.runtimes.registry import runtime
from pipeline.errors import UsageError
from pipeline.settings.describe import known_settings, section_of
from pipeline.settings.schema import Settings
from pipeline.settings.section import Enters
from transforms import crop_faces
from transforms.formats import decode
from transforms.formats.label_table import LabelTable
from transforms.formats.records import FormatError
from transforms.known_labels import label_table
from transforms.storage.faults import InputFault

SMALLEST_SIDE_PX = 12  # a smaller image cannot show a face that the smallest network could recognise


@dataclass(frozen=True, slots=True)
class Identity:
    """What the results of a run depend on, readable; `fingerprint_of` gives the digest of each.

    Attributes:
        feature_space: what heads are bound to.
        cache_key: everything that can change features; names the cache's folder.
        parts: cache key, head, and which faces it labels: what finished blocks depend on.
        run: parts and output settings.
    """

    feature_space: dict[str, Any]
    cache_key: dict[str, Any]
    parts: dict[str, Any]
    run: dict[str, Any]


def identity_of(settings: Settings, head: Head | None) -> Identity:
    """Returns what the results of a run with these settings depend on.

    Raises:
        UsageError: weights or a detector's model are missing or wrong, the crops are too small, or the runtime cannot
            compute here.
    """
    chosen = feature_settings(settings)
    try:
        runtime(chosen.runtime).check(chosen)
        space = feature_space(settings)
        key = cache_key(settings, space)
    except (BackboneError, DetectorError) as error:
        raise UsageError(str(error)) from error
    output = _entering(settings, Enters.RUN)
    if output["write"]["submission_head"] is None:  # so that older runs keep their fingerprints
        del output["write"]["submission_head"]
    parts: dict[str, Any] = {"features": key, "head": head.digest if head else "", **_labels(settings)}
    if settings.read.exif:  # otherwise nothing, so that older runs keep their fingerprints
        parts["exif"] = True
    if head is not None:
        parts["faces"] = {**output["faces"], "min_label_px": min_label_px(settings)}
    return Identity(space, key, parts, {**parts, "write": output["write"]})


def _labels(settings: Settings) -> dict[str, Any]:
    """Returns what `read.labels` adds to a run's identity; labels from class folders add nothing.

    Raises:
        UsageError: the table is missing, or not a table of labels.
    """
    read = settings.read
    if read.labels is None:
        return {}
    _, digest = _table(read.labels, read.label_column)
    return {"labels": {"table": digest, "column": read.label_column}}


def given_labels(settings: Settings) -> LabelTable | None:
    """Returns the table of `read.labels`; None if labels come from class folders and tables.

    Raises:
        UsageError: the table is missing, or not a table of labels.
    """
    read = settings.read
    return None if read.labels is None else _table(read.labels, read.label_column)[0]


def _table(path: str, column: str | None) -> tuple[LabelTable, str]:
    try:
        return label_table(path, column)
    except (InputFault, FormatError) as error:
        raise UsageError(f"read.labels: {error}") from error


def feature_space(settings: Settings) -> dict[str, Any]:
    """Returns the feature space: equal spaces give interchangeable features.

    Raises:
        BackboneError: the weights are missing or another network's, or the crops are too small.
    """
    chosen = feature_settings(settings)
    kind = backbone(chosen.backbone)
    kind.check_size(chosen.height, chosen.width)
    check_weights_file(chosen.backbone, chosen.weights)
    in_other_words: dict[str, dict[str, Any]] = {
        "weights": {"weights": device.weights_digest(chosen)},  # the content of a file, not its path
        "input_size": {"input": [chosen.height, chosen.width, kind.channels]},  # naming the default changes nothing
        "seed": {},  # part of the name of random weights
        "preprocess": {},  # its name is there in any case, also of the network's own
        "flip_cut": {"flip_cut": chosen.flip_cut} if chosen.flip_cut else {},  # without mirror images it has no effect
    }
    pixels = kind.preprocess_named(chosen.preprocess)
    space: dict[str, Any] = {"preprocess": pixels.name, "revision": kind.revision}
    for name, value in _entering(settings, Enters.FEATURE_SPACE)["features"].items():
        space |= in_other_words.get(name, {name: value})
    return space


def cache_key(settings: Settings, space: dict[str, Any]) -> dict[str, Any]:
    """Returns everything that can change features.

    Args:
        space: the feature space of the same settings.

    Raises:
        DetectorError: the detector's model is missing or wrong.
    """
    tree = _entering(settings, Enters.CACHE_KEY)
    chosen = detector_spec(settings)
    faces, features = tree.pop("faces"), tree.pop("features")
    del features["runtime"]  # the runtime describes itself
    own: dict[str, Any] = faces.get(chosen.name, {})  # the settings of other detectors have no effect
    shared = {name: value for name, value in faces.items() if name not in ("detector", "max_faces", *DETECTORS)}
    if chosen.name == "none":
        shared["margin"] = 0.0  # the whole image has none
    return {
        "space": space,
        "read": {**tree.pop("read"), "smallest_side_px": SMALLEST_SIDE_PX, "revision": decode.REVISION},
        "faces": {**own, **chosen.describe(), **shared},
        "crop": {"revision": crop_faces.REVISION, "pixels": cropping.REVISION},
        "device": {**device.revision_of(runtime_name(settings)), **features},
        **tree,
    }


def _entering(settings: Settings, kind: Enters) -> dict[str, Any]:
    """Returns the settings that enter one fingerprint, as a tree of sections."""
    tree: dict[str, Any] = {}
    for info in known_settings():
        if info.enters is kind:
            section, _, leaf = info.name.rpartition(".")
            node = tree
            for part in section.split("."):
                node = node.setdefault(part, {})
            node[leaf] = getattr(section_of(settings, section), leaf)
    return tree


def detector_spec(settings: Settings) -> DetectorSpec:
    """Returns the chosen detector, with the settings of its section."""
    faces = settings.faces
    name = BUNDLED if faces.detector == "bundled" else faces.detector
    own = getattr(faces, name, None)
    options = DETECTORS[name].options(**(own.model_dump() if own is not None else {}))
    return DetectorSpec(name, options, faces.max_faces)


def min_label_px(settings: Settings) -> int:
    """Returns the smallest side of a face that gets a label; without a detector every image counts as a face."""
    return settings.faces.min_label_px if settings.faces.detector != "none" else 0


def feature_settings(settings: Settings) -> FeatureSettings:
    """Returns the settings of the features, with the backbone's input size if none is set."""
    chosen = settings.features
    height, width = chosen.input_size or backbone(chosen.backbone).native_size
    weights = chosen.weights if chosen.weights in ("bundled", "imagenet", "random") else os.path.abspath(chosen.weights)
    return FeatureSettings(
        backbone=chosen.backbone,
        weights=weights,
        pooling=chosen.pooling,
        height=height,
        width=width,
        batch_size=chosen.batch_size,
        precision=chosen.precision,
        seed=chosen.seed,
        flip_average=chosen.flip_average,
        flip_cut=chosen.flip_cut if chosen.flip_average else 0.0,
        preprocess=chosen.preprocess,
        runtime=runtime_name(settings),
    )


def runtime_name(settings: Settings) -> str:
    """Returns the runtime that computes features: the one chosen, or else Keras's backend."""
    return settings.features.runtime or default_runtime()
