"""The page of a run: its size whatever the run, what is counted, what is drawn, and names."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from made_runs import MadeImage, write_images, write_run
from pictures import jpeg

from pipeline.report import run_pictures
from pipeline.report.overlay import marks, percent, view_of
from pipeline.report.photo import Face, Photo
from pipeline.report.repeats import Repeats
from pipeline.report.run_charts import distribution_charts, span_names, words_of
from pipeline.report.run_metrics import RunMetrics
from pipeline.report.run_page import _summary
from pipeline.report.run_report import RunReport
from pipeline.report.run_samples import Chooser
from pipeline.report.visible_names import visible
from transforms.formats.records import Limits
from transforms.formats.result_batches import FACE_COLUMNS, IMAGE_COLUMNS, result_batches
from transforms.formats.results import ResultsError

MOST_BYTES = 5_000_000  # of the page, whatever the run


@pytest.fixture
def noise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Every photo can be read again, and is noise, which no format makes small; returns the path of a plan."""
    picture = jpeg(np.random.default_rng(1).integers(0, 256, (1200, 1600, 3)).astype(np.uint8))

    def read(_lines: object, wanted: Mapping[str, str], *_: object, **__: object) -> Iterator[tuple[str, bytes]]:
        yield from ((image_id, picture) for image_id in list(wanted))

    monkeypatch.setattr(run_pictures, "read_what_is_left", read)
    plan = tmp_path / "plan.jsonl"
    plan.write_text("one line\n")
    return str(plan)


def test_the_page_is_small_in_the_worst_case(tmp_path: Path, noise: str) -> None:
    name = "&<" * 1990 + "{}.jpg"  # 4,000 letters that grow when they are escaped
    record = write_run(tmp_path, 4_000, classes=300, faces=40, name=name)
    reported = RunReport(str(tmp_path), noise, Limits())(record)
    assert reported["photos"] > 90 and reported["photos_missing"] == 0
    assert reported["files"][0]["bytes"] < MOST_BYTES


@pytest.mark.slow  # `-m slow` runs it: a million rows take a minute to make up
def test_the_page_of_a_million_images_is_small_and_soon_there(tmp_path: Path, noise: str) -> None:
    record = write_run(tmp_path, 1_000_000)
    before, start = time.process_time(), time.perf_counter()
    reported = RunReport(str(tmp_path), noise, Limits())(record)
    print(reported, f"{time.perf_counter() - start:.1f} s, {time.process_time() - before:.1f} s CPU")
    assert reported["files"][0]["bytes"] < MOST_BYTES
    assert time.process_time() - before < 120


def test_batches_of_any_size_count_the_same(tmp_path: Path) -> None:
    record = write_run(tmp_path, 3_000)
    classes = record["head"]["classes"]

    def counted(batch: int) -> tuple[Any, ...]:
        metrics, repeats, chooser = RunMetrics(classes), Repeats(), Chooser(classes, "seed")
        for some in result_batches(str(tmp_path), batch=batch):
            for each in (metrics, repeats, chooser):
                each.add(some)
        result = metrics.result()
        for label in result["labels"]:
            label["mean_confidence"] = round(label["mean_confidence"], 9)  # a sum in another order
        return result, repeats.result(result_batches(str(tmp_path), batch=batch)), chooser.result()

    once = counted(8_192)
    assert counted(100) == once
    assert {row["label"]: row["faces"] for row in once[0]["labels"]} == record["labels"]
    assert len(once[2].sample) == 18 and len(once[2].galleries) == 7
    assert all(len(gallery) == 10 for gallery in once[2].galleries.values())


def test_the_intensity_is_counted_where_the_head_says_it(tmp_path: Path) -> None:
    box = (0, 0, 40, 40)
    images = [
        MadeImage("a.jpg", [(box, "happy", 0.8, 0.9), (box, "happy", 0.4, 0.9), (box, None, 0.0, 0.9)]),
        MadeImage("b.jpg", [(box, "sad", 0.6, 0.9)]),
    ]
    for name in ("with", "without"):
        (tmp_path / name).mkdir()
        record = write_images(tmp_path / name, images, ("fear", "happy", "sad"), intensity=name == "with")
        metrics = RunMetrics(record["head"]["classes"])
        for batch in result_batches(str(tmp_path / name)):
            metrics.add(batch)
        found = metrics.result()
        if name == "without":
            assert "intensity" not in found and all("mean_intensity" not in label for label in found["labels"])
            continue
        assert [label["mean_intensity"] for label in found["labels"]] == [None, pytest.approx(0.3), pytest.approx(0.3)]
        assert {at: count for at, count in enumerate(found["intensity"]) if count} == {4: 1, 6: 1, 8: 1}
        titles = [chart["title"] for chart in distribution_charts(found)]
        assert titles[:2] == ["Confidence of labels", "Intensity of labels"]


