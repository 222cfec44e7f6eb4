"""`evaluate` of a head that gives a number: R², mean error and a picture. Called by `evaluate.py`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from models.heads.outputs import Head
from pipeline.commands.command import Context
from pipeline.commands.evaluate import EvaluateOptions
from pipeline.errors import UsageError
from pipeline.report.number_evaluation import METRICS, PLOT, words_of, write_number_evaluation
from pipeline.run.claim import Work, asked, claim
from pipeline.run.heads_of_run import RunHead
from pipeline.run.identity import Identity
from pipeline.run.output_folder import OutputFolder
from transforms.formats.results import Numbers, ResultsError, read_numbers

FILES = (METRICS, PLOT)
Label = Callable[[OutputFolder, str, Head, Identity], None]


def refuse_classes(options: EvaluateOptions) -> None:
    """Raises UsageError if a flag about classes was given."""
    about_classes: dict[str, Any] = {
        "soft-labels": options.soft_labels,
        "rename-classes": options.rename_classes,
        "positive": options.positive,
        "exclude-copies-of": options.exclude_copies_of,
    }
    if given := [flag for flag, value in about_classes.items() if value]:
        raise UsageError(f"--{given[0]} is for heads of classes, but this head gives a number; drop it")


def numbers_of_run(
    options: EvaluateOptions, context: Context, folder: OutputFolder, record: dict[str, Any], head: RunHead
) -> int:
    """Evaluates a head of a finished run."""
    refuse_classes(options)
    output = os.path.abspath(options.output)
    about: dict[str, Any] = {"source": "run", "head": {"path": head.path, "digest": head.digest, "number": head.number}}
    about |= {"run_fingerprint": record.get("run_fingerprint"), "inputs": list(record.get("inputs", ()))}
    with OutputFolder(output).locked():
        identity = {"options": asked(options, besides=("images", "exact_csv")), **about}
        claim(output, Work(command="evaluate", files=FILES, identity=identity), overwrite=options.overwrite)
        return _written(options, context, _numbers(folder.path, head.number, head.prefix), about)


def numbers_of_input(
    options: EvaluateOptions, context: Context, given: tuple[str, Head], label: Label, identity: Identity
) -> int:
    """Labels the input into the working folder and evaluates it; the caller holds the output folder."""
    path, head = given
    folder = OutputFolder(os.path.join(options.output, "work", "run"))
    with folder.locked():
        label(folder, path, head, identity)
    name = head.output.label
    about = {"source": "input", "head": {"path": path, "digest": head.digest, "number": name}}
    return _written(options, context, _numbers(folder.path, name, ""), {**about, "inputs": list(options.input)})


def _numbers(folder: str, name: str, prefix: str) -> Numbers:
    try:
        return read_numbers(folder, name, prefix)
    except ResultsError as error:
        raise UsageError(str(error)) from error


def _written(options: EvaluateOptions, context: Context, found: Numbers, about: dict[str, Any]) -> int:
    output = os.path.abspath(options.output)
    metrics = write_number_evaluation(output, found, about, options.seed or 0)
    if not context.quiet:
        print(f"{found.name}: {words_of(metrics)}")
        print("written: " + ", ".join(os.path.join(output, name) for name in FILES))
    return 0
