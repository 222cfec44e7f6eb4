"""The settings: their types, limits, defaults, words for the user, and the fingerprint that each enters.

Light on purpose: neither Beam nor Keras nor numpy is imported here, so that `--help` and a mistyped
setting answer at once. Not here: reading them (`load.py`) and showing them (`describe.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from models.backbones.shape import FaceVggShape
from models.detectors.options import CascadeOptions, HaarOptions, OneShotOptions, YuNetOptions
from models.training.recipe import Recipe

SMALLEST_BATCH = 8  # below 8 rows TensorFlow picks other kernels and the last bits of features change


class Enters(StrEnum):
    """The results that a setting changes, so the fingerprint that it enters."""

    FEATURE_SPACE = "feature space"  # what a head is trained for, and with it the cache key and the run
    CACHE_KEY = "cache key"  # features, but not what a head is trained for; and with them the run
    RUN = "run"  # labels and files, but not features
    NOTHING = "nothing"  # speed and memory alone


def _setting(default: Any, description: str, *, enters: Enters, allowed: str = "", **limits: Any) -> Any:
    """Returns a pydantic field. `allowed` says in words what is allowed where type and limits do not."""
    extra: dict[str, Any] = {"enters": enters.value, "allowed": allowed}
    return Field(default, description=description, json_schema_extra=extra, validate_default=True, **limits)


def _parse_size(value: object) -> tuple[int, int] | None:
    """Returns (height, width) for a number, "HxW" or [h, w]."""
    if value is None or isinstance(value, bool):
        return value  # type: ignore[return-value]  # a bool is refused by the type behind this validator
    if isinstance(value, int):
        return (value, value)
    if isinstance(value, str) and (found := re.fullmatch(r"(\d{1,6})(?:[x×](\d{1,6}))?", value.strip().lower())):
        return (int(found[1]), int(found[2] or found[1]))
    if isinstance(value, list | tuple) and len(value) == 2:
        return (value[0], value[1])
    raise PydanticCustomError("size", "not a size")


Side = Annotated[int, Field(ge=1, le=4096)]
Size = Annotated[tuple[Side, Side], BeforeValidator(_parse_size)]


class _Section(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class ReadSettings(_Section):
    """Reading images."""

    block_images: int = _setting(
        256, "images in a block, the unit of work and of resuming", enters=Enters.NOTHING, ge=1, le=256
    )
    block_bytes: int = _setting(
        64 * 2**20, "encoded bytes in a block, past which it is closed early", enters=Enters.NOTHING, ge=1
    )
    max_image_bytes: int = _setting(
        256 * 2**20, "encoded bytes past which an image is rejected", enters=Enters.CACHE_KEY, ge=1, le=2**40
    )
    max_pixels: int = _setting(
        100_000_000, "width x height past which an image is rejected", enters=Enters.CACHE_KEY, ge=1
    )
    threads: int = _setting(
        2,
        "threads that decode, detect and crop ahead of the device, and as many blocks in hand",
        enters=Enters.NOTHING,
        ge=1,
        le=256,
    )


_ONE_SHOT, _CASCADE, _HAAR, _YUNET = OneShotOptions(), CascadeOptions(), HaarOptions(), YuNetOptions()


def _model(description: str) -> Any:
    return _setting(None, description, enters=Enters.NOTHING, allowed="a path or null")  # its digest enters


def _detect_size(default: int) -> Any:
    words = "longer side in pixels that an image is reduced to before detection"
    return _setting(default, words, enters=Enters.CACHE_KEY, ge=16, le=16384)


class OneShotSettings(_Section):
    """The one-shot detector, which is the bundled one."""

    model: str | None = _model("path of a model that train-detector wrote; null is the bundled one")
    min_face_fraction: float = _setting(
        _ONE_SHOT.min_face_fraction,
        "smallest face, as a fraction of the image's shorter side: it decides the cost",
        enters=Enters.CACHE_KEY,
        ge=0.005,
        le=1,
    )
    score_threshold: float = _setting(
        _ONE_SHOT.score_threshold, "least score of a face", enters=Enters.CACHE_KEY, ge=0.001, le=0.999
    )
    nms_threshold: float = _setting(
        _ONE_SHOT.nms_threshold, "overlap (IoU) from which two boxes are one face", enters=Enters.CACHE_KEY, gt=0, le=1
    )


class CascadeSettings(_Section):
    """The cascade of three levels of small networks, a detector of our own beside the bundled one."""

    model: str | None = _model("path of weights that its training wrote; null is the ones that ship")
    detect_size: int = _detect_size(_CASCADE.detect_size)
    min_face_fraction: float = _setting(
        _CASCADE.min_face_fraction,
        "smallest face, as a fraction of the image's shorter side",
        enters=Enters.CACHE_KEY,
        ge=0,
        le=1,
    )
    min_face_px: int = _setting(
        _CASCADE.min_face_px, "and the fewest pixels that it has", enters=Enters.CACHE_KEY, ge=4, le=4096
    )
    scale_step: float = _setting(
        _CASCADE.scale_step, "factor between the sizes that are searched", enters=Enters.CACHE_KEY, ge=1.05, le=4
    )
    stride: Literal[2, 4, 8] = _setting(
        _CASCADE.stride, "pixels between windows of the first level", enters=Enters.CACHE_KEY
    )
    averaging: Literal["share", "sum"] = _setting(
        _CASCADE.averaging, "how the 45 calibration classes are averaged", enters=Enters.CACHE_KEY
    )
    nms_threshold: float = _setting(
        _CASCADE.nms_threshold, "overlap (IoU) from which two boxes are one face", enters=Enters.CACHE_KEY, gt=0, le=1
    )


class HaarSettings(_Section):
    """OpenCV's Haar cascade."""

    model: str | None = _model("path of a cascade in OpenCV's XML format; null is the one that comes with OpenCV")
    detect_size: int = _detect_size(_HAAR.detect_size)
    min_face_fraction: float = _setting(
        _HAAR.min_face_fraction,
        "smallest face, as a fraction of the image's shorter side",
        enters=Enters.CACHE_KEY,
        ge=0,
        le=1,
    )
    scale_factor: float = _setting(
        _HAAR.scale_factor, "step between two scales", enters=Enters.CACHE_KEY, ge=1.01, le=4
    )
    min_neighbors: int = _setting(
        _HAAR.min_neighbors, "overlapping hits that make a face", enters=Enters.CACHE_KEY, ge=1, le=1000
    )


