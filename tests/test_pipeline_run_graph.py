"""The graph as a runner gets it: which stage asks for a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apache_beam as beam
import blocks
import pytest
from apache_beam.portability import common_urns

from pipeline.run.graph import featured
from pipeline.run.prepare import make_job
from pipeline.settings.load import load_settings
from transforms.job import Job

ACCELERATOR = common_urns.resource_hints.ACCELERATOR.urn
MIN_RAM = common_urns.resource_hints.MIN_RAM_BYTES.urn


def hints_by_stage(job: Job) -> dict[str, dict[str, bytes]]:
    """Returns the resource hints of each stage that computes, by its name."""
    root = beam.Pipeline()
    featured(root, [], job)
    components: Any = root.to_runner_api().components
    return {
        stage.unique_name: dict(components.environments[stage.environment_id].resource_hints)
        for stage in components.transforms.values()
        if stage.spec.urn == common_urns.primitives.PAR_DO.urn
    }


def test_only_the_network_asks_for_a_gpu(tmp_path: Path) -> None:
    found = hints_by_stage(blocks.job(tmp_path, hints=(("accelerator", "type:x;count:1"), ("min_ram", "16GB"))))
    assert found.pop("ExtractFeatures") == {ACCELERATOR: b"type:x;count:1", MIN_RAM: b"16000000000"}
    assert len(found) >= 3
    assert not any(found.values())


def test_without_a_setting_no_stage_asks(tmp_path: Path) -> None:
    assert not any(hints_by_stage(blocks.job(tmp_path)).values())


@pytest.mark.parametrize("given, hints", [((), ()), (("features.accelerator=type:x",), (("accelerator", "type:x"),))])
def test_settings_become_hints(given: tuple[str, ...], hints: tuple[tuple[str, str], ...]) -> None:
    from pipeline.run.identity import identity_of

    settings = load_settings((), ["features.weights=random", *given])
    job = make_job(settings, identity_of(settings, None), output="out", cache="")
    assert (job.hints, job.accelerator) == (hints, dict(hints).get("accelerator", ""))
