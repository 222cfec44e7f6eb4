"""The file that describes the training of a detector: network, training, scenes, and the sets that it learns from.

It is a separate file, not a section of the settings, because sets are lists. `configs/detectors/one_shot.yaml` made
the bundled detector.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import UsageError
from pipeline.settings.notation import read_yaml

Count = Annotated[int, Field(ge=1, le=100_000_000)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Network(_Part):
    """The shape of the network, as in `models/detectors/one_shot/shape.py`."""

    stem: list[int] = Field(default=[0, 32], min_length=2, max_length=2)
    widths: list[Count] = Field(default=[48, 64, 96], min_length=3, max_length=3)
    depths: list[Annotated[int, Field(ge=0, le=20)]] = Field(default=[1, 2, 2], min_length=3, max_length=3)
    join: Count = 48


class Training(_Part):
    """The values of `models/training/recipe.py` that apply to a detector, and the length of an epoch."""

    epochs: Count = 28
    scenes_an_epoch: Count = 12_000
    mine_every: Annotated[int, Field(ge=0)] = 4
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 48
    optimiser: str = Field(default="adam", pattern="^(adam|sgd|rmsprop)$")
    learning_rate: float = Field(default=2e-3, gt=0)
    warmup_epochs: float = Field(default=1.0, ge=0)
    weight_decay: float = Field(default=0.03, ge=0)
    ema_decay: float = Field(default=0.9985, ge=0, lt=1)
    clip_norm: float = Field(default=10.0, ge=0)
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    precision: str = Field(default="mixed_bfloat16", pattern="^(float32|mixed_bfloat16)$")


class Scenes(_Part):
    """How scenes are drawn: the fields of `models/training/detection/scenes.py`, `SceneRecipe`."""

    side: Annotated[int, Field(ge=32, le=4096, multiple_of=32)] = 256
    photos: Share = 0.6
    pasted: Share = 0.15
    smallest: float = Field(default=8.0, gt=0)
    largest: float = Field(default=210.0, gt=0)
    enlarge: float = Field(default=2.0, gt=0)
    unlearned: float = Field(default=7.0, ge=0)
    seen: Share = 0.6
    covered: Share = 0.0
    blurred: Share = 0.0
    rotation: float = Field(default=20.0, ge=0, le=180)
    joined: Share = 0.5
    hard: Share = 0.5


Map = Annotated[list[float], Field(min_length=4, max_length=4)]  # dx, dy, sw, sh of `BoxMap`


class FaceSet(_Part):
    """Photos with faces.

    Attributes:
        archive, table: paths below --data.
        share: of the scenes.
        maps: from the set's boxes to tight ones; by prefix of the image's name (photos) or by `box_from` (tiles).
    """

    archive: str
    table: str
    share: float = Field(default=1.0, gt=0)
    maps: dict[str, Map] = {}


class TileSet(FaceSet):
    """Mosaics of tiles, one face per tile. `covered`: faces with masks too."""

    covered: bool = False


class CropSet(_Part):
    """Images that are one face each, all cropped alike.

    Attributes:
        archive: path below --data.
        box: x, y, width, height of the tight box in shares of the image's sides.
        share: of the drawn tiles.
    """

    archive: str
    box: list[float] = Field(min_length=4, max_length=4)
    share: float = Field(default=1.0, gt=0)


class EmptySet(_Part):
    """Scenes without faces.

    Attributes:
        archive: path below --data.
        keep_out: [n, k] holds scenes k, k + n, … of the archive out of training, for evaluation.
        scores, above: a table (image, score) of another detector; images with a higher score may show a person.
    """

    archive: str
    keep_out: list[int] | None = Field(default=None, min_length=2, max_length=2)
    scores: str | None = None
    above: float = 1.0


class Sets(_Part):
    """The training data. `validation_every`: one in this many groups of near copies is held out."""

    photos: list[FaceSet] = Field(min_length=1)
    tiles: list[TileSet] = Field(min_length=1)
    crops: list[CropSet] = []
    empty: list[EmptySet] = Field(min_length=1)
    validation_every: Annotated[int, Field(ge=2)] = 12


class Scores(_Part):
    """Calibrates scores: `false_alarms` per held-out image at `score`. The export shifts the scores."""

    score: float = Field(default=0.6, gt=0, lt=1)
    false_alarms: float = Field(gt=0)


class DetectorRecipe(_Part):
    """A part of the training. It starts from the weights of the part before, from --start or from random ones."""

    network: Network = Network()
    training: Training = Training()
    scenes: Scenes = Scenes()
    scores: Scores | None = None
    sets: Sets


def load_recipe(path: Path, **training: Any) -> list[DetectorRecipe]:
    """Returns the parts of the training in a YAML file, in order.

    A file without `parts` is one part. Otherwise each of `parts` overrides keys of the rest of the file, section by
    section.

    Args:
        training: values that override those of `training` in every part; None keeps the file's.

    Raises:
        UsageError: it cannot be read, or a value is unknown or wrong; the message names it.
    """
    tree = read_yaml(path, "--recipe", "a recipe")
    if not isinstance(tree, dict):
        raise UsageError(f"--recipe {path} holds no sections; see configs/detectors/one_shot.yaml")
    parts = tree.pop("parts", [{}])
    if not isinstance(parts, list) or not parts or not all(isinstance(part, dict) for part in parts):
        raise UsageError(f"--recipe {path}: parts is not a list of sections; see configs/detectors/one_shot.yaml")
    given = {"training": {name: value for name, value in training.items() if value is not None}}
    return [_validated(_over(_over(tree, part), given), f"--recipe {path}") for part in parts]


def _over(tree: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Returns the sections with some of their keys changed; `tree` itself is not changed."""
    merged = dict(tree)
    for section, keys in changes.items():
        before = merged.get(section)
        merged[section] = {**before, **keys} if isinstance(before, dict) and isinstance(keys, dict) else keys
    return merged


def _validated(tree: dict[str, Any], where: str) -> DetectorRecipe:
    try:
        return DetectorRecipe.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{where}: {name}: {first['msg'].lower()}") from error
