"""What the text of a flag becomes: each function returns a value, or refuses the text in one clause."""

from __future__ import annotations

import argparse
import math

from transforms.formats.class_names import class_name


def text(given: str) -> str:
    """Returns a text that is not blank."""
    if not given.strip():
        raise argparse.ArgumentTypeError("is empty")
    return given


def class_text(given: str) -> str:
    """Returns the name of a class, or a pair of such names, as labels are compared."""
    return class_name(text(given))


def fraction(given: str) -> float:
    """Returns a number from 0 to 1."""
    try:
        value = float(given)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:  # also refuses nan
        raise argparse.ArgumentTypeError(f"{given!r} is not a fraction from 0 to 1")
    return value


def proper_fraction(given: str) -> float:
    """Returns a number between 0 and 1, neither of them."""
    value = fraction(given)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{given!r} is not a fraction above 0 and below 1")
    return value


def count(given: str) -> int:
    """Returns a whole number from 1."""
    if not given.isascii() or not given.isdigit() or int(given) < 1:
        raise argparse.ArgumentTypeError(f"{given!r} is not a whole number from 1")
    return int(given)


def seed(given: str) -> int:
    """Returns a whole number from 0 that fits 31 bits."""
    if not given.isascii() or not given.isdigit() or int(given) >= 2**31:
        raise argparse.ArgumentTypeError(f"{given!r} is not a whole number from 0 to {2**31 - 1}")
    return int(given)


def number(given: str) -> float:
    """Returns a finite number."""
    try:
        value = float(given)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{given!r} is not a number")
    return value


def pixels(given: str) -> float:
    """Returns a number of pixels from 0."""
    value = number(given)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{given!r} is not a number of pixels from 0")
    return value
