"""Pages from templates: everything is escaped, what is missing is an error, and nothing but the page itself is loaded.

The style sheet and the script are part of the page; its content security policy lets in these two by their digests,
pictures from within the page, and nothing else.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipeline.report.visible_names import visible


def render(template: str, *, style: str, script: str | None = None, **content: Any) -> bytes:
    """Returns a page, UTF-8.

    Args:
        template, style, script: names of files beside the templates; a page may do without a script.
        content: what the template names.
    """
    looks, acts = _source(style), _source(script) if script else ""
    text = (
        _environment()
        .get_template(template)
        .render(
            style=Markup(looks),
            style_hash=_policy_hash(looks),
            script=Markup(acts),
            script_hash=_policy_hash(acts),
            **content,
        )
    )
    return text.encode("utf-8", "replace")


@functools.cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("pipeline.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"number": number, "share": share, "base64": _base64, "visible": visible}
    return made


def _source(name: str) -> str:
    return resources.files("pipeline.report").joinpath("templates", name).read_text(encoding="utf-8")


def _policy_hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def number(value: int) -> str:
    """Returns a count with separators."""
    return f"{value:,}"


def share(value: float) -> str:
    """Returns a share in percent; what is neither nothing nor all is not rounded to it.

    >>> share(0.123), share(0.0001), share(1)
    ('12.3 %', '< 0.1 %', '100 %')
    """
    if 0 < value < 0.001:
        return "< 0.1 %"
    if 0.999 < value < 1:
        return "> 99.9 %"
    return f"{100 * value:.1f} %" if value < 1 else "100 %"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
