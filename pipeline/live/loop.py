"""The loop: reads frames, finds and labels faces, follows them, draws, writes, and times each stage.

Reading, work on single frames and writing overlap (`overlap.py`). Following and drawing go frame by frame, in order, in
the thread that calls.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

import numpy as np

from models.heads.output_spec import ClassOutput, OutputSpec, types_shown
from pipeline.api.face_labeler import FaceLabeler
from pipeline.api.faces import Face
from pipeline.live.outputs import Output
from pipeline.live.overlap import worked_on, written_behind
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


@dataclass(frozen=True, slots=True)
class Work:
    """What is done with single frames.

    Attributes:
        labeler: finds and labels faces.
        frames_at_once: threads that do so, a frame each.
    """

    labeler: FaceLabeler
    frames_at_once: int


class Follower:
    """Follows the faces of one frame after another.

    Args:
        output: what the head says of a face, if it says an intensity.
    """

    def __init__(self, settings: LiveSettings, output: ClassOutput | None = None) -> None:
        self._tracker = Tracker(settings.track_overlap, settings.track_frames)
        self._smoother = Smoother(settings.smoothing, output)

    @property
    def tracks(self) -> int:
        """Tracks that have begun."""
        return self._tracker.begun

    def follow(self, faces: Sequence[Face]) -> tuple[FollowedFace, ...]:
        """Returns the faces of the next frame, in the same order."""
        tracks = self._tracker.update(np.asarray([face.box for face in faces], np.float64).reshape(-1, 4))
        followed = tuple(
            FollowedFace(self._smoother.smoothed(face, track), track) for face, track in zip(faces, tracks, strict=True)
        )
        self._smoother.forget_all_but(self._tracker.alive)
        return followed


def run_live(
    source: Source,
    work: Work,
    follower: Follower,
    outputs: Sequence[Output],
    table: RowWriter | None,
    stages: Stages,
    *,
    most: int | None = None,
) -> Account:
    """Works until the source ends, `most` frames are done, or a stop is asked for; returns what came of it."""
    account = Account()
    shown = [output for output in outputs if output.in_calling_thread]
    written = [output for output in outputs if not output.in_calling_thread]

    def label(frame: Frame) -> Sequence[Face]:
        with stages.timed("detect"):
            found = work.labeler.find(frame.pixels if frame.data is None else frame.data)
        with stages.timed("label"):
            return work.labeler.label_found(found).faces

    def write(frame: Frame, followed: Sequence[FollowedFace], picture: np.ndarray) -> None:
        with stages.timed("write"):
            if table is not None:
                table.add(rows_of(frame, followed))
            for output in written:
                output.write(picture, frame.number)
        stages.end_frame(frame.came)

    frames, workers = read(source, stages, most), work.frames_at_once
    ahead = workers if source.paced else workers + 1  # of a camera the newest frame is wanted
    with (
        written_behind() as later,
        worked_on(frames, label, workers=workers, in_progress=ahead, stop=stopping.asked) as labelled,
    ):
        for frame, faces in labelled:
            with stages.timed("draw"):
                followed = follower.follow(faces)
                picture = drawn(frame.pixels, followed, work.labeler.classes)
                for output in shown:
                    output.write(picture, frame.number)
            later(partial(write, frame, followed, picture))
            _count(account, frame, followed, follower.tracks)
    return account


def read(source: Source, stages: Stages, most: int | None) -> Iterator[Frame]:
    """Yields the frames of a source, `most` of them, and counts how long each took since it came."""
    for frame in islice(source.frames(), most):
        stages.since(frame.came, "read")
        yield frame


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


def columns(spec: OutputSpec) -> list[Column]:
    """Returns the columns of the table of faces: those of `predictions/`, and which frame and track."""
    return [
        Column("image_id", "string", nullable=False),
        Column("frame", "int64", nullable=False),
        Column("time_s", "float64", nullable=False),
        Column("track", "int64", nullable=False),
        *face_columns(spec),
    ]


def face_columns(spec: OutputSpec) -> list[Column]:
    """Returns the columns of `predictions/` after `image_id`."""
    return [
        *(Column(name, "int32", nullable=False) for name in ("face_index", "x", "y", "width", "height")),
        Column("detection_score", "float32", nullable=False),
        *(Column(name, kind) for name, kind in types_shown(spec).items()),
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
        "intensity": face.intensity,
        "no_label_score": face.no_label_score,
        **{f"p_{name}": value for name, value in face.probabilities.items()},
        **face.more,
    }
