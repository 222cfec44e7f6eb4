"""Promises 1 and 6: images in = labelled + no face + rejected + duplicate, and a bad one costs its own row alone."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pictures
import pyarrow as pa
import pytest
import runs

from transforms import crop_faces, write_parts
from transforms.formats.decode import Decoded, decode
from transforms.formats.records import Reason, Stage

BELOW_12_PX = {"cmyk.jpg", "moving.gif", "cut.gif", "one_pixel.png", "rgba.png"}  # too small to show a face
STATED = "write.no_face_label=neutral"

Write = Callable[[Path, Mapping[str, bytes]], Path]
CONTAINERS: dict[str, Write] = {
    "photos": pictures.write_folder,
    "photos.tar": pictures.write_tar,
    "photos.tar.gz": pictures.write_tar,
    "photos.zip": pictures.write_zip,
    "photos.tfrecord": pictures.write_tfrecord,
    "photos.tfrecord.gz": pictures.write_tfrecord,
    "photos.parquet": pictures.write_parquet,
}


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.make_head(tmp_path_factory.mktemp("head"))


@pytest.fixture
def bench(tmp_path: Path, head: Path) -> runs.Bench:
    return runs.Bench(tmp_path, head)


def nasty_outcomes(names: Iterable[str]) -> dict[str, tuple[str, str | None, str | None]]:
    """Returns (status, stage, reason) of each of the nasty files."""
    outcomes: dict[str, tuple[str, str | None, str | None]] = {}
    for name in names:
        reason = Reason.TOO_SMALL if name in BELOW_12_PX else pictures.nasty_files()[name][1]
        outcomes[name] = ("rejected", str(reason.stage), str(reason)) if reason else ("labelled", None, None)
    return outcomes


def outcome(row: Mapping[str, Any]) -> tuple[str, str | None, str | None]:
    return row["status"], row["stage"], row["reason"]


def check_account(ended: runs.Ended, put_in: int) -> None:
    """Checks that the counts are those of the rows, add up, and are what was put in."""
    counts, table = ended.record["counts"], runs.rows(ended.output / "images")
    assert counts["images"] == len(table) == put_in
    for status in ("labelled", "no_face", "rejected", "duplicate"):
        assert counts[status] == sum(row["status"] == status for row in table), status
    assert put_in == counts["labelled"] + counts["no_face"] + counts["rejected"] + counts["duplicate"]
    assert counts["faces"] == len(runs.predictions(ended.output)) == sum(row["faces"] for row in table)
    reasons = [row["reason"] for row in table if row["reason"]]
    assert ended.record["reasons"] == {reason: reasons.count(reason) for reason in sorted(set(reasons))}


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_image_has_its_row_and_the_good_ones_are_what_they_are_alone(name: str, bench: runs.Bench) -> None:
    nasty = {n: data for n, (data, _) in pictures.nasty_files().items()}
    good = runs.faces(6)
    names = [*nasty, *good]
    mixed = CONTAINERS[name](bench.path / "mixed" / name, {**dict(list(nasty.items())[:20]), **good, **nasty})
    alone = CONTAINERS[name](bench.path / "alone" / name, good)

    both = bench.label(mixed, "mixed_out", STATED).done()
    only_good = bench.label(alone, "alone_out", STATED).done()

    prefix = "" if name == "photos" else name + "/"
    expected = {**nasty_outcomes(nasty), **dict.fromkeys(good, ("labelled", None, None))}
    found = {image_id: outcome(row) for image_id, row in runs.images(both.output).items()}
    assert found == {prefix + n: expected[n] for n in sorted(names)}
    check_account(both, len(names))
    check_account(only_good, len(good))
    of_good = [row for row in runs.predictions(both.output) if row["image_id"].removeprefix(prefix) in good]
    assert of_good == runs.predictions(only_good.output)
    assert [line.split(",")[0] for line in runs.submission(both.output)] == ["id", *sorted(prefix + n for n in names)]


def test_every_reason_is_met_somewhere_in_this_file() -> None:
    met = {reason for _, reason in pictures.nasty_files().values() if reason} | {Reason.TOO_SMALL}
    for _, expected in (wild_tar(), wild_zip(), cut_tar(), flipped_table()):
        met |= {Reason(reason) for _, _, _, reason in expected if reason}
    elsewhere = {
        Reason.INTERNAL_ERROR,
        Reason.TOO_SMALL_TO_LABEL,
    }  # the last tests here; test_end_to_end_small_faces.py
    assert met | elsewhere == set(Reason)


# --- faults of archives -----------------------------------------------------------------------------------------------

Expected = list[tuple[str, str, str | None, str | None]]  # image id, status, stage, reason: a row of images/
LABELLED = ("labelled", None, None)


def rejected(reason: Reason) -> tuple[str, str, str]:
    return "rejected", str(reason.stage), str(reason)


def wild_tar() -> tuple[bytes, Expected]:
    """A tar file whose members climb out, are links, are sparse, too large, and come twice; and its rows."""
    good = list(runs.faces(4).values())
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive:

        def add(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE) -> None:
            member = tarfile.TarInfo(name)
            member.type, member.size, member.linkname = kind, len(data), "a.png" if kind == tarfile.SYMTYPE else ""
            archive.addfile(member, io.BytesIO(data))

        add("a.png", good[0])
        add("../../climbs.png", good[1])
        add("link.png", kind=tarfile.SYMTYPE)
        add("sparse.png", kind=tarfile.GNUTYPE_SPARSE)
        add("large.png", good[1] + bytes(50_000))
        add("folder", kind=tarfile.DIRTYPE)
        add("notes.txt", b"passed over")
        add("a.png", good[2])
        add("z.png", good[3])
    return packed.getvalue(), [
        ("wild.tar/%2E%2E/%2E%2E/climbs.png", *rejected(Reason.UNSAFE_NAME)),
        ("wild.tar/a.png", *LABELLED),
        ("wild.tar/a.png", "duplicate", str(Stage.MERGE), str(Reason.DUPLICATE_ID)),
        ("wild.tar/large.png", *rejected(Reason.TOO_MANY_BYTES)),
        ("wild.tar/link.png", *rejected(Reason.NOT_A_FILE)),
        ("wild.tar/sparse.png", *rejected(Reason.UNSUPPORTED_COMPRESSION)),
        ("wild.tar/z.png", *LABELLED),
    ]


def wild_zip() -> tuple[bytes, Expected]:
    """A zip file with a wrong check sum, a method nobody knows, and a name that climbs out; and its rows."""
    good = list(runs.faces(4).values())
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name, data in zip(("a.png", "bad_sum.png", "../climbs.png", "packed.png"), good, strict=True):
            archive.writestr(zipfile.ZipInfo(name), data)
        archive.writestr(zipfile.ZipInfo("large.png"), good[0] + bytes(50_000), zipfile.ZIP_DEFLATED)
    data = bytearray(packed.getvalue())
    data[data.index(good[1]) + 60] ^= 1
    for mark, method_at in ((b"PK\3\4", 8), (b"PK\1\2", 10)):  # the fourth of each kind of header
        at = -1
        for _ in range(4):
            at = data.index(mark, at + 1)
        data[at + method_at] = 97
    return bytes(data), [
        ("wild.zip/%2E%2E/climbs.png", *rejected(Reason.UNSAFE_NAME)),
        ("wild.zip/a.png", *LABELLED),
        ("wild.zip/bad_sum.png", *rejected(Reason.DAMAGED_MEMBER)),
        ("wild.zip/large.png", *rejected(Reason.TOO_MANY_BYTES)),
        ("wild.zip/packed.png", *rejected(Reason.UNSUPPORTED_COMPRESSION)),
    ]


def cut_tar() -> tuple[bytes, Expected]:
    """A tar file that ends within its second member."""
    data = pictures.tar_bytes({"a.png": next(iter(runs.faces(1).values())), "b.png": bytes(5000)})
    return data[: data.index(b"b.png") + 1500], [
        ("cut.tar", *rejected(Reason.DAMAGED_ARCHIVE)),
        ("cut.tar/a.png", *LABELLED),
    ]


def flipped_table() -> tuple[bytes, Expected]:
    """A TFRecord file whose second record does not match its check sum."""
    good = list(runs.faces(3).values())
    records = [
        pictures.tfrecord(pictures.example({"image/encoded": data, "image/filename": name.encode()}))
        for name, data in zip(("a.png", "b.png", "c.png"), good, strict=True)
    ]
    data = bytearray(b"".join(records))
    data[len(records[0]) + len(records[1]) // 2] ^= 1
    return bytes(data), [
        ("flipped.tfrecord/00000001", *rejected(Reason.DAMAGED_MEMBER)),
        ("flipped.tfrecord/a.png", *LABELLED),
        ("flipped.tfrecord/c.png", *LABELLED),
    ]


@pytest.mark.parametrize("make", [wild_tar, wild_zip, cut_tar, flipped_table])
def test_faults_of_archives_cost_their_own_rows(make: Callable[[], tuple[bytes, Expected]], bench: runs.Bench) -> None:
    data, expected = make()
    (bench.path / "in").mkdir()
    source = bench.path / "in" / expected[0][0].split("/")[0]
    source.write_bytes(data)

    ended = bench.label(source, "out", STATED, "read.max_image_bytes=20000").done()

    found = [(row["image_id"], *outcome(row)) for row in runs.rows(ended.output / "images")]
    assert found == expected
    check_account(ended, len(expected))
    unique = sorted({image_id for image_id, *_ in expected})
    assert [line.split(",")[0] for line in runs.submission(ended.output)] == ["id", *unique]


def test_of_images_with_one_id_the_first_counts(bench: runs.Bench) -> None:
    first, second = runs.faces(2).values()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for data in (first, second):
            member = tarfile.TarInfo("same.png")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    (bench.path / "twice.tar").write_bytes(packed.getvalue())
    alone = pictures.write_tar(bench.path / "alone" / "twice.tar", {"same.png": first})

    twice = bench.label(bench.path / "twice.tar", "twice", "read.block_images=1").done()
    once = bench.label(alone, "once").done()

    assert runs.predictions(twice.output) == runs.predictions(once.output)
    assert runs.submission(twice.output) == runs.submission(once.output)
    check_account(twice, 2)


@pytest.mark.parametrize("name", ["photos", "photos.tar", "photos.tar.gz", "photos.zip"])
def test_what_is_passed_over_by_name_is_told(name: str, bench: runs.Bench) -> None:
    others = {"happy/.DS_Store": b"x", "notes.txt": b"x"}
    source = CONTAINERS[name](bench.path / name, {**runs.faces(2), **others})
    ended = bench.label(source).done()
    prefix = "" if name == "photos" else name + "/"
    reported = [prefix + other for other in others]
    assert f"skipped 2 files that are not images: {', '.join(reported)}" in ended.out
    assert ended.record["skipped_files"] == {"count": 2, "names": reported}
    check_account(ended, 2)


def test_links_and_pipes_among_images_are_accounted_for(bench: runs.Bench) -> None:
    source = pictures.write_folder(bench.path / "photos", runs.faces(3))
    pictures.write_folder(bench.path / "elsewhere", runs.faces(2, first=3))
    (source / "gone.png").symlink_to(bench.path / "nothing.png")
    (source / "good.png").symlink_to(next((bench.path / "elsewhere").rglob("*.png")))
    (source / "older").symlink_to(bench.path / "elsewhere")
    os.mkfifo(source / "pipe.jpg")

    ended = bench.label(source, "out", STATED).done()

    found = {image_id: outcome(row) for image_id, row in runs.images(ended.output).items()}
    not_a_file = rejected(Reason.NOT_A_FILE)
    good = dict.fromkeys([*runs.faces(3), "good.png"], LABELLED)
    assert found == {**good, "gone.png": not_a_file, "pipe.jpg": not_a_file}
    check_account(ended, 6)
    assert "skipped 1 files that are not images: older/ (a linked folder)" in ended.out

    pictures.write_folder(bench.path, {"nothing.png": runs.faces(1, first=9).popitem()[1]})
    mended = bench.label(source, "out", STATED).done()
    assert outcome(runs.images(mended.output)["gone.png"]) == LABELLED


# --- the check itself, and the limit ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["photos", "photos.tar.gz", "photos.tfrecord.gz"])
@pytest.mark.parametrize(
    "spoil, found", [(lambda table: table.slice(1), "4"), (lambda table: pa.concat_tables([table[:1], table]), "6")]
)
def test_a_run_that_loses_an_image_or_makes_one_up_does_not_end_well(
    name: str, spoil: Callable[[pa.Table], pa.Table], found: str, bench: runs.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = write_parts.part_table
    source = CONTAINERS[name](bench.path / name, runs.faces(5))
    with monkeypatch.context() as patch:
        patch.setattr(write_parts, "part_table", lambda block, **named: spoil(made(block, **named)))
        ended = bench.label(source)
    assert ended.status == 3
    assert "5" in ended.line
    assert found in ended.line
    assert not (ended.output / "run.json").exists()
    check_account(bench.label(source).done(), 5)  # the same command mends it


def test_past_max_rejected_the_run_stops_before_merging_and_goes_on_later(bench: runs.Bench) -> None:
    bad = {f"bad/{number:02d}.png": b"no image %d" % number for number in range(10)}
    source = pictures.write_tar(bench.path / "half_bad.tar", {**runs.faces(10), **bad})
    settings = (STATED, "read.block_images=4")

    stopped = bench.label(source, "out", *settings, "--max-rejected", "0.49")
    assert stopped.status == 3
    assert "10 of 20 images were rejected, more than --max-rejected 0.49" in stopped.line
    assert "run the same command to resume" in stopped.line
    assert not any((stopped.output / name).exists() for name in ("predictions", "images", "submission.csv", "run.json"))

    gone_on = bench.label(source, "out", *settings).done()
    assert gone_on.record["resume"] == {"blocks_reused": 5, "blocks_redone": 0}
    check_account(gone_on, 20)
    at_once = bench.label(source, "at_once", *settings, "--max-rejected", "0.5").done()  # half is not more than half
    assert runs.results(gone_on.output) == runs.results(at_once.output)


# --- faults that nobody foresaw ---------------------------------------------------------------------------------------


def fails_at(side: int) -> Callable[..., Decoded]:
    """Returns a decoder that fails at images of one height, as numpy does at sizes of 2**31."""

    def failing(data: bytes, **other: Any) -> Decoded:
        decoded = decode(data, **other)
        if decoded.height == side:
            np.zeros(1, np.int32)[0] = 2**31
        return decoded

    return failing


def test_an_unforeseen_fault_costs_one_row_and_is_cured_by_a_later_version(
    bench: runs.Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = runs.faces(8), {"happy/bad.png": next(iter(runs.faces(1, first=99, side=25).values()))}
    source = pictures.write_folder(bench.path / "photos", {**good, **bad})
    with monkeypatch.context() as patch:
        patch.setattr(crop_faces, "decode", fails_at(25))
        first = bench.label(source, "out", STATED).done()
        limited = bench.label(source, "limited", STATED, "--max-rejected", "0.1", "--cache", str(bench.path / "c"))

    assert outcome(runs.images(first.output)["happy/bad.png"]) == rejected(Reason.INTERNAL_ERROR)
    check_account(first, 9)
    assert first.record["reasons"] == {"internal_error": 1}
    assert first.record["counts"]["labelled"] == 8
    assert "1 of the rejected images failed because of a bug in this program (internal_error)" in first.out
    assert "image 'happy/bad.png': unforeseen OverflowError: " in caplog.text
    assert limited.status == 3
    assert "1 of 9 images were rejected, more than --max-rejected 0.1" in limited.err

    again = bench.label(source, "out", STATED, "--overwrite").done()
    assert again.record["cache"] == {"cached": 8, "computed": 1, "damaged": 0}
    assert again.record["counts"]["labelled"] == 9


def test_a_fault_at_every_image_stops_the_run_and_it_goes_on_when_that_is_cured(
    bench: runs.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = pictures.write_folder(bench.path / "photos", runs.faces(30))
    with monkeypatch.context() as patch:
        patch.setattr(crop_faces, "decode", fails_at(24))
        stopped = bench.label(source)
    assert stopped.status == 3
    line = next(line for line in stopped.err.splitlines() if line.startswith("pipeline: error: "))
    assert "20 images in a row, up to " in line
    assert "failed with an unforeseen OverflowError, so the program or its installation is at fault" in line
    assert "run the same command to resume" in line
    assert "Traceback" not in stopped.err
    assert not (stopped.output / "run.json").exists()

    check_account(bench.label(source).done(), 30)


def test_a_run_that_goes_on_does_blocks_again_that_the_program_failed_at(
    bench: runs.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {**runs.faces(8), **runs.faces(1, first=99, side=25)}
    source = pictures.write_tar(bench.path / "photos.tar", files)
    settings = (STATED, "read.block_images=3")
    with monkeypatch.context() as patch:
        patch.setattr(crop_faces, "decode", fails_at(25))
        stopped = bench.label(source, "out", *settings, "--max-rejected", "0.1")
    assert stopped.status == 3

    gone_on = bench.label(source, "out", *settings).done()
    assert gone_on.record["resume"] == {"blocks_reused": 2, "blocks_redone": 1}
    assert gone_on.record["reasons"] == {}
    assert runs.results(gone_on.output) == runs.results(bench.label(source, "at_once", *settings).done().output)
