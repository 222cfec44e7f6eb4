"""Draws the history of a training as a picture, and writes it as events for TensorBoard.

They need packages that the pipeline itself does not: matplotlib (extra `evaluate`) and tensorboard, which comes with
TensorFlow. If one is missing, the caller gets to know; `history.csv` still has every number.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

History = Sequence[Mapping[str, float]]

LOSS, ACCURACY = "#0072b2", "#d55e00"  # from Okabe and Ito's palette, which colour-blind readers can distinguish


def can_plot() -> bool:
    """True if matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def history_plot(history: History, names: tuple[str, str] = ("loss", "accuracy")) -> bytes:
    """Returns two curves as SVG, training dashed, validation solid; equal histories give equal bytes.

    Args:
        names: of the curves; one without training or validation values in the history is not drawn.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    epochs = [row["epoch"] for row in history]
    with mpl.rc_context({"svg.hashsalt": "history", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(8, 3), layout="constrained")
        for axes, name, colour in zip(figure.subplots(1, 2), names, (LOSS, ACCURACY), strict=True):
            kinds = ((name, "training", "--", 0.6), (f"val_{name}", "validation", "-", 1.0))
            for key, label, line, alpha in kinds:
                if all(key in row for row in history):
                    axes.plot(epochs, [row[key] for row in history], line, color=colour, label=label, alpha=alpha)
            axes.set(xlabel="epoch", title=name)
            axes.grid(alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
            axes.legend(frameon=False)
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def write_events(history: History, folder: Path) -> None:
    """Writes the history as TensorBoard events, replacing those of an earlier call.

    Raises:
        ImportError: tensorboard is not installed.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    writer = EventFileWriter(str(folder))
    for row in history:
        values = [Summary.Value(tag=name, simple_value=value) for name, value in row.items() if name != "epoch"]
        writer.add_event(Event(step=int(row["epoch"]), summary=Summary(value=values)))
    writer.close()
