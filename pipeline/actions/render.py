"""`render`: writes photos of a finished run with boxes and labels, contact sheets and face crops.

Not here: how they look (`pipeline/report/render/`).
"""

from __future__ import annotations

import csv
import difflib
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.commands.command import Context
from pipeline.commands.render import USUAL_PHOTOS, RenderOptions
from pipeline.errors import StoppedError, UsageError
from pipeline.report.render.chosen import Choice, Chosen, choose
from pipeline.report.render.drawn_photo import Look
from pipeline.report.render.folder import clear, own_pictures
from pipeline.report.render.rendering import NothingRead, Rendered, Source, Wish, render
from pipeline.run.finished_run import finished_run
from pipeline.run.heads_of_run import RunHead, class_head_called
from pipeline.run.inputs_again import GONE, inputs_again
from pipeline.run.output_folder import OutputFolder
from pipeline.run.own_files import refuse_among_results
from pipeline.run.progress import counting_bar
from transforms.formats.spreadsheets import uncelled

ID_COLUMN = "image_id"
NAMED = 3  # ids quoted in a message


def run(options: RenderOptions, context: Context) -> int:
    """Writes the pictures and prints how many.

    Raises:
        UsageError: there is no finished run, the folder belongs to another command, or the run lacks the head, the
            label or the ids.
        StoppedError: no photo matches, or none could be read again.
    """
    folder, record = finished_run(options.run, flag="render")
    head = class_head_called(record, options.head, "render")
    refuse_among_results(options.output, folder.path)
    own_pictures(options.output)
    chosen = _chosen(options, folder.path, record, head)
    wish = _wish(options, record)
    with OutputFolder(options.output).locked():
        written = rendered(
            folder.path, record, options.output, wish, chosen, head, images=options.images, quiet=context.quiet
        )
    if not context.quiet:
        print(_closing_words(options, written, chosen))
    return 0


def rendered(
    folder: str,
    record: dict[str, Any],
    output: str,
    wish: Wish,
    chosen: Chosen,
    head: RunHead,
    *,
    images: tuple[str, ...] = (),
    quiet: bool,
) -> Rendered:
    """Writes pictures of a run into an existing folder, and removes those of an earlier rendering.

    Raises:
        UsageError: the folder contains other files, or `images` finds nothing.
        StoppedError: none of the photos could be read again; the earlier pictures are kept.
    """
    earlier = own_pictures(output)
    with tempfile.TemporaryDirectory(prefix="render-") as scratch:
        plan = inputs_again(folder, record, images, scratch)
        source = Source(folder, head.classes, plan.lines, plan.limits, head.prefix)
        try:
            with counting_bar(len(chosen.rows), "photos", quiet=quiet) as done:
                written = render(source, output, wish, chosen, done=done, earlier=earlier)
        except NothingRead as error:
            why = plan.fault or str(error) or GONE
            raise StoppedError(
                f"none of {counted(len(chosen.rows), 'photo')} could be read again ({why}), so nothing was written; "
                "give --images with their new place"
            ) from error
    clear(earlier, output)
    return written


def _wish(options: RenderOptions, record: dict[str, Any]) -> Wish:
    own = float(record.get("settings", {}).get("faces", {}).get("margin", 0.0))
    return Wish(
        crops=options.crops,
        sheets=options.sheets,
        margin=own + (options.margin or 0.0),
        png=options.format == "png",
        look=Look(longest=options.size) if options.size else Look(),
        exact=options.exact_csv,
    )


def _chosen(options: RenderOptions, folder: str, record: dict[str, Any], head: RunHead) -> Chosen:
    labels = _labels(options.label, head.classes)
    ids = _ids(options.ids) if options.ids else None
    most = None if ids is not None else options.sample or USUAL_PHOTOS
    chosen = choose(folder, Choice(most, labels, ids), seed_of_run(record), prefix=head.prefix)
    if len(chosen.rows):
        return chosen
    if ids is not None and len(chosen.unknown) == len(ids):
        raise UsageError(f"--ids {options.ids}: none of its {len(ids):,} ids, such as {_some(chosen)}, is in the run")
    kind = f"a face labelled {' or '.join(options.label)}" if labels else "pixels"
    raise StoppedError(f"no photo of {options.run} has {kind}, so there is nothing to render")


def seed_of_run(record: dict[str, Any]) -> str:
    """Returns the seed of the sample: the same run shows the same photos."""
    return str(record.get("run_fingerprint", ""))


def _labels(names: Sequence[str], classes: Sequence[str]) -> tuple[int, ...]:
    for name in names:
        if name not in classes:
            near = difflib.get_close_matches(name, classes, n=1)
            known = f"nearest is {near[0]}" if near else f"known are {', '.join(classes)}"
            raise UsageError(f"--label {name} is not a label of this run; {known}")
    return tuple(classes.index(name) for name in names)


def _ids(path: str) -> frozenset[str]:
    """Returns the ids in a file: the column `image_id` of a CSV, or one id per line."""
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"--ids {path}: {error.strerror}; give a readable file") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"--ids {path} is not UTF-8 text; give one id per line, or a CSV") from error
    ids = _column(text, path) or frozenset(line.removesuffix("\r") for line in text.split("\n") if line.strip())
    if not ids:
        raise UsageError(f"--ids {path} contains no ids; give one id per line, or a CSV with a column {ID_COLUMN}")
    return ids


def _column(text: str, path: str) -> frozenset[str]:
    """Returns the ids in the column `image_id` of a CSV; none if the text is not a CSV with that column."""
    first_line = text.partition("\n")[0]
    if ID_COLUMN not in first_line:
        return frozenset()
    rows = csv.reader(io.StringIO(text, newline=""))
    try:
        head = next(rows)
        at = head.index(ID_COLUMN)
        return frozenset(uncelled(row[at]) for row in rows if len(row) > at and row[at])
    except ValueError:  # an image with that name
        return frozenset()
    except csv.Error as error:
        raise UsageError(f"--ids {path}, line {rows.line_num} is not CSV: {error}; give one id per line") from error


def _closing_words(options: RenderOptions, written: Rendered, chosen: Chosen) -> str:
    more = [counted(written.crops, "face")] if options.crops else []
    more += [counted(written.sheets, "contact sheet")] if options.sheets else []
    of = f" of {chosen.of:,} that match" if chosen.of > len(chosen.rows) else ""
    lines = [f"{counted(written.photos, 'photo')}{of}{''.join(f', {part}' for part in more)} in {options.output}"]
    if written.missing:
        why = f" ({written.fault})" if written.fault else ""
        lines.append(
            f"{counted(written.missing, 'photo')} could not be read again{why}; give --images with their new place"
        )
    if chosen.without_pixels:
        lines.append(f"without a picture: {chosen.without_pixels:,} of --ids, which were rejected or repeat an id")
    if chosen.unknown:
        lines.append(f"not in the run: {len(chosen.unknown):,} of --ids, such as {_some(chosen)}")
    return "\n".join(lines)


def counted(number: int, noun: str) -> str:
    """Returns a number and its noun: `1 photo`, `2,000 photos`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _some(chosen: Chosen) -> str:
    return ", ".join(repr(name[:80]) for name in chosen.unknown[:NAMED])
