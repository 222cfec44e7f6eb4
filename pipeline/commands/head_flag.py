"""`--head` of the commands that label with one head or several."""

from __future__ import annotations

from pipeline.flags import many


def heads() -> tuple[str, ...]:
    """Returns the flag: the first path is the setting `head.path`, the others are `head.more`."""
    return many(
        "PATH",
        "the trained head: bundled (default), bundled/ferplus, bundled/smile or a folder; with several, "
        "each labels all faces, and NAME=PATH names one",
        setting="head.path",
        rest="head.more",
    )
