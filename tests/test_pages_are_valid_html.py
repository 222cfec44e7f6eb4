"""Every page is HTML without an error: a strict HTML5 parser reads it, and so does the validator of the W3C.

With `NU_JAR` naming the validator's `vnu.jar` (`npm pack vnu-jar`) and Java installed, it checks the pages, too: which
elements may hold which, which attributes there are, and the style sheet. The parser alone knows nesting and syntax.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from made_pages import KINDS

html5lib = pytest.importorskip("html5lib", reason="needs the package html5lib")
SVG_ALONE = ".*Property “(paint-order|vector-effect)” doesn.t exist.*"  # of SVG 2; the validator knows CSS alone


@pytest.mark.parametrize("kind", KINDS)
def test_a_strict_parser_finds_no_error(pages: dict[str, Path], kind: str) -> None:
    read_strictly(pages[kind].read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "wrong",
    [
        "<p>one<div>two</p></div>",
        "<table><tr><td>1</td></tr><p>between</p></table>",
        "<a href=#one href=#two>twice</a>",
        "<p>&nosuchname;</p>",
        "<ul><li>never closed</ul></section>",
    ],
)
def test_the_parser_is_strict(pages: dict[str, Path], wrong: str) -> None:
    whole = pages["evaluation"].read_text(encoding="utf-8")
    with pytest.raises(html5lib.html5parser.ParseError):
        read_strictly(whole.replace("</main>", f"{wrong}</main>"))


def read_strictly(text: str) -> None:
    html5lib.HTMLParser(strict=True).parse(text)


def test_the_validator_finds_nothing(pages: dict[str, Path]) -> None:
    jar = os.environ.get("NU_JAR")
    if not jar or shutil.which("java") is None:
        pytest.skip("NU_JAR does not name vnu.jar, or Java is not installed")
    done = subprocess.run(
        [
            "java",
            "-jar",
            jar,
            "--format",
            "gnu",
            "--errors-only",
            "--filterpattern",
            SVG_ALONE,
            *map(str, pages.values()),
        ],
        capture_output=True,
        text=True,
    )
    assert (done.stderr, done.returncode) == ("", 0)
