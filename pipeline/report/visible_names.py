"""Names as a page may show them: nothing in them is invisible, turns the direction of text, or runs on for pages."""

from __future__ import annotations

import unicodedata

SHOWN = 160  # letters of a name on a page; files may have 4,000
_JOINERS = "\u200c\u200d"  # scripts and emoji need them, and they hide nothing
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # controls, directions, half pairs, no letters, line ends


def visible(text: str, most: int = SHOWN) -> str:
    r"""Returns text with every hidden character as its code, its middle left out where it is longer than `most`.

    >>> visible("a\u202eb\n")
    'a\\u202eb\\u000a'
    """
    if len(text) > most:
        text = f"{text[: most // 2]}…{text[-(most - most // 2 - 1) :]}"
    return "".join(map(_shown, text))


def _shown(letter: str) -> str:
    if letter in _JOINERS or unicodedata.category(letter) not in _HIDDEN:
        return letter
    code = ord(letter)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
