"""`describe-head`: writes `head.json` for the user's own Keras model, after trying the model.

The file says which classes the model's outputs are and which feature space it was trained for: that of the settings.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from models.backbones.backbone import BackboneError
from models.heads.folder import FORMAT_VERSION, HEAD_JSON
from models.heads.keras import KerasHead
from models.heads.outputs import HeadError
from models.runtimes.device import get_device
from pipeline.commands.command import Context
from pipeline.commands.describe_head import DescribeHeadOptions
from pipeline.errors import UsageError
from pipeline.run.identity import feature_settings, feature_space
from transforms.formats.canonical import fingerprint_of
from transforms.formats.publish import publish


def run(options: DescribeHeadOptions, context: Context) -> int:
    """Tries the model on features of the width that the settings give, and writes `head.json` next to it.

    Raises:
        UsageError: the model is missing or does not fit classes or features, or the file describes another head.
    """
    path = Path(options.head)
    try:
        space = feature_space(context.settings)
        about = description(path, options.classes, space)
        _refuse_another(path)
        _head(path, about).prepare(get_device(feature_settings(context.settings)).width)
    except (HeadError, BackboneError) as error:
        raise UsageError(str(error)) from error
    text = json.dumps(about, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    publish(str(path.with_name(HEAD_JSON)), lambda file: file.write(text.encode()))
    if not context.quiet:
        print(f"head: {path} (use it with --head {path})\nfeature space: {about['feature_space']}")
    return 0


def description(path: Path, classes: tuple[str, ...], space: dict[str, Any]) -> dict[str, Any]:
    """Returns what `head.json` holds.

    Args:
        path: of the `.keras` file.
        classes: in the order of the model's outputs.
        space: the feature space that it was trained for.

    Raises:
        UsageError: it is not a `.keras` file, or cannot be read.
    """
    if path.suffix != ".keras":
        raise UsageError(f"--head {path}: give a .keras file; heads from train-head already have a head.json")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"--head {path} cannot be read: {error.strerror or error}") from error
    return {
        "format_version": FORMAT_VERSION,
        "kind": "keras",
        "file": path.name,
        "classes": list(classes),
        "feature_space": fingerprint_of(space),
        "features": space,
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def _head(path: Path, about: dict[str, Any]) -> KerasHead:
    return KerasHead(
        path,
        tuple(about["classes"]),
        feature_space=about["feature_space"],
        features=about["features"],
        sha256=about["sha256"],
    )


def _refuse_another(path: Path) -> None:
    """Raises UsageError if the `head.json` next to the model belongs to another head."""
    about = path.with_name(HEAD_JSON)
    try:
        held = json.loads(about.read_text(encoding="utf-8"))
        own = held.get("kind", "keras") == "keras" and held.get("file", path.name) == path.name
    except FileNotFoundError:
        return
    except (OSError, ValueError, AttributeError):
        own = False
    if not own:
        raise UsageError(f"{about} describes another head; move {path.name} to a separate folder")
