"""`live`: labels the faces of a video, a camera or a folder of frames, and draws them.

Not here: the loop and its parts (`pipeline/live/`).
"""

from __future__ import annotations

import time
from contextlib import ExitStack

from models.runtimes.exported import cores
from pipeline.api.face_labeler import FaceLabeler
from pipeline.commands.command import Context
from pipeline.commands.live import LiveOptions
from pipeline.errors import Interrupted, StoppedError
from pipeline.live.loop import Account, Follower, Work, columns, run_live
from pipeline.live.outputs import Output, check_output, check_table, is_video, output_of, table_beside
from pipeline.live.overlap import frames_at_once
from pipeline.live.sources import Pictures, Source, source_of
from pipeline.live.stages import INTERVAL, LATENCY, Stages
from pipeline.live.window import Window, check_display
from pipeline.run.interrupt import interruptible
from pipeline.run.prepare import refuse_several
from transforms.formats.records import Limits
from transforms.formats.row_table import new_table
from transforms.storage import stopping

NAMED = 3  # labels and pictures in the closing words


def run(options: LiveOptions, context: Context) -> int:
    """Labels the frames, and says how many, how fast, and what is in them.

    Raises:
        UsageError: there are several heads, the source cannot be read, the output already exists, or a window cannot
            be shown.
        StoppedError: there is not a single frame.
        Interrupted: the user stopped before the source ended; the files hold all frames so far.
    """
    refuse_several(context.settings)  # a track's label is smoothed, which is done for one head
    table = _table(options)
    if options.show:
        check_display()
    limits = Limits(context.settings.read.max_image_bytes, context.settings.read.max_pixels)
    source = source_of(
        video=options.video,
        camera=options.camera,
        frames=options.frames,
        realtime=options.realtime,
        rate=options.frame_rate,
        limits=limits,
    )
    try:
        return _run(options, context, source, table)
    finally:
        source.close()


def _table(options: LiveOptions) -> str | None:
    """Returns the path of the table, after making sure that all outputs can be written; None for no table."""
    if options.output:
        check_output(options.output, overwrite=options.overwrite)
    table = options.faces or (table_beside(options.output) if options.output else None)
    if table and (options.faces or is_video(str(options.output))):  # in a folder of pictures it is one of its files
        check_table(table, overwrite=options.overwrite)
    return table


def _run(options: LiveOptions, context: Context, source: Source, table: str | None) -> int:
    at_once = frames_at_once(cores(), paced=source.paced)
    labeler = FaceLabeler(settings=context.settings, threads=max(1, cores() // at_once), at_once=at_once)
    stages = Stages()
    follower = Follower(context.settings.live, labeler.first_output)
    began = time.monotonic()
    with interruptible(lambda: "interrupted at once; nothing was written"), ExitStack() as entered:
        outputs: list[Output] = [Window()] if options.show else []
        if options.output:
            outputs.append(entered.enter_context(output_of(options.output, source.rate)))
        rows = entered.enter_context(new_table(table, columns(labeler.output))) if table else None
        account = run_live(source, Work(labeler, at_once), follower, outputs, rows, stages, most=options.max_frames)
        if not account.frames and not stopping.asked():
            raise StoppedError(f"{source.name} has no frame that can be used")
    if not context.quiet:
        times = _times(stages, context.settings.live.budget_ms, paced=source.paced)
        words = [*_summary(account, source, time.monotonic() - began), *times]
        written = ", ".join(path for path in (options.output, table) if path)
        print("\n".join([*words, *([written] if written else [])]))
    if stopping.asked() and not source.endless and not options.show:
        raise Interrupted(f"interrupted after {account.frames:,} frames, which the files hold")
    return 0


def _summary(account: Account, source: Source, seconds: float) -> list[str]:
    width, height = account.size
    rate = account.frames / max(seconds, 1e-9)
    lines = [
        f"{account.frames:,} frames of {source.name} ({width}×{height}) in {seconds:.1f} s, {rate:.1f} a second; "
        f"{source.dropped:,} dropped"
    ]
    labels = ", ".join(f"{label} {count:,}" for label, count in account.labels.most_common(NAMED))
    lines.append(f"{account.faces:,} faces in {account.tracks:,} tracks{f': {labels}' if labels else ''}")
    rejected = source.rejected if isinstance(source, Pictures) else []
    if rejected:
        more = ", …" if len(rejected) > NAMED else ""
        lines.append(f"{len(rejected):,} pictures cannot be used: {', '.join(rejected[:NAMED])}{more}")
    return lines


def _times(stages: Stages, budget_ms: float, *, paced: bool) -> list[str]:
    """Returns the lines of the table of times."""
    if not stages.frames:
        return []
    lines = [f"{'stage':<8}{'median ms':>10}{'95 % ms':>10}"]
    for name in stages.names():
        lines.append(f"{name:<8}{stages.percentile_ms(name, 0.5):>10.1f}{stages.percentile_ms(name, 0.95):>10.1f}")
    counted = LATENCY if paced else INTERVAL
    within, of = stages.within(counted, budget_ms), stages.counted(counted)
    return [*lines, f"{within:,} of {of:,} frames within the budget of {budget_ms:g} ms, by {counted}"]
