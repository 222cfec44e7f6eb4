"""The settings that the stages of a run need: small, frozen and picklable, made once from the command line."""

from __future__ import annotations

from dataclasses import dataclass

from models.detectors.registry import DetectorSpec
from models.runtimes.feature_settings import FeatureSettings
from transforms.formats.records import Limits
from transforms.storage.staged_files import StagedFiles


@dataclass(frozen=True, slots=True)
class Job:
    """The settings of a run that the stages use.

    Attributes:
        parts: folder of the finished parts, "" when there are none.
        cache: root of the feature cache, "" when nothing is cached.
        cache_key_json: canonical JSON of the cache key.
        run_fingerprint: digest of all that decides the output.
        detector, features, limits: settings of the stages.
        margin: context around a face, as a share of the box's side, on each side.
        smallest_side: pixels; an image with a smaller side is rejected as too small.
        channels: of the crops, 1 grey or 3 RGB.
        min_label_px: a face whose longer side is smaller gets no label; 0 labels all.
        head: folder or file of the head; "" when features are filled and nothing is labelled.
        threads: of each pool that works ahead of the device.
        block_images, block_bytes: how streamed archives are cut.
        heartbeat: folder for workers' totals, "" when workers share this process.
        all_labels: True to keep labels of the input that are no classes of the head; else they become null.
        labels: path of the table of labels; "" takes labels from class folders and tables.
        label_column: of that table; None finds it.
        exif: True to note what images say of themselves: time, camera, place.
        provenance: names and digests of what the stages load themselves (`provenance.py`).
        accelerator: what each worker of the device was promised, as Beam names it; "" for nothing.
        hints: Beam's resource hints for the stage of the device, by name; empty for a local run.
        tell: where workers elsewhere say why they cannot start (`telling.py`); "" for a local run.
        staged: files of the driver's machine by the role they play here (`staged.py`); empty for a local run.
    """

    parts: str
    cache: str
    cache_key_json: str
    run_fingerprint: str
    detector: DetectorSpec
    features: FeatureSettings
    limits: Limits
    margin: float
    smallest_side: int
    channels: int
    head: str
    threads: int
    block_images: int
    block_bytes: int
    heartbeat: str = ""
    all_labels: bool = False
    min_label_px: int = 0
    labels: str = ""
    label_column: str | None = None
    exif: bool = False
    provenance: tuple[tuple[str, str], ...] = ()
    accelerator: str = ""
    hints: tuple[tuple[str, str], ...] = ()
    tell: str = ""
    staged: tuple[tuple[str, StagedFiles], ...] = ()
