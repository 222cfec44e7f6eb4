"""The pages in a real browser: they fit a phone, ask nobody, say nothing to the console, and can be used.

Needs Playwright's Python package (`pip install playwright`) and a Chromium that is installed already, such as Debian's
`chromium` or Playwright's own; no browser is downloaded. With `AXE_CORE` naming axe-core's `axe.min.js` (`npm pack
axe-core`), pages are also checked by it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from made_pages import KINDS

playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LEAST_CONTRAST, LEAST_LARGE = 4.5, 3.0  # WCAG 2.1 AA: of text, of large text


@dataclass(frozen=True)
class Opened:
    """A page in the browser, what it said to the console, and what it asked for beyond itself."""

    page: Any
    messages: list[str]
    requests: list[str]


class Browser:
    """Opens pages at a width, in light or dark."""

    def __init__(self, chromium: Any) -> None:
        self._chromium = chromium

    def open(self, path: Path, *, width: int = 1280, scheme: str = "light", script: bool = True) -> Opened:
        context = self._chromium.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
            java_script_enabled=script,
            reduced_motion="reduce",
        )
        tab = context.new_page()
        opened = Opened(tab, [], [])
        tab.on("console", lambda message: opened.messages.append(message.text))
        tab.on("pageerror", lambda error: opened.messages.append(str(error)))
        tab.on("request", lambda request: opened.requests.append(request.url))
        tab.goto(path.as_uri())
        return opened


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with playwright.sync_playwright() as started:
        own = started.chromium.executable_path
        place = next(filter(None, [*map(shutil.which, BROWSERS), own if os.path.exists(own) else None]), None)
        if place is None:
            pytest.skip(f"needs a browser: none of {', '.join(BROWSERS)} is installed, nor Playwright's own")
        chromium = started.chromium.launch(executable_path=place, args=["--no-sandbox"])
        yield Browser(chromium)
        chromium.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_a_page_fits_asks_nobody_and_says_nothing(
    browser: Browser, pages: dict[str, Path], kind: str, width: int
) -> None:
    opened = browser.open(pages[kind], width=width)
    wide = opened.page.evaluate(
        """() => [...document.querySelectorAll("body *")].filter((one) => !one.closest(".wide, svg, .skip")
            && one.getBoundingClientRect().right > innerWidth + 1).map((one) => one.outerHTML.slice(0, 200))"""
    )
    assert wide == []
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.messages == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [pages[kind].as_uri()]
    opened.page.context.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(browser: Browser, pages: dict[str, Path], kind: str, scheme: str) -> None:
    opened = browser.open(pages[kind], scheme=scheme)
    found = opened.page.evaluate(CONTRASTS)
    ground = found["ground"]
    assert (sum(ground) < 200) == (scheme == "dark")
    weak = [text for text in found["texts"] if text["ratio"] < (LEAST_LARGE if text["large"] else LEAST_CONTRAST)]
    assert len(found["texts"]) > 100 and weak == []
    opened.page.context.close()


CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const over = (top, below) => below.map((value, at) => (top[at] * top[3] + value * (255 - top[3])) / 255);
  const ground = (one) => {
    if (!one) return [255, 255, 255];
    const own = rgba(getComputedStyle(one).backgroundColor);
    return own[3] === 255 ? own.slice(0, 3) : over(own, ground(one.parentElement));
  };
  const light = (colour) => {
    const linear = (value) => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = colour.map((value) => linear(value / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const texts = [];
  for (const one of document.querySelectorAll("body *")) {
    if (one.closest("svg, script, style, option, .skip") || !one.getClientRects().length) continue;
    if (![...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim())) continue;
    const style = getComputedStyle(one), below = ground(one);
    const [a, b] = [light(over(rgba(style.color), below)), light(below)].sort((x, y) => y - x);
    const px = parseFloat(style.fontSize), large = px >= 24 || (px >= 18.66 && style.fontWeight >= 700);
    texts.push({text: one.textContent.trim().slice(0, 60), ratio: (a + 0.05) / (b + 0.05), large});
  }
  return {texts, ground: ground(document.body)};
}"""


