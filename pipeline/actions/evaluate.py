"""`evaluate`: measures labels, on labelled images or on the output of a finished run; metrics, plots and a page.

Labelled images go through the graph of `label` into a working folder, which is read like the output of any other
run. Not here: which rows count (`evaluated_rows.py`), and what is written (`evaluation_files.py`).
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from models.heads.output_spec import ClassOutput, OutputSpec
from models.heads.outputs import Head
from pipeline.actions.evaluate_numbers import numbers_of_input, numbers_of_run, refuse_classes
from pipeline.commands.command import Context
from pipeline.commands.evaluate import EvaluateOptions
from pipeline.errors import StoppedError, UsageError
from pipeline.report.evaluated_rows import (
    Question,
    Rows,
    check_question,
    check_votes,
    labelled_by_votes,
    question_of,
    select,
    shares_by_votes,
)
from pipeline.report.evaluation_files import FILES, Evaluated, Pictures, closing_words, write_evaluation
from pipeline.run.claim import Work, asked, claim
from pipeline.run.drive import Ready, Task, drive, execution_of, label_stages, merge_request, recorded
from pipeline.run.finished_run import finished_run, results_of
from pipeline.run.foreign_files import refuse_foreign_work
from pipeline.run.heads_of_run import RunHead, head_called, refuse_numbers
from pipeline.run.held_out import digests_of
from pipeline.run.identity import Identity, identity_of
from pipeline.run.output_folder import OutputFolder
from pipeline.run.plan import Layout, make_plan
from pipeline.run.prepare import check_heads, chosen_head, make_job
from pipeline.run.soft_labels import read_source
from pipeline.run.trained_on import count_trained_on
from transforms.formats.canonical import fingerprint_of
from transforms.formats.records import Limits
from transforms.formats.results import Results
from transforms.formats.soft_labels import SoftLabels
from transforms.merge_request import MergeRequest
from transforms.storage.store import InputFault

ROWS_PER_FILE = 1_000_000  # of the tables in the working folder


@dataclass(frozen=True, slots=True)
class _Labelled:
    """What is evaluated.

    Attributes:
        results: one row per image.
        about: of the labels, for `metrics.json`: inputs, head, fingerprints.
        patterns: inputs to read pictures from again.
        head: folder of the head, which may no longer exist.
        output: what it says of a face.
    """

    results: Results
    about: dict[str, Any]
    patterns: tuple[str, ...]
    head: str
    output: OutputSpec


def run(options: EvaluateOptions, context: Context) -> int:
    """Writes metrics, plots, picture sheets and a page into the output folder."""
    _require_matplotlib()
    question = question_of(
        positive=options.positive, positive_labels=options.positive_labels, rename_classes=options.rename_classes
    )
    votes = read_source(options.soft_labels) if options.soft_labels else None
    if votes is not None:
        check_votes(question, votes.classes)
    output = os.path.abspath(options.output)
    if options.predictions:
        folder, record = finished_run(options.predictions, flag="--predictions")
        chosen = head_called(record, options.head)
        if chosen.number:
            return numbers_of_run(options, context, folder, record, chosen)
        refuse_numbers(chosen, "evaluate")
        check_question(question, chosen.classes)
        about = {"run_fingerprint": record.get("run_fingerprint"), **({"head": chosen.name} if chosen.name else {})}
        with _working_folder(output, keep=False):
            claim(output, _work(options, about), overwrite=options.overwrite)
            return _evaluate(options, context, question, votes, _of_run(folder, record, chosen, options.images))
    path, head = chosen_head(context.settings)
    identity = identity_of(context.settings, head)
    check_heads(head, identity)
    if head.output.kind == "classes":
        check_question(question, head.classes)
    else:
        refuse_classes(options)
    about = {"head": head.digest, "cache_key": fingerprint_of(identity.cache_key)}
    with _working_folder(output, keep=True):
        claim(output, _work(options, about), overwrite=options.overwrite)
        if head.output.kind == "number":
            return numbers_of_input(options, context, (path, head), partial(_label, options, context), identity)
        return _evaluate(options, context, question, votes, _of_input(options, context, path, head, identity))


def _work(options: EvaluateOptions, about: dict[str, Any]) -> Work:
    identity = {"options": asked(options, besides=("head", "images", "exact_csv")), **about}
    return Work(command="evaluate", files=FILES, identity=identity)


@contextmanager
def _working_folder(output: str, *, keep: bool) -> Iterator[None]:
    """Provides `output/work` for one evaluation and removes it at the end.

    Args:
        keep: True to keep it after an error, so that the same command can resume.
    """
    folder = OutputFolder(os.path.join(output, "work"))
    refuse_foreign_work(folder.path)
    with folder.locked():
        try:
            yield
        except BaseException:
            if not keep:
                shutil.rmtree(folder.path, ignore_errors=True)
            raise
        shutil.rmtree(folder.path, ignore_errors=True)


def _require_matplotlib() -> None:
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError(
            "evaluate draws with matplotlib, which is not installed: pip install 'facelabel-pipeline[evaluate]'"
        )


def _evaluate(
    options: EvaluateOptions, context: Context, question: Question, votes: SoftLabels | None, labelled: _Labelled
) -> int:
    output = os.path.abspath(options.output)
    work = os.path.join(output, "work")
    excluded: set[bytes] = set()
    if options.exclude_copies_of:
        excluded = digests_of(options.exclude_copies_of, os.path.join(work, "excluded"), context.settings)
    source = "--predictions" if options.predictions else "--input"
    results, truth = labelled.results, {}
    if votes is not None:
        source, question = "--soft-labels", replace(question, possible=votes.classes)
        results, details = labelled_by_votes(results, votes, question)
        truth = {"truth": {"soft_labels": options.soft_labels, **details}}
    output_spec = labelled.output if isinstance(labelled.output, ClassOutput) else None
    rows = select(results, question, excluded, source=source, output=output_spec)
    if seen := count_trained_on(labelled.head, labelled.about["head"]["digest"], rows.digests.to_pylist()):
        rows = replace(rows, counts={**rows.counts, "trained_on": seen})
    about = {
        **labelled.about,
        **truth,
        "excluded": list(options.exclude_copies_of),
        "question": _question_told(question, rows),
        "face": "the largest labelled face of an image; ties go to the first",
        "counts": rows.counts,
    }
    shares = None if votes is None else shares_by_votes(rows, votes, question)
    evaluated = Evaluated(rows, about, options.seed or 0, shares, exact_csv=options.exact_csv)
    try:
        written = write_evaluation(output, evaluated, _pictures(options, context, labelled, work), _limits(context))
    except InputFault as error:
        raise StoppedError(f"{error}; the contact sheets need the images, so keep them in place") from error
    if not context.quiet:
        print(closing_words(written, output))
    return 0


def _question_told(question: Question, rows: Rows) -> dict[str, Any]:
    details: dict[str, Any] = {"classes": list(rows.classes)}
    if question.rename_classes:
        details["rename_classes"] = dict(question.rename_classes)
    if question.positive:
        details |= {"positive": list(question.positive), "positive_labels": list(question.positive_labels)}
    return details


def _limits(context: Context) -> Limits:
    return Limits(context.settings.read.max_image_bytes, context.settings.read.max_pixels)


def _pictures(options: EvaluateOptions, context: Context, labelled: _Labelled, work: str) -> Pictures:
    """Returns where the pictures are. A run's pictures are optional, as it may have been made elsewhere.

    Raises:
        UsageError: --images finds nothing.
        InputFault: --images or --input cannot be read.
    """
    needed = bool(options.images) or not options.predictions
    read = context.settings.read
    layout = Layout(read.block_images, read.block_bytes)
    try:
        folder = os.path.join(work, "pictures")
        plan = make_plan(labelled.patterns, folder, layout, _limits(context), flag="--images")
    except (UsageError, InputFault) as error:
        if needed:
            raise
        return Pictures(None, needed, str(error) if isinstance(error, InputFault) else "")
    return Pictures((line for _, line in plan.lines()), needed)


# --- of a finished run ------------------------------------------------------------------------------------------------


def _of_run(folder: OutputFolder, record: dict[str, Any], head: RunHead, images: tuple[str, ...]) -> _Labelled:
    inputs = tuple(record.get("inputs", ()))
    name = {"name": head.name} if head.name else {}
    about = {
        "source": "run",
        "inputs": list(inputs),
        "head": {"path": head.path or None, "digest": head.digest or None, "classes": list(head.classes), **name},
        "cache_key": record.get("cache_key"),
        "run_fingerprint": record.get("run_fingerprint"),
    }
    return _Labelled(
        results_of(folder.path, head.classes, head.prefix), about, images or inputs, head.path, head.output
    )


# --- of labelled images -----------------------------------------------------------------------------------------------


def _of_input(options: EvaluateOptions, context: Context, path: str, head: Head, identity: Identity) -> _Labelled:
    inputs = options.input
    folder = OutputFolder(os.path.join(options.output, "work", "run"))
    with folder.locked():
        _label(options, context, folder, path, head, identity)
    about = {
        "source": "input",
        "inputs": list(inputs),
        "head": {"path": context.settings.head.path, "digest": head.digest, "classes": list(head.classes)},
        "cache_key": fingerprint_of(identity.cache_key),
    }
    return _Labelled(results_of(folder.path, list(head.classes)), about, inputs, path, head.output)


def _label(
    options: EvaluateOptions, context: Context, folder: OutputFolder, path: str, head: Head, identity: Identity
) -> None:
    """Labels the input into a working folder; resumes an interrupted evaluation."""
    job = make_job(
        context.settings,
        identity,
        output=folder.path,
        cache=options.cache or os.path.join(options.output, "cache"),
        head=(path, head),
        all_labels=True,
    )
    task = Task(
        folder=folder,
        identity={**identity.parts, "purpose": "evaluate"},
        inputs=options.input,
        job=job,
        replaces=True,
    )
    started = time.time()

    def request(ready: Ready) -> MergeRequest:
        record = {"inputs_digest": ready.plan.inputs_digest}
        return merge_request(ready, head, started=started, rows_per_file=ROWS_PER_FILE, record=record)

    recorded(drive(task, label_stages(request), execution_of(context)), folder)
