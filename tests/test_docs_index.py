"""docs/index.md lists every document once, README follows its order, and what users type is in both."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_house import ROOT

INDEX = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def pages(text: str, folder: Path) -> list[str]:
    """Returns the documents that a text links to, in its order, as paths below the root."""
    links = re.findall(r"\]\(([^)#:]+\.(?:md|cff))(?:#[^)]*)?\)", text)
    return [(folder / link).resolve().relative_to(ROOT.resolve()).as_posix() for link in links]


def test_every_document_is_listed_once() -> None:
    there = {path.relative_to(ROOT).as_posix() for path in (*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md"))}
    listed = pages(INDEX, ROOT / "docs")
    assert sorted(listed) == sorted(
        {*there, "CITATION.cff", "models/weights/README.md"} - {"docs/index.md"},
    )


def test_the_readme_lists_them_in_the_same_order() -> None:
    listed = pages(README.split("## Read on")[1].split("**Before")[0], ROOT)
    order = ["docs/index.md", *pages(INDEX, ROOT / "docs")]
    assert [order.index(page) for page in listed] == sorted(order.index(page) for page in listed)
    assert {page for page in order if page.startswith("docs/")} - set(listed) == {"docs/cascade.md"}


@pytest.mark.parametrize(
    "words", ["./run_local.sh ", "./run_local.sh test", "--input photos", "facelabel", "pipeline.api"]
)
def test_the_first_screen_says_what_to_type(words: str) -> None:
    assert words in README.split("## What you get")[0]
