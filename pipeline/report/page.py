"""One self-contained HTML page of an evaluation: it loads nothing, so it can be mailed, kept, and opened in ten years.

Not here: what is on the pictures (`plots.py`, `sheets.py`), and where the numbers come from (`metrics.py`).
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.evaluation.metrics import BINS, DRAWS
from pipeline.report.html_parts import card, document, figure, minus, number, table

SUSPECTS_LISTED = 20  # of the label errors; all of them are in the CSV


@dataclass(frozen=True, slots=True)
class Suspect:
    """A row of the list of suspected labels."""

    id: str
    stated: str
    suggested: str
    margin: float


@dataclass(frozen=True, slots=True)
class PageContent:
    """What the page shows.

    Attributes:
        facts: what was evaluated, in words: a name and a value each.
        notes: what a reader must know before the numbers; a sentence each.
        figures: as `metrics.evaluate` gives them.
        accuracy_of_all: counting images without a face, or rejected, as wrong; None where there are none.
        pictures: bytes by file name; the page shows those that are there.
        suspects: all suspected labels that are to be listed, the likeliest error first.
        suspected: how many there are.
    """

    facts: Sequence[tuple[str, str]]
    notes: Sequence[str]
    figures: Mapping[str, Any]
    accuracy_of_all: float | None
    pictures: Mapping[str, bytes]
    suspects: Sequence[Suspect]
    suspected: int


def page(content: PageContent) -> bytes:
    """Returns the page, UTF-8."""
    sections = [
        _opening(content),
        _classes(content),
        _confidence(content),
        _curves(content),
        _pictures(content),
        _label_errors(content),
    ]
    return document("Evaluation", (line for section in sections for line in section))


# --- sections ---------------------------------------------------------------------------------------------------------


def _opening(content: PageContent) -> Iterator[str]:
    figures = content.figures
    yield "<h1>How good are these labels?</h1>"
    yield f"<p class=note>{figures['rows']:,} labelled images of known class.</p>"
    yield "<div class=cards>"
    accuracy, macro = figures["accuracy"], figures["macro_f1"]
    yield card("accuracy", f"{accuracy['value']:.4f}", _interval(accuracy))
    yield card("macro F1", f"{macro['value']:.4f}", _interval(macro))
    yield card("majority baseline", f"{figures['majority_baseline']:.4f}", f"always “{figures['majority_class']}”")
    yield card("calibration error", f"{figures['expected_calibration_error']:.4f}", f"expected, {BINS} equal bins")
    of_what = "mean of the classes, each against the rest"
    if len(figures["by_class"]) == 2:  # then both are one curve
        of_what = f"{list(figures['by_class'])[1]} against the rest"
    yield card("AUC", number(figures["auc_macro"]), of_what)
    yield "</div>"
    yield from (f"<p>{html.escape(note)}</p>" for note in content.notes)
    yield "<div class=row>"
    yield table([(name, value) for name, value in content.facts], kind="facts")
    yield table(list(_other_figures(content)), kind="facts")
    yield "</div>"
    seed = content.figures["bootstrap"]["seed"]
    yield f"<p class=note>Intervals: {DRAWS:,} bootstrap draws, seed {seed}, percentiles.</p>"


def _other_figures(content: PageContent) -> Iterator[tuple[str, str]]:
    figures = content.figures
    balanced = figures["balanced_accuracy"]
    if content.accuracy_of_all is not None:
        yield "accuracy over all, unlabelled as wrong", f"{content.accuracy_of_all:.4f}"
    yield "balanced accuracy", f"{balanced['value']:.4f} ({balanced['low']:.4f} to {balanced['high']:.4f})"
    yield "Cohen’s kappa", number(figures["cohen_kappa"])
    yield "log loss", f"{figures['log_loss']:.4f} nats"
    yield "Brier score (0 to 2)", f"{figures['brier']:.4f}"
    yield "area under risk and coverage", f"{figures['area_under_risk']:.4f}"


def _classes(content: PageContent) -> Iterator[str]:
    yield "<h2>Class by class</h2>"
    head = ("class", "images", "given", "precision", "recall", "F1", "AUC", "average precision")
    rows = [
        (
            *(name, f"{row['support']:,}", f"{row['said']:,}"),
            *(number(row[key], 3) for key in ("precision", "recall", "f1")),
            number(row["auc"], 3) + _ends(row["auc_interval"]),
            number(row["average_precision"], 3),
        )
        for name, row in content.figures["by_class"].items()
    ]
    yield f"<div class=wide>{table(rows, head)}</div>"
    yield (
        "<p class=note>Images: how many are of the class. Given: how many got its label. A dash: not defined. "
        "Behind AUC: 95 % (DeLong).</p>"
    )
    yield figure(content.pictures, "confusion.svg", "Rows are true labels; colour and percent are shares of the row.")


def _confidence(content: PageContent) -> Iterator[str]:
    yield "<h2>Can its confidence be trusted, and used?</h2>"
    yield "<div class=row>"
    yield figure(
        content.pictures, "reliability.svg", "Below the dashed line it is surer than it is right. Lines: 95 %."
    )
    yield figure(content.pictures, "coverage.svg", "What leaving the less confident images to people buys. Band: 95 %.")
    yield "</div>"
    rows = [
        (f"{row['wanted'] * 100:.0f} %", f"{row['threshold']:.4f}", f"{row['coverage']:.4f}", f"{row['accuracy']:.4f}")
        for row in content.figures["coverage"]
    ]
    yield table(rows, ("label at least", "accept confidence from", "coverage", "accuracy"))


def _curves(content: PageContent) -> Iterator[str]:
    yield "<h2>Each class against the rest</h2>"
    yield figure(content.pictures, "roc.svg", "Every threshold on the probability of a class is a point of its curve.")


def _pictures(content: PageContent) -> Iterator[str]:
    for name, title, words in (
        ("mistakes.png", "The most confident mistakes", "True label → label given, and the confidence in it."),
        ("hardest.png", "The hardest images", "True label → label given, and the probability of the true one."),
    ):
        if name in content.pictures:
            yield f"<h2>{title}</h2>"
            yield figure(content.pictures, name, words)


def _label_errors(content: PageContent) -> Iterator[str]:
    yield "<h2>Labels that may be wrong</h2>"
    if not content.suspected:
        yield "<p>None: no image is confidently of another class than its label says.</p>"
        return
    share = content.suspected / content.figures["rows"]
    yield (
        f"<p>{content.suspected:,} images ({share * 100:.1f} %) are confidently of another class than their label "
        "says, by the threshold of that class (confident learning, Northcutt et al. 2021). That is where to look "
        "first, not a verdict: mistakes of the model are among them. All are in <code>label_errors.csv</code>.</p>"
    )
    if "label_errors.png" in content.pictures:
        yield figure(
            content.pictures, "label_errors.png", "True label → what it looks like, and the margin between them."
        )
    rows = [(s.id, s.stated, s.suggested, minus(f"{s.margin:.4f}")) for s in content.suspects[:SUSPECTS_LISTED]]
    yield f"<div class=wide>{table(rows, ('image', 'label', 'looks like', 'margin'), texts=3)}</div>"


def _ends(interval: Mapping[str, float] | None) -> str:
    return "" if interval is None else f" ({interval['low']:.3f} to {interval['high']:.3f})"


# --- pieces -----------------------------------------------------------------------------------------------------------


def _interval(figure: Mapping[str, float]) -> str:
    return f"95 % interval {figure['low']:.4f} to {figure['high']:.4f}"
