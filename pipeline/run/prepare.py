"""From settings to what the stages need: the head, and the `Job`. Nothing is read yet."""

from __future__ import annotations

import os

from models.backbones.registry import backbone
from models.heads.outputs import Head, HeadError
from models.heads.registry import BUNDLED_HEADS, load_head, portable_head
from models.runtimes import device
from pipeline.errors import UsageError
from pipeline.run.identity import SMALLEST_SIDE_PX, Identity, detector_spec, feature_settings, min_label_px
from pipeline.settings.schema import Settings
from transforms.formats.canonical import canonical_json, fingerprint_of
from transforms.formats.records import Limits
from transforms.job import Job
from transforms.provenance import DETECTOR, HEAD, LABELS, REVISION, WEIGHTS, provenance
from transforms.storage.paths import is_local, is_object


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
    """Returns the whole path of a cache's folder, local or on S3 or Google Cloud Storage.

    Raises:
        UsageError: it is on another kind of storage.
    """
    if is_object(path):
        return path.rstrip("/")
    if not is_local(path):
        raise UsageError(f"--cache {path}: a feature cache needs a local folder, s3:// or gs://")
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
        cache: root of the feature cache; "" for stages that use none.
        layout: (images, bytes) of a block where an earlier plan fixed it.
        all_labels: True to keep labels of the input that are no classes of the head.
    """
    features = feature_settings(settings)
    block_images, block_bytes = layout or (settings.read.block_images, settings.read.block_bytes)
    return Job(
        parts=os.path.join(output, "parts"),
        cache=local_cache(cache) if cache else "",
        cache_key_json=canonical_json(identity.cache_key),
        run_fingerprint=fingerprint_of(identity.parts),
        detector=detector_spec(settings),
        features=features,
        limits=Limits(max_image_bytes=settings.read.max_image_bytes, max_pixels=settings.read.max_pixels),
        margin=settings.faces.margin,
        smallest_side=SMALLEST_SIDE_PX,
        channels=backbone(settings.features.backbone).channels,
        head=portable_head(head),
        threads=settings.read.threads,
        block_images=block_images,
        block_bytes=block_bytes,
        heartbeat=heartbeat,
        all_labels=all_labels,
        min_label_px=min_label_px(settings),
        exif=settings.read.exif,
        accelerator=settings.features.accelerator or "",
        hints=_hints(settings),
        labels=_whole_path(settings.read.labels or ""),
        label_column=settings.read.label_column,
        provenance=provenance(
            {
                WEIGHTS: identity.feature_space["weights"],
                REVISION: device.revision_of(features.runtime),
                DETECTOR: {name: value for name, value in identity.cache_key["faces"].items() if name != "margin"},
                HEAD: identity.parts["head"],
                **({LABELS: identity.parts["labels"]["table"]} if settings.read.labels else {}),
            }
        ),
    )


def _hints(settings: Settings) -> tuple[tuple[str, str], ...]:
    wanted = {"accelerator": settings.features.accelerator, "min_ram": settings.features.min_ram}
    return tuple((name, value) for name, value in wanted.items() if value)


def _whole_path(path: str) -> str:
    """Returns a path that means the same in every process; "" stays empty."""
    return os.path.abspath(path) if path and is_local(path) else path
