"""Small charts as SVG inside the page: bars alone, coloured by the page's style sheet, each with its words.

Every number is also in the text: as the title of its bar, and in the table beside the chart.
"""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

WIDTH, NARROW = 280, 180  # px of a histogram: as wide as it is shown, so that its words keep their size
_HEIGHT, _FOOT, _HEAD = 0.42, 20, 6  # height of a histogram by its width; px below and above its bars
_LEAST_BAR = 1.5  # px: one face among a million is still a line


def histogram(
    counts: Sequence[int],
    names: Sequence[str],
    ticks: Sequence[tuple[float, str]],
    words: str,
    *,
    width: int = WIDTH,
) -> Markup:
    """Returns a histogram.

    Args:
        counts: of each bin, from left to right. `names`: of the bins, for titles.
        ticks: where (in bins from the left edge) and what is written below.
        words: what the chart shows, for those who do not see it.
    """
    top, step, height = max([1, *counts]), width / max(1, len(counts)), round(width * _HEIGHT)
    room = height - _FOOT - _HEAD
    bars = [
        Markup('<rect class="bar" x="{}" y="{}" width="{}" height="{}"><title>{}: {}</title></rect>').format(
            *_rounded(at * step + 0.06 * step, height - _FOOT - tall, 0.88 * step, tall), name, f"{count:,}"
        )
        for at, (count, name) in enumerate(zip(counts, names, strict=True))
        if (tall := count and max(_LEAST_BAR, room * count / top))
    ]
    below = [
        Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(
            round(at * step, 1), height - 5, _anchor(at, len(counts)), text
        )
        for at, text in ticks
    ]
    line = Markup('<path class="axis" d="M0 {0}H{1}"/>').format(height - _FOOT + 0.5, width)
    return _chart(width, height, words, [*bars, line, *below])


def stacked(parts: Sequence[tuple[str, int, str]], words: str) -> Markup:
    """Returns one bar cut into parts.

    Args:
        parts: name, count and class of the style sheet of each.
    """
    total, left, shown = max(1, sum(count for _, count, _ in parts)), 0.0, []
    for name, count, look in parts:
        wide = 1000 * count / total
        if count:
            shown.append(
                Markup('<rect class="{}" x="{}" y="0" width="{}" height="18"><title>{}: {}</title></rect>').format(
                    look, *_rounded(left, max(_LEAST_BAR, wide)), name, f"{count:,}"
                )
            )
        left += wide
    return _chart(1000, 18, words, shown, stretch=True)


def meter(share: float, look: str = "bar") -> Markup:
    """Returns a bar for a cell of a table whose number stands beside it: hidden from those who hear the page."""
    return Markup(
        '<svg class="meter" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" width="100" height="10"/><rect class="{}" width="{}" height="10"/></svg>'
    ).format(look, round(100 * min(1.0, max(0.0, share)), 2))


def _chart(width: int, height: int, words: str, inside: Sequence[Markup], *, stretch: bool = False) -> Markup:
    how = Markup(' preserveAspectRatio="none"') if stretch else Markup("")
    return Markup('<svg class="chart" role="img" viewBox="0 0 {} {}"{} aria-label="{}">{}</svg>').format(
        width, height, how, words, Markup("").join(inside)
    )


def _anchor(at: float, bins: int) -> str:
    return "start" if at <= 0 else "end" if at >= bins else "middle"


def _rounded(*values: float) -> tuple[float, ...]:
    return tuple(round(value, 2) for value in values)