class YuNetSettings(_Section):
    """YuNet, a detector of others; its model file does not ship."""

    model: str | None = _model("path of face_detection_yunet_2023mar.onnx")
    detect_size: int = _detect_size(_YUNET.detect_size)
    score_threshold: float = _setting(
        _YUNET.score_threshold, "least score of a face", enters=Enters.CACHE_KEY, gt=0, le=1
    )
    nms_threshold: float = _setting(
        _YUNET.nms_threshold, "overlap (IoU) from which two boxes are one face", enters=Enters.CACHE_KEY, gt=0, le=1
    )


class FacesSettings(_Section):
    """Finding and cropping faces; each detector has a section of its own below."""

    detector: Literal["bundled", "none", "one_shot", "cascade", "haar", "yunet"] = _setting(
        "bundled",
        "what finds faces: bundled is one_shot; none takes the whole image as one face",
        enters=Enters.CACHE_KEY,
    )
    margin: float = _setting(
        0.0, "added to the crop on each side, as a fraction of the box's side", enters=Enters.CACHE_KEY, ge=0, le=2
    )
    max_faces: int = _setting(0, "faces kept of an image, best first; 0 keeps all", enters=Enters.CACHE_KEY, ge=0)
    min_label_px: int = _setting(
        20,
        "longer side in pixels below which a found face keeps its box and gets no label; 0 labels all; "
        "without a detector every image is labelled",
        enters=Enters.RUN,
        ge=0,
        le=4096,
    )
    one_shot: OneShotSettings = OneShotSettings()
    cascade: CascadeSettings = CascadeSettings()
    haar: HaarSettings = HaarSettings()
    yunet: YuNetSettings = YuNetSettings()


