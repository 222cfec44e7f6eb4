"""Pieces of pages: a document that loads nothing, cards, tables, pictures inside it. Text is escaped here, once.

Not here: what a page says (`page.py`, `detection_page.py`).
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence

TYPES = {".svg": "image/svg+xml", ".png": "image/png", "webp": "image/webp"}
STYLE = """
:root{color-scheme:light;--ground:#fff;--ink:#222;--soft:#5c5c5c;--line:#d9d9d9;--head:#444}
body{margin:0;background:var(--ground);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1060px;margin:0 auto;padding:28px 24px 64px}
h1{font-size:26px;margin:0 0 4px}
h2{font-size:19px;margin:44px 0 8px;padding-top:16px;border-top:1px solid var(--line)}
p{max-width:46em;margin:6px 0 12px}
p.note,figcaption{color:var(--soft);font-size:14px}
.cards{display:flex;flex-wrap:wrap;gap:12px;margin:20px 0}
.card{flex:1 1 150px;border:1px solid var(--line);border-radius:8px;padding:12px 16px}
.card b{display:block;font-size:25px;font-weight:600;font-variant-numeric:tabular-nums}
.card span{color:var(--soft);font-size:13px;display:block}
table{border-collapse:collapse;font-size:14px;font-variant-numeric:tabular-nums;margin:10px 0}
th,td{text-align:right;padding:4px 12px;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600;color:var(--head);white-space:nowrap}
th:first-child,td:first-child,td.t,th.t{text-align:left}
td.t{overflow-wrap:anywhere}
table.facts td:first-child{color:var(--soft);white-space:nowrap}
table.facts td{text-align:left;overflow-wrap:anywhere}
.row{display:flex;flex-wrap:wrap;gap:28px;align-items:flex-start}
figure{margin:8px 0;max-width:100%}
img{max-width:100%;height:auto;display:block}
.wide{overflow-x:auto}
@media print{h2{break-after:avoid}figure,table{break-inside:avoid}}
"""
DARK = """
@media (prefers-color-scheme:dark){
:root{color-scheme:dark;--ground:#17191c;--ink:#e8e8e8;--soft:#a6abb3;--line:#3a3e45;--head:#cfd2d8}
img{background:#fff;padding:8px;border-radius:6px;box-sizing:border-box}
}
"""  # plots and sheets are drawn on white


def document(title: str, lines: Iterable[str], *, dark: bool = False) -> bytes:
    """Returns a whole page, UTF-8; nothing in it can be run or loaded.

    Args:
        lines: of its body, as HTML.
        dark: True to follow readers who prefer it dark.
    """
    text = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>{STYLE}{DARK if dark else ""}</style>
</head>
<body>
<main>
{chr(10).join(lines)}
</main>
</body>
</html>
"""
    return text.encode("utf-8", "replace")


def card(name: str, value: str, words: str) -> str:
    """Returns a figure to be seen first, with a name above and words below."""
    return f"<div class=card><span>{html.escape(name)}</span><b>{value}</b><span>{html.escape(words)}</span></div>"


def table(rows: Sequence[Sequence[str]], head: Sequence[str] = (), *, kind: str = "", texts: int = 1) -> str:
    """Returns a table; the first `texts` columns are set to the left."""

    def line(cells: Sequence[str], tag: str) -> str:
        shown = (
            f"<{tag}{' class=t' if 0 < i < texts else ''}>{html.escape(cell)}</{tag}>" for i, cell in enumerate(cells)
        )
        return f"<tr>{''.join(shown)}</tr>"

    lines = [line(head, "th")] if head else []
    lines += [line(row, "td") for row in rows]
    return f"<table{f' class={kind}' if kind else ''}>{''.join(lines)}</table>"


def figure(pictures: Mapping[str, bytes], name: str, words: str) -> str:
    """Returns a picture of `pictures` with its caption, nothing if it is not there."""
    data = pictures.get(name)
    if data is None:
        return ""
    source = f"data:{TYPES[name[-4:]]};base64,{base64.b64encode(data).decode('ascii')}"
    caption = html.escape(words)
    return f'<figure><img alt="{caption}" src="{source}"><figcaption>{caption}</figcaption></figure>'


def minus(number: str) -> str:
    """Returns a number with a sign as long as its plus."""
    return number.replace("-", "\N{MINUS SIGN}")


def number(value: float | None, digits: int = 4) -> str:
    """Returns a number, or a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"
