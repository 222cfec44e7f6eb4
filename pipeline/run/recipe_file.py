"""The recipe of a training's checkpoint: stored next to it, and compared before the training resumes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.settings.differences import differences
from transforms.formats.publish import publish_bytes


def hold_recipe(
    path: Path, recipe: Mapping[str, Any], traces: Sequence[str], *, unsaid: Mapping[str, Any] | None = None
) -> None:
    """Stores the recipe, or refuses to resume a checkpoint with another recipe: a mixture is not reproducible.

    Args:
        path: of the stored recipe, in the training's folder.
        traces: names of files next to it that show that the training has begun.
        unsaid: values of settings in `recipe["recipe"]` that an older file may lack.

    Raises:
        UsageError: the training there has another recipe, or the file is damaged.
    """
    if not path.exists() or not any((path.parent / name).exists() for name in traces):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, recipe)
        return
    try:
        before = dict(json.loads(path.read_text(encoding="utf-8")))
        if unsaid is not None:
            before["recipe"] = {**unsaid, **before["recipe"]}
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path} is damaged ({error}); remove its folder to start over, or use another --output"
        ) from error
    if different := differences(before, recipe):
        raise UsageError(
            f"--output {path.parent} holds a training with another recipe ({'; '.join(different[:5])}); "
            "give another folder, or --overwrite to start over"
        )


def write_json(path: Path, value: Any) -> None:
    """Publishes a value as JSON."""
    publish_bytes(path, (json.dumps(value, indent=1) + "\n").encode("utf-8"))
