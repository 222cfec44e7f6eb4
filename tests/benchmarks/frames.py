"""What a frame of 640×480 costs `live`, by stage, with one face and with five, on one core and on two.

Each case runs in a process of its own that is bound to its cores, over a video made by code: the loop of `live`, with
its default settings, from the video to a video. Cases alternate, several times. On a busy machine the clock says
little, so CPU time stands beside it, and of each median the least of all repeats counts.

Also: how long the whole command takes for one frame, from its start to the end of its files.
"""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import measuring
import numpy as np

CASES = [(faces, cores) for faces in (1, 5) for cores in (1, 2)]
SETTINGS = {  # named in the table
    "default": [],
    "openvino, bfloat16": ["features.runtime=openvino", "features.precision=bfloat16"],
    "smallest face 0.1": ["faces.one_shot.min_face_fraction=0.1"],
}
STAGES = ("read", "detect", "label", "draw", "write", "frame")
WARM_UP = 10  # frames that do not count


# --- in a process of its own ------------------------------------------------------------------------------------------


class Clocks:
    """Stands for `Stages`: keeps every time, by the clock and of the CPU, in ms."""

    def __init__(self) -> None:
        self.wall: dict[str, list[float]] = {name: [] for name in STAGES}
        self.cpu: dict[str, list[float]] = {name: [] for name in STAGES}
        self._frame = [0.0, 0.0]

    @contextmanager
    def timed(self, stage: str) -> Any:
        began, before = time.perf_counter(), time.process_time()
        yield
        spent = (time.perf_counter() - began) * 1000, (time.process_time() - before) * 1000
        self.wall[stage].append(spent[0])
        self.cpu[stage].append(spent[1])
        self._frame = [self._frame[0] + spent[0], self._frame[1] + spent[1]]

    def end_frame(self) -> None:
        self.wall["frame"].append(self._frame[0])
        self.cpu["frame"].append(self._frame[1])
        self._frame = [0.0, 0.0]


def measure(video: Path, output: Path, cores: int, settings: Sequence[str]) -> dict[str, Any]:
    """Returns, by stage, median and 95th percentile by the clock, and the median of the CPU time, in ms."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    from pipeline.actions.live import cores as threads
    from pipeline.api.face_labeler import FaceLabeler
    from pipeline.commands.live import COMMAND
    from pipeline.live.loop import Follower, run_live
    from pipeline.live.outputs import output_of
    from pipeline.live.sources import source_of
    from pipeline.settings.load import load_settings
    from transforms.formats.records import Limits

    chosen = load_settings((), settings, defaults=COMMAND.defaults)
    labeler = FaceLabeler(settings=chosen, threads=threads())
    clocks = Clocks()
    follower = Follower(labeler, chosen.live, clocks)  # type: ignore[arg-type]
    source = source_of(video=str(video), camera=None, frames=None, realtime=False, rate=None, limits=Limits())
    with output_of(str(output), source.rate) as drawn:
        account = run_live(source, follower, [drawn], None, labeler.classes, clocks)  # type: ignore[arg-type]
    found = {"faces": account.faces / account.frames}
    for name in STAGES:
        wall, cpu = clocks.wall[name][WARM_UP : account.frames], clocks.cpu[name][WARM_UP : account.frames]
        found[name] = [float(np.median(wall)), float(np.percentile(wall, 95)), float(np.median(cpu))]
    return found


# --- tables -----------------------------------------------------------------------------------------------------------


def run(options: Namespace, place: Path) -> int:
    """Measures, prints, and returns the exit status."""
    count, repeats = (30, 1) if options.small else (150, options.repeats)
    videos = {faces: place / f"{faces}.avi" for faces in (1, 5)}
    for faces, path in videos.items():
        measuring.start(Path(__file__), "--video", path, str(count), str(faces)).wait().done()
    found: dict[tuple[str, int, int], list[dict[str, Any]]] = {}
    kinds = dict(list(SETTINGS.items())[:1]) if options.small else SETTINGS
    for _ in range(repeats):
        for name, settings in kinds.items():
            for faces, cores in CASES:
                measuring.progress(f"{faces} faces on {cores} cores, {name}")
                words = ["--measure", videos[faces], place / "out.avi", str(cores), *settings]
                ran = measuring.start(Path(__file__), *words).wait().done()
                found.setdefault((name, faces, cores), []).append(json.loads(ran.out.splitlines()[-1]))
    rows = []
    for (name, faces, cores), runs in found.items():
        assert all(one["faces"] == faces for one in runs), "a face was missed, so less was computed"
        least = {stage: np.min([one[stage] for one in runs], axis=0) for stage in STAGES}
        rows.append(
            [name, faces, cores]
            + [f"{least[stage][0]:.1f}, {least[stage][1]:.1f}" for stage in STAGES]
            + [", ".join(f"{least[stage][2]:.1f}" for stage in STAGES)]
        )
    head = ["settings", "faces", "cores", *(f"{stage}, ms" for stage in STAGES), "CPU, ms, by stage"]
    measuring.show(f"Median and 95th percentile by the clock, least of {repeats} repeats", head, rows)
    starts = [first_frame(videos[1], place) for _ in range(repeats)]
    wall, cpu = min(one[0] for one in starts), min(one[1] for one in starts)
    measuring.show("The whole command for one frame", ["seconds", "CPU s"], [[f"{wall:.2f}", f"{cpu:.2f}"]])
    load = os.getloadavg()
    print(f"load of the machine meanwhile, 1, 5 and 15 minutes: {load[0]:.1f}, {load[1]:.1f}, {load[2]:.1f}")

    def frame_ms(faces: int, cores: int) -> float:
        return min(one["frame"][0] for one in found["default", faces, cores])

    return measuring.verdict(
        [
            (f"one face on two cores: {frame_ms(1, 2):.1f} ms a frame, at most 10", frame_ms(1, 2) <= 10),
            (f"five faces on two cores: {frame_ms(5, 2):.1f} ms a frame, at most 33", frame_ms(5, 2) <= 33),
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
        video, output, cores, *settings = arguments[1:]
        sys.stdout.write(json.dumps(measure(Path(video), Path(output), int(cores), settings)) + "\n")
        return 0
    if arguments and arguments[0] == "--video":
        import moving_faces  # found by a process of `measuring` alone

        moving_faces.write(Path(arguments[1]), int(arguments[2]), faces=int(arguments[3]))
        return 0
    parser = measuring.parser(__doc__ or "")
    parser.add_argument("--repeats", type=int, default=3, help="of every case (default: %(default)s)")
    options = parser.parse_args(arguments)
    with measuring.workplace(options) as place:
        return run(options, place)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
