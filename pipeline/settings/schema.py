"""The settings: their limits, defaults, descriptions, and the fingerprint that each enters.

Light on purpose: it imports neither Beam nor Keras nor numpy, so that `--help` and errors in settings appear
at once. Not here: reading them (`load.py`) and showing them (`describe.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from models.detectors.options import CascadeOptions, HaarOptions, OneShotOptions, YuNetOptions
from pipeline.settings.live import LiveSettings
from pipeline.settings.section import Enters, Section, setting
from pipeline.settings.training import MlpSettings, TrainSettings
from pipeline.settings.values import BackboneName, Size

SMALLEST_BATCH = 8  # below 8 rows TensorFlow picks other kernels and the last bits of features change


class ReadSettings(Section):
    """Reading images."""

    block_images: int = setting(
        256, "images per block, the unit of work and of resuming", enters=Enters.NOTHING, ge=1, le=256
    )
    block_bytes: int = setting(
        64 * 2**20, "encoded bytes above which a block is closed early", enters=Enters.NOTHING, ge=1
    )
    max_image_bytes: int = setting(
        256 * 2**20, "encoded bytes above which an image is rejected", enters=Enters.CACHE_KEY, ge=1, le=2**40
    )
    max_pixels: int = setting(
        100_000_000, "width x height above which an image is rejected", enters=Enters.CACHE_KEY, ge=1
    )
    labels: str | None = setting(
        None,
        "CSV of labels per image, such as a contest's train.csv; null uses class folders and tables",
        enters=Enters.RUN,
        allowed="a path or null",
        min_length=1,
    )
    label_column: str | None = setting(
        None,
        "column of read.labels with the labels; null finds label, class, emotion or the second of two columns",
        enters=Enters.RUN,
        allowed="the name of a column or null",
        min_length=1,
    )
    exif: bool = setting(
        False,
        "add EXIF columns to images/: taken_at, camera, latitude, longitude; these are personal data",
        enters=Enters.RUN,
    )
    threads: int = setting(
        2,
        "threads that decode, detect and crop ahead of the device; also the number of blocks in memory",
        enters=Enters.NOTHING,
        ge=1,
        le=256,
    )


_ONE_SHOT, _CASCADE, _HAAR, _YUNET = OneShotOptions(), CascadeOptions(), HaarOptions(), YuNetOptions()


def _model(description: str) -> Any:
    return setting(None, description, enters=Enters.NOTHING, allowed="a path or null")  # its digest enters


def _detect_size(default: int) -> Any:
    words = "images are reduced to this longer side, in pixels, before detection"
    return setting(default, words, enters=Enters.CACHE_KEY, ge=16, le=16384)


class OneShotSettings(Section):
    """The one-shot detector, which is the bundled one."""

    model: str | None = _model("path of a model from train-detector; null is the bundled one")
    min_face_fraction: float = setting(
        _ONE_SHOT.min_face_fraction,
        "smallest face, as a fraction of the image's shorter side; a smaller value costs more time",
        enters=Enters.CACHE_KEY,
        ge=0.005,
        le=1,
    )
    score_threshold: float = setting(
        _ONE_SHOT.score_threshold, "minimum score of a face", enters=Enters.CACHE_KEY, ge=0.001, le=0.999
    )
    nms_threshold: float = setting(
        _ONE_SHOT.nms_threshold, "overlap (IoU) from which two boxes are one face", enters=Enters.CACHE_KEY, gt=0, le=1
    )


class CascadeSettings(Section):
    """The cascade of small networks in three levels, an alternative to the bundled detector."""

    model: str | None = _model("path of weights from its training; null is the ones that ship")
    detect_size: int = _detect_size(_CASCADE.detect_size)
    min_face_fraction: float = setting(
        _CASCADE.min_face_fraction,
        "smallest face, as a fraction of the image's shorter side",
        enters=Enters.CACHE_KEY,
        ge=0,
        le=1,
    )
    min_face_px: int = setting(
        _CASCADE.min_face_px,
        "smallest face, in pixels, on top of min_face_fraction",
        enters=Enters.CACHE_KEY,
        ge=4,
        le=4096,
    )
    scale_step: float = setting(
        _CASCADE.scale_step, "factor between two searched face sizes", enters=Enters.CACHE_KEY, ge=1.05, le=4
    )
    stride: Literal[2, 4, 8] = setting(
        _CASCADE.stride, "pixels between windows of the first level", enters=Enters.CACHE_KEY
    )
    averaging: Literal["share", "sum"] = setting(
        _CASCADE.averaging, "how the 45 calibration classes are averaged", enters=Enters.CACHE_KEY
    )
    nms_threshold: float = setting(
        _CASCADE.nms_threshold, "overlap (IoU) from which two boxes are one face", enters=Enters.CACHE_KEY, gt=0, le=1
    )


class HaarSettings(Section):
    """OpenCV's Haar cascade."""

    model: str | None = _model("path of a cascade in OpenCV's XML format; null is OpenCV's frontal face")
    detect_size: int = _detect_size(_HAAR.detect_size)
    min_face_fraction: float = setting(
        _HAAR.min_face_fraction,
        "smallest face, as a fraction of the image's shorter side",
        enters=Enters.CACHE_KEY,
        ge=0,
        le=1,
    )
    scale_factor: float = setting(
        _HAAR.scale_factor, "factor between two searched face sizes", enters=Enters.CACHE_KEY, ge=1.01, le=4
    )
    min_neighbors: int = setting(
        _HAAR.min_neighbors, "overlapping hits needed for a face", enters=Enters.CACHE_KEY, ge=1, le=1000
    )


