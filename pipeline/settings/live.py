"""The settings of `live`: how faces are followed from frame to frame, and the time that a frame may take."""

from __future__ import annotations

from typing import Any

from pipeline.settings.section import Enters, Section, setting


def _live(default: Any, description: str, **more: Any) -> Any:
    """Returns a setting of `live` alone: no fingerprint knows its results."""
    return setting(default, description, enters=Enters.NOTHING, **more)


class LiveSettings(Section):
    """Following faces through frames; pipeline/live/ explains each number."""

    smoothing: float = _live(
        0.7,
        "share of the probabilities of a track's frames before in those of a frame; 0 labels each frame by itself",
        ge=0,
        le=0.99,
    )
    track_overlap: float = _live(
        0.3, "overlap (IoU) from which a face continues the track of one in a frame before", gt=0, le=1
    )
    track_frames: int = _live(15, "frames that a track may go without its face before it ends", ge=0, le=10_000)
    budget_ms: float = _live(33.0, "time that a frame may take, in ms: the closing words count those within", gt=0)
