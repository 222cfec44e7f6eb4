"""The check at startup that the three packages are in one folder. It imports none of them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from pipeline.errors import UsageError

DISTRIBUTION = "facelabel-pipeline"
COMMAND = "facelabel"  # which the distribution installs; it does not look for packages in the current folder
PACKAGES = ("pipeline", "transforms", "models")


def check_house() -> None:
    """Raises if the three packages are not in one folder.

    `models` and `transforms` are common names: another distribution's package silently replaces ours, and so does a
    folder of that name where `python -m pipeline` is started.

    Raises:
        UsageError: names the three places and the fix.
    """
    places = {name: _place(name) for name in PACKAGES}
    if len({None if place is None else place.parent for place in places.values()}) == 1 and None not in places.values():
        return
    shown = ", ".join(f"{name} in {place or 'no place'}" for name, place in places.items())
    raise UsageError(
        f"the packages of this program must be in one folder, but it found {shown}: start it from another folder or "
        f"with its command, {COMMAND}; if that does not help, install {DISTRIBUTION} into a separate environment"
    )


def _place(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).resolve().parent if spec is not None and spec.origin else None
