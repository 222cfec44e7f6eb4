"""The documents say what the program does: every command, flag, setting, reason and column occurs in them."""

import re
from pathlib import Path

import make_settings_page
import pytest

from models.heads.output_spec import ClassOutput
from pipeline.commands.command import Common
from pipeline.commands.registry import COMMANDS
from pipeline.flags import flags_of
from transforms.formats.records import Reason, Status
from transforms.formats.shards.registry import FORMATS
from transforms.merge.rows import face_schema, image_schema
from transforms.output_fields import shown_fields

ROOT = Path(__file__).parents[1]
CARD = ROOT / "models" / "weights" / "README.md"
PAGES = sorted([ROOT / "README.md", CARD, *(ROOT / "docs").glob("*.md")])
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)


def test_the_settings_page_is_what_the_settings_say():
    assert make_settings_page.PAGE.read_text(encoding="utf-8") == make_settings_page.page(), (
        "run python tests/make_settings_page.py"
    )


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_is_documented(name):
    assert re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", TEXT)


FLAGS = {
    flag.spelled for kind in (Common, *(command.options for command in COMMANDS.values())) for flag in flags_of(kind)
}


@pytest.mark.parametrize("flag", sorted(flag for flag in FLAGS if flag.startswith("--")))
def test_every_flag_is_documented(flag):
    assert re.search(rf"{re.escape(flag)}(?![\w-])", TEXT)


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_is_documented_with_its_stage(reason):
    assert re.search(rf"\| `{reason.value}` \| {reason.stage.value} \|", TEXT)


@pytest.mark.parametrize("status", list(Status))
def test_every_status_is_documented(status):
    assert f"`{status.value}`" in TEXT


def test_every_output_column_is_documented():
    columns = {
        *image_schema(exif=True).names,
        *(
            n
            for n in face_schema(ClassOutput(("happy",), rejecting=True, intensity_exponent=1)).names
            if not n.startswith("p_")
        ),
    }
    assert not {name for name in columns if f"`{name}`" not in TEXT}


def test_the_columns_of_a_head_are_documented_with_type_and_meaning():
    spec = ClassOutput(("<class>",), rejecting=True, intensity_exponent=1)
    rows = [
        f"| `{column.name}` | {field.type} | {column.doc} |"
        for column, field in zip(spec.columns, shown_fields(spec), strict=True)
    ]
    assert "\n| column | type | meaning |\n|---|---|---|\n" + "\n".join(rows) + "\n\n" in TEXT


def test_every_format_is_documented():
    assert not {suffix for form in FORMATS for suffix in form.suffixes if f"`{suffix}`" not in TEXT}


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target, place in re.findall(r"\]\(([^)#:]*)(?:#([^)]+))?\)", page.read_text(encoding="utf-8")):
            found = page.parent / target if target else page
            assert found.exists(), f"{page.name}: {target}"
            assert not place or place in places(found), f"{page.name}: {target}#{place}"


def places(page: Path) -> set[str]:
    """Returns what a link may name after `#`: a page's headings in lower case, blanks as hyphens, no punctuation."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_benchmark_is_documented():
    scripts = {path.name for path in (ROOT / "tests" / "benchmarks").glob("*.py") if "verdict(" in path.read_text()}
    assert not {name for name in scripts if name not in TEXT and name != "measuring.py"}


def test_no_page_names_a_place_of_one_machine():
    assert not re.search(r"/(root|home|work|tmp)/", TEXT)