class YuNetSettings(Section):
    """YuNet, OpenCV's detector; its model file does not ship."""

    model: str | None = _model("path of face_detection_yunet_2023mar.onnx")
    detect_size: int = _detect_size(_YUNET.detect_size)
    score_threshold: float = setting(
        _YUNET.score_threshold, "minimum score of a face", enters=Enters.CACHE_KEY, gt=0, le=1
    )
    nms_threshold: float = setting(
        _YUNET.nms_threshold, "overlap (IoU) from which two boxes are one face", enters=Enters.CACHE_KEY, gt=0, le=1
    )


class FacesSettings(Section):
    """Finding and cropping faces; each detector has its own section below."""

    detector: Literal["bundled", "none", "one_shot", "cascade", "haar", "yunet"] = setting(
        "bundled",
        "face detector: bundled is one_shot; none takes the whole image as one face",
        enters=Enters.CACHE_KEY,
    )
    margin: float = setting(
        0.0, "added to the crop on each side, as a fraction of the box's side", enters=Enters.CACHE_KEY, ge=0, le=2
    )
    max_faces: int = setting(0, "maximum faces per image, best first; 0 keeps all", enters=Enters.CACHE_KEY, ge=0)
    min_label_px: int = setting(
        20,
        "a face whose longer side has fewer pixels keeps its box but gets no label; 0 labels all; "
        "with detector none every image is labelled",
        enters=Enters.RUN,
        ge=0,
        le=4096,
    )
    one_shot: OneShotSettings = OneShotSettings()
    cascade: CascadeSettings = CascadeSettings()
    haar: HaarSettings = HaarSettings()
    yunet: YuNetSettings = YuNetSettings()


