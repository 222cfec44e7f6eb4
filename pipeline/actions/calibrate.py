"""`calibrate`: fits one temperature on labelled images or on votes, and writes a copy of the head with it.

Accuracy and labels stay as they are: a temperature changes how sure the head is, not what it prefers. A temperature of
labels makes probabilities; one of votes makes the intensity.
Not here: the fit and what it brings (`models/training/calibration.py`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from models.heads.folder import HEAD_JSON, HEAD_NPZ, read_head_json
from models.heads.linear import LinearHead
from models.heads.mlp import MlpHead
from models.heads.output_spec import DECIMALS, most_likely
from models.heads.outputs import softmax
from models.heads.registry import StoredHead
from models.training.calibration import Calibration, calibrate
from models.training.groups import joined
from pipeline.commands.calibrate import CalibrateOptions
from pipeline.commands.command import Context
from pipeline.errors import StoppedError, UsageError
from pipeline.run.claim import Work, asked, claim
from pipeline.run.drive import execution_of
from pipeline.run.foreign_files import refuse_foreign_work
from pipeline.run.gathering import WORK, Sources, features_of
from pipeline.run.identity import Identity, identity_of
from pipeline.run.notes import note
from pipeline.run.output_folder import OutputFolder
from pipeline.run.prepare import check_heads, chosen_head
from pipeline.run.rename_classes import class_pairs
from pipeline.run.soft_labels import read_source, shares_of
from pipeline.run.trained_on import TRAINED_ON
from transforms.formats.canonical import fingerprint_of
from transforms.formats.publish import publish_bytes
from transforms.formats.soft_labels import SoftLabels
from transforms.training_rows import TrainingRows

FOUND = "calibration.json"
FILES = (HEAD_JSON, HEAD_NPZ, TRAINED_ON, FOUND)
FEWEST = 100  # images: with fewer, the interval of a calibration error is wider than most errors
FOLDS = 5
NOTABLE_GAP = 0.01  # of an intensity
OF_LABELS = {"ece": "calibration error", "nll": "negative log likelihood"}
OF_VOTES = {
    "ece": "gap between intensity and share of the votes",
    "nll": "cross-entropy of the shares",
    "correlation": "correlation of intensity and share",
}


@dataclass(frozen=True, slots=True)
class _Rows:
    """Logits (n, k) by the temperature of now, true classes (n,) or shares (n, k), and the images' digests."""

    logits: np.ndarray
    truth: np.ndarray
    digests: list[bytes]


def run(options: CalibrateOptions, context: Context) -> int:
    """Writes the head with its new temperature, and what that brings, to the output folder."""
    path, head = chosen_head(context.settings)
    if not isinstance(head, LinearHead | MlpHead):
        raise UsageError(f"calibrate needs a head of classes that train-head wrote; {path} is another kind")
    identity, output = identity_of(context.settings, None), os.path.abspath(options.output)
    check_heads(head, identity)
    renamed = class_pairs(options.rename_classes, "happiness=happy")
    votes = read_source(options.soft_labels) if options.soft_labels else None
    means = [] if votes is None else _meanings(votes, head, renamed)
    if os.path.realpath(path) == os.path.realpath(output):
        raise UsageError(f"--output {output} is the head itself; give another folder")
    with OutputFolder(output).locked():
        about = {"head": head.digest, "cache_key": fingerprint_of(identity.cache_key)}
        work = {"options": asked(options, besides=("head",)), **about}
        claim(output, Work(command="calibrate", files=FILES, identity=work), overwrite=options.overwrite)
        gathered = _gathered(options, context, identity, output)
        rows = _rows(gathered, head, renamed) if votes is None else _voted(gathered, head, votes, means)
        folds = options.folds or FOLDS
        found = calibrate(rows.logits, rows.truth, joined(rows.digests), folds=folds, seed=options.seed or 0)
        before = _temperature(head, votes)
        temperature = float(f"{before * found.factor:.6g}")
        name = "temperature" if votes is None else "intensity_temperature"
        record = "calibration" if votes is None else "intensity_calibration"
        if votes is not None:
            _tell_of_rounding(rows.logits * before, replace(head, intensity_temperature=temperature))
        summary = _summary(options, found, head, (before, temperature))
        _publish(Path(output), Path(path), {name: temperature, record: summary}, summary)
    if not context.quiet:
        print(_words(found, name, (before, temperature), output))
    return 0


def _temperature(head: StoredHead, votes: SoftLabels | None) -> float:
    """Returns what is fitted anew: the temperature of labels, or that of the intensity, which begins as the same."""
    return head.temperature if votes is None else head.intensity_temperature or head.temperature


def _gathered(options: CalibrateOptions, context: Context, identity: Identity, output: str) -> TrainingRows:
    """Returns features and labels of the largest face of each labelled image; with votes of every image."""
    work = os.path.join(output, WORK)
    refuse_foreign_work(work)
    sources = Sources(
        inputs=options.input,
        work=work,
        cache=options.cache or os.path.join(output, "cache"),
        settings=context.settings,
        execution=execution_of(context),
    )
    try:
        rows = features_of(sources, identity, "training", unlabelled=options.soft_labels is not None)
        return TrainingRows(rows.ids, rows.labels, rows.digests, np.array(rows.features))
    finally:
        Path(work, "training.npy").unlink(missing_ok=True)
        with suppress(OSError):  # a killed command leaves files, with which it resumes
            os.rmdir(work)


