"""`evaluate`: how good labels are, on labelled images or on the output of a finished run; figures, plots and a page.

Labelled images go through the graph of `label` into a working folder, and what stands there is read as the output
of any other run is. Not here: which rows count (`evaluated_rows.py`), and what is written (`evaluation_files.py`).
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import apache_beam as beam

from models.heads.outputs import Head, HeadMismatch
from models.heads.registry import check
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
)
from pipeline.report.evaluation_files import Evaluated, Pictures, closing_words, write_evaluation
from pipeline.run import graph
from pipeline.run.finished_run import finished_run, results_of
from pipeline.run.foreign_files import refuse_foreign_work
from pipeline.run.held_out import digests_of
from pipeline.run.identity import Identity, identity_of
from pipeline.run.output_folder import OutputFolder
from pipeline.run.own_files import remove_own
from pipeline.run.plan import Layout, make_plan
from pipeline.run.prepare import chosen_head, make_job
from pipeline.run.running import heartbeat_folder, run_graph
from pipeline.run.soft_labels import read_source
from transforms.finish_run import MergeRequest
from transforms.formats.canonical import fingerprint_of
from transforms.formats.records import Limits
from transforms.formats.results import Results
from transforms.formats.soft_labels import SoftLabels
from transforms.storage.store import InputFault

ROWS_PER_FILE = 1_000_000  # of the tables in the working folder


@dataclass(frozen=True, slots=True)
class _Labelled:
    """What is judged.

    Attributes:
        results: a row an image.
        about: of the labels, for `metrics.json`: inputs, head, fingerprints.
        patterns: inputs to read pictures from again.
    """

    results: Results
    about: dict[str, Any]
    patterns: tuple[str, ...]


def run(options: EvaluateOptions, context: Context) -> int:
    """Writes metrics, plots, picture sheets and a page into the output folder."""
    _require_matplotlib()
    question = question_of(
        positive=options.positive, positive_labels=options.positive_labels, classes_map=options.classes_map
    )
    votes = read_source(options.soft_labels) if options.soft_labels else None
    if votes is not None:
        check_votes(question, votes.classes)
    output = os.path.abspath(options.output)
    if options.predictions:
        folder, record = finished_run(options.predictions, flag="--predictions")
        check_question(question, record["head"]["classes"])
        with _working_folder(output, keep=False):
            return _evaluate(options, context, question, votes, _of_run(folder, record, options.images))
    path, head = chosen_head(context.settings)
    identity = identity_of(context.settings, head)
    _check_head(head, identity)
    check_question(question, head.classes)
    with _working_folder(output, keep=True):
        return _evaluate(options, context, question, votes, _of_input(options, context, path, head, identity))


@contextmanager
def _working_folder(output: str, *, keep: bool) -> Iterator[None]:
    """Holds `output/work` for one evaluation and removes it in the end.

    Args:
        keep: True to leave it after an error, for the same command to go on from.
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


def _check_head(head: Head, identity: Identity) -> None:
    try:
        check(head, fingerprint_of(identity.feature_space), identity.feature_space)
    except HeadMismatch as error:
        raise UsageError(str(error)) from error


def _evaluate(
    options: EvaluateOptions, context: Context, question: Question, votes: SoftLabels | None, labelled: _Labelled
) -> int:
    output = os.path.abspath(options.output)
    work = os.path.join(output, "work")
    excluded: set[bytes] = set()
    if options.exclude:
        excluded = digests_of(options.exclude, os.path.join(work, "excluded"), context.settings)
    source = "--predictions" if options.predictions else "--input"
    results, truth = labelled.results, {}
    if votes is not None:
        source, question = "--soft-labels", replace(question, possible=votes.classes)
        results, told = labelled_by_votes(results, votes, question)
        truth = {"truth": {"soft_labels": options.soft_labels, **told}}
    rows = select(results, question, excluded, source=source)
    about = {
        **labelled.about,
        **truth,
        "excluded": list(options.exclude),
        "question": _question_told(question, rows),
        "face": "the largest labelled face of an image; the first of equally large ones",
        "counts": rows.counts,
    }
    evaluated = Evaluated(rows, about, options.seed or 0, exact_csv=options.exact_csv)
    try:
        written = write_evaluation(output, evaluated, _pictures(options, context, labelled, work), _limits(context))
    except InputFault as error:
        raise StoppedError(f"{error}; the sheets show pictures, so keep the images where they were") from error
    if not context.quiet:
        print(closing_words(written, output))
    return 0


