"""The counts of a finished run as a small piece of HTML that a notebook shows: no style sheet, nothing is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from markupsafe import Markup

from pipeline.report.visible_names import visible

ROWS = 20  # labels, and reasons
BAR_PX = 140
_CELL = "padding:1px 12px 1px 0;text-align:left"
_TABLE = Markup('<table><thead><tr><th scope="col" style="{0}">{1}</th><th scope="col" style="{0}">{2}</th><th></th>'
                "</tr></thead><tbody>{3}</tbody></table>")  # fmt: skip
_ROW = Markup(
    '<tr><td style="{0}">{1}</td><td style="{0}">{2}</td><td style="{0}">'
    '<span style="display:inline-block;height:9px;width:{3}px;background:#0a6cb8"></span></td></tr>'
)


def run_figure(
    counts: Mapping[str, int], labels: Mapping[str, int], reasons: Mapping[str, int], folder: str, page: str
) -> str:
    """Returns the counts of a run, a table of its labels, and where its files are.

    Args:
        counts: of images and faces, as in `run.json`.
        labels: faces of each label. `reasons`: images of each reason for a rejection.
        folder: of the output. `page`: path of the page, "" where there is none.
    """
    head = Markup("<p><b>{:,} faces in {:,} images</b>: {:,} images labelled, {:,} without a face, {:,} rejected</p>")
    parts = [
        head.format(counts["faces"], counts["images"], counts["labelled"], counts["no_face"], counts["rejected"]),
        _table("label", "faces", labels),
        _table("rejected because", "images", reasons),
        Markup("<p>Page: <code>{}</code></p>").format(visible(page)) if page else Markup(),
        Markup("<p>Files: <code>{}</code></p>").format(visible(folder)),
    ]
    return str(Markup("<div>{}</div>").format(Markup().join(parts)))


def _table(name: str, unit: str, counts: Mapping[str, int]) -> Markup:
    rows = sorted(((count, word) for word, count in counts.items() if count), key=lambda row: (-row[0], row[1]))
    if not rows:
        return Markup()
    table = _TABLE.format(_CELL, name, unit, Markup().join(_rows(rows[:ROWS], rows[0][0])))
    left = len(rows) - ROWS
    return table + (Markup("<p>and {} more</p>").format(left) if left > 0 else Markup())


def _rows(rows: Iterable[tuple[int, str]], most: int) -> Iterable[Markup]:
    for count, word in rows:
        yield _ROW.format(_CELL, visible(word), f"{count:,}", max(1, round(BAR_PX * count / most)))
