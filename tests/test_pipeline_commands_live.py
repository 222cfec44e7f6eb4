"""`live`: a video in, boxes and labels out, the labels of `label`, and one line for whatever is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import moving_faces
import numpy as np
import pictures
import pyarrow.parquet as pq
import pytest
import runs

from models.heads.output_spec import ClassOutput
from pipeline.cli import parse
from pipeline.live.loop import columns, face_columns
from transforms.formats.row_table import arrow_schema
from transforms.formats.video import open_video
from transforms.merge.rows import face_schema

COUNT = 12


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of two faces that move."""
    return moving_faces.write(tmp_path_factory.mktemp("clip") / "clip.avi", COUNT, faces=2)


@pytest.fixture(scope="module")
def labelled(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> runs.Ended:
    """That video with boxes and labels, without smoothing."""
    output = tmp_path_factory.mktemp("labelled") / "out.avi"
    return live("--video", str(clip), "--output", str(output), "--smoothing", "0", output=output).done()


def live(*arguments: str, output: Path) -> runs.Ended:
    return runs.run("live", *arguments, output=output)


def table(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path).to_pylist()


def frames_of(path: Path) -> list[np.ndarray]:
    reader = open_video(str(path))
    frames = []
    while (frame := reader.read()) is not None:
        frames.append(frame)
    return frames


# --- what comes out ---------------------------------------------------------------------------------------------------


def test_every_frame_is_drawn_and_every_face_has_a_row(clip: Path, labelled: runs.Ended) -> None:
    before, after = frames_of(clip), frames_of(labelled.output)
    assert len(before) == len(after) == COUNT
    rows = table(labelled.output.with_suffix("").with_suffix(".faces.parquet"))
    assert len(rows) == 2 * COUNT
    assert [row["frame"] for row in rows] == [number for number in range(COUNT) for _ in range(2)]
    assert {row["track"] for row in rows} == {0, 1}
    assert [row["time_s"] for row in rows[::2]] == pytest.approx([number / 25 for number in range(COUNT)], abs=0.002)
    for row in rows:
        x, y, width, height = (row[name] for name in ("x", "y", "width", "height"))
        changed = np.abs(after[row["frame"]].astype(int) - before[row["frame"]]).max(axis=2) > 60
        assert changed[y - 8 : y + height + 8, x - 8 : x + width + 8].any()  # a box around it
        assert changed[max(0, y - 30) : y - 4, x : x + width].mean() > 0.2  # and a label above it


def test_the_closing_words_say_how_long_each_stage_took(labelled: runs.Ended) -> None:
    assert f"{COUNT} frames of clip.avi (640×480)" in labelled.out and "0 dropped" in labelled.out
    assert f"{2 * COUNT} faces in 2 tracks: happy" in labelled.out
    for stage in ("read", "detect", "label", "draw", "write", "latency", "interval"):
        assert any(line.split()[0] == stage for line in labelled.out.splitlines())
    assert f"of {COUNT - 1} frames within the budget of 33 ms, by interval" in labelled.out


def test_labels_are_those_of_label_for_the_same_frames(clip: Path, labelled: runs.Ended, tmp_path: Path) -> None:
    chosen = ["features.runtime=onnx", "faces.one_shot.min_face_fraction=0.06", "write.no_face_label=neutral"]
    for number, frame in enumerate(frames_of(clip)):
        pictures.write_folder(tmp_path / "in", {f"{number:06d}.png": pictures.png(frame)})
    out = tmp_path / "out"
    arguments = ["--runner=DirectRunner", "--input", str(tmp_path / "in"), "--output", str(out)]
    run = runs.run(*arguments, "--set", "write.report=false", *chosen, output=out).done()
    reported = [{**row, "image_id": f"clip.avi/{row['image_id'][:-4]}"} for row in runs.predictions(run.output)]
    rows = table(labelled.output.with_suffix("").with_suffix(".faces.parquet"))
    assert [{name: value for name, value in row.items() if name in reported[0]} for row in rows] == reported


def test_a_folder_of_frames_gives_the_same_rows_in_a_folder_of_pictures(
    clip: Path, labelled: runs.Ended, tmp_path: Path
) -> None:
    for number, frame in enumerate(frames_of(clip)):
        pictures.write_folder(tmp_path / "in", {f"{number:06d}.png": pictures.png(frame)})
    out = tmp_path / "out"
    arguments = ["--frames", str(tmp_path / "in"), "--output", str(out), "--smoothing", "0"]
    live(*arguments, output=out).done()
    names = [f"frame-{number:06d}.jpg" for number in range(COUNT)]
    assert sorted(path.name for path in out.iterdir()) == ["faces.parquet", *names]
    assert cv2.imread(str(out / names[0])).shape == (480, 640, 3)
    ours = [{**row, "image_id": f"clip.avi/{row['image_id'][:-4]}"} for row in table(out / "faces.parquet")]
    theirs = table(labelled.output.with_suffix("").with_suffix(".faces.parquet"))
    assert [{**row, "time_s": 0} for row in ours] == [{**row, "time_s": 0} for row in theirs]


def test_smoothing_holds_labels_together(clip: Path, labelled: runs.Ended, tmp_path: Path) -> None:
    out = tmp_path / "out.avi"
    arguments = ["--video", str(clip), "--output", str(out), "--faces", str(tmp_path / "rows.parquet")]
    live(*arguments, "--smoothing", "0.9", output=out).done()
    plain = table(labelled.output.with_suffix("").with_suffix(".faces.parquet"))
    smooth = table(tmp_path / "rows.parquet")
    assert [row["x"] for row in smooth] == [row["x"] for row in plain]
    mean: dict[int, float] = {}
    for own, shown in zip(plain, smooth, strict=True):
        before = mean.get(own["track"], own["p_happy"])
        mean[own["track"]] = 0.9 * before + 0.1 * own["p_happy"]
        assert shown["p_happy"] == pytest.approx(mean[own["track"]], abs=1e-6)


def test_columns_are_those_of_predictions_and_where_the_face_was() -> None:
    for rejecting in (False, True):
        known = face_schema(ClassOutput(("angry", "happy"), rejecting=rejecting))
        ours = arrow_schema(columns(ClassOutput(("angry", "happy"), rejecting)))
        assert [name for name in ours.names if name not in ("frame", "time_s", "track")] == known.names
        assert arrow_schema(face_columns(ClassOutput(("angry", "happy"), rejecting))).equals(known.remove(0))


def test_only_so_many_frames_are_done(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    live("--video", str(clip), "--output", str(out), "--max-frames", "3", output=out).done()
    assert len(frames_of(out)) == 3


def test_in_real_time_the_video_keeps_its_length(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.avi"
    ended = live("--video", str(clip), "--output", str(out), "--realtime", output=out).done()
    rows = table(tmp_path / "out.faces.parquet")
    done = len({row["frame"] for row in rows})
    assert f"{done} frames of" in ended.out
    assert f"of {done} frames within the budget of 33 ms, by latency" in ended.out
    assert len(frames_of(out)) == rows[-1]["frame"] + 1


# --- what it starts with ----------------------------------------------------------------------------------------------


def test_neither_beam_nor_tensorflow_nor_keras_is_imported(clip: Path, tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from pipeline.cli import main\n"
        "assert main(sys.argv[1:]) == 0\n"
        "heavy = {'apache_beam', 'tensorflow', 'keras', 'jax', 'sklearn', 'matplotlib', 'h5py', 'pyarrow'}\n"
        "print('heavy:', sorted(heavy & set(sys.modules)))\n"
    )
    arguments = ["live", "--video", str(clip), "--output", str(tmp_path / "out.avi")]
    arguments += ["--faces", str(tmp_path / "faces.csv"), "--max-frames", "2"]
    ended = runs.finish(runs.start(*arguments, script=script), tmp_path).done()
    assert "heavy: []" in ended.out


def test_settings_of_its_own_count_unless_others_are_given() -> None:
    line = ["live", "--video", "a.avi", "--output", "b.avi"]
    settings = parse(line).context.settings
    assert (settings.features.runtime, settings.faces.one_shot.min_face_fraction) == ("onnx", 0.06)
    settings = parse([*line, "--set", "features.runtime=tensorflow"]).context.settings
    assert (settings.features.runtime, settings.faces.one_shot.min_face_fraction) == ("tensorflow", 0.06)
    assert parse(["--input", "a", "--output", "b"]).context.settings.features.runtime is None
    assert "features.runtime=onnx" in parse(["live", "--help"])


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------

INTERRUPTED = """
import os, signal, sys
from pipeline.live import loop
from pipeline.cli import main
counted = loop._count
def count(account, *rest):
    counted(account, *rest)
    if account.frames == 4:
        os.kill(os.getpid(), signal.SIGINT)
loop._count = count
sys.exit(main(sys.argv[1:]))
"""


def test_ctrl_c_keeps_all_frames_so_far(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.avi"
    process = runs.start("live", "--video", str(clip), "--output", str(out), script=INTERRUPTED)
    ended = runs.finish(process, tmp_path)
    assert ended.status == 130
    assert "interrupted after 4 frames, which the files hold" in ended.err
    assert "4 frames of clip.avi" in ended.out
    assert len(frames_of(out)) == 4
    assert [row["frame"] for row in table(tmp_path / "out.faces.parquet")] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.avi", "out.faces.parquet"]


WRITES_FAIL = """
import sys
from pipeline.live.outputs import VideoFile
from pipeline.errors import StoppedError
from pipeline.cli import main
write = VideoFile.write
def full(self, picture, number):
    if number == 3:
        raise StoppedError("no space left on device")
    write(self, picture, number)
VideoFile.write = full
sys.exit(main(sys.argv[1:]))
"""


def test_what_fails_while_writing_is_one_line_and_leaves_nothing(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.avi"
    process = runs.start("live", "--video", str(clip), "--output", str(out), script=WRITES_FAIL)
    ended = runs.finish(process, tmp_path)
    assert ended.status == 3
    assert ended.err.strip().splitlines() == ["pipeline: error: no space left on device"]
    assert list(tmp_path.iterdir()) == []


# --- what is refused --------------------------------------------------------------------------------------------------

REFUSED = {
    "no source": (["--output", "{out}"], "live takes one of --video, --camera, --frames"),
    "two sources": (["--video", "{clip}", "--camera", "0", "--output", "{out}"], "and not --video and --camera"),
    "no output": (["--video", "{clip}"], "live needs --output PATH or --show"),
    "no such file": (["--video", "{tmp}/none.mp4", "--output", "{out}"], "there is no such file"),
    "not a video": (["--video", "{words}", "--output", "{out}"], "is not a video that OpenCV can read"),
    "a folder": (["--video", "{tmp}", "--output", "{out}"], "is not a file"),
    "no camera": (["--camera", "99", "--output", "{out}"], "--camera 99: no such camera"),
    "not a camera": (["--camera", "front", "--output", "{out}"], "'front' is not the number of a camera"),
    "no folder": (["--frames", "{tmp}/none", "--output", "{out}"], "give a folder of pictures"),
    "unknown kind of video": (["--video", "{clip}", "--output", "{tmp}/a.wmv"], "videos end in .avi"),
    "nowhere": (["--video", "{clip}", "--output", "{tmp}/none/a.avi"], "there is no folder"),
    "unknown kind of table": (["--video", "{clip}", "--output", "{out}", "--faces", "{tmp}/a.xlsx"], "tables end in"),
    "real time of pictures": (["--frames", "{tmp}", "--output", "{out}", "--realtime"], "--realtime is for --video"),
    "a rate of a video": (["--video", "{clip}", "--output", "{out}", "--frame-rate", "5"], "--frame-rate is for"),
    "too smooth": (["--video", "{clip}", "--output", "{out}", "--smoothing", "1"], "'1' is not a share from 0 to 0.99"),
    "foreign folder": (["--video", "{clip}", "--output", "{tmp}"], ", which live did not write"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_said_in_one_line(
    case: str, clip: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments, words = REFUSED[case]
    (tmp_path / "words.avi").write_bytes(b"no video at all" * 100)
    places = {"clip": clip, "tmp": tmp_path, "out": tmp_path / "out.avi", "words": tmp_path / "words.avi"}
    ended = live(*(text.format(**places) for text in arguments), output=tmp_path)
    assert ended.status == 2
    assert words in ended.line
    assert capfd.readouterr().err == ""  # nor a word of OpenCV's
    assert [path.name for path in tmp_path.iterdir()] == ["words.avi"]


def test_there_is_no_window_without_a_display(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    for display in ("", ":4242"):
        monkeypatch.setenv("DISPLAY", display)
        ended = live("--video", str(clip), "--show", output=tmp_path)
        assert ended.status == 2 and "--show: there is no display here" in ended.line


def test_a_codec_that_is_not_there_is_named(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2.VideoWriter, "isOpened", lambda self: False)
    ended = live("--video", str(clip), "--output", str(tmp_path / "out.mp4"), output=tmp_path)
    assert ended.status == 2
    assert "this OpenCV has no encoder mp4v for .mp4; try .avi" in ended.line
    assert list(tmp_path.iterdir()) == []


def test_results_are_replaced_only_when_asked(clip: Path, tmp_path: Path) -> None:
    for out in (tmp_path / "out.avi", tmp_path / "pictures"):
        arguments = ["--video", str(clip), "--output", str(out), "--max-frames", "2"]
        live(*arguments, output=out).done()
        before = runs.tree(tmp_path)
        refused = live(*arguments, output=out)
        assert refused.status == 2 and "--overwrite" in refused.line
        assert runs.tree(tmp_path) == before
        live(*arguments[:-1], "1", "--overwrite", output=out).done()
    assert len(frames_of(tmp_path / "out.avi")) == 1
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == ["faces.parquet", "frame-000000.jpg"]
    (tmp_path / "pictures" / "mine.jpg").write_bytes(b"mine")
    refused = live(*arguments, "--overwrite", output=out)
    assert refused.status == 2 and "holds mine.jpg, which live did not write" in refused.line


def test_frames_of_several_sizes_need_a_folder(tmp_path: Path) -> None:
    pictures.write_folder(
        tmp_path / "in",
        {"a.png": pictures.png(pictures.plain(60, 80)), "b.png": pictures.png(pictures.plain(40, 80))},
    )
    arguments = ["--frames", str(tmp_path / "in"), "--output"]
    stopped = live(*arguments, str(tmp_path / "out.avi"), output=tmp_path)
    assert stopped.status == 3 and "a frame is 80×40 and the video 80×60" in stopped.line
    assert not (tmp_path / "out.avi").exists()
    live(*arguments, str(tmp_path / "out"), output=tmp_path).done()


def test_help_names_the_settings_that_it_reads() -> None:
    reported = subprocess.run(
        [sys.executable, "-m", "pipeline", "live", "--help"], cwd=runs.ROOT, text=True, capture_output=True, check=True
    )
    for words in ("live.smoothing=0.7", "live.budget_ms", "faces.one_shot.min_face_fraction=0.06", "--realtime"):
        assert words in reported.stdout
    assert "features.batch_size" not in reported.stdout