def test_another_seed_shows_other_photos_and_the_same_seed_the_same(tmp_path: Path) -> None:
    classes = write_run(tmp_path, 3_000)["head"]["classes"]

    def sample(seed: str) -> list[str]:
        chooser = Chooser(classes, seed)
        for batch in result_batches(str(tmp_path)):
            chooser.add(batch)
        return [photo.image_id for photo in chooser.result().sample]

    assert sample("a") == sample("a") != sample("b")
    assert sample("a") != sorted(sample("a"))


def test_most_faces_and_least_certain_are_the_most_and_the_least(tmp_path: Path) -> None:
    classes = write_run(tmp_path, 3_000)["head"]["classes"]
    chooser, counts, confidence = Chooser(classes, "a"), [], []
    for batch in result_batches(str(tmp_path), batch=500):
        chooser.add(batch)
        counts += batch.counts.tolist()
        confidence += batch.confidence.tolist()
    samples = chooser.result()
    assert [photo.face_count for photo in samples.most_faces] == sorted(counts, reverse=True)[:6]
    assert [face.confidence for _, face in samples.least_certain] == sorted(confidence)[:12]
    for photo, face in samples.least_certain:
        assert photo.faces[face.number] == face


def test_tables_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "one", 50)
    write_run(tmp_path / "other", 60)
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    (tmp_path / "one" / "images").rename(mixed / "images")
    (tmp_path / "other" / "predictions").rename(mixed / "predictions")
    with pytest.raises(ResultsError, match=r"predictions/ holds (more|fewer) faces than images/ counts"):
        list(result_batches(str(mixed)))


@pytest.mark.parametrize("column", ["digest", "confidence"])
def test_a_missing_column_is_named(tmp_path: Path, column: str) -> None:
    import pyarrow.parquet as pq

    write_run(tmp_path, 20)
    folder = tmp_path / ("images" if column in IMAGE_COLUMNS else "predictions")
    assert column in (*IMAGE_COLUMNS, *FACE_COLUMNS)
    path = next(folder.glob("*.parquet"))
    pq.write_table(pq.read_table(path).drop_columns([column]), path)
    with pytest.raises(ResultsError, match=f"has no column {column}"):
        list(result_batches(str(tmp_path)))