class FeaturesSettings(Section):
    """Turning faces into features."""

    backbone: BackboneName = setting("face_vgg", "network that computes the features", enters=Enters.FEATURE_SPACE)
    weights: str = setting(
        "",
        "weights of the backbone; default: bundled for face_vgg, imagenet for the others",
        enters=Enters.FEATURE_SPACE,
        allowed="bundled, imagenet, random or a path",
        min_length=1,
    )
    pooling: Literal["avg", "multi", "flatten"] = setting(
        "multi", "how feature maps are pooled to one vector", enters=Enters.FEATURE_SPACE
    )
    input_size: Size | None = setting(
        None,
        "faces are resized to this height x width, in pixels; null is the backbone's default",
        enters=Enters.FEATURE_SPACE,
        allowed="a whole number, HEIGHTxWIDTH or [height, width], each from 1 to 4096, or null",
    )
    preprocess: Literal["caffe", "symmetric", "unit"] | None = setting(
        None,
        "what is done to pixels before the network: caffe is BGR minus the ImageNet mean, symmetric is x/127.5 - 1, "
        "unit is x/255; null is what the backbone's ImageNet weights, or ours, were trained with",
        enters=Enters.FEATURE_SPACE,
        allowed="caffe, symmetric, unit or null",
    )
    batch_size: int = setting(64, "faces per call of the network", enters=Enters.NOTHING, ge=SMALLEST_BATCH, le=65536)
    precision: Literal["float32", "bfloat16"] = setting(
        "float32", "number format inside the network", enters=Enters.CACHE_KEY
    )
    runtime: Literal["tensorflow", "jax", "onnx", "openvino"] | None = setting(
        None, "library that runs the network; null is Keras's backend: KERAS_BACKEND, else keras.json, else tensorflow",
        enters=Enters.CACHE_KEY, allowed="tensorflow, jax, onnx, openvino or null",
    )  # fmt: skip
    accelerator: str | None = setting(
        None,
        "accelerator that the runner gives the workers of the network, in a stage of their own; a worker without one "
        "ends the run",
        enters=Enters.NOTHING,
        allowed="null or type:NAME;count:NUMBER, as Beam's resource hint accelerator",
        pattern=r"^type:[^;\s]+(;[^;\s]+)*$",
    )
    min_ram: str | None = setting(
        None,
        "memory of those workers",
        enters=Enters.NOTHING,
        allowed="null or a size such as 16GB",
        pattern=r"^[0-9]+(\.[0-9]+)? ?[KMGT]i?B$",
    )
    seed: int = setting(
        0,
        "seed of random weights and of train-head's holdout split",
        enters=Enters.FEATURE_SPACE,
        ge=0,
        le=2**31 - 1,
    )
    flip_average: bool = setting(
        True,
        "average the features of the face and of its mirror image, at twice the cost; default: true only for face_vgg",
        enters=Enters.FEATURE_SPACE,
    )
    flip_cut: float = setting(
        0.0625,
        "fraction of the side cut off each edge of the mirror image, in whole pixels, before it is enlarged again; "
        "default: 0 except for face_vgg",
        enters=Enters.FEATURE_SPACE,
        ge=0,
        le=0.45,
    )

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_backbone(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            own = data.get("backbone", "face_vgg") == "face_vgg"
            fitting = (
                {"weights": "bundled", "flip_average": True} if own else {"weights": "imagenet", "flip_average": False}
            )
            return {**fitting, **({} if own else {"flip_cut": 0.0}), **data}
        return data


class HeadSettings(Section):
    """Turning features into labels, and training the head that does so."""

    path: str = setting(
        "bundled",
        "trained head: bundled (fer2013, seven classes), bundled/ferplus (eight), bundled/smile (two), or a folder "
        "from train-head",
        enters=Enters.RUN,
        allowed="bundled, bundled/fer2013, bundled/ferplus, bundled/smile or a path",
        min_length=1,
    )
    more: list[str] = setting(
        [],
        "further heads of the same features: their columns in predictions/ begin with NAME_, and NAME is that of the "
        "head's folder if none is given",
        enters=Enters.RUN,
        allowed="a list such as [bundled/ferplus, grin=heads/mine]",
    )
    kind: Literal["logistic", "ridge", "mlp", "number"] = setting(
        "logistic",
        "what train-head fits: logistic regression, least squares (ridge) or dense layers (mlp) for classes; number, "
        "by ridge regression, for labels that are numbers",
        enters=Enters.NOTHING,
    )
    imbalance: Literal["natural", "inverse_sqrt", "logit_adjustment"] = setting(
        "natural",
        "treatment of rare classes in train-head: none, weights 1/sqrt(frequency), or adjusted logits",
        enters=Enters.NOTHING,
    )
    strength: float | None = setting(
        None,
        "C of logistic or alpha of ridge and number; null selects it on the held-out images",
        enters=Enters.NOTHING,
        allowed="null or a number above 0",
        gt=0,
    )
    soft_share: float = setting(
        1.0, "share of --soft-labels in the target; the rest is the input's label; 1 uses --soft-labels alone",
        enters=Enters.NOTHING, gt=0, le=1,
    )  # fmt: skip


class WriteSettings(Section):
    """Writing results."""

    rows_per_file: int = setting(1_000_000, "rows per Parquet file of the output", enters=Enters.RUN, ge=1)
    no_face_label: str | None = setting(
        None,
        "class in submission.csv for an image without a labelled face",
        enters=Enters.RUN,
        allowed="the name of a class or null",
        min_length=1,
    )
    face_policy: Literal["largest", "confident", "first"] = setting(
        "largest", "which face decides an image's label in submission.csv", enters=Enters.RUN
    )
    label_values: Literal["index", "name"] | None = setting(
        None, "submission.csv gives the class as alphabetical index or as name; null follows the sample submission, "
        "else index", enters=Enters.RUN, allowed="index, name or null",
    )  # fmt: skip
    submission_head: str | None = setting(
        None,
        "name of the head whose labels go into submission.csv; null is the first",
        enters=Enters.RUN,
        allowed="the name of a head or null",
        min_length=1,
    )
    id_column: str = setting(
        "id", "first column of submission.csv", enters=Enters.RUN, allowed="the name of a column", min_length=1
    )
    label_column: str = setting(
        "label", "second column of submission.csv", enters=Enters.RUN, allowed="the name of a column", min_length=1
    )
    drop_folder: bool | None = setting(
        None, "drop the folder from ids in submission.csv; null follows the sample submission, else false",
        enters=Enters.RUN, allowed="true, false or null",
    )  # fmt: skip
    drop_extension: bool | None = setting(
        None, "drop the extension from ids in submission.csv; null follows the sample submission, else false",
        enters=Enters.RUN, allowed="true, false or null",
    )  # fmt: skip
    report: bool = setting(
        True, "write report.html, a page about the run, and its numbers to report.json", enters=Enters.NOTHING
    )
    keep_parts: bool = setting(False, "keep plan/ and parts/ after a finished run", enters=Enters.NOTHING)


class BeamSettings(Section):
    """Running the graph elsewhere."""

    flags: list[Annotated[str, Field(pattern=r"^--[a-z]")]] = setting(
        [],
        "flags for Beam; those of the command line come after them, so they win",
        enters=Enters.NOTHING,
        allowed="a list of flags such as [--runner=FlinkRunner]",
    )


class Settings(Section):
    """All settings, one section per stage. Made by `load_settings`; direct construction makes the same checks."""

    read: ReadSettings = ReadSettings()
    faces: FacesSettings = FacesSettings()
    features: FeaturesSettings = FeaturesSettings()
    head: HeadSettings = HeadSettings()
    write: WriteSettings = WriteSettings()
    live: LiveSettings = LiveSettings()
    train: TrainSettings = TrainSettings()
    mlp: MlpSettings = MlpSettings()
    beam: BeamSettings = BeamSettings()

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Settings:
        for contradiction in _contradictions(self):
            raise PydanticCustomError("contradiction", "{clause}", {"clause": contradiction})
        return self


def _contradictions(settings: Settings) -> Iterator[str]:
    """Yields a clause for each pair of settings that contradict each other."""
    faces, features, write = settings.faces, settings.features, settings.write
    if settings.read.label_column and not settings.read.labels:
        yield "read.label_column is a column of read.labels, which is not set: set it, or drop read.label_column"
    if faces.detector == "yunet" and not faces.yunet.model:
        yield "faces.detector yunet needs faces.yunet.model, the path of its ONNX file"
    if features.backbone == "face_vgg" and features.weights == "imagenet":
        yield "there are no ImageNet weights of face_vgg; set features.weights to bundled, random or a path"
    elif features.backbone.startswith("face_vgg") and features.weights == "imagenet":
        yield f"there are no ImageNet weights of {features.backbone}; set features.weights to random or a path"
    if features.backbone != "face_vgg" and features.weights == "bundled":
        yield (f"features.weights=bundled is for face_vgg only; for {features.backbone} use imagenet, random or a path")
    yield from _contradictions_of_training(settings.train)
    if settings.head.strength and settings.head.kind == "mlp":
        yield "head.strength is for logistic and ridge, but head.kind is mlp: drop one of them"
    if write.id_column == write.label_column:
        yield f"write.id_column and write.label_column are both {write.id_column!r}; give them different names"


def _contradictions_of_training(train: TrainSettings) -> Iterator[str]:
    if train.backbone == "face_vgg" and train.start == "imagenet":
        yield "there are no ImageNet weights of face_vgg; set train.start to null, bundled or a path"
    elif train.backbone.startswith("face_vgg") and train.start == "imagenet":
        yield f"there are no ImageNet weights of {train.backbone}; set train.start to null or a path"
    if train.backbone != "face_vgg" and train.start == "bundled":
        yield f"train.start bundled is for face_vgg only; for {train.backbone} use null, imagenet or a path"
    largest = max(train.progressive_sizes, default=0)
    side = min(train.input_size or (48 if train.backbone.startswith("face_vgg") else 224,))
    if largest > side:
        yield f"train.progressive_sizes has {largest}, but images are {side} pixels wide: leave it out"
    if train.crop > side:
        yield f"train.crop is {train.crop}, but images are only {side} pixels wide: set train.crop=0"
    if 0 < train.crop < largest:
        yield f"train.progressive_sizes has {largest}, but train.crop leaves {train.crop} pixels: set train.crop=0"
    if train.progressive_sizes and (train.stop_patience or train.schedule == "plateau"):
        yield (
            "train.progressive_sizes makes early epochs look bad on validation, which misleads train.stop_patience and "
            "train.schedule plateau: set train.progressive_sizes=[], or neither of them"
        )
