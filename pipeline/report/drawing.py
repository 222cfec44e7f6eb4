"""One look and the same bytes for all pictures: matplotlib without its state, its clock, or the user's settings.

matplotlib is imported here alone and only when something is drawn, as it is an optional dependency. Colours are
Okabe and Ito's, which people who see fewer colours tell apart as well.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
)  # Okabe & Ito 2008; its yellow is left out: it does not show on white
COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK)
INK, GREY, PALE = "#222222", "#6b6b6b", "#d9d9d9"
_SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same glyphs everywhere
    "font.size": 9.0,
    "text.color": INK,
    "text.parse_math": False,  # names may hold dollar signs
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": PALE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "figure.dpi": 100.0,
    "svg.hashsalt": "evaluation",  # else every picture has ids of its own each time
    "svg.fonttype": "path",  # what is measured here is what is shown, whatever fonts the reader has
    "path.simplify": True,
}


@contextmanager
def our_look() -> Iterator[None]:
    """Draws what is drawn inside with our settings alone; glyphs that the font lacks are boxes without a warning."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def new_figure(width: float, height: float) -> Figure:
    """Returns an empty figure of so many inches, 100 pixels each on a screen; call inside `our_look`."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


def as_svg(figure: Figure) -> bytes:
    """Returns the figure as SVG; call inside `our_look`."""
    out = io.BytesIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(out, format="svg", metadata=nothing)
    return out.getvalue()


def as_png(figure: Figure, dpi: float) -> bytes:
    """Returns the figure as PNG; call inside `our_look`."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=dpi, metadata={"Software": None})
    return out.getvalue()


def as_shares(axes: Axes, *, x: bool = True, y: bool = True) -> None:
    """Lets the axes run from 0 to 1 with marks in percent, and a grid."""
    ticks = [i / 5 for i in range(6)]
    words = [f"{round(tick * 100)} %" for tick in ticks]
    if x:
        axes.set_xlim(0, 1)
        axes.set_xticks(ticks, words)
    if y:
        axes.set_ylim(0, 1)
        axes.set_yticks(ticks, words)
    axes.grid(True)
    axes.set_axisbelow(True)


def shortened(text: str, limit: int, *, keep_end: bool = False) -> str:
    """Returns a printable text of at most `limit` characters, with an ellipsis for the rest."""
    text = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
    if len(text) <= limit:
        return text
    return "…" + text[len(text) - limit + 1 :] if keep_end else text[: limit - 1] + "…"
