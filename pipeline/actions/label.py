"""`label`: labels every face, accounts for every image and writes a submission file."""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import metadata
from typing import Any

from models.heads.outputs import Head
from models.heads.side_by_side import members_of
from pipeline.actions.render import counted, rendered, seed_of_run
from pipeline.commands.command import Context
from pipeline.commands.label import LabelOptions
from pipeline.errors import StoppedError, UsageError
from pipeline.report.near_misses import Searching
from pipeline.report.render.chosen import Choice, choose
from pipeline.report.render.rendering import Wish
from pipeline.report.run_report import RunReport
from pipeline.run import dry_run
from pipeline.run.claim import LABEL, refuse_other_command
from pipeline.run.dataflow import template_of, with_what_follows
from pipeline.run.drive import Ready, Task, drive, execution_of, label_stages, merge_request, recorded
from pipeline.run.failures import in_one_line
from pipeline.run.foreign_files import refuse_foreign
from pipeline.run.heads_of_run import head_called, record_of
from pipeline.run.identity import Identity, identity_of
from pipeline.run.input_files import find_inputs
from pipeline.run.output_folder import OutputFolder
from pipeline.run.output_store import OutputStore, output_of
from pipeline.run.own_files import PICTURES, remove_own, without_own
from pipeline.run.plan import Layout, Plan, stored_layout
from pipeline.run.prepare import check_heads, chosen_heads, local_cache, make_job
from pipeline.run.runners import empty_pipeline, options_of, refuse_out_of_reach
from pipeline.run.summary import closing_words
from transforms.formats.canonical import fingerprint_of
from transforms.formats.class_names import class_name
from transforms.formats.submission.rules import SubmissionError, SubmissionRules, check_ids
from transforms.formats.submission.sample import match_sample, read_sample, refuse_stranger
from transforms.job import Job
from transforms.merge_request import MergeRequest
from transforms.storage.paths import is_local
from transforms.storage.store import InputFault, open_file

NEEDED = {"identity", "inputs_digest", "parts", "resume"}  # fields that a usable run.json has
VERSIONED = (
    *("apache-beam", "keras", "tensorflow", "tensorflow-cpu", "jax", "onnxruntime", "openvino"),
    *("h5py", "pyarrow", "numpy", "opencv-python", "opencv-python-headless"),
)


@dataclass(frozen=True, slots=True)
class _Run:
    """Shared by the steps below."""

    options: LabelOptions
    context: Context
    folder: OutputFolder
    cache: str
    head_path: str
    head: Head
    identity: Identity
    started: float

    def say(self, text: str) -> None:
        """Prints the closing summary, unless --quiet is given."""
        if not self.context.quiet:
            print(text, flush=True)


def run(options: LabelOptions, context: Context) -> int:
    """Runs the job, or resumes it; returns the exit status."""
    started = time.time()
    if options.render and not is_local(options.output):
        raise UsageError(f"--render needs a local --output, not {options.output}; drop --render or give a local folder")
    refuse_out_of_reach(options_of(context.beam_options), _paths_of_workers(options))
    context = replace(context, beam_options=with_what_follows(context.beam_options, options.output))
    head_path, head = chosen_heads(context.settings)
    if options.render and not any(output.classes for _, output in members_of(head.output)):
        raise UsageError("--render draws labels of classes, but no head chooses among classes; drop --render")
    identity = _with_sample(identity_of(context.settings, head), options.sample_submission)
    _check_head(head, identity, context)
    folder = output_of(options.output)
    cache = local_cache(options.cache or f"{folder.place.rstrip('/')}/cache")
    this = _Run(options, context, folder, cache, head_path, head, identity, started)
    if options.dry_run:
        _refuse_another(this)
        try:
            return dry_run.show(options.input, folder, context.settings, _job(this), partial(_check_ids, this))
        except Exception as error:
            ended = in_one_line(error, "nothing was written")
            if ended is error:
                raise
            raise ended from error
    with folder.locked():
        return _label(this)


def _paths_of_workers(options: LabelOptions) -> dict[str, str | None]:
    """Returns the paths that workers open, by the flag that gave each; None if not set."""
    return {
        "--output": options.output,
        "--cache": options.cache,
        "--input": next((path for path in options.input if is_local(path)), None),
    }


