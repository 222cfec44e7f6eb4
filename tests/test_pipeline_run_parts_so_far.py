"""Parts are counted while a job runs elsewhere: once each, and only those of this job."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import buckets
import pyarrow as pa
import pytest
from buckets import BUCKET

from models.heads.output_spec import ClassOutput
from pipeline.run import parts_so_far
from pipeline.run.parts_so_far import PartsSoFar
from transforms.formats.parts import PartMetadata, part_schema, write_part
from transforms.output_fields import part_fields
from transforms.storage import objects
from transforms.storage.stores import store_of

ROW = {
    "image_id": "a",
    "position": 0,
    "source": "in",
    "digest": bytes(32),
    "bytes": 1,
    "width": 9,
    "height": 9,
    "status": "no_face",
    "stage": None,
    "reason": None,
    "true_label": None,
    "cached": False,
    "faces": [],
}


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts_so_far, "LOOK_S", 0.0)
    monkeypatch.setattr(parts_so_far, "SHARE", 0)


def part(folder: Path, key: str, images: int, faces: int, cached: int) -> None:
    schema = part_schema(part_fields(ClassOutput(("angry", "sad"))))
    info = PartMetadata(key, "beef", first_id="a", last_id="a", images=images, faces=faces, cached=cached)
    write_part(str(folder / f"{key}.parquet"), pa.Table.from_pylist([ROW] * images, schema=schema), info)


def test_parts_in_a_folder(tmp_path: Path) -> None:
    part(tmp_path, "0" * 32, 8, 8, 8)  # of an earlier job
    counted = PartsSoFar(str(tmp_path))
    assert counted.totals().blocks == 0
    part(tmp_path, "a" * 32, 3, 4, 1)
    part(tmp_path, "b" * 32 + "-00000001", 2, 1, 0)
    (tmp_path / f"{'a' * 32}.stream.json").write_text("{}")
    (tmp_path / "c.parquet.tmp").write_bytes(b"half")
    for _ in range(2):
        seen = counted.totals()
        assert (seen.images, seen.faces, seen.cached, seen.blocks) == (5, 5, 1, 2)
    (tmp_path / f"{'d' * 32}.npz").write_bytes(b"rows to train a head on")
    assert counted.totals().blocks == 3
    for path in tmp_path.iterdir():  # as at the end of a run
        os.unlink(path)
    assert (counted.totals().images, counted.totals().blocks) == (5, 3)


def test_looks_are_rare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = PartsSoFar(str(tmp_path))
    monkeypatch.setattr(parts_so_far, "LOOK_S", 60.0)
    assert counted.totals().blocks == 0
    part(tmp_path, "a" * 32, 3, 4, 1)
    assert counted.totals().blocks == 0


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, buckets.Bucket]]:
    with buckets.bucket_server() as running:
        objects.forget_clients()
        for name, value in {**buckets.KEYS, "AWS_ENDPOINT_URL": running.url}.items():
            monkeypatch.setenv(name, value)
        yield f"s3://{BUCKET}/out/parts", running
        objects.forget_clients()


def test_parts_in_a_store_are_counted_by_their_names(place: tuple[str, buckets.Bucket]) -> None:
    url, bucket = place
    counted, store = PartsSoFar(url), store_of(url)
    store.put_bytes(f"{'a' * 32}.32-40-0.parquet", b"not opened")
    store.put_bytes(f"{'b' * 32}-00000002.7-1-0.parquet", b"not opened")
    store.put_bytes(f"{'b' * 32}.stream.json", b"{}")
    bucket.requests.clear()
    seen = counted.totals()
    assert (seen.images, seen.faces, seen.blocks) == (39, 41, 2)
    assert len(bucket.requests) == 1  # a LIST
