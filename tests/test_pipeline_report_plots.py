"""Plots, sheets and the page: well formed, the same bytes each time, safe with any name, free of anything external."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="needs the evaluate extra")

from models.evaluation import metrics
from pipeline.report import plots, sheets
from pipeline.report.drawing import shortened
from pipeline.report.page import SUSPECTS_LISTED, PageContent, Single, Suspect, page
from pipeline.report.sheets import TILE_PX, Tile, sheet_png

NASTY = (r"$\frac{$ & <b>", "多肉植物" * 9, "a\nb\t\x07")


def evaluation(classes: tuple[str, ...] = ("happy", "neutral", "sad"), *, rows: int = 90) -> metrics.Evaluation:
    draw = np.random.default_rng(0)
    k = len(classes)
    y = np.arange(rows) % k
    logits = draw.normal(size=(rows, k)) + 1.5 * np.eye(k)[y]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return metrics.evaluate(p, y, classes)


@pytest.mark.parametrize("count", [2, 3, 7, 8, 20])
def test_every_plot_is_svg_and_the_same_bytes_each_time(count: int) -> None:
    found = evaluation(tuple(f"class {i:02d}" for i in range(count)), rows=400)
    one, other = plots.all_plots(found), plots.all_plots(found)
    assert list(one) == ["confusion.svg", "roc.svg", "reliability.svg", "coverage.svg"]
    assert one == other
    for data in one.values():
        assert ElementTree.fromstring(data).tag == "{http://www.w3.org/2000/svg}svg"
        assert b"<dc:date>" not in data
        assert b"matplotlib.org" not in data.split(b"<defs>")[0]  # no version: another one may draw the same


@pytest.mark.filterwarnings("error")
def test_names_of_classes_may_be_anything() -> None:
    for data in plots.all_plots(evaluation(NASTY)).values():
        ElementTree.fromstring(data)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("rows", [2, 3, 25])
def test_few_rows_are_drawn_as_well(rows: int) -> None:
    for right in (True, False):
        p = np.tile([0.9, 0.1], (rows, 1))
        y = np.asarray([0, 1] + [0] * (rows - 2)) if right else np.asarray([1, 0] + [1] * (rows - 2))
        assert len(plots.all_plots(metrics.evaluate(p, y, ("a", "b")))) == 4


@pytest.mark.parametrize("count", [1, 9, 99, 999, 9_999, 10_000, 99_999, 999_999, 9_999_999, 10**7, 10**9, 10**11])
def test_numbers_above_bars_are_short(count: int) -> None:
    assert len(plots._short_number(count)) <= 4
    assert plots._short_number(2462) == "2462"
    assert plots._short_number(1_234_567) == "1.2M"


def test_the_users_settings_of_matplotlib_change_nothing() -> None:
    import matplotlib

    expected = plots.all_plots(evaluation())
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "none"}):
        before = dict(matplotlib.rcParams)
        assert plots.all_plots(evaluation()) == expected
        assert dict(matplotlib.rcParams) == before


def test_thinned_curves_keep_their_ends_and_their_shape() -> None:
    x = np.linspace(0, 1, 10_000)
    curve = plots.thinned(metrics.Curve(x, np.sqrt(x)))
    assert len(curve.x) <= plots.POINTS + 2
    assert (curve.x[0], curve.x[-1], curve.y[0], curve.y[-1]) == (0, 1, 0, 1)
    assert np.abs(np.interp(x, curve.x, curve.y) - np.sqrt(x)).max() < 0.02
    few = metrics.Curve(x[:5], x[:5])
    assert plots.thinned(few) is few


def test_the_score_interval_by_hand() -> None:
    low, high = plots.wilson(np.asarray([0.5, 1.0]), np.asarray([100, 10]))
    assert low.tolist() == pytest.approx([0.4038, 0.7225], abs=1e-4)
    assert high.tolist() == pytest.approx([0.5962, 1.0], abs=1e-4)


@pytest.mark.parametrize(
    ("text", "keep_end", "short"),
    [("happy", False, "happy"), ("abcdefgh", False, "abcd…"), ("abcdefgh", True, "…efgh"), ("a\nb", False, "a\ufffdb")],
)
def test_long_names_are_shortened(text: str, keep_end: bool, short: str) -> None:
    assert shortened(text, 5, keep_end=keep_end) == short


# --- sheets


def decoded(data: bytes) -> np.ndarray:
    from matplotlib.image import imread

    return np.round(imread(io.BytesIO(data))[..., :3] * 255).astype(np.uint8)


def tiles(count: int) -> list[Tile]:
    pictures = [np.full((TILE_PX, TILE_PX, 3), (i, 2 * i, 255 - i), np.uint8) for i in range(count)]
    return [Tile(image, "fear → happy", "98.1 % sure", f"t.tar/{i}.png") for i, image in enumerate(pictures)]


def test_a_sheet_shows_each_picture_pixel_by_pixel() -> None:
    data = sheet_png(tiles(9))
    assert data == sheet_png(tiles(9))
    image = decoded(data)
    for i in range(9):
        top = sheets._EDGE_PX + i // 8 * (TILE_PX + sheets._CAPTION_PX)
        left = sheets._EDGE_PX + i % 8 * sheets._CELL_PX + (sheets._CELL_PX - TILE_PX) // 2
        assert (image[top : top + TILE_PX, left : left + TILE_PX] == (i, 2 * i, 255 - i)).all()
        below = image[top + TILE_PX : top + TILE_PX + sheets._CAPTION_PX, left : left + TILE_PX]
        assert (below < 100).any()  # words


@pytest.mark.filterwarnings("error")
def test_a_picture_that_is_not_at_hand_is_a_blank_and_any_id_is_drawn() -> None:
    image = decoded(sheet_png([Tile(None, *NASTY), *tiles(1)]))
    assert image.shape[0] == 2 * sheets._EDGE_PX + TILE_PX + sheets._CAPTION_PX


def test_a_sheet_holds_no_more_than_one_looks_at() -> None:
    assert decoded(sheet_png(tiles(100))).shape == decoded(sheet_png(tiles(40))).shape


# --- the page


class Links(HTMLParser):
    """Notes tags that are open and every attribute that a browser would follow."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.sources += [value or "" for name, value in attributes if name in ("src", "href", "srcset", "action")]


