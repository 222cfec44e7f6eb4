"""From settings to what the stages need: fingerprints, the head's consent, and the `Job`. Nothing is read yet.

Three fingerprints. The *feature space* is what a head was trained for: network, weights, pooling, size. The
*features* of the cache depend on more: how images are read and faces found, the backend, the precision.
The *run* adds head and output settings. A head is bound to the space, not to the detector: one trained on
face crops serves whatever finds the faces.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from models.backbones import backbone as backbones
from models.backbones.backbone import BackboneError
from models.backbones.registry import backbone
from models.backbones.weights import check_weights_file
from models.detectors import cropping
from models.detectors.options import DetectorError
from models.detectors.registry import BUNDLED, DETECTORS, DetectorSpec
from models.heads.outputs import Head, HeadError
from models.heads.registry import BUNDLED_HEADS, load_head
from models.runtimes import device
from models.runtimes.device import FeatureSettings
from pipeline.errors import UsageError
from pipeline.settings.fingerprints import canonical_json, features_settings, fingerprint, run_settings
from pipeline.settings.schema import Settings
from transforms import detect_faces
from transforms.formats import decode
from transforms.formats.records import Limits
from transforms.job import Job
from transforms.made_of import BACKEND, DETECTOR, HEAD, REVISION, WEIGHTS, made_of
from transforms.storage.store import is_local

SMALLEST_SIDE_PX = 12  # an image with less cannot show a face that the smallest net could tell anything of


@dataclass(frozen=True, slots=True)
class Identity:
    """What a run is made of, readable and digested.

    Attributes:
        space: the feature space, what heads are bound to.
        features: all that can change features; canonical JSON of it names the cache's folder.
        parts: features, head, and which faces it labels: what finished blocks depend on.
        run: parts and output settings.
    """

    space: dict[str, Any]
    features: dict[str, Any]
    parts: dict[str, Any]
    run: dict[str, Any]


def detector_spec(settings: Settings) -> DetectorSpec:
    """Returns the detector that the settings choose, with the settings of its own section."""
    faces = settings.faces
    name = BUNDLED if faces.detector == "bundled" else faces.detector
    own = getattr(faces, name, None)
    options = DETECTORS[name].options(**(own.model_dump() if own is not None else {}))
    return DetectorSpec(name, options, faces.max_faces)


def min_label_px(settings: Settings) -> int:
    """Returns the least side of a face that gets a label; without a detector the user says what is a face."""
    return settings.faces.min_label_px if settings.faces.detector != "none" else 0


def feature_settings(settings: Settings) -> FeatureSettings:
    """Returns the device's share of the settings, with the backbone's own size where none is set."""
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
        mirrored=chosen.mirrored,
        mirror_cut=chosen.mirror_cut if chosen.mirrored else 0.0,
    )


def space_of(chosen: FeatureSettings) -> dict[str, Any]:
    """Returns the feature space: equal spaces give interchangeable features."""
    kind = backbone(chosen.backbone)
    cut = {"mirror_cut": chosen.mirror_cut} if chosen.mirror_cut else {}  # without it, features are what they were
    return {
        "backbone": chosen.backbone,
        "weights": device.weights_digest(chosen),
        "pooling": chosen.pooling,
        "input": [chosen.height, chosen.width, kind.channels],
        "preprocess": kind.preprocess.name,
        "mirrored": chosen.mirrored,
        **cut,
        "revision": backbones.REVISION,
    }


def identity_of(settings: Settings, head: Head | None) -> Identity:
    """Returns what a run with these settings is made of.

    Raises:
        UsageError: weights or a detector's model are missing or wrong, or the crops are too small.
    """
    if device.backend() not in device.BACKENDS:
        known = ", ".join(device.BACKENDS)
        raise UsageError(f"Keras's backend {device.backend()!r} (KERAS_BACKEND or keras.json) is none of {known}")
    try:
        chosen = feature_settings(settings)
        backbone(chosen.backbone).check_size(chosen.height, chosen.width)
        check_weights_file(chosen.backbone, chosen.weights)
        space = space_of(chosen)
        found_by = detector_spec(settings).describe()
    except (BackboneError, DetectorError) as error:
        raise UsageError(str(error)) from error
    tree = features_settings(settings)
    features = {
        "space": space,
        "read": {**tree["read"], "smallest_side_px": SMALLEST_SIDE_PX, "revision": decode.REVISION},
        "faces": {**found_by, "margin": settings.faces.margin if settings.faces.detector != "none" else 0.0},
        "crop": {"revision": detect_faces.REVISION, "pixels": cropping.REVISION},
        "device": {"backend": device.backend(), "precision": chosen.precision, "revision": device.REVISION},
    }
    parts: dict[str, Any] = {"features": features, "head": head.digest if head else ""}
    if head is not None:
        parts["faces"] = {"min_label_px": min_label_px(settings)}
    return Identity(space, features, parts, {**parts, "write": run_settings(settings)["write"]})


def chosen_head(settings: Settings) -> tuple[str, Head]:
    """Returns the folder or file of the head, and the head.

    Raises:
        UsageError: it is missing or damaged.
    """
    named = settings.head.path
    if named.startswith("bundled/") and named not in BUNDLED_HEADS and not os.path.exists(named):
        raise UsageError(f"head.path={named} is no bundled head: there are {', '.join(BUNDLED_HEADS)}")
    path = str(BUNDLED_HEADS.get(named) or os.path.abspath(named))
    try:
        return path, load_head(path)
    except HeadError as error:
        raise UsageError(str(error)) from error


def local_cache(path: str) -> str:
    """Returns the whole path of a cache's folder.

    Raises:
        UsageError: it is on an object store.
    """
    if not is_local(path):
        raise UsageError(f"--cache {path}: a feature cache needs a file system; give a local folder")
    return os.path.abspath(path)


def make_job(
    settings: Settings,
    identity: Identity,
    *,
    output: str,
    cache: str,
    head: str,
    heartbeat: str = "",
    layout: tuple[int, int] | None = None,
    all_labels: bool = False,
) -> Job:
    """Returns the settings of the stages.

    Args:
        layout: (images, bytes) of a block where an earlier plan fixed it.
        all_labels: True to keep labels of the input that are no classes of the head.
    """
    block_images, block_bytes = layout or (settings.read.block_images, settings.read.block_bytes)
    return Job(
        parts=os.path.join(output, "parts"),
        cache=local_cache(cache),
        fingerprint_json=canonical_json(identity.features),
        run_fingerprint=fingerprint(identity.parts),
        detector=detector_spec(settings),
        features=feature_settings(settings),
        limits=Limits(max_image_bytes=settings.read.max_image_bytes, max_pixels=settings.read.max_pixels),
        margin=settings.faces.margin,
        smallest_side=SMALLEST_SIDE_PX,
        channels=backbone(settings.features.backbone).channels,
        head=head,
        threads=settings.read.threads,
        block_images=block_images,
        block_bytes=block_bytes,
        heartbeat=heartbeat,
        all_labels=all_labels,
        min_label_px=min_label_px(settings),
        made_of=made_of(
            {
                WEIGHTS: identity.space["weights"],
                BACKEND: device.backend(),
                REVISION: device.REVISION,
                DETECTOR: {name: value for name, value in identity.features["faces"].items() if name != "margin"},
                HEAD: identity.parts["head"],
            }
        ),
    )
