"""The detector of a finished run, to look at a few of its photos again: only if it would still find the same boxes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from models.backbones.registry import backbone
from models.detectors.options import DetectorError
from pipeline.report.near_misses import Searching
from pipeline.run.identity import SMALLEST_SIDE_PX, detector_spec
from pipeline.settings.schema import Settings


def detector_of_run(record: Mapping[str, Any]) -> Searching:
    """Returns how a run looked for faces, or why that is unknown.

    Args:
        record: `run.json`.
    """
    try:
        settings = Settings.model_validate(record.get("settings", {}))
    except ValidationError:
        return Searching(None, why_not="the settings of the run are those of another version")
    try:
        spec = detector_spec(settings)
        described = spec.describe()
        channels = backbone(settings.features.backbone).channels
    except (DetectorError, ValueError) as error:
        return Searching(None, why_not=str(error))
    then = record.get("identity", {}).get("features", {}).get("faces", {})
    if any(then.get(name) != value for name, value in described.items()):
        return Searching(None, why_not="the detector has changed since the run")
    return Searching(spec, channels, SMALLEST_SIDE_PX)