def test_a_box_that_many_photos_share_is_told(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    write_run(tmp_path, 400)
    path = next((tmp_path / "predictions").glob("*.parquet"))
    table = pq.read_table(path)
    columns = {name: table[name].to_pylist() for name in table.schema.names}
    first = [row for row in range(table.num_rows) if columns["face_index"][row] == 0][:30]
    for row in first:
        for name, value in (("x", 900), ("y", 20), ("width", 64), ("height", 80)):
            columns[name][row] = value
    pq.write_table(pa.table(columns, schema=table.schema), path)
    repeats = Repeats()
    for batch in result_batches(str(tmp_path)):
        repeats.add(batch)
    reported = repeats.result(result_batches(str(tmp_path)))
    assert [(box["faces"], box["box"], box["size"]) for box in reported["boxes"]] == [
        (30, [900, 20, 64, 80], [1600, 1200])
    ]
    assert reported["boxes"][0]["names"] == [columns["image_id"][row] for row in first[:5]]
    assert reported["copies"]["images"] == 0


# --- what is drawn ----------------------------------------------------------------------------------------------------


def photo_with(*boxes: tuple[int, int, int, int], width: int = 640, height: int = 480) -> Photo:
    faces = tuple(Face(number, box, number % 2, 0.9, 0.8) for number, box in enumerate(boxes))
    return Photo(0, "a.jpg", "", width, height, None, faces, len(faces))


def test_a_label_stands_above_its_box_and_below_where_there_is_no_room() -> None:
    above, below = marks(photo_with((100, 200, 90, 90), (300, 0, 80, 80)), ["happy", "sad"], 9)
    assert (above.text, above.at[0], above.at[1] < 200) == ("happy 90 %", 100, True)
    assert (below.text, below.at[1] > 80) == ("sad 90 %", True)


def test_labels_lie_neither_on_each_other_nor_on_a_face() -> None:
    boxes = [(40 + 60 * (at % 10), 60 + 50 * (at // 10), 40, 40) for at in range(80)]
    drawn = marks(photo_with(*boxes), ["happy", "a longer name"], 80)
    texts = [(m.at[0], m.at[1] - 17, m.at[0] + len(m.text) * 13, m.at[1] + 3) for m in drawn if m.text]
    assert 0 < len(texts) < 80
    for at, one in enumerate(texts):
        for other in texts[at + 1 :]:
            assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
        for x, y, wide, tall in boxes:
            assert one[2] <= x or x + wide <= one[0] or one[3] <= y or y + tall <= one[1]


def test_boxes_are_drawn_in_units_of_the_view_and_a_whole_photo_has_none() -> None:
    photo = photo_with((20, 40, 100, 100), (0, 0, 1280, 320), width=1280, height=320)
    assert view_of(photo) == (640, 160)
    whole, box = marks(photo, ["happy", "sad"], 9)
    assert whole.whole and not whole.text
    assert (box.x, box.y, box.width, box.height) == (10, 20, 50, 50)


def test_faces_that_a_tile_leads_to_are_drawn_also_in_a_crowd() -> None:
    photo = photo_with(*[(10 * at, 10, 9 + at, 9) for at in range(40)])
    drawn = marks(photo, ["happy", "sad"], 5, [photo.faces[0]])
    assert len(drawn) == 5 and drawn[0].x == 0


def test_a_face_that_two_tiles_lead_to_is_drawn_once() -> None:
    photo = photo_with((100, 100, 60, 60), (300, 100, 50, 50))
    drawn = marks(photo, ["happy", "sad"], 10, [photo.faces[1], photo.faces[1]])
    assert [mark.x for mark in drawn] == [300, 100]


@pytest.mark.parametrize("share, words", [(1.0, "100 %"), (0.9999, "99 %"), (0.5, "50 %"), (0.0, "0 %")])
def test_less_than_all_is_not_rounded_to_all(share: float, words: str) -> None:
    assert percent(share) == words


def test_charts_have_words() -> None:
    assert span_names([1, 2, 5]) == ["0", "1", "2–4", "5+"]
    assert words_of([1, 6, 3], ["low", "middle", "high"]) == "10 in all, median in middle, most (6) in middle"
    assert words_of([0, 0], ["a", "b"]) == "none"


@pytest.mark.parametrize(
    "name, shown",
    [
        ("plain ü漢字 👩\u200d🚀.jpg", "plain ü漢字 👩\u200d🚀.jpg"),
        ("a\u202eb\u2066c", "a\\u202eb\\u2066c"),
        ("line\nend\x7f\u2028", "line\\u000aend\\u007f\\u2028"),
        ("half \ud83d", "half \\ud83d"),
        ("\U000e0041tag", "\\U000e0041tag"),
    ],
)
def test_hidden_characters_are_shown(name: str, shown: str) -> None:
    assert visible(name) == shown


def test_a_long_name_loses_its_middle() -> None:
    assert visible("a" * 3000 + ".jpg", 11) == "aaaaa…a.jpg"
    assert json.loads(json.dumps(visible("x" * 161)))[80] == "…"


def test_where_no_photo_has_two_faces_none_has_the_most(tmp_path: Path) -> None:

    def most(faces: int) -> int:
        face = ((5, 5, 20, 20), "sad", 0.7, 0.9)
        images = [MadeImage(f"{at}.jpg", [face] * (faces if at == 3 else 1)) for at in range(9)]
        record = write_images(tmp_path / str(faces), images, ("happy", "sad"))
        chooser = Chooser(record["head"]["classes"], "seed")
        for batch in result_batches(str(tmp_path / str(faces))):
            chooser.add(batch)
        samples = chooser.result()
        assert len(samples.most_faces) + len(samples.sample) == 9
        return len(samples.most_faces)

    assert (most(1), most(2)) == (0, 6)


def test_a_photo_counts_all_of_its_faces_by_label(tmp_path: Path) -> None:

    crowd = [((at, 0, 20, 20), "sad" if at % 2 else None, 0.7, 0.9) for at in range(400)]  # more than are kept
    record = write_images(tmp_path, [MadeImage("crowd.jpg", crowd)], ("happy", "sad"))
    RunReport(str(tmp_path), "", Limits())(record)
    chooser = Chooser(("happy", "sad"), "seed")
    for batch in result_batches(str(tmp_path)):
        chooser.add(batch)
    (photo,) = chooser.result().most_faces
    assert len(photo.faces) < photo.face_count == 400 and dict(photo.label_counts) == {-1: 200, 1: 200}
    assert _summary(photo, ("happy", "sad")) == "400 faces: 200 sad, 200 too small to label"
