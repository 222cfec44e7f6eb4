"""The settings of training: of a backbone on images (`train`), and of dense layers on features (`mlp`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from models.backbones.shape import FaceVggShape
from models.training.recipe import Recipe
from pipeline.settings.section import Enters, Section, setting
from pipeline.settings.values import BackboneName, Size

Loss = Literal["cross_entropy", "focal", "generalised", "squared"]
_RECIPE = Recipe()
_SHAPE = FaceVggShape()


def _training(default: Any, description: str, **more: Any) -> Any:
    """Returns a setting of training. It enters no fingerprint: the resulting weights have their own digest."""
    return setting(list(default) if isinstance(default, tuple) else default, description, enters=Enters.NOTHING, **more)


class TrainSettings(Section):
    """Training a network; models/training/recipe.py explains each number."""

    backbone: BackboneName = _training("face_vgg", "the network to train")
    input_size: Size | None = _training(
        None, "images are resized to this height x width, in pixels; null is the network's default",
        allowed="a whole number, HEIGHTxWIDTH or [height, width], each from 1 to 4096, or null",
    )  # fmt: skip
    widths: list[Annotated[int, Field(ge=1, le=4096)]] = _training(
        _SHAPE.widths, "channels of each block of face_vgg", allowed="a list of whole numbers", min_length=1
    )
    convs: int = _training(_SHAPE.convs, "3x3 convolutions in a block", ge=1, le=8)
    start: str | None = _training(
        None, "initial weights: null draws them at random; to fine-tune, see also train.frozen and train.rates",
        allowed="null, bundled, imagenet or a path", min_length=1,
    )  # fmt: skip
    epochs: int = _training(_RECIPE.epochs, "passes over the training images", ge=1, le=100_000)
    batch_size: int = _training(_RECIPE.batch_size, "images per step", ge=2, le=65536)
    optimiser: Literal["sgd", "adam", "rmsprop"] = _training(_RECIPE.optimiser, "sgd uses Nesterov momentum")
    learning_rate: float = _training(_RECIPE.learning_rate, "peak learning rate, per step", gt=0)
    schedule: Literal["cosine", "plateau", "constant"] = _training(
        _RECIPE.schedule, "learning rate: cosine falls to zero, plateau drops when validation stops improving"
    )
    warmup_epochs: float = _training(_RECIPE.warmup_epochs, "epochs in which the rate rises from zero", ge=0)
    plateau_factor: float = _training(_RECIPE.plateau_factor, "factor on the rate at each plateau", gt=0, le=1)
    plateau_patience: int = _training(
        _RECIPE.plateau_patience, "epochs without improvement that count as a plateau", ge=1
    )
    momentum: float = _training(_RECIPE.momentum, "Nesterov momentum of sgd", ge=0, le=1)
    weight_decay: float = _training(
        _RECIPE.weight_decay, "decoupled decay: each step takes rate x this off the kernels", ge=0
    )
    ema_decay: float = _training(
        _RECIPE.ema_decay,
        "decay of the moving average of the weights, which is saved; 0 saves the last weights",
        ge=0,
        le=1,
    )
    clip_norm: float = _training(_RECIPE.clip_norm, "maximum norm of a gradient; 0 does not clip", ge=0)
    stop_patience: int = _training(
        _RECIPE.stop_patience, "epochs without improvement after which training stops; 0 never stops early", ge=0
    )
    keep: Literal["last", "best"] = _training(_RECIPE.keep, "epoch whose weights are saved; best is by validation")
    loss: Loss = _training(
        _RECIPE.loss,
        "loss to minimise: cross-entropy; focal gives easy examples less weight; generalised gives labels that look "
        "wrong less weight; squared is the squared error of the probabilities",
    )
    label_smoothing: float = _training(
        _RECIPE.label_smoothing,
        "share of a hard label spread over all classes: evenly, or by frequency with logit_adjustment",
        ge=0,
        le=1,
    )
    imbalance: Literal["natural", "inverse_sqrt", "logit_adjustment", "balanced_draws"] = _training(
        _RECIPE.imbalance,
        "treatment of rare classes: none, weights 1/sqrt(frequency), adjusted logits, or classes drawn equally often",
    )
    soft_weight: float = _training(1.0, "weight of each --soft-labels task; the labels' task has 1", ge=0)
    reject: list[str] = _training(
        (), 'classes of soft labels that mean "no face": where one leads, the hard label is not learned',
        allowed="a list of names",
    )  # fmt: skip
    mixup: float = _training(_RECIPE.mixup, "alpha of mixup; 0 turns it off", ge=0)
    dropout: float = _training(_RECIPE.dropout, "dropout rate after each block", ge=0, le=0.95)
    top_dropout: float = _training(_RECIPE.top_dropout, "dropout rate before the classifiers", ge=0, le=0.95)
    crop: int = _training(
        _RECIPE.crop, "side in pixels of the centre crop that training uses; 0 is the whole image", ge=0, le=4096
    )
    progressive_sizes: list[Annotated[int, Field(ge=16, le=4096)]] = _training(
        _RECIPE.progressive_sizes, "sides in pixels to which training reduces images, each for an equal share of the "
        "epochs; [] leaves them as they are", allowed="a list of whole numbers from 16 to 4096, such as [24, 32, 48]",
    )  # fmt: skip
    thirtyfold: bool = _training(
        _RECIPE.thirtyfold, "change each image in one of 30 ways, drawn anew each epoch: five filters x six positions"
    )
    flip: bool = _training(_RECIPE.flip, "mirror half of the images")
    shift: float = _training(_RECIPE.shift, "maximum shift, as a fraction of the side", ge=0, le=1)
    rotation: float = _training(_RECIPE.rotation, "maximum rotation, in degrees", ge=0, le=180)
    scale: float = _training(_RECIPE.scale, "maximum enlargement, as a fraction", ge=0, le=4)
    shrink: float = _training(
        _RECIPE.shrink, "maximum reduction, as a fraction; small ones are more frequent", ge=0, le=4
    )
    contrast: float = _training(_RECIPE.contrast, "maximum change of contrast, as a fraction", ge=0, le=1)
    brightness: float = _training(
        _RECIPE.brightness, "maximum darkening, as a fraction; brightening goes half as far", ge=0, le=1
    )
    blur: float = _training(_RECIPE.blur, "maximum share of a 3x3 mean filter mixed in", ge=0, le=1)
    zoom_out: float = _training(
        _RECIPE.zoom_out, "share of images reduced, to a third of the side at least, and enlarged again", ge=0, le=1
    )
    compress: float = _training(_RECIPE.compress, "share of images compressed as JPEG, quality 10 to 90", ge=0, le=1)
    erase: float = _training(_RECIPE.erase, "share of images in which a rectangle is replaced by noise", ge=0, le=1)
    frozen: list[str] = _training(
        _RECIPE.frozen, "name prefixes of layers that are not trained", allowed="a list of names such as [block1]"
    )
    rates: list[Annotated[str, Field(pattern=r"^[^=]+=(\d+\.?\d*|\.\d+)(e-?\d+)?$")]] = _training(
        (), "factors on the rate, by prefix of the layer's name", allowed="a list such as [block1=0, block2=0.1]"
    )
    seed: int = _training(_RECIPE.seed, "seed of initial weights, order and augmentation", ge=0, le=2**31 - 1)
    precision: Literal["float32", "mixed_bfloat16"] = _training(_RECIPE.precision, "number format inside the network")

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_backbone(cls, data: Any) -> Any:
        """A smaller crop is a measured gain for face_vgg alone, and for its variants."""
        if isinstance(data, Mapping) and not str(data.get("backbone", "face_vgg")).startswith("face_vgg"):
            return {"crop": 0, **data}
        return data


class MlpSettings(Section):
    """Training dense layers on features; a separate section, since a head needs other values than a backbone."""

    layers: list[Annotated[int, Field(ge=1, le=65536)]] = _training(
        (256,), "units of each hidden layer, followed by relu", allowed="a list of whole numbers from 1"
    )
    standardise: bool = _training(
        True, "bring each feature to mean 0 and deviation 1 first; false learns features as they are"
    )
    dropout: float = _training(0.5, "dropout rate after each hidden layer", ge=0, le=0.95)
    epochs: int = _training(30, "passes over the training rows", ge=1, le=100_000)
    batch_size: int = _training(128, "rows per step", ge=2, le=65536)
    optimiser: Literal["sgd", "adam", "rmsprop"] = _training("adam", "sgd uses Nesterov momentum")
    learning_rate: float = _training(1e-3, "peak learning rate, per step", gt=0)
    schedule: Literal["cosine", "plateau", "constant"] = _training("cosine", "learning rate, as in train.schedule")
    warmup_epochs: float = _training(0.0, "epochs in which the rate rises from zero", ge=0)
    plateau_factor: float = _training(0.5, "factor on the rate at each plateau", gt=0, le=1)
    plateau_patience: int = _training(5, "epochs without improvement that count as a plateau", ge=1)
    momentum: float = _training(0.9, "Nesterov momentum of sgd", ge=0, le=1)
    weight_decay: float = _training(0.0, "decoupled decay: each step takes rate x this off the kernels", ge=0)
    ema_decay: float = _training(
        0.0, "decay of the moving average of the weights, which is saved; 0 saves the last weights", ge=0, le=1
    )
    clip_norm: float = _training(0.0, "maximum norm of a gradient; 0 does not clip", ge=0)
    stop_patience: int = _training(
        0, "epochs without improvement after which training stops; 0 never stops early", ge=0
    )
    keep: Literal["last", "best"] = _training("best", "epoch whose weights are saved; best is by validation")
    loss: Loss = _training("cross_entropy", "loss to minimise, as in train.loss")
    label_smoothing: float = _training(
        0.0, "share of a label spread over all classes, as in train.label_smoothing; votes are not smoothed", ge=0, le=1
    )
    mixup: float = _training(0.0, "alpha of mixup; 0 turns it off", ge=0)
    seed: int = _training(0, "seed of initial weights, order and dropout", ge=0, le=2**31 - 1)
