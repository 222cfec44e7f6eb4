"""`compare` on runs of the whole program: another head, and the same folder a month later."""

from __future__ import annotations

import json
import re
from typing import Any

import pictures
import pyarrow.parquet as pq
import pytest
import runs
from parsed_page import Page

FILES = {"command.json", "comparison.html", "comparison.json", "differences.parquet", ".lock"}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> runs.Bench:
    return runs.Bench(tmp_path_factory.mktemp("compare"), runs.make_head(tmp_path_factory.mktemp("head")))


@pytest.fixture(scope="module")
def a(bench: runs.Bench) -> runs.Ended:
    files = {**runs.faces(12), "broken.png": b"\x89PNG nothing", "mended.png": b"\x89PNG nothing"}
    pictures.write_folder(bench.path / "in", files)
    cache = ("--cache", str(bench.path / "cache"))
    return bench.label(bench.path / "in", "a", *cache, "write.no_face_label=neutral").done()


@pytest.fixture(scope="module")
def later(bench: runs.Bench, a: runs.Ended) -> runs.Ended:
    """The same folder with a file more, a file less, a changed one and one that can be read now."""
    files = {**runs.faces(11), "happy/00003.png": pictures.png(runs.pattern(99, 24)), "broken.png": b"\x89PNG nothing"}
    files |= {"mended.png": pictures.png(runs.pattern(98, 24)), "new.png": pictures.png(runs.pattern(97, 24))}
    pictures.write_folder(bench.path / "later" / "in", files)
    cache = ("--cache", str(bench.path / "cache"))
    return bench.label(bench.path / "later" / "in", "b", *cache, "write.no_face_label=neutral").done()


@pytest.fixture(scope="module")
def other_head(bench: runs.Bench, a: runs.Ended) -> runs.Ended:
    """The same head with other names: what A calls neutral is sad here, and sad is zero."""
    head = runs.make_head(bench.path / "head_b", classes=("joy", "sad", "zero"))
    more = ("--cache", str(bench.path / "cache"), "--head", str(head), "write.no_face_label=sad")
    return bench.label(bench.path / "in", "c", *more).done()


def compare(bench: runs.Bench, one: runs.Ended, other: runs.Ended, output: str, *more: str) -> runs.Ended:
    words = ("compare", str(one.output), str(other.output), "--output", str(bench.path / output), *more)
    return runs.run(*words, output=bench.path / output)


def numbers_of(ended: runs.Ended) -> dict[str, Any]:
    return json.loads((ended.output / "comparison.json").read_text())


def rows_of(ended: runs.Ended) -> list[dict[str, Any]]:
    return pq.read_table(ended.output / "differences.parquet").to_pylist()


def test_the_same_folder_later(bench: runs.Bench, a: runs.Ended, later: runs.Ended) -> None:
    ended = compare(bench, a, later, "month").done()
    assert {path.name for path in ended.output.iterdir()} == FILES
    rows = rows_of(ended)
    assert [(row["image_id"].removeprefix("in/"), row["kind"]) for row in rows if row["kind"] != "label"] == [
        ("happy/00003.png", "content"),
        ("mended.png", "rejected_only_in_a"),
        ("new.png", "image_only_in_b"),
        ("sad/00011.png", "image_only_in_a"),
    ]
    assert "13 images in both runs, 1 only in A, 1 only in B" in ended.out
    assert f"page: {ended.output / 'comparison.html'}" in ended.out
    assert "too few cached faces" in numbers_of(ended)["drift"]["features"]["why_not"]
    page = Page(ended.output / "comparison.html")
    assert len(page.all("image")) == sum(map(len, numbers_of(ended)["shown"].values()))  # every picture was read again