class FeaturesSettings(_Section):
    """Turning faces into features."""

    backbone: Literal["face_vgg", "vgg16", "vgg19"] = _setting(
        "face_vgg", "network that computes features", enters=Enters.FEATURE_SPACE
    )
    weights: str = _setting(
        "",
        "weights of the backbone; by default bundled for face_vgg, imagenet for the others",
        enters=Enters.FEATURE_SPACE,
        allowed="bundled, imagenet, random or a path",
        min_length=1,
    )
    pooling: Literal["avg", "multi", "flatten"] = _setting(
        "multi", "how feature maps become one vector", enters=Enters.FEATURE_SPACE
    )
    input_size: Size | None = _setting(
        None,
        "height x width in pixels that faces are resized to; null is the backbone's own",
        enters=Enters.FEATURE_SPACE,
        allowed="a whole number, HEIGHTxWIDTH or [height, width], each from 1 to 4096, or null",
    )
    batch_size: int = _setting(
        64, "faces in one call of the device", enters=Enters.NOTHING, ge=SMALLEST_BATCH, le=65536
    )
    precision: Literal["float32", "bfloat16"] = _setting(
        "float32", "number format inside the network", enters=Enters.CACHE_KEY
    )
    runtime: Literal["tensorflow", "jax", "onnx", "openvino"] | None = _setting(
        None, "what executes the network; null is Keras's backend: KERAS_BACKEND, else keras.json, else tensorflow",
        enters=Enters.CACHE_KEY, allowed="tensorflow, jax, onnx, openvino or null",
    )  # fmt: skip
    seed: int = _setting(
        0,
        "seed of random weights, and of the images that train-head holds out",
        enters=Enters.FEATURE_SPACE,
        ge=0,
        le=2**31 - 1,
    )
    mirrored: bool = _setting(
        True,
        "features are the mean of those of the face and of its mirror image, at twice the cost; "
        "by default for face_vgg alone",
        enters=Enters.FEATURE_SPACE,
    )
    mirror_cut: float = _setting(
        0.0625,
        "fraction of the side, in whole pixels, cut off each edge of the mirror image before it is enlarged again; "
        "0 for others than face_vgg by default",
        enters=Enters.FEATURE_SPACE,
        ge=0,
        le=0.45,
    )

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_backbone(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            own = data.get("backbone", "face_vgg") == "face_vgg"
            fitting = {"weights": "bundled", "mirrored": True} if own else {"weights": "imagenet", "mirrored": False}
            return {**fitting, **({} if own else {"mirror_cut": 0.0}), **data}
        return data


class HeadSettings(_Section):
    """Turning features into labels, and what is fitted to do so."""

    path: str = _setting(
        "bundled",
        "the trained head: bundled (fer2013, seven classes), bundled/ferplus (eight), or what train-head wrote",
        enters=Enters.RUN,
        allowed="bundled, bundled/fer2013, bundled/ferplus or a path",
        min_length=1,
    )
    kind: Literal["logistic", "ridge", "mlp"] = _setting(
        "logistic", "what train-head fits: logistic regression, least squares, or dense layers", enters=Enters.NOTHING
    )
    imbalance: Literal["natural", "inverse_sqrt", "logit_adjustment"] = _setting(
        "natural",
        "what train-head does for rare classes: nothing, weights 1/sqrt(frequency), adjusted logits",
        enters=Enters.NOTHING,
    )
    strength: float | None = _setting(
        None,
        "C of logistic or alpha of ridge; null lets the held-out images choose it",
        enters=Enters.NOTHING,
        allowed="null or a number above 0",
        gt=0,
    )
    soft_share: float = _setting(
        1.0, "share of --soft-labels in what a head learns: 1 is those alone; below, the rest is the input's label",
        enters=Enters.NOTHING, gt=0, le=1,
    )  # fmt: skip


class WriteSettings(_Section):
    """Writing results."""

    rows_per_file: int = _setting(1_000_000, "rows in a Parquet file of the output", enters=Enters.RUN, ge=1)
    no_face_label: str | None = _setting(
        None,
        "class that submission.csv states for an image without a labelled face",
        enters=Enters.RUN,
        allowed="the name of a class or null",
        min_length=1,
    )
    face_policy: Literal["largest", "confident", "first"] = _setting(
        "largest", "which of several faces decides an image's label in submission.csv", enters=Enters.RUN
    )
    label_values: Literal["index", "name"] | None = _setting(
        None, "submission.csv states the alphabetical index of the class, or its name; null is what the sample "
        "submission shows, else the index", enters=Enters.RUN, allowed="index, name or null",
    )  # fmt: skip
    id_column: str = _setting(
        "id", "first column of submission.csv", enters=Enters.RUN, allowed="the name of a column", min_length=1
    )
    label_column: str = _setting(
        "label", "second column of submission.csv", enters=Enters.RUN, allowed="the name of a column", min_length=1
    )
    drop_folder: bool | None = _setting(
        None, "ids in submission.csv go without their folder; null is what the sample submission shows, else they "
        "keep it",
        enters=Enters.RUN, allowed="true, false or null",
    )  # fmt: skip
    drop_extension: bool | None = _setting(
        None, "ids in submission.csv go without their extension; null is what the sample submission shows, else they "
        "keep it", enters=Enters.RUN, allowed="true, false or null",
    )  # fmt: skip
    report: bool = _setting(
        True, "write report.html, a page about the run, and its numbers as report.json", enters=Enters.NOTHING
    )
    keep_parts: bool = _setting(False, "keep plan/ and parts/ after a finished run", enters=Enters.NOTHING)


_RECIPE = Recipe()
_SHAPE = FaceVggShape()


def _training(default: Any, description: str, **more: Any) -> Any:
    """Returns a setting of the training: its result is a file of weights, which has a digest of its own."""
    return _setting(
        list(default) if isinstance(default, tuple) else default, description, enters=Enters.NOTHING, **more
    )


class TrainSettings(_Section):
    """Training a network; what each number does is told in models/training/recipe.py."""

    widths: list[Annotated[int, Field(ge=1, le=4096)]] = _training(
        _SHAPE.widths, "channels of each block of face_vgg", allowed="a list of whole numbers", min_length=1
    )
    convs: int = _training(_SHAPE.convs, "3x3 convolutions in a block", ge=1, le=8)
    start: str | None = _training(
        None, "weights that training starts from: null draws them; to fine-tune, with train.frozen and train.rates",
        allowed="null, bundled or a path", min_length=1,
    )  # fmt: skip
    epochs: int = _training(_RECIPE.epochs, "passes over the training images", ge=1, le=100_000)
    batch_size: int = _training(_RECIPE.batch_size, "images a step", ge=2, le=65536)
    optimiser: Literal["sgd", "adam", "rmsprop"] = _training(_RECIPE.optimiser, "sgd is with Nesterov's momentum")
    learning_rate: float = _training(_RECIPE.learning_rate, "the highest rate, a step", gt=0)
    schedule: Literal["cosine", "plateau", "constant"] = _training(
        _RECIPE.schedule, "course of the rate: cosine falls to zero, plateau where validation no longer gains"
    )
    warmup_epochs: float = _training(_RECIPE.warmup_epochs, "epochs over which the rate rises from zero", ge=0)
    plateau_factor: float = _training(_RECIPE.plateau_factor, "factor on the rate at a plateau", gt=0, le=1)
    plateau_patience: int = _training(_RECIPE.plateau_patience, "epochs without gain that make a plateau", ge=1)
    momentum: float = _training(_RECIPE.momentum, "momentum of sgd, Nesterov's", ge=0, le=1)
    weight_decay: float = _training(_RECIPE.weight_decay, "rate x this is taken off kernels at each step", ge=0)
    averaged: float = _training(
        _RECIPE.averaged,
        "momentum of the running mean of the weights that is kept; 0 keeps the last weights",
        ge=0,
        le=1,
    )
    clip_norm: float = _training(_RECIPE.clip_norm, "largest norm of a gradient; 0 leaves gradients alone", ge=0)
    stop_patience: int = _training(
        _RECIPE.stop_patience, "epochs without gain after which training ends; 0 never ends early", ge=0
    )
    keep: Literal["last", "best"] = _training(_RECIPE.keep, "the epoch whose weights remain; best is on validation")
    label_smoothing: float = _training(
        _RECIPE.label_smoothing,
        "share of a hard label spread over all classes: evenly, or by frequency with logit_adjustment",
        ge=0,
        le=1,
    )
    imbalance: Literal["natural", "inverse_sqrt", "logit_adjustment"] = _training(
        _RECIPE.imbalance, "what is done for rare classes: nothing, weights 1/sqrt(frequency), adjusted logits"
    )
    soft_weight: float = _training(1.0, "weight of each --soft-labels task beside the labels'", ge=0)
    reject: list[str] = _training(
        (), "classes of soft labels that say there is no face: where one leads, the hard label is not learned",
        allowed="a list of names",
    )  # fmt: skip
    mixup: float = _training(_RECIPE.mixup, "alpha of mixup; 0 mixes nothing", ge=0)
    dropout: float = _training(_RECIPE.dropout, "rate after each block", ge=0, le=0.95)
    top_dropout: float = _training(_RECIPE.top_dropout, "rate before the classifiers", ge=0, le=0.95)
    crop: int = _training(_RECIPE.crop, "side in pixels of the middle square that training sees; 0 is all", ge=0, le=48)
    sides: list[Annotated[int, Field(ge=16, le=48)]] = _training(
        _RECIPE.sides, "sides in pixels that images are reduced to in training, each for an equal share of the epochs; "
        "[] leaves them as they are", allowed="a list of whole numbers from 16 to 48, such as [24, 32, 40, 48]",
    )  # fmt: skip
    flip: bool = _training(_RECIPE.flip, "mirror half of the images")
    shift: float = _training(_RECIPE.shift, "largest shift, a fraction of the side", ge=0, le=1)
    rotation: float = _training(_RECIPE.rotation, "largest turn, degrees", ge=0, le=180)
    scale: float = _training(_RECIPE.scale, "largest enlargement, a fraction", ge=0, le=4)
    shrink: float = _training(_RECIPE.shrink, "largest reduction, a fraction; small ones are more frequent", ge=0, le=4)
    contrast: float = _training(_RECIPE.contrast, "largest change of contrast, a fraction", ge=0, le=1)
    brightness: float = _training(
        _RECIPE.brightness, "largest darkening, a fraction; brightening goes half as far", ge=0, le=1
    )
    blur: float = _training(_RECIPE.blur, "largest share of a 3x3 mean mixed in", ge=0, le=1)
    reduce: float = _training(
        _RECIPE.reduce, "share of images brought to fewer pixels, a third of the side at least", ge=0, le=1
    )
    compress: float = _training(_RECIPE.compress, "share of images compressed as JPEG of quality 10 to 90", ge=0, le=1)
    erase: float = _training(_RECIPE.erase, "share of images in which a rectangle becomes noise", ge=0, le=1)
    frozen: list[str] = _training(
        _RECIPE.frozen, "beginnings of names of layers that are not trained", allowed="a list of names such as [block1]"
    )
    rates: list[Annotated[str, Field(pattern=r"^[^=]+=(\d+\.?\d*|\.\d+)(e-?\d+)?$")]] = _training(
        (), "factors on the rate by beginning of a layer's name", allowed="a list such as [block1=0, block2=0.1]"
    )
    seed: int = _training(_RECIPE.seed, "of first weights, order and random changes", ge=0, le=2**31 - 1)
    precision: Literal["float32", "mixed_bfloat16"] = _training(_RECIPE.precision, "number format inside the network")


class MlpSettings(_Section):
    """Training dense layers on features; a section of its own, for what suits a backbone does not suit a head."""

    layers: list[Annotated[int, Field(ge=1, le=65536)]] = _training(
        (256,), "outputs of each hidden layer, relu behind it", allowed="a list of whole numbers from 1"
    )
    dropout: float = _training(0.5, "rate behind each hidden layer", ge=0, le=0.95)
    epochs: int = _training(30, "passes over the training rows", ge=1, le=100_000)
    batch_size: int = _training(128, "rows a step", ge=2, le=65536)
    optimiser: Literal["sgd", "adam", "rmsprop"] = _training("adam", "sgd is with Nesterov's momentum")
    learning_rate: float = _training(1e-3, "the highest rate, a step", gt=0)
    schedule: Literal["cosine", "plateau", "constant"] = _training("cosine", "course of the rate, as of train.schedule")
    warmup_epochs: float = _training(0.0, "epochs over which the rate rises from zero", ge=0)
    plateau_factor: float = _training(0.5, "factor on the rate at a plateau", gt=0, le=1)
    plateau_patience: int = _training(5, "epochs without gain that make a plateau", ge=1)
    momentum: float = _training(0.9, "momentum of sgd, Nesterov's", ge=0, le=1)
    weight_decay: float = _training(0.0, "rate x this is taken off kernels at each step", ge=0)
    averaged: float = _training(
        0.0, "momentum of the running mean of the weights that is kept; 0 keeps the last weights", ge=0, le=1
    )
    clip_norm: float = _training(0.0, "largest norm of a gradient; 0 leaves gradients alone", ge=0)
    stop_patience: int = _training(0, "epochs without gain after which training ends; 0 never ends early", ge=0)
    keep: Literal["last", "best"] = _training("best", "the epoch whose weights remain; best is on validation")
    label_smoothing: float = _training(
        0.0, "share of a label spread over all classes, as train.label_smoothing; votes stay", ge=0, le=1
    )
    mixup: float = _training(0.0, "alpha of mixup; 0 mixes nothing", ge=0)
    seed: int = _training(0, "of first weights, order and dropout", ge=0, le=2**31 - 1)


class Settings(_Section):
    """All settings, a section a stage. Made by `load_settings`; constructing it directly checks the same."""

    read: ReadSettings = ReadSettings()
    faces: FacesSettings = FacesSettings()
    features: FeaturesSettings = FeaturesSettings()
    head: HeadSettings = HeadSettings()
    write: WriteSettings = WriteSettings()
    train: TrainSettings = TrainSettings()
    mlp: MlpSettings = MlpSettings()

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Settings:
        for contradiction in _contradictions(self):
            raise PydanticCustomError("contradiction", "{clause}", {"clause": contradiction})
        return self


def _contradictions(settings: Settings) -> Iterator[str]:
    """Yields a clause for each pair of settings that cannot both hold."""
    faces, features, write = settings.faces, settings.features, settings.write
    if faces.detector == "yunet" and not faces.yunet.model:
        yield "faces.detector yunet needs faces.yunet.model, the path of its ONNX file"
    if features.backbone == "face_vgg" and features.weights == "imagenet":
        yield "features.weights imagenet are for vgg16 and vgg19 only; for face_vgg use bundled, random or a path"
    if features.backbone != "face_vgg" and features.weights == "bundled":
        yield (
            f"features.weights bundled are for face_vgg only; for {features.backbone} use imagenet, random or a path"
        )
    if settings.head.strength and settings.head.kind == "mlp":
        yield "head.strength is for logistic and ridge, but head.kind is mlp: drop one of them"
    crop, largest = settings.train.crop, max(settings.train.sides, default=0)
    if 0 < crop < largest:
        yield f"train.sides has {largest}, but train.crop leaves {crop} pixels: set train.crop=0"
    if settings.train.sides and (settings.train.stop_patience or settings.train.schedule == "plateau"):
        yield (
            "train.sides makes early epochs look bad on validation, which train.stop_patience and "
            "train.schedule plateau go by: set train.sides=[], or neither of them"
        )
    if write.id_column == write.label_column:
        yield f"write.id_column and write.label_column are both {write.id_column!r}; name them apart"
