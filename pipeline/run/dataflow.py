"""Dataflow's flags that follow from others: where it stages files, and the image of its workers."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline import __version__
from pipeline.errors import UsageError
from pipeline.run.runners import far_away, options_of

STAGED_BELOW = "facelabel-temp"  # in the bucket of the output


def with_what_follows(beam_options: Sequence[str], output: str) -> tuple[str, ...]:
    """Returns the flags with those that Dataflow needs and that follow from project, region and output.

    They are the folders of its own files, in the bucket of the output, and the image of the workers, in the project's
    registry. What is given stays. Flags for any other runner are returned as they are.

    Raises:
        UsageError: project or region is missing.
    """
    options = options_of(beam_options)
    if not far_away(options):
        return tuple(beam_options)
    given = options.get_all_options()
    project, region = given.get("project"), given.get("region")
    if not project or not region:
        raise UsageError("--runner=DataflowRunner needs --project and --region")
    follows = {"sdk_container_image": f"{region}-docker.pkg.dev/{project}/facelabel/worker:{__version__}"}
    if output.startswith("gs://"):
        bucket = "/".join(output.split("/")[:3])
        follows |= dict.fromkeys(("temp_location", "staging_location"), f"{bucket}/{STAGED_BELOW}")
    return (*beam_options, *(f"--{name}={value}" for name, value in follows.items() if not given.get(name)))


def template_of(beam_options: Sequence[str]) -> str:
    """Returns where the job's template goes, if the job is not to start now; else ""."""
    return str(options_of(beam_options).get_all_options().get("template_location") or "")
