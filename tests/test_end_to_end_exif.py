"""Columns of EXIF in `images/`: there when asked for, from the cache too, and without a trace when not."""

from __future__ import annotations

import io
from pathlib import Path

import pictures
import pyarrow.parquet as pq
import pytest
import runs
from PIL import Image
from test_formats_exif import FULL, block

NAMES = ("taken_at", "camera", "latitude", "longitude")


def photo(number: int) -> bytes:
    file = io.BytesIO()
    exif = block(model=f"Snap {number}", taken="2024:05:01 10:30:59" if number % 2 else "")
    Image.fromarray(runs.pattern(number, 24)).save(file, "JPEG", exif=exif)
    return file.getvalue()


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> runs.Bench:
    place = tmp_path_factory.mktemp("bench")
    files = {f"happy/{number}.jpg": photo(number) for number in range(6)}
    files |= {
        "sad/again.jpg": photo(1),
        "sad/cut.jpg": photo(3)[:-20],
        "sad/plain.png": pictures.png(pictures.plain(24, 24)),
    }
    files |= {"sad/empty.jpg": b""}
    pictures.write_folder(place / "in", files)
    pictures.write_tar(place / "in.tar.gz", files)
    return runs.Bench(place, runs.make_head(place / "head"), (*runs.SMALL, "write.no_face_label=sad"))


def reported(ended: runs.Ended) -> dict[str, tuple[object, ...]]:
    rows = runs.images(ended.output)
    return {name.removeprefix("in.tar.gz/"): tuple(row[column] for column in NAMES) for name, row in rows.items()}


def test_images_get_the_columns(bench: runs.Bench) -> None:
    ended = bench.label(bench.path / "in", "with", "read.exif=true").done()
    found = reported(ended)
    assert found["happy/1.jpg"] == (FULL.taken_at, "Acme Snap 1", FULL.latitude, FULL.longitude)
    assert found["happy/2.jpg"] == (None, "Acme Snap 2", FULL.latitude, FULL.longitude)
    assert found["sad/again.jpg"] == found["happy/1.jpg"]  # a copy, which is not decoded
    assert found["sad/cut.jpg"][1] == "Acme Snap 3"  # rejected, and what it says is kept
    assert found["sad/plain.png"] == found["sad/empty.jpg"] == (None,) * 4
    assert pq.read_schema(next((ended.output / "images").iterdir())).names[-4:] == list(NAMES)
    assert runs.images(ended.output)["sad/cut.jpg"]["status"] == "rejected"


def test_cached_images_and_streamed_archives_have_them_too(bench: runs.Bench) -> None:
    first = bench.label(bench.path / "in.tar.gz", "stream", "read.exif=true", "read.block_images=3").done()
    cache = str(first.output / "cache")
    again = bench.label(bench.path / "in", "hits", "read.exif=true", "--cache", cache).done()
    assert again.record["cache"]["cached"] == 10  # all of them, also those that were rejected
    assert reported(again) == reported(first)


def test_off_leaves_every_byte_as_it_was(bench: runs.Bench) -> None:
    off = bench.label(bench.path / "in", "off").done()
    on = bench.label(bench.path / "in", "on", "read.exif=true", "--cache", str(off.output / "cache")).done()
    assert not set(NAMES) & set(pq.read_schema(next((off.output / "images").iterdir())).names)
    assert off.record["cache_key"] == on.record["cache_key"]
    assert off.record["run_fingerprint"] != on.record["run_fingerprint"]
    assert "exif" not in off.record["identity"]
    files = [
        {name: digest for name, digest in runs.results(one.output).items() if "images" not in name} for one in (off, on)
    ]
    assert files[0] == files[1]


def test_turning_it_on_is_another_run(bench: runs.Bench) -> None:
    bench.label(bench.path / "in", "one").done()
    refused = bench.label(bench.path / "in", "one", "read.exif=true")
    assert refused.status == 2 and "exif" in refused.line
    killed = bench.label(bench.path / "in", "kept", "read.exif=true", "write.keep_parts=true").done()
    again = bench.label(bench.path / "in", "kept", "read.exif=true").done()
    assert "already finished" in again.out and reported(again) == reported(killed)


def test_a_fault_of_exif_never_costs_an_image(
    bench: runs.Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bad = pictures.with_segment(photo(2), b"Exif\0\0II*\0\xff\xff\xff\x7f")
    pictures.write_folder(tmp_path / "in", {"a.jpg": bad, "b.jpg": photo(4)})
    ended = bench.label(tmp_path / "in", "bad", "read.exif=true").done()
    assert ended.record["counts"]["rejected"] == 0
    assert reported(ended)["a.jpg"] == (None,) * 4 and reported(ended)["b.jpg"][1] == "Acme Snap 4"