def _question_told(question: Question, rows: Rows) -> dict[str, Any]:
    told: dict[str, Any] = {"classes": list(rows.classes)}
    if question.classes_map:
        told["classes_map"] = dict(question.classes_map)
    if question.positive:
        told |= {"positive": list(question.positive), "positive_labels": list(question.positive_labels)}
    return told


def _limits(context: Context) -> Limits:
    return Limits(context.settings.read.max_image_bytes, context.settings.read.max_pixels)


def _pictures(options: EvaluateOptions, context: Context, labelled: _Labelled, work: str) -> Pictures:
    """Returns where the pictures are. Figures do without those of a run, which may have been made elsewhere.

    Raises:
        UsageError: --images names what is not there.
        InputFault: what --images or --input names cannot be read.
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


def _of_run(folder: OutputFolder, record: dict[str, Any], images: tuple[str, ...]) -> _Labelled:
    head, inputs = record["head"], tuple(record.get("inputs", ()))
    about = {
        "source": "run",
        "inputs": list(inputs),
        "head": {"path": head.get("path"), "digest": head.get("digest"), "classes": head["classes"]},
        "cache_key": record.get("cache_key"),
        "run_fingerprint": record.get("run_fingerprint"),
    }
    return _Labelled(results_of(folder.path, head["classes"]), about, images or inputs)


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
    return _Labelled(results_of(folder.path, list(head.classes)), about, inputs)


def _label(
    options: EvaluateOptions, context: Context, folder: OutputFolder, path: str, head: Head, identity: Identity
) -> None:
    """Labels the input into a working folder, or as much of it as does not stand there from an interrupted time."""
    read = context.settings.read
    wanted = {**identity.parts, "purpose": "evaluate"}
    if folder.identity() not in (None, wanted):
        folder.clear()  # left by an evaluation of another head; the cache holds what was dear
    record = folder.record()
    job = make_job(
        context.settings,
        identity,
        output=folder.path,
        cache=options.cache or os.path.join(options.output, "cache"),
        head=path,
        all_labels=True,
    )
    layout = Layout(read.block_images, read.block_bytes)
    plan = make_plan(options.input, folder.plan, layout, job.limits, own=(folder.path, job.cache))
    if record is not None and record["inputs_digest"] == plan.inputs_digest and folder.is_whole(record):
        return
    folder.prepare(wanted)
    job = replace(job, heartbeat=heartbeat_folder(context.beam_options, folder.path))
    progress = folder.progress(plan)
    request = MergeRequest(
        output=folder.path,
        parts=job.parts,
        classes=tuple(head.classes),
        rejecting=bool(head.reject),
        exif=job.exif,
        run_fingerprint=job.run_fingerprint,
        rows_per_file=ROWS_PER_FILE,
        submission=None,
        sample_submission=None,
        max_rejected=None,
        expected_images=plan.images,
        streams=tuple(plan.streams()),
        started=time.time(),
        heartbeat=job.heartbeat,
        record={"inputs_digest": plan.inputs_digest},
    )

    def build(root: beam.Pipeline) -> Any:
        return graph.label(root, progress.missing, job, request)

    run_graph(
        build,
        context.beam_options,
        heartbeat=job.heartbeat,
        total=None if plan.streamed else plan.images,
        done=progress.images_done,
        quiet=context.quiet,
        verbose=context.verbose,
        go_on="what is finished is kept: the same command goes on",
    )
    if folder.record() is None:
        raise StoppedError(f"the runner ended, but {folder.record_file} was not written; the same command goes on")
    remove_own(folder.path, ("heartbeats",), ())
