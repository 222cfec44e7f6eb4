"""What a frame of 640×480 costs `live`, by stage, with one face and with five, on one core and on two.

Each case runs in a process of its own that is bound to its cores, over a video made by code: the loop of `live`, with
its default settings, from the video to a video. A file is read as fast as it is labelled, a frame a core at a time. In
real time, at 25 frames a second, it is one frame at a time by all cores, as of a camera. Cases alternate, several
times, and of each median the least of all repeats counts. CPU time is that of the whole process.

Also: how long the whole command takes for one frame, from its start to the end of its files.
"""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import measuring
import numpy as np

FILE, REAL_TIME = "file", "real time"
CASES = [
    *((faces, cores, FILE) for faces in (1, 5) for cores in (1, 2)),
    *((faces, 2, REAL_TIME) for faces in (1, 5)),
]
SETTINGS = {  # named in the table
    "default": [],
    "openvino": ["features.runtime=openvino"],
    "openvino, bfloat16": ["features.runtime=openvino", "features.precision=bfloat16"],
}
STAGES = ("read", "detect", "label", "draw", "write", "latency", "interval")
WARM_UP = 10  # frames that do not count


# --- in a process of its own ------------------------------------------------------------------------------------------


def measure(video: Path, output: Path, cores: int, way: str, settings: Sequence[str]) -> dict[str, Any]:
    """Returns, by stage, median and 95th percentile by the clock in ms, and the CPU time of a frame in ms."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    from pipeline.api.face_labeler import FaceLabeler
    from pipeline.commands.live import COMMAND
    from pipeline.live.loop import Follower, Work, run_live
    from pipeline.live.outputs import output_of
    from pipeline.live.overlap import frames_at_once
    from pipeline.live.sources import source_of
    from pipeline.live.stages import Stages
    from pipeline.settings.load import load_settings
    from transforms.formats.records import Limits

    class Clocks(Stages):
        """Keeps every time, in ms."""

        def __init__(self) -> None:
            super().__init__()
            self.times: dict[str, list[float]] = {name: [] for name in STAGES}
            self.cpu_s: list[float] = []  # of the process, at the end of each frame

        def _count(self, stage: str, spent_s: float) -> None:
            super()._count(stage, spent_s)
            self.times[stage].append(spent_s * 1000)
            if stage == "latency":
                self.cpu_s.append(time.process_time())

    chosen = load_settings((), settings, defaults=COMMAND.defaults)
    paced = way == REAL_TIME
    source = source_of(video=str(video), camera=None, frames=None, realtime=paced, rate=None, limits=Limits())
    at_once = frames_at_once(cores, paced=paced)
    labeler = FaceLabeler(settings=chosen, threads=max(1, cores // at_once), at_once=at_once)
    clocks, follower = Clocks(), Follower(chosen.live, labeler.first_output)
    with output_of(str(output), source.rate) as drawn:
        account = run_live(source, Work(labeler, at_once), follower, [drawn], None, clocks)
    warm = min(WARM_UP, account.frames // 2)  # a busy machine drops many in real time
    cpu_ms = (clocks.cpu_s[-1] - clocks.cpu_s[warm - 1]) * 1000 / (account.frames - warm)
    found: dict[str, Any] = {"faces": account.faces / account.frames, "cpu_ms": cpu_ms}
    for name in STAGES:
        kept = clocks.times[name][warm:]
        found[name] = [float(np.median(kept)), float(np.percentile(kept, 95))]
    return found


# --- tables -----------------------------------------------------------------------------------------------------------


def run(options: Namespace, place: Path) -> int:
    """Measures, prints, and returns the exit status."""
    count, repeats = (30, 1) if options.small else (options.frames, options.repeats)
    videos = {faces: place / f"{faces}.avi" for faces in (1, 5)}
    for faces, path in videos.items():
        measuring.start(Path(__file__), "--video", path, str(count), str(faces)).wait().done()
    found: dict[tuple[str, int, int, str], list[dict[str, Any]]] = {}
    kinds = dict(list(SETTINGS.items())[:1]) if options.small else SETTINGS
    for _ in range(repeats):
        for name, settings in kinds.items():
            for faces, cores, way in CASES:
                measuring.progress(f"{faces} faces on {cores} cores, {way}, {name}")
                words = ["--measure", videos[faces], place / "out.avi", str(cores), way, *settings]
                ran = measuring.start(Path(__file__), *words).wait().done()
                found.setdefault((name, faces, cores, way), []).append(json.loads(ran.out.splitlines()[-1]))
    rows = []
    for (name, faces, cores, way), runs in found.items():
        assert all(one["faces"] == faces for one in runs), "a face was missed, so less was computed"
        least = {stage: np.min([one[stage] for one in runs], axis=0) for stage in STAGES}
        rows.append(
            [name, way, faces, cores]
            + [f"{least[stage][0]:.1f}, {least[stage][1]:.1f}" for stage in STAGES]
            + [f"{min(one['cpu_ms'] for one in runs):.1f}"]
        )
    head = ["settings", "source", "faces", "cores", *(f"{stage}, ms" for stage in STAGES), "CPU, ms a frame"]
    measuring.show(f"Median and 95th percentile by the clock, least of {repeats} repeats", head, rows)
    starts = [first_frame(videos[1], place) for _ in range(repeats)]
    wall, cpu = min(one[0] for one in starts), min(one[1] for one in starts)
    measuring.show("The whole command for one frame", ["seconds", "CPU s"], [[f"{wall:.2f}", f"{cpu:.2f}"]])
    load = os.getloadavg()
    print(f"load of the machine meanwhile, 1, 5 and 15 minutes: {load[0]:.1f}, {load[1]:.1f}, {load[2]:.1f}")

    def least_ms(faces: int, way: str, what: str) -> float:
        return min(one[what][0] for one in found["default", faces, 2, way])

    claims = []
    for faces, most_ms in ((1, 10), (5, 33)):
        every, late = least_ms(faces, FILE, "interval"), least_ms(faces, REAL_TIME, "latency")
        case = f"{faces} {'face' if faces == 1 else 'faces'} on two cores"
        claims.append((f"{case}, a file: {every:.1f} ms a frame, at most {most_ms}", every <= most_ms))
        claims.append((f"{case}, real time: {late:.1f} ms late, at most 33", late <= 33))
    return measuring.verdict(
        [
            *claims,
            (f"the first frame is done after {wall:.2f} s, at most 1", wall <= 1),
        ]
    )


def first_frame(video: Path, place: Path) -> tuple[float, float]:
    """Returns seconds and CPU seconds of `live` for one frame."""
    words = [
        "-m",
        "pipeline",
        "live",
        "--video",
        video,
        "--output",
        place / "first.avi",
        "--faces",
        place / "first.csv",
    ]
    ran = measuring.start(*words, "--max-frames", "1", "--overwrite").wait().done()
    return ran.wall_s, ran.cpu_s


def main(arguments: Sequence[str]) -> int:
    if arguments and arguments[0] == "--measure":
        video, output, cores, way, *settings = arguments[1:]
        sys.stdout.write(json.dumps(measure(Path(video), Path(output), int(cores), way, settings)) + "\n")
        return 0
    if arguments and arguments[0] == "--video":
        import moving_faces  # found by a process of `measuring` alone

        moving_faces.write(Path(arguments[1]), int(arguments[2]), faces=int(arguments[3]))
        return 0
    parser = measuring.parser(__doc__ or "")
    parser.add_argument("--repeats", type=int, default=3, help="of every case (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=150, help="of every video (default: %(default)s)")
    options = parser.parse_args(arguments)
    with measuring.workplace(options) as place:
        return run(options, place)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
