"""A job for Dataflow as `configs/dataflow.yaml` makes it, up to the service: its template, and its graph at work.

Needs Beam's packages for Google Cloud (`pip install 'facelabel-pipeline[gcp]'`, 330 MB); skipped without them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_bucket
import pytest
import remote_runner
import runs
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms.environments import EmbeddedPythonEnvironment

from pipeline import __version__
from transforms.storage import objects, staged_files

pytest.importorskip("google.cloud.dataflow", reason="needs pip install 'facelabel-pipeline[gcp]'")
pytest.importorskip("obstore", reason="needs pip install 'facelabel-pipeline[gcs]'")
from apache_beam.runners.dataflow.internal import apiclient

BUCKET = "gs://faces"
PLACE = ("--project=proj-x", "--region=europe-west4")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> runs.Bench:
    place = tmp_path_factory.mktemp("driver_disk")
    return runs.Bench(place, runs.make_head(place / "my_head"))


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A bucket of this machine with 20 photos."""
    with google_bucket.google_bucket() as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        (tmp_path / "tmp").mkdir()
        monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "tmp"))
        staged_files._fetched.cache_clear()
        objects.forget_clients()
        store = objects.ObjectStore(BUCKET)
        for name, data in runs.faces(20).items():
            store.put_bytes(f"photos/{name}", data)
        yield
    objects.forget_clients()


class Template:
    """What `label --template_location` leaves: the job's description, and what Beam stages for it."""

    def __init__(self, job: dict[str, Any], staged: dict[str, bytes]) -> None:
        self.environment = job["environment"]
        (self.pool,) = self.environment["workerPools"]
        self.options = self.environment["sdkPipelineOptions"]["options"]
        self.staged = staged
        self.graph = beam_runner_api_pb2.Pipeline.FromString(staged["pipeline.pb"])

    def hints(self, stage: str) -> dict[str, bytes]:
        """Returns the resource hints of a stage by the last word of their URNs."""
        components = self.graph.components
        (found,) = (one for one in components.transforms.values() if one.unique_name == stage)
        hints = components.environments[found.environment_id].resource_hints
        return {urn.split(":")[-2]: value for urn, value in hints.items()}


@pytest.fixture
def template(bench: runs.Bench, bucket: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    staged: dict[str, bytes] = {}

    def stage(_: Any, folder: str, name: str, content: Any, **__: Any) -> None:
        assert folder.startswith((f"{BUCKET}/facelabel-temp/", str(tmp_path)))  # the template itself is local
        staged[name] = Path(content).read_bytes() if isinstance(content, str) else content.read()

    monkeypatch.setattr(apiclient.DataflowApplicationClient, "stage_file_with_retry", stage)
    monkeypatch.setattr(GoogleCloudOptions, "_warn_if_soft_delete_policy_enabled", lambda *_: None, raising=False)

    def make(output: str, *settings: str) -> Template:
        path = tmp_path / f"{output}.json"
        ended = runs.run(
            *("--config", "configs/dataflow.yaml", *PLACE, "--no_auth", f"--template_location={path}"),
            *("--input", f"{BUCKET}/photos", "--output", f"{BUCKET}/{output}", "--head", str(bench.head)),
            *("--set", *bench.settings, *settings),
            output=tmp_path,
        ).done()
        assert f"template: {path}" in ended.out
        return Template(json.loads(staged[path.name]), staged)

    return make


def test_the_job_is_what_the_config_says(template: Any) -> None:
    job = template("out")
    experiments = job.environment["experiments"]
    assert {"no_use_multiple_sdk_containers", "use_runner_v2"} <= set(experiments)
    assert "use_multiple_sdk_containers" not in experiments
    assert (job.pool["machineType"], job.pool["numThreadsPerWorker"]) == ("n1-standard-4", 2)
    assert job.pool["autoscalingSettings"]["maxNumWorkers"] == 8
    image = f"europe-west4-docker.pkg.dev/proj-x/facelabel/worker:{__version__}"
    assert {one["containerImage"] for one in job.pool["sdkHarnessContainerImages"]} == {image}
    assert job.options["temp_location"].startswith(f"{BUCKET}/facelabel-temp")
    assert not job.options.get("save_main_session") or "pickled_main_session" in job.staged

    gpu = "type:nvidia-tesla-t4;count:1;install-nvidia-driver"
    assert job.hints("ExtractFeatures") == {"accelerator": gpu.encode(), "min_ram_bytes": b"12000000000"}
    for stage in ("ReadBlocks", "FindCached", "DetectFaces", "ApplyHead", "WriteParts", "FinishRun"):
        assert job.hints(stage) == {}

    reported = b"\n".join(remote_runner.texts(job.graph))
    assert b"gs://faces/out/parts" in reported
    assert b"driver_disk" not in reported
    assert str(runs.ROOT).encode() not in reported
    assert not [name for name in job.staged if name.endswith((".npz", ".whl", ".tar.gz"))]  # the image has it all


def test_the_graph_of_the_template_gives_the_bytes_of_a_local_run(
    template: Any, bench: runs.Bench, tmp_path: Path
) -> None:
    job = template("out", "features.accelerator=null", "features.min_ram=null")
    for environment in job.graph.components.environments.values():
        environment.CopyFrom(EmbeddedPythonEnvironment.default().to_runner_api(None))
    FnApiRunner().run_via_runner_api(job.graph, PipelineOptions([]))
    here = bench.label(f"{BUCKET}/photos", "here").done()
    store = objects.ObjectStore(f"{BUCKET}/out")
    for name in runs.results(here.output):
        found = store.get(name)
        assert found is not None
        assert found[0] == (here.output / name).read_bytes()


@pytest.mark.parametrize(
    "flags, words",
    [
        (("--region=r",), "--runner=DataflowRunner needs --project and --region"),
        (PLACE, "--output out: workers of DataflowRunner cannot see this machine's disk; give a gs:// or s3:// path"),
    ],
)
def test_what_is_missing_is_one_line(flags: tuple[str, ...], words: str, tmp_path: Path) -> None:
    output = "gs://b/out" if flags != PLACE else "out"
    given = ["--config", "configs/dataflow.yaml", *flags, "--input", "gs://b/x", "--output", output]
    assert runs.run(*given, output=tmp_path).line == words
