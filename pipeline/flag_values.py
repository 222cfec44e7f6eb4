"""Parses the text of a flag: each function returns a value, or refuses the text in one clause."""

from __future__ import annotations

import argparse
import difflib
import math
import re
from collections.abc import Callable

from transforms.formats.class_names import class_name


def text(given: str) -> str:
    """Returns a text that is not blank."""
    if not given.strip():
        raise argparse.ArgumentTypeError("is empty")
    return given


def class_text(given: str) -> str:
    """Returns the name of a class, or a pair of names, in the form in which labels are compared."""
    return class_name(text(given))


def one_of(*known: str) -> Callable[[str], str]:
    """Returns a parser that accepts only these words."""

    def chosen(given: str) -> str:
        if given not in known:
            near = difflib.get_close_matches(given, known, n=1)
            hint = f"; nearest is {near[0]}" if near else ""
            raise argparse.ArgumentTypeError(f"{given!r} is not one of {', '.join(known)}{hint}")
        return given

    return chosen


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
    """Returns a number strictly between 0 and 1."""
    value = fraction(given)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{given!r} is not a fraction above 0 and below 1")
    return value


def count(given: str) -> int:
    """Returns a whole number, at least 1."""
    if not given.isascii() or not given.isdigit() or int(given) < 1:
        raise argparse.ArgumentTypeError(f"{given!r} is not a whole number of at least 1")
    return int(given)


def seed(given: str) -> int:
    """Returns a whole number, at least 0, that fits 31 bits."""
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


def side(given: str) -> int:
    """Returns the side of a picture in pixels, from 64 to 16384, the limit of the image formats."""
    value = count(given)
    if not 64 <= value <= 16384:
        raise argparse.ArgumentTypeError(f"{given!r} is not a number of pixels from 64 to 16384")
    return value


def camera(given: str) -> int:
    """Returns the number of a camera, from 0 to 99."""
    if not given.isascii() or not given.isdigit() or int(given) > 99:
        raise argparse.ArgumentTypeError(f"{given!r} is not the number of a camera: 0 is the first")
    return int(given)


def frame_rate(given: str) -> float:
    """Returns frames a second, above 0, at most 1000."""
    value = number(given)
    if not 0 < value <= 1000:
        raise argparse.ArgumentTypeError(f"{given!r} is not a number of frames a second from above 0 to 1000")
    return value


def smoothing(given: str) -> float:
    """Returns a share from 0 to 0.99."""
    value = number(given)
    if not 0 <= value <= 0.99:
        raise argparse.ArgumentTypeError(f"{given!r} is not a share from 0 to 0.99")
    return value


def margin(given: str) -> float:
    """Returns a margin around a face: a share of its side from 0 to 2."""
    value = number(given)
    if not 0 <= value <= 2:
        raise argparse.ArgumentTypeError(f"{given!r} is not a share from 0 to 2")
    return value


def pixels(given: str) -> float:
    """Returns a number of pixels, at least 0."""
    value = number(given)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{given!r} is not a number of pixels of at least 0")
    return value


def fold_count(given: str) -> int:
    """Returns a whole number, at least 2."""
    value = count(given)
    if value < 2:
        raise argparse.ArgumentTypeError(f"{given!r} is not a whole number of at least 2")
    return value


def pattern(given: str) -> str:
    """Returns a regular expression."""
    try:
        re.compile(text(given))
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{given!r} is not a regular expression: {error}") from error
    return given