def _with_sample(identity: Identity, path: str | None) -> Identity:
    """Returns the identity of a run with a sample submission: another sample makes another run."""
    if path is None:
        return identity
    try:
        with open_file(path) as file:
            digest = hashlib.sha256(file.read()).hexdigest()
    except InputFault as error:
        raise UsageError(f"--sample-submission: {error}") from error
    return replace(identity, run={**identity.run, "sample_submission": digest})


def _check_head(head: Head, identity: Identity, context: Context) -> None:
    check_heads(head, identity)
    label = class_name(context.settings.write.no_face_label)
    if label is not None and label not in head.classes:
        _check_number(label, head)


def _check_number(label: str, head: Head) -> None:
    """Raises UsageError unless a label that is not one of the classes is a number that the head may give."""
    if head.classes:
        raise UsageError(f"write.no_face_label={label} is not one of the head's classes: {', '.join(head.classes)}")
    try:
        head.output.label_of(label)
    except ValueError as error:
        raise UsageError(f"write.no_face_label={label} {error}") from error


def _refuse_another(this: _Run) -> dict[str, Any] | None:
    """Returns `run.json` if the run is already finished; changes nothing.

    Raises:
        UsageError: the folder contains other files or cannot be written; or Beam's options are wrong.
    """
    folder, overwrite = this.folder, this.options.overwrite
    empty_pipeline(options_of(this.context.beam_options))  # a typing error must not cost finished results
    _refuse_foreign(folder)
    if overwrite:
        without_own(find_inputs(this.options.input), folder.place, this.cache)
        return None
    if this.options.dry_run and isinstance(folder, OutputStore):
        return None  # the run there is identified under the lease, which a dry run does not take
    folder.refuse_damaged()
    record = folder.record()
    if record is not None and not record.keys() >= NEEDED:
        raise UsageError(f"--output {folder.place}: its run.json was not written by label; give another folder")
    folder.refuse_another(record and record["identity"], this.identity.run)
    folder.refuse_another(folder.identity(), this.identity.parts)
    return record


def _label(this: _Run) -> int:
    folder, options = this.folder, this.options
    record = _refuse_another(this)
    if options.overwrite:
        folder.clear()
    read = this.context.settings.read
    standing = stored_layout(folder.plan) if folder.identity() else None
    layout = standing or Layout(read.block_images, read.block_bytes)
    if standing is None and record is not None and "layout" in record:
        layout = Layout(**record["layout"])  # with the block size of the finished run: it changes no result
    task = Task(
        folder=folder,
        identity=this.identity.parts,
        inputs=options.input,
        job=_job(this, layout),
        go_on=f"run the same command to resume; progress is saved in {folder.place}",
    )
    stages = label_stages(partial(_request, this))
    driven = drive(task, stages, execution_of(this.context), check=partial(_check_ids, this))
    if driven.record is None and (template := template_of(this.context.beam_options)):
        this.say(f"template: {template}; the job that it starts writes {folder.place}")
        return 0
    record = recorded(driven, folder)
    return _finished(this, record, "already finished; nothing has changed since\n" if driven.before else "")


def _job(this: _Run, layout: Layout | None = None) -> Job:
    return make_job(
        this.context.settings,
        this.identity,
        output=this.folder.place,
        cache=this.cache,
        head=(this.head_path, this.head),
        layout=None if layout is None else (layout.block_images, layout.block_bytes),
    )


def _rules(this: _Run) -> SubmissionRules:
    """Returns the format of submission.csv."""
    write = this.context.settings.write
    return SubmissionRules(
        id_column=write.id_column,
        label_column=write.label_column,
        values=write.label_values,
        drop_folder=write.drop_folder,
        drop_extension=write.drop_extension,
        face_policy=write.face_policy,
        no_face_label=class_name(write.no_face_label),
    )


def _check_ids(this: _Run, plan: Plan) -> None:
    """Checks the ids that are already known against the submission.

    Raises:
        UsageError: two images would get the same id, or the sample is missing, damaged or of other images.
    """
    rules, path = _rules(this), this.options.sample_submission
    try:
        if path is None:
            check_ids(plan.ids, rules)
            return
        with open_file(path) as file:
            report = match_sample(read_sample(file, classes=this.head.classes, rules=rules, name=path), plan.ids)
        if report.unexpected == plan.images and not plan.streamed:  # otherwise some ids are known only later
            refuse_stranger(report)
    except (SubmissionError, InputFault) as error:
        raise UsageError(str(error)) from error


