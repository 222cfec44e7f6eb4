"""Writes docs/settings.md from the settings themselves. `python tests/make_settings_page.py`; a test compares."""

from __future__ import annotations

from pathlib import Path

from pipeline.settings.describe import known_settings
from pipeline.settings.section import Enters

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
CHANGES = {
    Enters.FEATURE_SPACE: "feature space",
    Enters.CACHE_KEY: "cache key",
    Enters.RUN: "output",
    Enters.NOTHING: "nothing",
}
HEAD = """# What can be set?

Settings come from YAML (`--config FILE`, several in turn) and then from `--set KEY=VALUE`. An unknown key is refused
with the nearest name that exists; `--print-config` shows what is in force. The last column says what a setting changes:
the *feature space* (heads for it, a cache folder of its own, and everything after), the *cache key* (a cache folder of
its own, and everything after), the *output* (labels and files), or *nothing* but speed and memory: those may differ
when a run is resumed.

`configs/local.yaml` and `configs/kaggle.yaml` run as they are.

| setting | default | allowed | what | changes |
|---|---|---|---|---|
"""


def page() -> str:
    """Returns the page's text."""
    rows = [
        f"| `{info.name}` | `{info.default}` | {info.allowed} | {info.description} | {CHANGES[info.enters]} |"
        for info in known_settings()
    ]
    return HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
