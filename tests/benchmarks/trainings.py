"""Whole trainings of a small network beside each other: what is done for rare classes, votes beside labels, teachers.

Six networks, trained by `configs/recipes/small.yaml` on FER2013's training part with one setting or one source of soft
labels changed (the last has three sources, each with the weight of the labels), and logistic heads on their features.
Two questions: whether what is done for rare classes must be done to the network, or to its head alone; and what a
network learns from annotators' votes and from the answers of a larger one. The teacher is the bundled network with both
of its heads; it learned those votes itself, so what it passes on is partly theirs.

All figures are of FER2013's validation part, which chose nothing of these networks: epochs and rates are those of the
recipe, all heads have one strength. (It did choose the teacher's heads.) One seed: differences below a standard error
(about 0.008 of accuracy) say nothing.
"""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measuring
import numpy as np
from measuring import Ran

RECIPE = measuring.ROOT / "configs" / "recipes" / "small.yaml"
STRENGTH = "head.strength=0.01"  # C of every head
WAYS = ("natural", "inverse_sqrt", "logit_adjustment")
RARE = ("disgust", "fear")  # the rarest class of FER2013, and the one that is found least


@dataclass(frozen=True)
class Source:
    """FER2013's parts, and the table of votes."""

    train: Path
    val: Path
    excluded: Path
    votes: Path

    @property
    def flags(self) -> list[str | Path]:
        """What every training command is reported."""
        return ["--input", self.train, "--validation", self.val, "--exclude-copies-of", self.excluded, "--quiet"]


@dataclass(frozen=True)
class Trained:
    """A trained network: its folder, the accuracy of its own classifier, and what the training cost."""

    folder: Path
    accuracy: float
    cpu_s: float

    @property
    def weights(self) -> Path:
        return self.folder / "face_vgg.npz"


@dataclass(frozen=True)
class Measured:
    """A head on a network's features, on validation.

    Attributes:
        recall: by class.
    """

    accuracy: float
    macro_f1: float
    balanced_accuracy: float
    recall: dict[str, float]


def sources(options: Namespace, place: Path) -> Source:
    """Returns the parts; with `--small` a twentieth of each."""
    folder = options.data / "fer2013"
    found = Source(*(folder / name for name in ("train.tar.gz", "val.tar.gz", "test.tar", "ferplus.csv")))
    measuring.needed(found.train, found.val, found.excluded, found.votes)
    if not options.small:
        return found
    parts = [
        measuring.write_tar(place / f"{path.name.split('.')[0]}.tar", list(measuring.members(path))[::20])
        for path in (found.train, found.val, found.excluded)
    ]
    return Source(*parts, found.votes)


def trained(source: Source, folder: Path, *flags: str | Path, settings: Sequence[str] = ()) -> Trained:
    """Trains a network by the recipe."""
    measuring.progress(f"training: {folder.name}")
    changes = ["--set", *settings] if settings else []
    words = ["train-backbone", "--config", RECIPE, *source.flags, *flags, *changes, "--output", folder]
    run = measuring.start("-m", "pipeline", *words, output=folder).wait().done()
    card = json.loads((folder / "face_vgg.json").read_text(encoding="utf-8"))
    return Trained(folder, card["validation_accuracy"], run.cpu_s)


def measured(source: Source, network: Trained, way: str) -> Measured:
    """Fits a head on the features of a network."""
    measuring.progress(f"head: {network.folder.name}, {way}")
    output = network.folder / f"head_{way}"
    settings = ["faces.detector=none", f"features.weights={network.weights}", f"head.imbalance={way}", STRENGTH]
    words = ["train-head", "--kind", "logistic", *source.flags, "--cache", network.folder / "cache"]
    measuring.start("-m", "pipeline", *words, "--output", output, "--set", *settings, output=output).wait().done()
    about = json.loads((output / "head.json").read_text(encoding="utf-8"))
    return figures(about["metrics"], about["classes"])


def figures(metrics: dict[str, Any], classes: Sequence[str]) -> Measured:
    """Returns the figures of a head, from its `head.json`."""
    counts = np.asarray(metrics["confusion"], float)
    recall = np.diag(counts) / counts.sum(axis=1)
    by_class = dict(zip(classes, recall.tolist(), strict=True))
    return Measured(metrics["accuracy"], metrics["macro_f1"], float(recall.mean()), by_class)


def teacher(source: Source, place: Path, head: str) -> Path:
    """Returns the folder of a run of the bundled network over the images that are trained on."""
    measuring.progress(f"labelling: {head}")
    settings = ("faces.detector=none",)
    run: Ran = measuring.label(
        source.train, place / head.replace("/", "_"), "--head", head, settings=settings, cache=place / "teaching"
    )
    return run.output


# --- the two tables ---------------------------------------------------------------------------------------------------


def rare_classes(source: Source, place: Path) -> Trained:
    """Trains and shows each way with rare classes; returns the network that was trained as they occur."""
    networks = {way: trained(source, place / way, settings=[f"train.imbalance={way}"]) for way in WAYS}
    lines = []
    for way, network in networks.items():
        for other in dict.fromkeys(("natural", way)) if way != "natural" else WAYS:
            lines.append([way, f"{network.accuracy:.4f}", other, *cells(measured(source, network, other))])
    head = ["the network's training", "its own accuracy", "the head's", *HEAD]
    measuring.show("Rare classes: done to the network, to its head, or to both; FER2013 validation", head, lines)
    return networks["natural"]


HEAD = ["accuracy", "macro F1", "balanced accuracy", *(f"recall of {name}" for name in RARE)]


def cells(found: Measured) -> list[str]:
    """Returns the figures as they are shown."""
    numbers: Iterable[float] = (found.accuracy, found.macro_f1, found.balanced_accuracy)
    return [*(f"{value:.4f}" for value in numbers), *(f"{found.recall[name]:.3f}" for name in RARE)]


def teachers(source: Source, place: Path, plain: Trained) -> None:
    """Trains and shows what is learned beside the labels."""
    votes = f"ferplus={source.votes}"
    first, second = (f"{head}={teacher(source, place, f'bundled/{head}')}" for head in ("fer2013", "ferplus"))
    beside = {
        "FER+'s votes": (votes,),
        "the bundled network, `fer2013` head": (first,),
        "the bundled network, both heads, and the votes": (votes, first, f"voted{second.removeprefix('ferplus')}"),
    }
    networks = {"nothing": plain}
    for number, (what, given) in enumerate(beside.items()):
        networks[what] = trained(source, place / f"soft_{number}", "--soft-labels", *given)
    lines = [
        [what, f"{network.accuracy:.4f}", *cells(measured(source, network, "natural")), f"{network.cpu_s:.0f}"]
        for what, network in networks.items()
    ]
    head = ["learned beside the labels", "its own accuracy", *HEAD, "CPU s of training"]
    measuring.show("Votes and teachers; heads natural, FER2013 validation", head, lines)


def run(options: Namespace, place: Path) -> int:
    """Measures, prints, and returns the exit status."""
    source = sources(options, place)
    plain = rare_classes(source, place)
    teachers(source, place, plain)
    print(f"\n{measuring.machine()}")
    return 0


def main(words: Sequence[str]) -> int:
    options = measuring.parser(__doc__ or "").parse_args(words)
    with measuring.workplace(options) as place:
        return run(options, place)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
