"""The loop: reads a frame, finds faces, labels them, follows them, draws, writes, and times each stage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pipeline.api.face_labeler import FaceLabeler
from pipeline.api.faces import Face
from pipeline.live.outputs import Output
from pipeline.live.smoothing import Smoother
from pipeline.live.sources import Frame, Source
from pipeline.live.stages import Stages
from pipeline.live.tracks import Tracker
from pipeline.report.photo import KEPT, Photo
from pipeline.report.photo import Face as Drawn
from pipeline.report.render.drawn_photo import Look, drawn_photo
from pipeline.settings.live import LiveSettings
from transforms.formats.records import NO_LABEL
from transforms.formats.row_table import Column, Row, RowWriter
from transforms.storage import stopping


@dataclass(frozen=True, slots=True)
class FollowedFace:
    """A face of a frame, and the track that it continues."""

    face: Face
    track: int


@dataclass(slots=True)
class Account:
    """What came of the frames so far."""

    frames: int = 0
    faces: int = 0
    tracks: int = 0
    size: tuple[int, int] = (0, 0)
    labels: Counter[str] = field(default_factory=Counter)


class Follower:
    """Finds, labels and follows the faces of one frame after another."""

    def __init__(self, labeler: FaceLabeler, settings: LiveSettings, stages: Stages) -> None:
        self._labeler, self._stages = labeler, stages
        self._tracker = Tracker(settings.track_overlap, settings.track_frames)
        self._smoother = Smoother(settings.smoothing)

    @property
    def tracks(self) -> int:
        """Tracks that have begun."""
        return self._tracker.begun

    def follow(self, frame: Frame) -> tuple[FollowedFace, ...]:
        """Returns the faces of the next frame, in the order of `label`."""
        with self._stages.timed("detect"):
            found = self._labeler.find(frame.pixels if frame.data is None else frame.data)
        with self._stages.timed("label"):
            faces = self._labeler.label_found(found).faces
            tracks = self._tracker.update(np.asarray([face.box for face in faces], np.float64).reshape(-1, 4))
            followed = tuple(
                FollowedFace(self._smoother.smoothed(face, track), track)
                for face, track in zip(faces, tracks, strict=True)
            )
            self._smoother.forget_all_but(self._tracker.alive)
        return followed


def run_live(
    source: Source,
    follower: Follower,
    outputs: Sequence[Output],
    table: RowWriter | None,
    classes: Sequence[str],
    stages: Stages,
    *,
    most: int | None = None,
) -> Account:
    """Works until the source ends, `most` frames are done, or a stop is asked for; returns what came of it."""
    account, frames = Account(), source.frames()
    while not stopping.asked() and (most is None or account.frames < most):
        with stages.timed("read"):
            frame = next(frames, None)
        if frame is None:
            break
        followed = follower.follow(frame)
        if outputs:
            with stages.timed("draw"):
                picture = drawn(frame.pixels, followed, classes)
        with stages.timed("write"):
            if table is not None:
                table.add(rows_of(frame, followed))
            for output in outputs:
                output.write(picture, frame.number)
        stages.end_frame()
        _count(account, frame, followed, follower.tracks)
    return account


def _count(account: Account, frame: Frame, followed: Sequence[FollowedFace], tracks: int) -> None:
    account.frames += 1
    account.faces += len(followed)
    account.tracks = tracks
    account.size = (frame.pixels.shape[1], frame.pixels.shape[0])
    account.labels.update(one.face.label for one in followed if one.face.label is not None)


def drawn(pixels: np.ndarray, followed: Sequence[FollowedFace], classes: Sequence[str]) -> np.ndarray:
    """Returns (h, w, 3) uint8 RGB: a frame with boxes, and labels above them."""
    height, width = pixels.shape[:2]
    faces = tuple(
        Drawn(
            number=number,
            box=(one.face.box.x, one.face.box.y, one.face.box.width, one.face.box.height),
            label=NO_LABEL if one.face.label_index is None else one.face.label_index,
            confidence=one.face.confidence or 0.0,
            score=one.face.detection_score,
        )
        for number, one in enumerate(followed[:KEPT])
    )
    photo = Photo(0, "", "", width, height, None, faces, len(followed))
    return drawn_photo(pixels, photo, classes, (height, width), Look())


def columns(classes: Sequence[str], *, rejecting: bool) -> list[Column]:
    """Returns the columns of the table of faces: those of `predictions/`, and which frame and track."""
    return [
        Column("image_id", "string", nullable=False),
        Column("frame", "int64", nullable=False),
        Column("time_s", "float64", nullable=False),
        Column("track", "int64", nullable=False),
        *face_columns(classes, rejecting=rejecting),
    ]


def face_columns(classes: Sequence[str], *, rejecting: bool) -> list[Column]:
    """Returns the columns of `predictions/` after `image_id`."""
    return [
        *(Column(name, "int32", nullable=False) for name in ("face_index", "x", "y", "width", "height")),
        Column("detection_score", "float32", nullable=False),
        Column("label", "string"),
        Column("label_index", "int32"),
        Column("confidence", "float64"),
        *([Column("no_label_score", "float64")] if rejecting else []),
        *(Column(f"p_{name}", "float64") for name in classes),
    ]


def rows_of(frame: Frame, followed: Sequence[FollowedFace]) -> list[Row]:
    """Returns a row for each face of a frame."""
    where = {"image_id": frame.image_id, "frame": frame.number, "time_s": frame.time_s}
    return [{**where, "track": one.track, **face_row(one.face, number)} for number, one in enumerate(followed)]


def face_row(face: Face, number: int) -> Row:
    """Returns the values of `face_columns` for a face, the number-th of its image."""
    return {
        "face_index": number,
        **face.box._asdict(),
        "detection_score": face.detection_score,
        "label": face.label,
        "label_index": face.label_index,
        "confidence": face.confidence,
        "no_label_score": face.no_label_score,
        **{f"p_{name}": value for name, value in face.probabilities.items()},
    }
