"""What `evaluate` writes: metrics, plots, sheets, a list of suspected labels, and the page last.

Files are bytes of the input and the seed alone; each is published whole. Without `evaluation.html` the folder is
unfinished. Not here: how a figure is computed (`models/evaluation/`) or drawn (`plots.py`, `sheets.py`).
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from models.detectors.cropping import reduced
from models.evaluation.degree import degree
from models.evaluation.label_errors import LabelErrors, find_label_errors
from models.evaluation.metrics import Evaluation, evaluate, of_true
from models.heads.output_spec import most_likely
from pipeline.errors import UsageError
from pipeline.report.decimals import minus
from pipeline.report.evaluated_rows import Rows
from pipeline.report.page import SUSPECTS_LISTED, PageContent, Single, Suspect, page
from pipeline.report.plots import all_plots
from pipeline.report.sheets import TILE_PX, TILES, Tile, sheet_png
from transforms.formats.encode import as_webp
from transforms.formats.publish import publish
from transforms.formats.records import Limits
from transforms.formats.spreadsheets import cell
from transforms.read_again import face_tile, read_pictures
from transforms.storage.store import InputFault

PAGE = "evaluation.html"
SHEETS = ("mistakes.png", "hardest.png", "label_errors.png")
PLOTS = ("confusion.svg", "coverage.svg", "reliability.svg", "roc.svg")
FILES = (PAGE, "metrics.json", *PLOTS, *SHEETS, "label_errors.csv")
SINGLE_PX, _QUALITY = 240, 70  # side of a picture by itself, and how well it is kept
SHORT = 16  # digits of a digest for people
CSV_HEAD = ("image_id", "stated_label", "class", "suggested_class", "p_class", "p_suggested", "margin")


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What the files are made of: the rows, what was evaluated in words of JSON, and the seed of the bootstrap.

    Attributes:
        shares: (n, k) of the votes for each class, where votes are the truth.
        exact_csv: texts of tables as they are, also where a spreadsheet would run them as formulas.
    """

    rows: Rows
    about: dict[str, Any]
    seed: int
    shares: np.ndarray | None = None
    exact_csv: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """What was found, for the closing words.

    Attributes:
        metrics: of `metrics.evaluate`.
        accuracy_of_all: with images that got no label counted as wrong; None if there are none.
        notes: a sentence each.
        suspected: labels that may be wrong.
        degree: of `degree.degree`; None without votes.
    """

    metrics: Mapping[str, Any]
    accuracy_of_all: float | None
    notes: tuple[str, ...]
    suspected: int
    degree: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Pictures:
    """Where the pictures of the sheets come from.

    Attributes:
        lines: of a plan of them; None if they are unavailable.
        needed: False if metrics do without those that cannot be read.
        fault: why they are unavailable, if more is known than that they are no longer where they were.
    """

    lines: Iterable[bytes] | None
    needed: bool = True
    fault: str = ""


def write_evaluation(output: str, given: Evaluated, pictures: Pictures, limits: Limits) -> Written:
    """Writes all files into `output`, the page last; those of an earlier time are replaced.

    Raises:
        UsageError: the probabilities are none.
        InputFault: a picture that is needed cannot be read. StorageError: a file cannot be written.
    """
    rows = given.rows
    try:
        evaluation = evaluate(rows.probabilities, rows.y, rows.classes, seed=given.seed)
    except ValueError as error:
        raise UsageError(f"the labels cannot be judged: {error}") from error
    shares = given.shares
    degrees = None
    if shares is not None:
        stated = rows.probabilities if rows.degrees is None else rows.degrees
        of = "confidence" if rows.degrees is None else "intensity"
        labels = most_likely(rows.probabilities)
        degrees = degree(stated, shares, rows.classes, seed=given.seed, of=of, labels=labels)
    suspects = find_label_errors(rows.probabilities, rows.y)
    sheets, galleries, notes = _sheets(rows, suspects, pictures, limits)
    notes = [*_told_counts(rows.counts), *notes]
    written = Written(evaluation.metrics, _accuracy_of_all(rows, evaluation), tuple(notes), len(suspects), degrees)
    files = {
        "metrics.json": _metrics_json(given, written, suspects),
        **all_plots(evaluation),
        **sheets,
        "label_errors.csv": _suspects_csv(rows, suspects, exact=given.exact_csv),
    }
    content = PageContent(
        facts=_facts(given),
        notes=written.notes,
        metrics=evaluation.metrics,
        degree=degrees,
        accuracy_of_all=written.accuracy_of_all,
        pictures=files,
        suspects=[_suspect(rows, suspects, i) for i in range(min(len(suspects), SUSPECTS_LISTED))],
        suspected=len(suspects),
        galleries=galleries,
    )
    _publish_all(output, files, page(content))
    return written


def _publish_all(output: str, files: Mapping[str, bytes], page_bytes: bytes) -> None:
    os.makedirs(output, exist_ok=True)
    for name in (PAGE, *(name for name in SHEETS if name not in files)):
        Path(output, name).unlink(missing_ok=True)
    for name, data in (*files.items(), (PAGE, page_bytes)):
        publish(os.path.join(output, name), lambda file, data=data: file.write(data))  # type: ignore[misc]


