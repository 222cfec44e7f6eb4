"""How well faces are found, as pictures: FDDB's two ROC curves, and recall by the size of the face. SVG as bytes.

Not here: the metrics themselves (`models/evaluation/detection.py`), and pictures of faces (`detection_sheets.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from models.evaluation.detection import Curve, SizeBin
from models.evaluation.metrics import Curve as Line
from pipeline.report.drawing import BLUE, COLOURS, GREY, as_shares, as_svg, new_figure, our_look
from pipeline.report.plots import thinned, wilson


def roc_svg(curves: Mapping[str, Curve]) -> bytes:
    """Draws the share of faces that is found against the false alarms in all images, whole line; the overlaps, dashed.

    Args:
        curves: by the words of the legend.
    """
    most = max((int(curve.false_alarms.max(initial=0)) for curve in curves.values()), default=0)
    with our_look():
        figure = new_figure(7.6, 4.4)
        axes = figure.add_axes((0.09, 0.13, 0.56, 0.80))
        for (words, curve), colour in zip(curves.items(), COLOURS, strict=False):
            for shares, dashes in ((curve.discrete(), "-"), (curve.continuous(), (0, (4, 2)))):
                line = thinned(_from_nothing(curve.false_alarms / max(most, 1), shares))  # both axes count alike
                label = words if dashes == "-" else None
                axes.plot(line.x * max(most, 1), line.y, color=colour, linewidth=1.5, linestyle=dashes, label=label)
        as_shares(axes, x=False)
        axes.set_ylim(0, 1.01)
        axes.set_xlim(0, max(most * 1.02, 1))
        images = next(iter(curves.values())).images if curves else 0
        axes.set_xlabel(f"false alarms in {images:,} image" + ("s" if images != 1 else ""))
        axes.set_ylabel("faces found")
        axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.01), title="dashed: sum of overlaps", alignment="left")
        return as_svg(figure)


def _from_nothing(false_alarms: np.ndarray, shares: np.ndarray) -> Line:
    """Returns the line with its start, where no box counts."""
    return Line(np.concatenate([[0.0], false_alarms]), np.concatenate([[0.0], shares]))


def sizes_svg(bins: Sequence[SizeBin]) -> bytes:
    """Draws the share of faces that is found by the longer side of the face, with 95 % intervals (Wilson)."""
    full = [one for one in bins if one.faces]
    with our_look():
        figure = new_figure(7.6, 3.4)
        axes = figure.add_axes((0.09, 0.22, 0.88, 0.70))
        places = np.arange(len(full))
        faces = np.asarray([one.faces for one in full], float)
        shares = np.asarray([one.found for one in full], float) / np.maximum(faces, 1)
        axes.bar(places, shares, width=0.7, color="#b9d7ea", zorder=2)
        if full:
            low, high = wilson(shares, faces)
            axes.vlines(places, low, high, color=BLUE, linewidth=1.4, zorder=4)
        as_shares(axes, x=False)
        axes.set_ylim(0, 1.01)
        axes.set_xlim(-0.6, max(len(full), 1) - 0.4)
        axes.set_xticks(places, [f"{span_of(one)}\n{one.faces:,}" for one in full])
        axes.tick_params(axis="x", length=0)
        axes.grid(False, axis="x")
        axes.set_xlabel("longer side of the known face in pixels, and how many there are", color=GREY)
        axes.set_ylabel("found")
        return as_svg(figure)


def span_of(one: SizeBin) -> str:
    """Returns the sizes of a bin in words."""
    return f"{one.least_px}+" if one.below_px is None else f"{one.least_px}–{one.below_px}"
