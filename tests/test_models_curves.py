"""The history as a picture and as events."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.training.curves import history_plot, write_events

HISTORY = [
    {"epoch": n, "loss": 1 / n, "accuracy": 1 - 1 / n, "val_loss": 2 / n, "val_accuracy": 0.9 - 1 / n}
    for n in (1, 2, 3)
]


def test_the_picture_is_the_same_bytes_for_the_same_history() -> None:
    pytest.importorskip("matplotlib")
    text = history_plot(HISTORY).decode()
    assert text == history_plot(HISTORY).decode()
    assert "validation" in text and "accuracy" in text


def test_events_are_read_back_by_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):
        write_events(HISTORY, tmp_path)
    read = EventAccumulator(str(tmp_path))
    read.Reload()
    assert [(event.step, event.value) for event in read.Scalars("val_accuracy")] == [
        (row["epoch"], pytest.approx(row["val_accuracy"])) for row in HISTORY
    ]