# --- numbers ----------------------------------------------------------------------------------------------------------


def _accuracy_of_all(rows: Rows, evaluation: Evaluation) -> float | None:
    unlabelled = rows.counts["no_face"] + rows.counts["rejected"]
    return evaluation.metrics["correct"] / (len(rows) + unlabelled) if unlabelled else None


def _metrics_json(given: Evaluated, written: Written, suspects: LabelErrors) -> bytes:
    classes = given.rows.classes
    thresholds = {
        name: None if np.isnan(value) else float(value)
        for name, value in zip(classes, suspects.thresholds, strict=True)
    }
    tree = {
        "evaluated": given.about,
        "metrics": {**written.metrics, "accuracy_of_all": written.accuracy_of_all},
        **({"degree": written.degree} if written.degree is not None else {}),
        "label_errors": {
            "method": "confident learning (arXiv:1911.00068)",
            "suspected": len(suspects),
            "thresholds": thresholds,
            "confident_joint": suspects.joint.tolist(),
        },
    }
    return (json.dumps(tree, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "replace")


def _suspects_csv(rows: Rows, suspects: LabelErrors, *, exact: bool) -> bytes:
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(CSV_HEAD)
    ids, stated = _texts(rows.ids, suspects.row), _texts(rows.stated, suspects.row)
    for i, row in enumerate(suspects.row.tolist()):
        suggested = int(suspects.suggested[i])
        numbers = (suspects.self_confidence[i], rows.probabilities[row, suggested], suspects.margin[i])
        texts = [ids[i], stated[i], rows.classes[rows.y[row]], rows.classes[suggested]]
        table.writerow([*(texts if exact else map(cell, texts)), *(f"{v:.6f}" for v in numbers)])
    return out.getvalue().encode("utf-8", "replace")


def _texts(column: pa.ChunkedArray, rows: np.ndarray) -> list[str]:
    return list(column.take(pa.array(rows)).to_pylist())


def _suspect(rows: Rows, suspects: LabelErrors, i: int) -> Suspect:
    row = int(suspects.row[i])
    classes = rows.classes
    return Suspect(
        rows.ids[row].as_py(), classes[rows.y[row]], classes[int(suspects.suggested[i])], float(suspects.margin[i])
    )


# --- words ------------------------------------------------------------------------------------------------------------


def _told_counts(counts: Mapping[str, int]) -> list[str]:
    words = []
    if seen := counts.get("trained_on"):
        words.append(
            f"WARNING: the head was trained on {seen:,} of these images, so the metrics are too good; "
            "leave them out with --exclude-copies-of, or evaluate on others."
        )
    unlabelled = counts["no_face"] + counts["rejected"]
    if unlabelled:
        words.append(
            f"{_images(unlabelled)} with a true label got none: {counts['no_face']:,} without a face, "
            f"{counts['rejected']:,} rejected. The metrics are of those that got one, unless they say otherwise."
        )
    for key, text in (
        ("excluded", "left out, as their bytes stand in --exclude-copies-of."),
        ("without_label", "left out for having no true label."),
        ("left_out", "left out by --rename-classes."),
        ("duplicate", "left out, as their id came before in the same archive."),
    ):
        if counts[key]:
            words.append(f"{_images(counts[key])} {text}")
    return words


def _images(count: int) -> str:
    return f"{count:,} image" + ("" if count == 1 else "s")


def _facts(given: Evaluated) -> list[tuple[str, str]]:
    about, head = given.about, given.about["head"]
    facts = [
        ("images", ", ".join(about["inputs"])),
        ("head", f"{head['path']} ({str(head['digest'])[:SHORT]}…)"),
        ("cache key", f"{str(about['cache_key'])[:SHORT]}…"),
        ("face", about["face"]),
        ("evaluated", f"{len(given.rows):,} of {_images(given.rows.counts['images'])}"),
    ]
    if "truth" in about:
        truth = about["truth"]
        source = f"most votes of {truth['soft_labels']}, which has those of {_images(truth['images'])}"
        facts.append(("truth", f"{source}; in {truth['without_a_leader']:,} no single class leads"))
    if about["excluded"]:
        facts.append(("without copies of", ", ".join(about["excluded"])))
    if "positive" in about["question"]:
        question = about["question"]
        facts.append(("question", f"{' + '.join(question['positive'])} against all other classes"))
        facts.append(("positive labels", ", ".join(question["positive_labels"])))
        summed = " + ".join(f"p_{name}" for name in question["positive"])
        facts.append(("confidence", f"{summed}, or 1 less that, whichever is larger; not the column confidence"))
    if "rename_classes" in about["question"]:
        pairs = about["question"]["rename_classes"].items()
        facts.append(("classes map", ", ".join(f"{other} → {name or 'left out'}" for other, name in pairs)))
    return facts


def closing_words(written: Written, output: str) -> str:
    """Returns a few lines for people."""
    metrics = written.metrics
    accuracy, macro = metrics["accuracy"], metrics["macro_f1"]
    lines = [
        f"accuracy {accuracy['value']:.4f} (95 % interval {accuracy['low']:.4f} to {accuracy['high']:.4f}) on "
        f"{metrics['rows']:,} images; always {metrics['majority_class']!r}: {metrics['majority_baseline']:.4f}",
        f"macro F1 {macro['value']:.4f} ({macro['low']:.4f} to {macro['high']:.4f}), "
        f"AUC {_number(metrics['auc_macro'])}, expected calibration error "
        f"{metrics['expected_calibration_error']:.4f}, {written.suspected:,} labels suspected",
    ]
    if written.degree is not None:
        gap, correlation = written.degree["calibration_error"], written.degree["correlation"]
        of = written.degree["of"]
        lines.append(f"{of} as a share of the votes: calibration error {_ends(gap)}, correlation {_ends(correlation)}")
    if written.accuracy_of_all is not None:
        lines.append(f"accuracy {written.accuracy_of_all:.4f} over all, images that got no label counted as wrong")
    return "\n".join([*lines, *written.notes, f"page: {os.path.join(output, PAGE)}"])


def _ends(figure: Mapping[str, float] | None) -> str:
    return "–" if figure is None else f"{figure['value']:.4f} ({figure['low']:.4f} to {figure['high']:.4f})"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


# --- sheets -----------------------------------------------------------------------------------------------------------


def _sheets(
    rows: Rows, suspects: LabelErrors, pictures: Pictures, limits: Limits
) -> tuple[dict[str, bytes], dict[str, list[Single]], list[str]]:
    """Returns the sheets by file name, their pictures one by one, and notes on pictures that are missing."""
    predicted, own = rows.probabilities.argmax(axis=1), of_true(rows.probabilities, rows.y)
    sure = rows.probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != rows.y)
    mistakes = wrong[np.argsort(-sure[wrong], kind="stable")][:TILES]
    hardest = np.argsort(own, kind="stable")[:TILES]
    suspected = suspects.row[:TILES]
    tiles, fault = _tiles(rows, np.unique(np.concatenate([mistakes, hardest, suspected])), pictures, limits)
    if not any(image is not None for image in tiles.values()):
        why = fault or "The pictures are not where they were"
        return {}, {}, [f"{why}, so there are no sheets; --images says where they are."]
    chosen = {
        "mistakes.png": [(row, predicted[row], f"{sure[row] * 100:.1f} % sure") for row in mistakes],
        "hardest.png": [(row, predicted[row], f"true label {own[row]:.4f}") for row in hardest],
        "label_errors.png": [
            (row, suspects.suggested[i], minus(f"margin {suspects.margin[i]:.3f}")) for i, row in enumerate(suspected)
        ],
    }
    made = {
        name: [_tile(rows, tiles, row, other, note) for row, other, note in some]
        for name, some in chosen.items()
        if some
    }
    sheets = {name: sheet_png([_reduced(tile) for tile in some]) for name, some in made.items()}
    singles = {name.removesuffix(".png"): _singles(some) for name, some in made.items()}
    missing = sum(image is None for image in tiles.values())
    why = f": {fault}" if fault else ""
    notes = [f"{_images(missing)} of the sheets could not be read again as they were{why}."] if missing else []
    return sheets, singles, notes


