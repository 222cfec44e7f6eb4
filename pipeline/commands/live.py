"""`live`: its flags. `pipeline/actions/live.py` does the work."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.commands.command import Command
from pipeline.errors import UsageError
from pipeline.flag_values import camera, count, frame_rate, smoothing
from pipeline.flags import Options, one, parsed, switch


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveOptions(Options):
    """Where frames come from, and where they go."""

    video: str | None = one("FILE", "frames of a video file")
    camera: int | None = parsed(camera, "N", "frames of a camera, 0 is the first; Ctrl-C ends it")
    frames: str | None = one("FOLDER", "pictures as frames, in the order of their names")
    output: str | None = one("PATH", "a video (.avi, .mp4, .mkv, .mov), or a folder of pictures, with boxes and labels")
    show: bool = switch("show the frames in a window; q ends it")
    faces: str | None = one("FILE", "table of the faces, .parquet or .csv; default beside --output")
    smoothing: float | None = parsed(
        smoothing, "F", "share of the frames before in a face's label; 0 for none", setting="live.smoothing"
    )
    realtime: bool = switch("read a video at its own rate, and drop frames that are overdue")
    frame_rate: float | None = parsed(frame_rate, "N", "of --frames, a second; default 25")
    max_frames: int | None = parsed(count, "N", "stop after so many frames")
    overwrite: bool = switch("replace results that already exist")

    def __post_init__(self) -> None:
        sources = {"--video": self.video, "--camera": self.camera, "--frames": self.frames}
        given = [flag for flag, value in sources.items() if value is not None]
        if len(given) != 1:
            raise UsageError(f"live takes one of {', '.join(sources)}, and not {' and '.join(given) or 'none'}")
        if not (self.output or self.show):
            raise UsageError("live needs --output PATH or --show")
        if self.realtime and self.video is None:
            raise UsageError("--realtime is for --video; a camera is always in real time, --frames never")
        if self.frame_rate is not None and self.frames is None:
            raise UsageError(f"--frame-rate is for --frames; {given[0]} has a rate of its own")


COMMAND = Command(
    name="live",
    summary="draw boxes and labels above faces into a video, frame by frame",
    example="live --video clip.mp4 --output labelled.mp4",
    options=LiveOptions,
    settings=("faces", "features", "head.path", "live", "read.max_image_bytes", "read.max_pixels"),
    settings_unused=("features.batch_size",),
    defaults={"features.runtime": "onnx", "faces.one_shot.min_face_fraction": 0.06},
)