def _request(this: _Run, ready: Ready) -> MergeRequest:
    write = this.context.settings.write
    return merge_request(
        ready,
        this.head,
        started=this.started,
        rows_per_file=write.rows_per_file,
        submission=_rules(this),
        sample_submission=this.options.sample_submission,
        max_rejected=this.options.max_rejected,
        record=_record(this, ready),
        report=_report(this, ready) if write.report and _has_classes(this.head) else None,
    )


def _has_classes(head: Head) -> bool:
    """True if a head chooses among classes, so that there is a page to write."""
    return any(output.classes for _, output in members_of(head.output))


def _report(this: _Run, ready: Ready) -> RunReport:
    job = ready.job
    searching = Searching(job.detecting.detector, job.detecting.cropping.channels, job.detecting.cropping.smallest_side)
    return RunReport(this.folder.place, this.folder.blocks_file, job.reading.limits, searching=searching)


def _finished(this: _Run, record: dict[str, Any], first_words: str = "") -> int:
    """Cleans up after a finished run, prints the summary, and renders photos if asked to."""
    _tidy(this)
    this.say(first_words + closing_words(record, this.folder.place))
    if this.options.render:
        this.say(_render(this, record, this.options.render))
    return 0


def _render(this: _Run, record: dict[str, Any], photos: int) -> str:
    """Renders a sample of photos and returns a line about it; a failure here does not affect the results."""
    output = os.path.join(this.folder.path, PICTURES)
    head = head_called(record, None)
    chosen = choose(this.folder.path, Choice(most=photos), seed_of_run(record), prefix=head.prefix)
    if not len(chosen.rows):
        return "no photo could be decoded, so none was rendered"
    os.makedirs(output, exist_ok=True)
    try:
        written = rendered(this.folder.path, record, output, Wish(sheets=True), chosen, head, quiet=this.context.quiet)
    except StoppedError as error:
        return f"no pictures were rendered: {error}"
    return f"rendered: {counted(written.photos, 'photo')} and {counted(written.sheets, 'contact sheet')} in {output}"


def _refuse_foreign(folder: OutputFolder) -> None:
    if isinstance(folder, OutputStore):
        folder.refuse_foreign()
        return
    folder.refuse_unwritable()
    refuse_other_command(folder.path, LABEL)
    refuse_foreign(folder.path)


def _tidy(this: _Run) -> None:
    """Removes the working files of a finished run, unless write.keep_parts is set and there are parts to keep."""
    with suppress(OSError):  # the results are complete; the next run cleans up again
        remove_own(this.folder.path, ("heartbeats",), ())
    if not (this.context.settings.write.keep_parts and _has_parts(this.folder)):
        this.folder.tidy()


def _has_parts(folder: OutputFolder) -> bool:
    return isinstance(folder, OutputStore) or os.path.isdir(folder.parts)


def _record(this: _Run, ready: Ready) -> dict[str, Any]:
    """Returns the fields of `run.json` that are known before the run."""
    plan, progress, features = ready.plan, ready.progress, ready.job.features
    return {
        "inputs": list(this.options.input),
        "inputs_digest": plan.inputs_digest,
        "layout": asdict(plan.layout),
        "settings": this.context.settings.model_dump(mode="json", exclude={"beam"}),  # flags may hold keys
        "identity": this.identity.run,
        "feature_space": fingerprint_of(this.identity.feature_space),
        "cache_key": fingerprint_of(this.identity.cache_key),
        "run_fingerprint": fingerprint_of(this.identity.run),
        **record_of(this.head_path, this.head),
        "weights": {"backbone": features.backbone, "digest": this.identity.feature_space["weights"]},
        "runtime": features.runtime,
        "versions": _versions(),
        "cache_folder": this.cache,
        "shards": plan.shards,
        "skipped_files": {"count": plan.skipped, "names": plan.skipped_names},
        "resume": {"blocks_reused": progress.reused, "blocks_redone": progress.redone},
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
