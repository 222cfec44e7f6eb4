"""Numbers of evaluations as their pages show them. Not here: counts and shares (`templating.py`)."""

from __future__ import annotations


def minus(number: str) -> str:
    """Returns a number with a sign as long as its plus."""
    return number.replace("-", "\N{MINUS SIGN}")


def number(value: float | None, digits: int = 4) -> str:
    """Returns a number, or a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"
