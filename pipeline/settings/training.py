"""The settings of training: of a backbone on images (`train`), and of dense layers on features (`mlp`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from models.backbones.shape import FaceVggShape
from models.training.recipe import Recipe
from pipeline.settings.section import Enters, Section, setting
from pipeline.settings.values import BackboneName, Size

_RECIPE = Recipe()
_SHAPE = FaceVggShape()


def _training(default: Any, description: str, **more: Any) -> Any:
    """Returns a setting of the training: its result is a file of weights, which has a digest of its own."""
    return setting(list(default) if isinstance(default, tuple) else default, description, enters=Enters.NOTHING, **more)


class TrainSettings(Section):
    """Training a network; models/training/recipe.py explains each number."""

    backbone: BackboneName = _training("face_vgg", "the network to train")
    input_size: Size | None = _training(
        None, "height x width in pixels that images are resized to; null is the network's own",
        allowed="a whole number, HEIGHTxWIDTH or [height, width], each from 1 to 4096, or null",
    )  # fmt: skip
    widths: list[Annotated[int, Field(ge=1, le=4096)]] = _training(
        _SHAPE.widths, "channels of each block of face_vgg", allowed="a list of whole numbers", min_length=1
    )
    convs: int = _training(_SHAPE.convs, "3x3 convolutions in a block", ge=1, le=8)
    start: str | None = _training(
        None, "weights that training starts from: null draws them; to fine-tune, with train.frozen and train.rates",
        allowed="null, bundled, imagenet or a path", min_length=1,
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
    ema_decay: float = _training(
        _RECIPE.ema_decay,
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
    crop: int = _training(
        _RECIPE.crop, "side in pixels of the middle square that training sees; 0 is all", ge=0, le=4096
    )
    progressive_sizes: list[Annotated[int, Field(ge=16, le=4096)]] = _training(
        _RECIPE.progressive_sizes, "sides in pixels to which training reduces images, each for an equal share of the "
        "epochs; [] leaves them as they are", allowed="a list of whole numbers from 16 to 4096, such as [24, 32, 48]",
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
    zoom_out: float = _training(
        _RECIPE.zoom_out, "share of images brought to fewer pixels, a third of the side at least", ge=0, le=1
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

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_backbone(cls, data: Any) -> Any:
        """A smaller crop is a measured gain for face_vgg alone."""
        if isinstance(data, Mapping) and data.get("backbone", "face_vgg") != "face_vgg":
            return {"crop": 0, **data}
        return data


class MlpSettings(Section):
    """Training dense layers on features; a section of its own, for what suits a backbone does not suit a head."""

    layers: list[Annotated[int, Field(ge=1, le=65536)]] = _training(
        (256,), "outputs of each hidden layer, followed by relu", allowed="a list of whole numbers from 1"
    )
    dropout: float = _training(0.5, "rate after each hidden layer", ge=0, le=0.95)
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
    ema_decay: float = _training(
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