def content(**other) -> PageContent:
    found = evaluation(("<script>alert(1)</script>", "b", "c"))
    given = {
        "facts": [("images", "a<b>.tar")],
        "notes": ["3 images left out."],
        "metrics": found.metrics,
        "accuracy_of_all": 0.5,
        "pictures": {**plots.all_plots(found), "mistakes.png": b"a sheet", "metrics.json": b"{}"},
        "galleries": {"mistakes": [Single(b"webp", "fear → <b>", "98.1 % sure", f"{i}.png") for i in range(3)]},
        "suspects": [Suspect(f'"{i}".png', "<i>", "b", -0.5) for i in range(50)],
        "suspected": 50,
    }
    return PageContent(**{**given, **other})


def test_the_page_loads_nothing_from_anywhere() -> None:
    text = page(content()).decode()
    links = Links()
    links.feed(text)
    pictures = [source for source in links.sources if not source.startswith("#")]
    assert len(pictures) == 4 + 3  # plots, and pictures by themselves
    assert all(re.match(r"data:image/(webp|svg\+xml);base64,", source) for source in pictures)
    assert not links.tags & {"script", "link", "iframe", "object", "i", "b>"}
    assert "default-src 'none'" in text
    assert "url(" not in text
    assert "@import" not in text


def test_the_page_says_what_was_found() -> None:
    text = page(content()).decode()
    for words in ("3 images left out.", "a&lt;b&gt;.tar", "&lt;script&gt;alert(1)", "0.5000", "confident learning"):
        assert words in text
    assert text.count(".png</bdi></th>") == SUSPECTS_LISTED
    assert "−0.5000" in text
    assert ">The most confident mistakes</h2>" in text
    assert ">The hardest images</h2>" not in text  # no such picture
    assert 'href="#mistakes-3"' in text and 'id="mistakes-3"' in text  # each picture can be opened
    assert ">Accuracy if people review the least confident images</h3>" in text


def test_without_suspects_and_unlabelled_images_the_page_says_so() -> None:
    text = page(content(suspects=[], suspected=0, accuracy_of_all=None)).decode()
    assert "None: no image is confidently of another class" in text
    assert text.count("bootstrap draws") == 1  # what the intervals are is said on every page
    assert "unlabelled as wrong" not in text