@pytest.mark.parametrize("kind", ["run", "comparison"])
def test_photos_are_filtered_by_label(browser: Browser, pages: dict[str, Path], kind: str) -> None:
    tab = browser.open(pages[kind]).page
    photos = tab.locator("figure.photo")
    every = photos.count()
    assert f"{every} of {every} photos" in tab.locator("#shown").inner_text()
    tab.locator("#only").select_option(label="sad")
    shown = [photo for photo in photos.all() if photo.is_visible()]
    assert 0 < len(shown) < every
    label = tab.locator("#only").input_value()
    assert all(label in photo.get_attribute("data-labels").split() for photo in shown)
    assert f"{len(shown)} of {every} photos" in tab.locator("#shown").inner_text()
    tab.locator("#only").select_option(label="any label")
    assert all(photo.is_visible() for photo in photos.all())
    tab.context.close()


def test_a_face_leads_to_its_photo_also_when_that_is_filtered_away(browser: Browser, pages: dict[str, Path]) -> None:
    tab = browser.open(pages["run"]).page
    link = tab.locator(".faces a").first
    target = tab.locator(link.get_attribute("href"))
    labels = target.get_attribute("data-labels").split()
    other = next(str(at) for at in range(4) if str(at) not in labels)
    tab.locator("#only").select_option(value=other)
    assert not target.is_visible()
    link.click()
    target.wait_for(state="visible")
    assert tab.locator("#only").input_value() == ""
    tab.context.close()


@pytest.mark.parametrize(
    "kind, link, opens",
    [
        ("run", "figure.photo a.enlarge", "figure.photo"),
        ("comparison", "figure.photo a.enlarge", "figure.photo"),
        ("evaluation", ".singles a", ".singles li"),
        ("detection", ".singles a", ".singles li"),
    ],
)
def test_a_picture_is_larger_when_it_is_chosen(
    browser: Browser, pages: dict[str, Path], kind: str, link: str, opens: str
) -> None:
    tab = browser.open(pages[kind], script=False).page  # links do it, without a script
    before = tab.locator(opens).first.locator("svg, img").first.bounding_box()
    tab.locator(link).first.click()
    after = tab.locator(opens).first.locator("svg, img").first.bounding_box()
    assert after["width"] > 1.4 * before["width"]
    tab.context.close()


def test_a_table_is_sorted_by_the_keyboard(browser: Browser, pages: dict[str, Path]) -> None:
    tab = browser.open(pages["run"]).page
    head = tab.locator("table.sortable").first.locator("th button", has_text="faces").first

    def faces() -> list[int]:
        table = tab.locator("table.sortable").first
        return [int(text.replace(",", "")) for text in table.locator("tbody tr td:nth-child(2)").all_inner_texts()]

    head.focus()
    tab.keyboard.press("Enter")
    assert faces() == sorted(faces(), reverse=True)
    tab.keyboard.press("Enter")
    assert faces() == sorted(faces())
    assert tab.locator("th[aria-sort=ascending]").count() == 1
    tab.context.close()


@pytest.mark.parametrize("kind", KINDS)
def test_every_part_can_be_reached_without_a_script(browser: Browser, pages: dict[str, Path], kind: str) -> None:
    tab = browser.open(pages[kind], script=False).page
    for link in tab.locator("nav a").all():
        link.click()
        assert tab.locator(f"[id='{link.get_attribute('href')[1:]}']").is_visible()
    assert tab.locator("img:not([alt]), svg[role=img]:not([aria-label])").count() == 0
    tab.context.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Browser, pages: dict[str, Path], kind: str, scheme: str) -> None:
    if not os.environ.get("AXE_CORE"):
        pytest.skip("AXE_CORE does not name axe-core's axe.min.js")
    tab = browser.open(pages[kind], scheme=scheme, width=390).page
    tab.evaluate(Path(os.environ["AXE_CORE"]).read_text(encoding="utf-8"))
    found = tab.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    serious = [(one["id"], one["impact"], [node["html"][:160] for node in one["nodes"][:3]]) for one in found]
    assert serious == []
    tab.context.close()
