"""The page that every run writes: what it shows, that it loads nothing, and that names can do no harm."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from itertools import pairwise
from pathlib import Path

import pictures
import pytest
import runs
from parsed_page import Page

from pipeline.cli import main

HOSTILE = (
    "<script>alert(1)</script>.png",
    '"><img src=x onerror=alert(1)>.png',
    "' onload='alert(1).png",
    "gnp\u202eevil\u2066.png",
    "two\nlines\tand\x1b[31m.png",
    "{{ 7 * 7 }}{% raw %}.png",
    "</style></script><b>&amp;.png",
    "ü漢字👩\u200d🚀.png",
    "long" * 55 + ".png",
)


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.make_head(tmp_path_factory.mktemp("head"))


@pytest.fixture(scope="module")
def ended(head: Path, tmp_path_factory: pytest.TempPathFactory) -> runs.Ended:
    """A run over plain pictures, copies, broken files and hostile names."""
    place = tmp_path_factory.mktemp("bench")
    files = {**runs.faces(12), "broken.png": b"\x89PNG nothing", "empty.png": b""}
    files |= {f"copies/{number}.png": pictures.png(runs.pattern(5, 24)) for number in range(3)}
    files |= {name: pictures.png(runs.pattern(100 + number, 24)) for number, name in enumerate(HOSTILE)}
    pictures.write_folder(place / "in", files)
    return runs.Bench(place, head).label(place / "in", "out", "write.no_face_label=neutral").done()


@pytest.fixture(scope="module")
def page(ended: runs.Ended) -> Page:
    return Page(ended.output / "report.html")


def test_the_page_says_what_came_out(page: Page, ended: runs.Ended) -> None:
    counts = ended.record["counts"]
    assert f"{counts['faces']} faces in {counts['images']} images" in page.text
    for label, count in ended.record["labels"].items():
        assert re.search(rf"{label} {count} ", page.text)
    assert "undecodable" in page.text or "not_an_image" in page.text or "truncated" in page.text
    assert "broken.png" in page.text and "empty.png" in page.text


def test_the_numbers_are_beside_it(ended: runs.Ended) -> None:
    reported = json.loads((ended.output / "report.json").read_text())
    record = ended.record
    assert reported["counts"] == record["counts"]
    assert {row["label"]: row["faces"] for row in reported["labels"]} == record["labels"]
    assert {reason: entry["images"] for reason, entry in reported["rejected"].items()} == record["reasons"]
    for row in reported["labels"]:
        assert sum(row["confidence"]) == row["faces"]
    assert sum(reported["faces_per_image"]["images"]) == record["counts"]["labelled"] + record["counts"]["no_face"]
    assert sum(reported["face_side_px"]["faces"]) == sum(reported["detection_score"]) == record["counts"]["faces"]
    assert (reported["repeats"]["copies"]["images"], reported["repeats"]["copies"]["groups"]) == (
        3,
        1,
    )  # and happy/00005.png


def test_run_json_lists_the_page(ended: runs.Ended) -> None:
    reported = ended.record["report"]
    assert [file["path"] for file in reported["files"]] == ["report.html", "report.json"]
    for file in reported["files"]:
        data = (ended.output / file["path"]).read_bytes()
        assert (file["bytes"], file["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert reported["photos_missing"] == 0
    assert str(ended.output / "report.html") in ended.out


def test_photos_are_shown_with_their_faces_and_faces_lead_to_them(page: Page) -> None:
    figures = {figure["id"] for figure in page.all("figure") if "photo" in figure.get("class", "")}
    assert len(figures) >= 20
    tiles = [link["href"] for link in page.all("a") if link["href"].startswith("#photo-")]
    assert {link.removeprefix("#") for link in tiles} == figures
    assert len(page.all("image")) == len(figures)


def test_every_link_leads_somewhere_and_no_id_is_there_twice(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link["href"].removeprefix("#") for link in page.all("a")} <= set(ids)
    assert {attributes["aria-labelledby"] for _, attributes in page.tags if "aria-labelledby" in attributes} <= set(ids)


def test_the_page_loads_nothing_and_may_not(page: Page) -> None:
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert "unsafe" not in policy and "http" not in policy
    for tag, attributes in page.tags:
        for name in ("src", "href", "action", "srcset", "data", "poster"):
            if name in attributes:
                assert attributes[name].startswith(("#", "data:image/webp;base64,")), (tag, attributes[name][:80])
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
    for tag in ("link", "iframe", "object", "embed", "form", "base"):
        assert page.all(tag) == []
    for kind in ("style", "script"):
        body = re.search(rf"<{kind}>(.*?)</{kind}>", page.source, re.DOTALL)[1]
        assert "@import" not in body and "url(" not in body and "fetch(" not in body
        assert len(page.all(kind)) == 1


def test_the_policy_lets_in_exactly_the_style_and_script_of_the_page(page: Page) -> None:

    for kind in ("style", "script"):
        body = re.search(rf"<{kind}>(.*?)</{kind}>", page.source, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in page.source


def test_hostile_names_are_words(page: Page) -> None:
    assert "<script>alert(1)</script>.png" in page.text
    assert "onerror=alert(1)" in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert "\\u202e" in page.text and "\u202e" not in page.source
    assert "two\\u000alines\\u0009and\\u001b[31m.png" in page.text and "\x1b" not in page.source
    assert page.all("b") and all("onerror" not in attributes for _, attributes in page.tags)
    assert "long" * 45 not in page.text  # shortened


def test_tables_have_scopes_pictures_have_words(page: Page) -> None:
    assert all(head.get("scope") in ("col", "row") for head in page.all("th"))
    assert all(image.get("alt") for image in page.all("img"))
    for drawing in page.all("svg"):
        assert drawing.get("aria-hidden") == "true" or (drawing.get("role") == "img" and drawing.get("aria-label"))
    assert page.all("html")[0]["lang"] == "en"
    heads = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert heads[0] == 1 and heads.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(heads))


def test_without_a_script_everything_is_there(page: Page) -> None:
    hidden = [attributes.get("id") for _, attributes in page.tags if "hidden" in attributes]
    assert hidden == ["filter"]  # which the script alone can use, and shows
    assert page.all("button") == []


def test_report_writes_what_the_run_wrote(ended: runs.Ended, tmp_path: Path) -> None:
    before = {name: (ended.output / name).read_bytes() for name in ("report.html", "report.json")}
    record = ended.record
    for name in before:
        (ended.output / name).unlink()
    assert main(["report", str(ended.output), "--quiet"]) == 0
    assert {name: (ended.output / name).read_bytes() for name in before} == before
    for key in ("files", "photos", "photos_missing"):
        assert ended.record["report"][key] == record["report"][key]
    assert {key: value for key, value in ended.record.items() if key != "report"} == {
        key: value for key, value in record.items() if key != "report"
    }


def test_a_run_of_an_earlier_version_gets_its_page(ended: runs.Ended, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(ended.output, out)
    record = ended.record
    del record["report"]
    (out / "run.json").write_text(json.dumps(record))
    wanted = (out / "report.html").read_bytes()
    for name in ("report.html", "report.json"):
        (out / name).unlink()
    assert main(["report", str(out), "--quiet"]) == 0
    assert (out / "report.html").read_bytes() == wanted
    assert json.loads((out / "run.json").read_text())["report"]["photos_missing"] == 0


def test_without_its_photos_the_page_stands_and_says_so(head: Path, tmp_path: Path) -> None:
    bench = runs.Bench(tmp_path, head)
    source = pictures.write_folder(tmp_path / "in", runs.faces(9))
    done = bench.label(source).done()
    shutil.move(source, tmp_path / "elsewhere")
    assert main(["report", str(done.output), "--quiet"]) == 0
    page = Page(done.output / "report.html")
    assert "No photo could be read again (the run's inputs cannot be found)" in page.text
    assert page.all("image") == page.all("img") == []
    assert "9 faces in 9 images" in page.text
    assert main(["report", str(done.output), "--images", str(tmp_path / "elsewhere"), "--quiet"]) == 0
    assert len(Page(done.output / "report.html").all("image")) == 9


def test_a_photo_that_changed_or_went_costs_itself_alone(head: Path, tmp_path: Path) -> None:
    bench = runs.Bench(tmp_path, head)
    source = pictures.write_folder(tmp_path / "in", runs.faces(9))
    done = bench.label(source).done()
    (source / "happy" / "00000.png").write_bytes(pictures.png(runs.pattern(77, 24)))
    (source / "sad" / "00002.png").unlink()
    assert main(["report", str(done.output), "--quiet"]) == 0
    page = Page(done.output / "report.html")
    assert "2 photos chosen for this page could not be read again unchanged" in page.text
    assert len(page.all("image")) == 7


def test_a_face_without_a_label_is_shown_as_such(head: Path, tmp_path: Path) -> None:
    source = pictures.write_folder(tmp_path / "in", {"one.jpg": pictures.jpeg(pictures.portrait())})
    settings = ("faces.detector=bundled", "faces.min_label_px=4096", "write.no_face_label=neutral")
    done = runs.Bench(tmp_path, head).label(source, "out", *settings).done()
    assert done.record["counts"]["faces"] == 1
    page = Page(done.output / "report.html")
    assert "too small to label" in page.source
    assert sum(entry["faces"] for entry in json.loads((done.output / "report.json").read_text())["labels"]) == 0


def test_no_page_where_none_is_wanted(head: Path, tmp_path: Path) -> None:
    bench = runs.Bench(tmp_path, head)
    source = pictures.write_folder(tmp_path / "in", runs.faces(3))
    with_page = bench.label(source, "with").done()
    without = bench.label(source, "without", "write.report=false").done()
    assert not (without.output / "report.html").exists() and "report" not in without.record
    assert runs.results(with_page.output) == runs.results(without.output)
    assert with_page.record["run_fingerprint"] == without.record["run_fingerprint"]


def test_a_page_that_fails_costs_no_run_its_results(
    head: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from pipeline.report import run_report

    def fails(_content: object) -> bytes:
        raise ZeroDivisionError("nobody foresaw this")

    monkeypatch.setattr(run_report, "run_page", fails)
    bench = runs.Bench(tmp_path, head)
    source = pictures.write_folder(tmp_path / "in", runs.faces(3))
    done = bench.label(source).done()
    assert done.record["report"]["fault"] == "ZeroDivisionError: nobody foresaw this"
    assert "no page was written" in caplog.text
    assert not (done.output / "report.html").exists()
    assert "report: " not in done.out
    monkeypatch.undo()
    assert main(["report", str(done.output), "--quiet"]) == 0
    assert "fault" not in done.record["report"]
    assert (done.output / "report.html").exists()


def test_report_refuses_what_is_no_finished_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "has no run.json" in capsys.readouterr().err
    assert main(["report"]) == 2
    assert "report needs RUN" in capsys.readouterr().err