def _rows(found: TrainingRows, head: StoredHead, renamed: dict[str, str | None]) -> _Rows:
    """Returns the rows whose label is a class of the head.

    Raises:
        UsageError: a label is not, or the images are too few.
    """
    named = [renamed.get(label, label) for label in found.labels.tolist()]
    kept = [row for row, label in enumerate(named) if label is not None]
    place = {name: number for number, name in enumerate(head.classes)}
    if unknown := sorted({str(named[row]) for row in kept} - place.keys()):
        raise UsageError(
            f"--input has the label {unknown[0]}, which is not a class of the head ({', '.join(head.classes)}); "
            "--rename-classes OTHER=CLASS renames it, OTHER= excludes it"
        )
    y = np.asarray([place[str(named[row])] for row in kept], np.int64)
    return _of(found, np.asarray(kept, np.int64), head, y, _temperature(head, None))


def _meanings(votes: SoftLabels, head: StoredHead, renamed: dict[str, str | None]) -> list[str | None]:
    """Returns the class of the head that each class of the votes stands for; None is left out. Needs no image.

    Raises:
        UsageError: --rename-classes names no class of the votes, or the votes and the head have other classes.
    """
    if strange := [name for name in renamed if name not in votes.classes]:
        raise UsageError(
            f"--rename-classes {strange[0]}=: --soft-labels has no such class; known: {', '.join(votes.classes)}"
        )
    means = [renamed.get(name, name) for name in votes.classes]
    if unknown := [name for name in means if name is not None and name not in head.classes]:
        raise UsageError(
            f"--soft-labels has the class {unknown[0]}, which the head does not have ({', '.join(head.classes)}); "
            "--rename-classes OTHER=CLASS renames it, OTHER= excludes the images that it leads"
        )
    if missing := [name for name in head.classes if name not in means]:
        raise UsageError(
            f"--soft-labels has no votes for {missing[0]}, a class of the head; give votes for all of its classes"
        )
    return means


def _voted(found: TrainingRows, head: StoredHead, votes: SoftLabels, means: Sequence[str | None]) -> _Rows:
    """Returns the rows in whose votes a class of the head leads, with the shares of the votes."""
    shares = shares_of(votes, found.ids.tolist(), means, head.classes)
    kept = np.flatnonzero(shares.any(axis=1))
    if len(kept) < len(found):
        note(f"skipped, without votes or led by votes for no class of the head: {len(found) - len(kept):,} images")
    return _of(found, kept, head, shares[kept], _temperature(head, votes))


def _of(found: TrainingRows, kept: np.ndarray, head: StoredHead, truth: np.ndarray, temperature: float) -> _Rows:
    if len(kept) < FEWEST:
        what = "labelled images with" if truth.ndim == 1 else "images with votes and"
        raise StoppedError(f"calibrate needs at least {FEWEST} {what} a face, --input has {len(kept)}")
    logits = head.logits(found.features[kept])[:, : len(head.classes)] / temperature
    return _Rows(logits, truth, [found.digests[row].tobytes() for row in kept])


def _tell_of_rounding(logits: np.ndarray, head: StoredHead) -> None:
    """Says by how much the intensity in `predictions/`, made of rounded probabilities, differs from what was fitted."""
    probabilities = np.round(softmax(logits / head.temperature), DECIMALS)
    exact, shown = softmax(logits / head.intensity_temperature), head.output.shares(probabilities)
    label = most_likely(probabilities)[:, None]
    gap = float(np.abs(np.take_along_axis(shown - exact, label, axis=1)).max())
    if gap > NOTABLE_GAP:
        note(
            f"the intensity of a label differs by up to {gap:.2f} from what was fitted: it is computed from "
            f"probabilities with {DECIMALS} decimals, and this head's are too close to 0 and 1; "
            "calibrate it on labels first"
        )


def _summary(
    options: CalibrateOptions, found: Calibration, head: StoredHead, temperatures: tuple[float, float]
) -> dict[str, Any]:
    before, after = temperatures
    return {
        "inputs": list(options.input),
        **({"soft_labels": options.soft_labels} if options.soft_labels else {}),
        "head": head.digest,
        "temperature_before": before,
        "temperature": after,
        "temperature_by_fold": [float(f"{before * factor:.6g}") for factor in found.by_fold],
        **found.metrics,
    }


def _publish(output: Path, head: Path, fitted: dict[str, Any], summary: dict[str, Any]) -> None:
    """Writes the copy of the head with what was fitted; `head.json` last, as for a new head."""
    about = {**read_head_json(head / HEAD_JSON), **fitted}
    if (head / TRAINED_ON).is_file():
        publish_bytes(output / TRAINED_ON, (head / TRAINED_ON).read_bytes())
    publish_bytes(output / FOUND, (json.dumps(summary, indent=1, ensure_ascii=False) + "\n").encode())
    publish_bytes(output / HEAD_NPZ, (head / HEAD_NPZ).read_bytes())
    text = json.dumps(about, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    publish_bytes(output / HEAD_JSON, text.encode())


def _words(found: Calibration, name: str, temperatures: tuple[float, float], output: str) -> str:
    metrics, (before, after) = found.metrics, temperatures
    what = f"{name.replace('_', ' ')} {before:g} → {after:g}"
    lines = [f"{metrics['rows']:,} images, accuracy {metrics['accuracy']:.4f}; {what}"]
    for name, words in (OF_VOTES if "correlation" in metrics else OF_LABELS).items():
        values = (f"{v['value']:.4f} ({v['low']:.4f} to {v['high']:.4f})" for v in metrics[name].values())
        was, now, gap = values
        lines.append(f"{words}: {was} → {now} by cross-validation, difference {gap}")
    return "\n".join([*lines, f"head: {output} (use it with --head {output})"])
