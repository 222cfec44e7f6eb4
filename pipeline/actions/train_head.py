"""`train-head`: fills the feature cache with the same stages as `label`, and fits a classifier on the features.

Not here: what is learned (`run/gathering.py`, `run/answers.py`), the fits (`run/fitting.py`), and the table of all
kinds (`compare_heads.py`).
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from models.training.fit_head import Fitted
from models.training.folds import Deals
from pipeline.actions.head_training import FOLDS, head_training, work_of_head
from pipeline.commands.command import Context
from pipeline.commands.train_head import TrainHeadOptions
from pipeline.errors import UsageError
from pipeline.run.answers import read_shares
from pipeline.run.claim import claim
from pipeline.run.fitting import cross_validate, fit, save_head
from pipeline.run.gathering import gathered
from pipeline.run.output_folder import OutputFolder
from pipeline.run.trained_on import write_trained_on
from transforms.formats.canonical import fingerprint_of
from transforms.formats.publish import publish_bytes

CURVES = ("history.csv", "history.svg")


def run(options: TrainHeadOptions, context: Context) -> int:
    """Fits a head on the labelled input and writes it to the output folder."""
    if options.compare is not None:
        from pipeline.actions.compare_heads import compare

        return compare(options, context)
    if context.settings.head.kind == "number":
        from pipeline.actions.train_number import train_number

        return train_number(options, context)
    settings, output = context.settings, os.path.abspath(options.output)
    _check_tensorboard(options, context)
    if options.select_folds and settings.head.kind == "mlp":
        raise UsageError(
            "--select-folds is for the kinds logistic, ridge and number; drop it, or give another --kind than mlp"
        )
    training = head_training(options, context)
    shares = read_shares(training.wanted)
    with OutputFolder(output).locked():
        claim(output, work_of_head(options, context), overwrite=options.overwrite)
        with gathered(training.sources, training.wanted, shares) as data:
            asked = (data, settings.head, settings.mlp, training.fitting)
            folds = cross_validate(*asked, options.folds, options.repeats or 1) if options.folds else None
            fitted = fit(*asked)
            write_trained_on(output, data.train.digests)
        _publish_folds(folds, Path(output), context)
        _publish_curves(fitted, Path(output), tensorboard=options.tensorboard)
        space = data.identity.feature_space
        save_head(output, fitted, fingerprint_of(space), space)
    if not context.quiet:
        print(_words(fitted, folds, output))
    return 0


def _check_tensorboard(options: TrainHeadOptions, context: Context) -> None:
    from importlib.util import find_spec

    if not options.tensorboard:
        return
    if context.settings.head.kind != "mlp":
        raise UsageError("--tensorboard shows epochs, which only the kind mlp has; give --kind mlp or drop it")
    if find_spec("tensorboard") is None:
        raise UsageError("--tensorboard needs the package tensorboard: pip install tensorboard, or drop the flag")


def _publish_curves(fitted: Fitted, output: Path, *, tensorboard: bool) -> None:
    """Writes the curves of dense layers; removes those of an earlier head."""
    from models.training.checkpoint import write_history
    from models.training.curves import can_plot, history_plot, write_events

    for name in CURVES:
        (output / name).unlink(missing_ok=True)
    if not fitted.history:
        return
    history = [dict(row) for row in fitted.history]
    write_history(output / CURVES[0], history)
    if can_plot():
        publish_bytes(output / CURVES[1], history_plot(history))
    if tensorboard:
        write_events(history, output / "tensorboard")


def _publish_folds(folds: Deals | None, output: Path, context: Context) -> None:
    """Writes the results of cross-validation; removes those of an earlier head."""
    (output / FOLDS).unlink(missing_ok=True)
    if folds is not None:
        found = folds.summary(seed=context.settings.features.seed)
        publish_bytes(output / FOLDS, (json.dumps(found, indent=1, ensure_ascii=False) + "\n").encode())


def _words(fitted: Fitted, folds: Deals | None, output: str) -> str:
    metrics = fitted.metrics
    chosen = ", ".join(f"{name} {value:g}" for name, value in fitted.chosen.items())
    by_folds = fitted.split.get("kind") == "folds"
    held = f"by {fitted.split['folds']} folds" if by_folds else "held-out"
    reject = metrics.get("reject", {}).get("auc")
    return (
        f"{fitted.kind}, {chosen}: {held} accuracy {metrics['accuracy']:.4f}, macro F1 {metrics['macro_f1']:.4f}, "
        f"majority baseline {metrics['majority_baseline']:.4f}"
        + (f", AUC of the reject score {reject:.4f}" if reject is not None else "")
        + (f"\n{_folds_in_words(folds)}" if folds is not None else "")
        + f"\nhead: {output} (use it with --head {output})"
    )


def _folds_in_words(folds: Deals) -> str:
    found = folds.summary()
    if repeats := found.get("repeats"):
        accuracy, area = (
            f"{row['mean']:.4f} ({row['low']:.4f} to {row['high']:.4f})"
            for row in (repeats["accuracy"], repeats["auc_macro"])
        )
        count = len(repeats["deals"])
        return f"{len(found['folds'])} folds, dealt {count} times: accuracy {accuracy}, AUC {area}; see {FOLDS}"
    accuracy, area = found["all_rows"]["accuracy"], found["all_rows"]["auc_macro"]
    return (
        f"{len(found['folds'])} folds: accuracy {accuracy['value']:.4f} ({accuracy['low']:.4f} to "
        f"{accuracy['high']:.4f}, by fold {found['accuracy_mean']:.4f} ± {found['accuracy_sd']:.4f}), "
        f"AUC {area:.4f}; see {FOLDS}"
    )
