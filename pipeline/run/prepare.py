"""From settings to what the stages need: the head, and the `Job`. No image is read yet."""

from __future__ import annotations

import os
import re
from pathlib import PurePath

from models.backbones.registry import backbone
from models.heads.outputs import Head, HeadError, HeadMismatch
from models.heads.registry import BUNDLED_HEADS, check, load_head, portable_head
from models.heads.several import NamedHead, SeveralHeads
from models.runtimes import device
from models.runtimes.feature_settings import FeatureSettings
from pipeline.errors import UsageError
from pipeline.run.identity import SMALLEST_SIDE_PX, Identity, detector_spec, feature_settings, min_label_px
from pipeline.settings.schema import Settings
from transforms.formats.canonical import canonical_json, fingerprint_of
from transforms.formats.records import Limits
from transforms.job import CachePlace, Cropping, Detecting, Job, Labelling, Reading, Writing
from transforms.provenance import DETECTOR, HEAD, LABELS, REVISION, WEIGHTS, Provenance, provenance
from transforms.storage.paths import is_local, is_object


def chosen_head(settings: Settings) -> tuple[str, Head]:
    """Returns the folder or file of the only head, and the head.

    Raises:
        UsageError: it is missing or damaged, or the settings name several.
    """
    refuse_several(settings)
    one = _named_head("head.path", settings.head.path)
    return one.path, one.head


def refuse_several(settings: Settings) -> None:
    """Raises UsageError if the settings name several heads."""
    if settings.head.more:
        raise UsageError(f"this command takes one head, not {1 + len(settings.head.more)}; drop head.more")


def check_heads(head: Head, identity: Identity) -> None:
    """Raises UsageError if a head, or one of several, was made for other features."""
    heads = [(f"{one.name}: ", one.head) for one in head.heads] if isinstance(head, SeveralHeads) else [("", head)]
    for name, one in heads:
        try:
            check(one, fingerprint_of(identity.feature_space), identity.feature_space)
        except HeadMismatch as error:
            raise UsageError(f"{name}{error}") from error


def chosen_heads(settings: Settings) -> tuple[str, Head]:
    """Returns the folder or file of the first head, and the head; several heads act as one, `SeveralHeads`.

    Raises:
        UsageError: one is missing or damaged, or two have the same name.
    """
    head, deciding = settings.head, settings.write.submission_head
    first, *more = (
        _named_head("head.path", head.path),
        *(_named_head("head.more", given) for given in head.more),
    )
    if not more:
        if deciding not in (None, first.name):
            raise UsageError(f"write.submission_head={deciding}: the only head is {first.name}; drop the setting")
        return first.path, first.head
    names = [first.name, *(one.name for one in more)]
    if deciding is not None and deciding not in names:
        raise UsageError(f"write.submission_head={deciding} is not one of the heads: {', '.join(names)}")
    try:
        return first.path, SeveralHeads([first, *more], names.index(deciding) if deciding else 0)
    except HeadError as error:
        raise UsageError(str(error)) from error


_NAME = re.compile(r"([A-Za-z][A-Za-z0-9_-]*)=(.+)", re.ASCII)


def _named_head(setting: str, given: str) -> NamedHead:
    """Returns the head that a path, or NAME=PATH, names."""
    split = None if os.path.exists(given) else _NAME.fullmatch(given)
    name, named = split.groups() if split else ("", given)
    if named.startswith("bundled/") and named not in BUNDLED_HEADS and not os.path.exists(named):
        raise UsageError(f"{setting}={named} is not a bundled head; known: {', '.join(BUNDLED_HEADS)}")
    path = str(BUNDLED_HEADS.get(named) or os.path.abspath(named))
    try:
        return NamedHead(name or _own_name(path), path, load_head(path))
    except HeadError as error:
        raise UsageError(str(error)) from error


def _own_name(path: str) -> str:
    """Returns the name of a head's folder, or of its `.keras` file, as letters, digits and `_`."""
    return re.sub(r"[^A-Za-z0-9_]+", "_", PurePath(path.removesuffix(".keras")).name)


def local_cache(path: str) -> str:
    """Returns the absolute path of a cache folder, local or on S3 or Google Cloud Storage.

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
    head: tuple[str, Head] | None = None,
    heartbeat: str = "",
    layout: tuple[int, int] | None = None,
    all_labels: bool = False,
) -> Job:
    """Returns the settings of the stages.

    Args:
        cache: root of the feature cache; "" for stages that use none.
        head: as `chosen_head` returns it; None when nothing is labelled.
        layout: (images, bytes) of a block if an earlier plan fixed them.
        all_labels: True to keep input labels that are not classes of the head.
    """
    features, read = feature_settings(settings), settings.read
    limits = Limits(max_image_bytes=read.max_image_bytes, max_pixels=read.max_pixels)
    block_images, block_bytes = layout or (read.block_images, read.block_bytes)
    return Job(
        reading=Reading(
            limits, block_images, block_bytes, exif=read.exif, labels=_labels(settings), label_column=read.label_column
        ),
        cache=CachePlace(local_cache(cache) if cache else "", canonical_json(identity.cache_key)),
        detecting=Detecting(detector_spec(settings), _cropping(settings, features, limits), read.threads),
        features=features,
        labelling=None if head is None else _labelling(settings, features, *head),
        writing=Writing(os.path.join(output, "parts"), fingerprint_of(identity.parts), all_labels),
        heartbeat=heartbeat,
        accelerator=settings.features.accelerator or "",
        hints=_hints(settings),
        provenance=_provenance(settings, features, identity, _paths(*head) if head else ""),
    )


def _hints(settings: Settings) -> tuple[tuple[str, str], ...]:
    wanted = {"accelerator": settings.features.accelerator, "min_ram": settings.features.min_ram}
    return tuple((name, value) for name, value in wanted.items() if value)


def _cropping(settings: Settings, features: FeatureSettings, limits: Limits) -> Cropping:
    return Cropping(
        features.height,
        features.width,
        channels=backbone(features.backbone).channels,
        margin=settings.faces.margin,
        limits=limits,
        smallest_side=SMALLEST_SIDE_PX,
    )


def _labelling(settings: Settings, features: FeatureSettings, path: str, head: Head) -> Labelling:
    more = tuple(portable_head(one.path) for one in head.heads[1:]) if isinstance(head, SeveralHeads) else ()
    return Labelling(portable_head(path), head.output, features.runtime, min_label_px(settings), more)


def _paths(path: str, head: Head) -> str:
    """Returns the path of a head, or of several, for a message."""
    paths = [one.path for one in head.heads] if isinstance(head, SeveralHeads) else [path]
    return ", ".join(map(portable_head, paths))


def _provenance(settings: Settings, features: FeatureSettings, identity: Identity, head: str) -> Provenance:
    """Returns what the stages load themselves, each with the path that a message names."""
    detector = detector_spec(settings)
    described = {name: value for name, value in identity.cache_key["faces"].items() if name != "margin"}
    found = {
        WEIGHTS: (features.weights, identity.feature_space["weights"]),
        REVISION: ("", device.revision_of(features.runtime)),
        DETECTOR: (getattr(detector.options, "model", None) or detector.name, described),
        HEAD: (head, identity.parts["head"]),
    }
    if settings.read.labels:
        found[LABELS] = (_labels(settings), identity.parts["labels"]["table"])
    return provenance(found)


def _labels(settings: Settings) -> str:
    """Returns the path of the table of labels, the same in every process; "" for none."""
    path = settings.read.labels or ""
    return os.path.abspath(path) if path and is_local(path) else path
