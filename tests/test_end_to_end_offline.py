"""Promise 10, and the dry run: nothing is downloaded, and nothing is written by a command that only looks."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import NoReturn

import pictures
import pytest
import runs


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.make_head(tmp_path_factory.mktemp("head"))


@pytest.fixture
def bench(tmp_path: Path, head: Path) -> runs.Bench:
    return runs.Bench(tmp_path, head)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes away every way to another machine, and to this one."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise OSError("there is no network")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)


@pytest.mark.usefixtures("no_network")
def test_the_default_settings_need_no_network(bench: runs.Bench) -> None:
    """The bundled weights, the bundled head, the default detector."""
    source = pictures.write_folder(bench.path / "in", {"face.jpg": pictures.jpeg(pictures.portrait())})
    given = ["--runner=DirectRunner", "--input", str(source), "--output", str(bench.path / "out")]
    ended = runs.run(*given, output=bench.path / "out").done()
    assert ended.record["counts"]["labelled"] == 1


@pytest.mark.usefixtures("no_network")
def test_weights_that_are_missing_are_not_fetched(bench: runs.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_HOME", str(bench.path / "empty"))
    source = pictures.write_folder(bench.path / "in", runs.faces(2))
    refused = bench.label(
        source, "out", "features.backbone=vgg16", "features.weights=imagenet", "features.input_size=48"
    )
    assert refused.status == 2
    assert str(bench.path / "empty") in refused.line
    assert "nothing is downloaded" in refused.line
    assert not refused.output.exists()


# --- the dry run ------------------------------------------------------------------------------------------------------


def test_a_dry_run_tells_and_writes_nothing(bench: runs.Bench) -> None:
    files = runs.faces(70)
    inputs = [
        pictures.write_folder(bench.path / "in", {**files, "notes.txt": b"text", "bad.png": b"no image"}),
        pictures.write_zip(bench.path / "more.zip", runs.faces(30, first=100)),
    ]
    before = runs.tree(bench.path)

    reported = bench.label(inputs, "out", "read.block_images=16", "--dry-run").done()

    assert runs.tree(bench.path) == before
    assert "would read 101 images" in reported.out
    assert "1 loose" in reported.out
    assert "1 zip" in reported.out
    assert "would skip 1 files that are not images: notes.txt" in reported.out
    assert "0% are already in the cache" in reported.out
    assert "nothing was written" in reported.out


def test_a_dry_run_over_a_finished_run_knows_its_cache_and_touches_nothing(bench: runs.Bench) -> None:
    source = pictures.write_tar(bench.path / "many.tar", runs.faces(50))
    bench.label(source).done()
    before = runs.tree(bench.path)
    reported = bench.label(source, "out", "--dry-run").done()
    assert runs.tree(bench.path) == before
    assert "100% are already in the cache" in reported.out

    segment = runs.segments(bench.path / "out" / "cache")[0]
    segment.write_bytes(segment.read_bytes()[:-9])
    before = runs.tree(bench.path)
    reported = bench.label(source, "out", "--dry-run").done()
    assert runs.tree(bench.path) == before  # a run moves it aside, a look does not
    assert "0% are already in the cache" in reported.out


def test_a_dry_run_of_a_stream_says_at_least(bench: runs.Bench) -> None:
    source = pictures.write_tar(bench.path / "many.tar.gz", runs.faces(50))
    reported = bench.label(source, "out", "--dry-run").done()
    assert "at least" in reported.out
    assert "can only be streamed" in reported.out
    assert not (bench.path / "out").exists()


def test_a_dry_run_refuses_what_a_run_would_refuse(bench: runs.Bench) -> None:
    refused = bench.label(bench.path / "missing", "out", "--dry-run")
    assert refused.status == 2
    assert "nothing is there" in refused.line
    assert not (bench.path / "out").exists()
