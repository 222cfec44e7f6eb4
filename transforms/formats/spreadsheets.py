"""Escapes texts in tables that people open in a spreadsheet, which would run some of them as formulas."""

from __future__ import annotations

BEGINS_A_FORMULA = "=+-@\t\r\n＝＋－＠"  # as spreadsheets read a cell, the wide signs where they are used (OWASP)


def cell(text: str | None) -> str | None:
    """Returns a text that no spreadsheet takes for a formula: a quote precedes what would begin one.

    >>> cell("=1+1.jpg")
    "'=1+1.jpg"
    """
    return f"'{text}" if text and text[0] in BEGINS_A_FORMULA else text


def uncelled(text: str) -> str:
    """Returns a text as it was before `cell`.

    >>> uncelled("'=1+1.jpg")
    '=1+1.jpg'
    """
    return text[1:] if text[:1] == "'" and text[1:2] and text[1] in BEGINS_A_FORMULA else text
