"""One self-contained HTML page of an evaluation: it loads nothing, so it can be mailed, kept, and opened in ten years.

Not here: what is on the pictures (`plots.py`, `sheets.py`), and where the numbers come from (`metrics.py`).
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.evaluation.metrics import BINS, DRAWS

SUSPECTS_LISTED = 20  # of the label errors; all of them are in the CSV
_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}
_STYLE = """
:root{color-scheme:light}
body{margin:0;background:#fff;color:#222;font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1060px;margin:0 auto;padding:28px 24px 64px}
h1{font-size:26px;margin:0 0 4px}
h2{font-size:19px;margin:44px 0 8px;padding-top:16px;border-top:1px solid #d9d9d9}
p{max-width:46em;margin:6px 0 12px}
p.note,figcaption{color:#5c5c5c;font-size:14px}
.cards{display:flex;flex-wrap:wrap;gap:12px;margin:20px 0}
.card{flex:1 1 150px;border:1px solid #d9d9d9;border-radius:8px;padding:12px 16px}
.card b{display:block;font-size:25px;font-weight:600;font-variant-numeric:tabular-nums}
.card span{color:#5c5c5c;font-size:13px;display:block}
table{border-collapse:collapse;font-size:14px;font-variant-numeric:tabular-nums;margin:10px 0}
th,td{text-align:right;padding:4px 12px;border-bottom:1px solid #e6e6e6;vertical-align:top}
th{font-weight:600;color:#444;white-space:nowrap}
th:first-child,td:first-child,td.t,th.t{text-align:left}
td.t{overflow-wrap:anywhere}
table.facts td:first-child{color:#5c5c5c;white-space:nowrap}
table.facts td{text-align:left}
.row{display:flex;flex-wrap:wrap;gap:28px;align-items:flex-start}
figure{margin:8px 0;max-width:100%}
img{max-width:100%;height:auto;display:block}
.wide{overflow-x:auto}
@media print{h2{break-after:avoid}figure,table{break-inside:avoid}}
"""


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
    body = "\n".join(line for section in sections for line in section)
    text = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Evaluation</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""
    return text.encode("utf-8", "replace")


# --- sections ---------------------------------------------------------------------------------------------------------


def _opening(content: PageContent) -> Iterator[str]:
    figures = content.figures
    yield "<h1>How good are these labels?</h1>"
    yield f"<p class=note>{figures['rows']:,} labelled images of known class.</p>"
    yield "<div class=cards>"
    accuracy, macro = figures["accuracy"], figures["macro_f1"]
    yield _card("accuracy", f"{accuracy['value']:.4f}", _interval(accuracy))
    yield _card("macro F1", f"{macro['value']:.4f}", _interval(macro))
    yield _card("majority baseline", f"{figures['majority_baseline']:.4f}", f"always “{figures['majority_class']}”")
    yield _card("calibration error", f"{figures['expected_calibration_error']:.4f}", f"expected, {BINS} equal bins")
    of_what = "mean of the classes, each against the rest"
    if len(figures["by_class"]) == 2:  # then both are one curve
        of_what = f"{list(figures['by_class'])[1]} against the rest"
    yield _card("AUC", _number(figures["auc_macro"]), of_what)
    yield "</div>"
    yield from (f"<p>{html.escape(note)}</p>" for note in content.notes)
    yield "<div class=row>"
    yield _table([(name, value) for name, value in content.facts], kind="facts")
    yield _table(list(_other_figures(content)), kind="facts")
    yield "</div>"
    seed = content.figures["bootstrap"]["seed"]
    yield f"<p class=note>Intervals: {DRAWS:,} bootstrap draws, seed {seed}, percentiles.</p>"


def _other_figures(content: PageContent) -> Iterator[tuple[str, str]]:
    figures = content.figures
    balanced = figures["balanced_accuracy"]
    if content.accuracy_of_all is not None:
        yield "accuracy over all, unlabelled as wrong", f"{content.accuracy_of_all:.4f}"
    yield "balanced accuracy", f"{balanced['value']:.4f} ({balanced['low']:.4f} to {balanced['high']:.4f})"
    yield "Cohen’s kappa", _number(figures["cohen_kappa"])
    yield "log loss", f"{figures['log_loss']:.4f} nats"
    yield "Brier score (0 to 2)", f"{figures['brier']:.4f}"
    yield "area under risk and coverage", f"{figures['area_under_risk']:.4f}"


def _classes(content: PageContent) -> Iterator[str]:
    yield "<h2>Class by class</h2>"
    head = ("class", "images", "given", "precision", "recall", "F1", "AUC", "average precision")
    rows = [
        (
            *(name, f"{row['support']:,}", f"{row['said']:,}"),
            *(_number(row[key], 3) for key in ("precision", "recall", "f1")),
            _number(row["auc"], 3) + _ends(row["auc_interval"]),
            _number(row["average_precision"], 3),
        )
        for name, row in content.figures["by_class"].items()
    ]
    yield f"<div class=wide>{_table(rows, head)}</div>"
    yield (
        "<p class=note>Images: how many are of the class. Given: how many got its label. A dash: not defined. "
        "Behind AUC: 95 % (DeLong).</p>"
    )
    yield _figure(content, "confusion.svg", "Rows are true labels; colour and percent are shares of the row.")


def _confidence(content: PageContent) -> Iterator[str]:
    yield "<h2>Can its confidence be trusted, and used?</h2>"
    yield "<div class=row>"
    yield _figure(content, "reliability.svg", "Below the dashed line it is surer than it is right. Lines: 95 %.")
    yield _figure(content, "coverage.svg", "What leaving the less confident images to people buys. Band: 95 %.")
    yield "</div>"
    rows = [
        (f"{row['wanted'] * 100:.0f} %", f"{row['threshold']:.4f}", f"{row['coverage']:.4f}", f"{row['accuracy']:.4f}")
        for row in content.figures["coverage"]
    ]
    yield _table(rows, ("label at least", "accept confidence from", "coverage", "accuracy"))


def _curves(content: PageContent) -> Iterator[str]:
    yield "<h2>Each class against the rest</h2>"
    yield _figure(content, "roc.svg", "Every threshold on the probability of a class is a point of its curve.")


def _pictures(content: PageContent) -> Iterator[str]:
    for name, title, words in (
        ("mistakes.png", "The most confident mistakes", "True label → label given, and the confidence in it."),
        ("hardest.png", "The hardest images", "True label → label given, and the probability of the true one."),
    ):
        if name in content.pictures:
            yield f"<h2>{title}</h2>"
            yield _figure(content, name, words)


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
        yield _figure(content, "label_errors.png", "True label → what it looks like, and the margin between them.")
    rows = [(s.id, s.stated, s.suggested, minus(f"{s.margin:.4f}")) for s in content.suspects[:SUSPECTS_LISTED]]
    yield f"<div class=wide>{_table(rows, ('image', 'label', 'looks like', 'margin'), texts=3)}</div>"


def _ends(interval: Mapping[str, float] | None) -> str:
    return "" if interval is None else f" ({interval['low']:.3f} to {interval['high']:.3f})"


# --- pieces -----------------------------------------------------------------------------------------------------------


def _card(name: str, value: str, words: str) -> str:
    return f"<div class=card><span>{html.escape(name)}</span><b>{value}</b><span>{html.escape(words)}</span></div>"


def _table(rows: Sequence[Sequence[str]], head: Sequence[str] = (), *, kind: str = "", texts: int = 1) -> str:
    """Returns a table; the first `texts` columns are set to the left."""

    def line(cells: Sequence[str], tag: str) -> str:
        shown = (
            f"<{tag}{' class=t' if 0 < i < texts else ''}>{html.escape(cell)}</{tag}>" for i, cell in enumerate(cells)
        )
        return f"<tr>{''.join(shown)}</tr>"

    lines = [line(head, "th")] if head else []
    lines += [line(row, "td") for row in rows]
    return f"<table{f' class={kind}' if kind else ''}>{''.join(lines)}</table>"


def _figure(content: PageContent, name: str, words: str) -> str:
    data = content.pictures.get(name)
    if data is None:
        return ""
    source = f"data:{_TYPES[name[-4:]]};base64,{base64.b64encode(data).decode('ascii')}"
    caption = html.escape(words)
    return f'<figure><img alt="{caption}" src="{source}"><figcaption>{caption}</figcaption></figure>'


def _interval(figure: Mapping[str, float]) -> str:
    return f"95 % interval {figure['low']:.4f} to {figure['high']:.4f}"


def minus(number: str) -> str:
    """Returns a number with a sign as long as its plus."""
    return number.replace("-", "\N{MINUS SIGN}")


def _number(value: float | None, digits: int = 4) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