def _tile(rows: Rows, tiles: Mapping[int, np.ndarray | None], row: int, other: int, note: str) -> Tile:
    title = f"{rows.classes[rows.y[row]]} → {rows.classes[other]}"
    return Tile(tiles[int(row)], title, note, rows.ids[int(row)].as_py())


def _reduced(tile: Tile) -> Tile:
    return tile if tile.image is None else replace(tile, image=reduced(tile.image, TILE_PX))


def _singles(tiles: Sequence[Tile]) -> list[Single]:
    return [
        Single(as_webp(tile.image, _QUALITY), tile.title, tile.note, tile.id)
        for tile in tiles
        if tile.image is not None
    ]


def _tiles(
    rows: Rows, wanted: Sequence[int] | np.ndarray, pictures: Pictures, limits: Limits
) -> tuple[dict[int, np.ndarray | None], str]:
    """Returns pictures of these rows, None for one that is unavailable, and the fault that ended their reading."""
    ids, digests = _texts(rows.ids, np.asarray(wanted)), _texts(rows.digests, np.asarray(wanted))
    row_of = dict(zip(ids, (int(row) for row in wanted), strict=True))
    tiles: dict[int, np.ndarray | None] = dict.fromkeys(row_of.values())
    asked = dict(zip(ids, digests, strict=True))
    try:
        for name, data in read_pictures(pictures.lines or (), asked, limits):
            tiles[row_of[name]] = face_tile(data, rows.box[row_of[name]], SINGLE_PX, limits)
    except InputFault as error:
        if pictures.needed:
            raise
        return tiles, str(error)
    return tiles, pictures.fault
