"""`train-detector`: its flags. `pipeline/actions/train_detector.py` does the work."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline import flag_values
from pipeline.commands.command import Command
from pipeline.flags import Options, needed, one, parsed, switch


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainDetectorOptions(Options):
    """What to learn from, and where to write the detector."""

    recipe: str = needed("FILE", "YAML with network, training, scenes and sets")
    data: str = needed("DIR", "folder of the sets that the recipe names")
    output: str = needed("DIR", "folder for model, curves and state")
    start: str | None = one("FILE", "weights.npz of an earlier training to start from")
    overwrite: bool = switch("replace the results of another training")
    epochs: int | None = parsed(flag_values.count, "N", "overrides the recipe's training.epochs")
    seed: int | None = parsed(flag_values.seed, "N", "overrides the recipe's training.seed")


COMMAND = Command(
    name="train-detector",
    summary="train the network that finds faces",
    example="train-detector --recipe configs/detectors/one_shot.yaml --data sets/ --output detector/",
    options=TrainDetectorOptions,
)
