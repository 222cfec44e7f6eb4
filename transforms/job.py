"""The settings of the stages of a run: small, frozen and picklable, made once from the command line.

Each stage gets what it needs. `Job` holds it all, for `graph.py` to hand out.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from models.detectors.registry import DetectorSpec
from models.heads.output_spec import OutputSpec
from models.runtimes.feature_settings import FeatureSettings
from transforms.formats.records import Limits
from transforms.provenance import Provenance


@dataclass(frozen=True, slots=True)
class Reading:
    """How images are read.

    Attributes:
        limits: of an image.
        block_images, block_bytes: how streamed archives are cut.
        exif: True to note what images say of themselves: time, camera, place.
        labels: path of the table of labels; "" takes labels from class folders and tables.
        label_column: of that table; None finds it.
    """

    limits: Limits
    block_images: int
    block_bytes: int
    exif: bool = False
    labels: str = ""
    label_column: str | None = None


@dataclass(frozen=True, slots=True)
class CachePlace:
    """Where features are cached, and which.

    Attributes:
        root: folder of the cache, "" when nothing is cached.
        key_json: canonical JSON of the cache key.
    """

    root: str
    key_json: str


@dataclass(frozen=True, slots=True)
class Cropping:
    """How an encoded image becomes crops of its faces.

    Attributes:
        height, width: of a crop, in pixels. `channels`: 1 grey or 3 RGB.
        margin: context around a face, as a share of the box's side, on each side.
        limits: of an image.
        smallest_side: pixels; an image with a smaller side is rejected as too small.
    """

    height: int
    width: int
    channels: int
    margin: float
    limits: Limits
    smallest_side: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a crop."""
        return self.height, self.width


@dataclass(frozen=True, slots=True)
class Detecting:
    """How faces are found.

    Attributes:
        threads: of the pool that works ahead of the device.
    """

    detector: DetectorSpec
    cropping: Cropping
    threads: int


@dataclass(frozen=True, slots=True)
class Labelling:
    """How features become labels.

    Attributes:
        head: its folder, file or bundled name. `output`: what it says of a face.
        more: the same of further heads; `output` then names all of them.
        runtime: of the features; a head of Keras runs on the same.
        min_label_px: a face whose longer side is smaller gets no label; 0 labels all.
    """

    head: str
    output: OutputSpec
    runtime: str
    min_label_px: int = 0
    more: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Writing:
    """Where finished blocks are kept, and how.

    Attributes:
        parts: folder, "" when there is none.
        run_fingerprint: digest of all that decides the output.
        all_labels: True to keep labels of the input that are no classes of the head; else they become null.
    """

    parts: str
    run_fingerprint: str
    all_labels: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """The settings of all stages of a run.

    Attributes:
        labelling: None when features are filled and nothing is labelled.
        heartbeat: folder for workers' totals, "" when workers share this process.
        provenance: of what the stages load themselves.
        accelerator: what each worker of the device was promised, as Beam names it; "" for nothing.
        hints: Beam's resource hints for the stage of the device, by name; empty for a local run.
    """

    reading: Reading
    cache: CachePlace
    detecting: Detecting
    features: FeatureSettings
    labelling: Labelling | None
    writing: Writing
    heartbeat: str = ""
    provenance: Provenance = field(default_factory=Provenance)
    accelerator: str = ""
    hints: tuple[tuple[str, str], ...] = ()