def test_another_head_by_its_own_names_and_by_those_of_a(
    bench: runs.Bench, a: runs.Ended, other_head: runs.Ended
) -> None:
    ended = compare(bench, a, other_head, "head").done()
    by_name = {(row["label_a"], row["label_b"]) for row in rows_of(ended)}
    assert by_name <= {("happy", "joy"), ("neutral", "sad"), ("sad", "zero")} and len(by_name) > 1
    assert numbers_of(ended)["faces"]["same_label"] == 0
    names = ("--rename-classes", "joy=happy", "sad=neutral", "zero=sad")
    renamed = compare(bench, a, other_head, "renamed", *names).done()
    assert rows_of(renamed) == []
    assert "same contents" in numbers_of(renamed)["drift"]["features"]["why_not"]


def test_a_run_does_not_differ_from_itself(bench: runs.Bench, a: runs.Ended) -> None:
    ended = compare(bench, a, a, "itself").done()
    assert rows_of(ended) == []
    assert "0 images differ" in ended.out
    drift = numbers_of(ended)["drift"]
    assert drift["labels_total_variation"]["value"] == drift["mean_confidence"]["value"] == 0.0


def test_every_link_leads_somewhere_and_no_id_is_there_twice(
    bench: runs.Bench, a: runs.Ended, later: runs.Ended
) -> None:
    page = Page(compare(bench, a, later, "links").done().output / "comparison.html")
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link["href"].removeprefix("#") for link in page.all("a")} <= set(ids)
    assert {attributes["aria-labelledby"] for _, attributes in page.tags if "aria-labelledby" in attributes} <= set(ids)
    assert not re.search(r"https?://|url\(|@import", page.source)


@pytest.mark.parametrize(
    "words, message",
    [
        (["{a}", "{a}", "--output", "{a}"], "--output {a} is one of the runs; give another folder"),
        (["{a}", "{a}/images", "--output", "x"], "compare {a}/images has no run.json"),
        (["{a}", "{a}/nowhere", "--output", "x"], "compare {a}/nowhere: no such folder"),
        (["{a}", "{a}", "--output", "x", "--images", "{a}/nowhere"], "--images {a}/nowhere: nothing is there"),
        (["{a}", "{a}", "--output", "x", "--rename-classes", "joy=sad"], "B has no label joy; its labels are happy"),
        (["{a}", "{a}", "--output", "x", "--rename-classes", "sad="], "compare cannot exclude a label; give sad=CLASS"),
        (["{a}", "--output", "x"], "compare needs B"),
    ],
)  # fmt: skip
def test_bad_input_gets_one_line(
    bench: runs.Bench, a: runs.Ended, words: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bench.path)
    filled = [word.format(a=a.output) for word in words]
    ended = runs.run("compare", *filled, output=bench.path / "x")
    assert ended.status == 2
    assert message.format(a=a.output) in ended.line
    assert not (bench.path / "x" / "comparison.html").exists()


def test_a_folder_holds_one_comparison(bench: runs.Bench, a: runs.Ended, later: runs.Ended) -> None:
    place = bench.path / "once"
    for output in (place, place):  # the same command does it again
        compare(bench, a, later, str(output)).done()
    (place / "mine.txt").write_text("mine")
    before = (place / "comparison.json").read_bytes()
    refused = compare(bench, a, later, str(place), "--min-iou", "0.9")
    assert refused.status == 2
    assert "holds results of compare with other options (options.min_iou: " in refused.line
    assert (place / "comparison.json").read_bytes() == before
    assert compare(bench, later, a, str(place)).status == 2
    compare(bench, a, later, str(place), "--min-iou", "0.9", "--overwrite").done()
    assert {path.name for path in place.iterdir()} == {*FILES, "mine.txt"}


def test_pictures_that_moved_are_found_or_told(bench: runs.Bench, a: runs.Ended, later: runs.Ended) -> None:
    place = bench.path / "moved"
    (bench.path / "in").rename(place)
    try:
        gone = compare(bench, a, later, "gone").done()
        assert "could not be read again; give --images with their new place" in gone.out
        assert "could not be read again" in Page(gone.output / "comparison.html").text
    finally:
        place.rename(bench.path / "in")
