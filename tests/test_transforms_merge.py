"""The merge: every promise about the final tables against a plain reference that sorts all rows in Python."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from models.heads.output_spec import ClassOutput, OutputSpec
from transforms.formats import parts
from transforms.formats.parts import DamagedPart, PartMetadata, PartReader, part_schema, write_part_file
from transforms.formats.publish import StorageError
from transforms.formats.submission.rules import SubmissionRules
from transforms.formats.submission.sample import SampleError, read_sample
from transforms.formats.submission.write import UnlabelledImages
from transforms.merge import sorted_parts
from transforms.merge.account import AccountError, MergeResult
from transforms.merge.merge_parts import merge_parts
from transforms.merge.row_files import RowFiles
from transforms.merge.rows import IMAGE_SCHEMA
from transforms.merge.run_file import Piece, RunFile
from transforms.output_fields import part_fields
from transforms.storage import stopping

CLASSES = ("angry", "happy")
SPEC = ClassOutput(CLASSES)
Row = dict[str, Any]


def image(image_id: str, position: int, faces: int = 0, **other: Any) -> Row:
    """Returns the row of a part whose every value tells its position."""
    p = [(position % 11) / 10, 1 - (position % 11) / 10]
    index = int(p[1] > p[0])
    place = {"width": 4, "height": 5, "detection_score": 0.5, "labelled": True}
    face = {**place, "label_index": index, "confidence": p[index], "p": p}
    row = {
        "image_id": image_id,
        "position": position,
        "source": f"in/{position}",
        "digest": hashlib.sha256(b"%d" % position).digest(),
        "bytes": position * 10,
        "width": 640,
        "height": 480,
        "status": "labelled" if faces else "no_face",
        "stage": None,
        "reason": None,
        "true_label": None,
        "cached": position % 2 == 0,
        "faces": [{"x": position, "y": number, **face} for number in range(faces)],
    }
    return {**row, **other}


def rejected(image_id: str, position: int, reason: str = "empty") -> Row:
    return image(image_id, position, status="rejected", stage="decode", reason=reason, digest=None, bytes=0)


def too_small(image_id: str, position: int, faces: int) -> Row:
    """Returns the row of an image whose faces are all too small to label."""
    row = image(image_id, position, faces, status="no_face", stage="label", reason="too_small_to_label")
    return {**row, "faces": [{**face, "labelled": False} for face in row["faces"]]}


def write_parts(folder: Path, blocks: Sequence[Sequence[Row]], spec: OutputSpec = SPEC) -> list[str]:
    """Writes a part a block and returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, block in enumerate(blocks):
        rows = sorted(block, key=lambda row: (row["image_id"].encode(), row["position"]))
        table = pa.Table.from_pylist(rows, schema=part_schema(part_fields(spec)))
        ids = [row["image_id"] for row in rows] or [""]
        faces = sum(len(row["faces"]) for row in rows)
        metadata = PartMetadata("k", "f", ids[0], ids[-1], len(rows), faces, sum(row["cached"] for row in rows))
        paths.append(str(folder / f"{number:05d}.parquet"))
        write_part_file(paths[-1], [table], table.schema, metadata)
    return paths


def expected(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Returns the rows of `images/` and of `predictions/`, the plain way."""
    images, faces, seen = [], [], set()
    for row in sorted(rows, key=lambda row: (row["image_id"].encode(), row["position"])):
        twin = row["image_id"] in seen
        seen.add(row["image_id"])
        shown = {name: row.get(name) for name in IMAGE_SCHEMA.names}
        shown["digest"] = None if row["digest"] is None else row["digest"].hex()
        shown["faces"] = 0 if twin else len(row["faces"])
        shown["unlabelled_faces"] = 0 if twin else sum(not face["labelled"] for face in row["faces"])
        if twin:
            shown.update(status="duplicate", stage="merge", reason="duplicate_id")
        images.append(shown)
        for number, face in enumerate([] if twin else row["faces"]):
            plain = {name: face[name] for name in ("x", "y", "width", "height", "detection_score")}
            label = {"label": CLASSES[face["label_index"]], "label_index": face["label_index"]}
            odds = {f"p_{name}": face["p"][at] for at, name in enumerate(CLASSES)}
            reported = {**label, "confidence": face["confidence"], **odds}
            reported = reported if face["labelled"] else dict.fromkeys(reported)
            faces.append({"image_id": row["image_id"], "face_index": number, **plain, **reported})
    return images, faces


def written(output: Path, kind: str) -> list[Row]:
    """Returns all rows of the final files in the order of their names."""
    return [row for path in sorted((output / kind).iterdir()) for row in pq.read_table(path).to_pylist()]


def bytes_of(output: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(output)): path.read_bytes()
        for path in sorted(output.rglob("*"))
        if path.is_file() and "parts" not in path.relative_to(output).parts
    }


def merge(output: Path, blocks: Sequence[Sequence[Row]], **other: Any) -> MergeResult:
    return merge_parts(write_parts(output / "parts", blocks), str(output), spec=SPEC, **other)


def cut(rows: Sequence[Row], size: int) -> list[Sequence[Row]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


@pytest.fixture
def tiny_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts and runs are read two or three rows at a time, and runs are joined in rounds."""
    monkeypatch.setattr(parts, "GROUP_BYTES", 500)
    for name, size in {"RUN_BYTES": 2000, "PIECE_BYTES": 500, "MERGED_AT_ONCE": 4, "MOST_AHEAD": 1}.items():
        monkeypatch.setattr(sorted_parts, name, size)


# What is written


def test_rows_files_and_counts(tmp_path: Path) -> None:
    happy = image("a/1.jpg", 3, faces=2, true_label="happy")
    blocks = [[image("c.jpg", 0, faces=1), happy], [rejected("b.jpg", 7), image("d.jpg", 8)], [image("c.jpg", 9, 1)]]
    result = merge(tmp_path, blocks, submission=SubmissionRules(no_face_label="angry"), expected_images=5)
    images, faces = expected([row for block in blocks for row in block])
    assert written(tmp_path, "images") == images
    assert written(tmp_path, "predictions") == faces
    assert [row["image_id"] for row in images] == ["a/1.jpg", "b.jpg", "c.jpg", "c.jpg", "d.jpg"]
    assert (tmp_path / "submission.csv").read_text() == "id,label\na/1.jpg,1\nb.jpg,0\nc.jpg,1\nd.jpg,0\n"
    parts_of_it = {"labelled": 2, "no_face": 1, "rejected": 1, "duplicate": 1}
    assert result.counts == {"images": 5, **parts_of_it, "faces": 3, "unlabelled_faces": 0}
    assert result.labels == {"angry": 0, "happy": 3}
    assert result.reasons == {"duplicate_id": 1, "empty": 1}
    assert (result.known, result.correct) == (1, 1)
    assert [(file.name, file.rows) for file in result.files] == [
        ("predictions/part-00000-of-00001.parquet", 3),
        ("images/part-00000-of-00001.parquet", 5),
        ("submission.csv", 4),
    ]
    for file in result.files:
        assert hashlib.sha256((tmp_path / file.name).read_bytes()).hexdigest() == file.digest
    assert result.submission is not None
    assert result.submission.without_label == 2


@pytest.mark.parametrize("rejecting", [False, True])
def test_a_face_that_is_not_labelled_keeps_its_box_and_decides_nothing(tmp_path: Path, rejecting: bool) -> None:
    mixed, small = image("mixed", 1, faces=3, true_label="happy"), too_small("small", 9, faces=2)
    mixed["faces"][0].update(width=90, height=90, labelled=False)  # the largest, the first, and the most confident
    mixed["faces"][0].update(label_index=0, confidence=1.0, p=[1.0, 0.0])
    mixed["faces"][2].update(label_index=0, confidence=0.9, p=[0.9, 0.1], width=3)
    plain = image("plain", 3, faces=1)
    rows = [mixed, small, plain, too_small("plain", 4, faces=4)]
    if rejecting:
        for row in rows:
            row["faces"] = [{**face, "no_label_score": 0.5} for face in row["faces"]]
    spec = ClassOutput(CLASSES, rejecting=rejecting)
    paths = write_parts(tmp_path / "parts", [rows], spec)
    rules = SubmissionRules(no_face_label="angry", values="name")
    result = merge_parts(paths, str(tmp_path), spec=spec, submission=rules)
    images, faces = expected(rows)
    assert written(tmp_path, "images") == images
    found = written(tmp_path, "predictions")
    if rejecting:
        assert [row.pop("no_label_score") for row in found] == [None, 0.5, 0.5, 0.5, None, None]
    assert found == faces
    assert [(row["label"], row["p_happy"]) for row in found][:2] == [(None, None), ("happy", 0.9)]
    assert [row["unlabelled_faces"] for row in images] == [1, 0, 0, 2]
    parts_of_it = {"labelled": 2, "no_face": 1, "rejected": 0, "duplicate": 1}
    assert result.counts == {"images": 4, **parts_of_it, "faces": 6, "unlabelled_faces": 3}
    assert result.labels == {"angry": 1, "happy": 2}
    assert result.reasons == {"duplicate_id": 1, "too_small_to_label": 1}
    assert (result.known, result.correct) == (1, 1)
    reported = (tmp_path / "submission.csv").read_text().splitlines()
    assert reported == ["id,label", "mixed,happy", "plain,happy", "small,angry"]


def test_an_image_with_small_faces_alone_has_no_label_to_submit(tmp_path: Path) -> None:
    result = merge(tmp_path, [[too_small("small", 0, faces=1)]], submission=SubmissionRules())
    assert result.submission is not None
    assert (result.submission.rows, result.submission.left_out_names) == (0, ("small",))


def test_columns_and_settings_of_the_files(tmp_path: Path) -> None:
    merge(tmp_path, [[image("a", 0, faces=1)]])
    faces = pq.ParquetFile(tmp_path / "predictions/part-00000-of-00001.parquet")
    assert faces.schema_arrow.names == [
        *("image_id", "face_index", "x", "y", "width", "height", "detection_score"),
        *("label", "label_index", "confidence", "p_angry", "p_happy"),
    ]
    images = pq.ParquetFile(tmp_path / "images/part-00000-of-00001.parquet")
    assert images.schema_arrow.names == [
        *("image_id", "source", "digest", "bytes", "width", "height"),
        *("status", "stage", "reason", "faces", "unlabelled_faces", "true_label"),
    ]
    for file in (faces, images):
        assert not file.schema_arrow.metadata
        assert file.metadata.row_group(0).column(0).compression == "ZSTD"


@pytest.mark.parametrize("name", ["images", "predictions"])
def test_a_flipped_bit_in_the_final_tables_can_be_seen(tmp_path: Path, name: str) -> None:
    merge(tmp_path, [[image(f"{row:03d}", row, faces=1) for row in range(100)]])
    path = tmp_path / name / "part-00000-of-00001.parquet"
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    place = column.data_page_offset + column.total_compressed_size - 3
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(OSError, match="CRC"):
        pq.ParquetFile(path, page_checksum_verification=True).read()


@pytest.mark.parametrize("rows_per_file, row_group", [(1, 1), (4, 3), (5, 10), (12, 12), (13, 5), (1000, 100)])
def test_files_hold_exact_rows_in_exact_groups(tmp_path: Path, rows_per_file: int, row_group: int) -> None:
    rows = [image(f"{row:02d}", row, faces=row % 3) for row in range(12)]
    result = merge(tmp_path, cut(rows, 5), rows_per_file=rows_per_file, row_group=row_group)
    everything = dict(zip(("images", "predictions"), expected(rows), strict=True))
    for kind, all_rows in everything.items():
        count = -(-len(all_rows) // rows_per_file)
        names = [f"part-{index:05d}-of-{count:05d}.parquet" for index in range(count)]
        assert sorted(os.listdir(tmp_path / kind)) == names
        assert [file.name for file in result.files if file.name.startswith(kind)] == [f"{kind}/{n}" for n in names]
        for index, name in enumerate(names):
            file = pq.ParquetFile(tmp_path / kind / name)
            held = all_rows[index * rows_per_file : (index + 1) * rows_per_file]
            assert file.read().to_pylist() == held
            groups = [file.metadata.row_group(at).num_rows for at in range(file.num_row_groups)]
            assert groups == [len(held[start : start + row_group]) for start in range(0, len(held), row_group)]


def test_bytes_do_not_depend_on_how_the_rows_arrive(tmp_path: Path) -> None:
    count = 30_000
    names = pa.array([None if row % 7 == 0 else f"{row % 5}" for row in range(count)])
    rows = pa.table({"label": names, "id": [f"{row:09d}" * 5 for row in range(count)], "n": range(count)})
    for size in (1000, 7777, count):
        folder = tmp_path / str(size) / "rows"
        with RowFiles(str(folder), rows.schema, rows_per_file=25_000, row_group=20_000) as files:
            for start in range(0, count, size):
                files.add(rows.slice(start, size))
            files.publish()
    assert bytes_of(tmp_path / "1000") == bytes_of(tmp_path / "7777") == bytes_of(tmp_path / str(count))
    assert len(bytes_of(tmp_path / "1000")) == 2


@pytest.mark.parametrize("blocks", [[], [[]], [[], []]])
def test_nothing_to_merge_gives_empty_files(tmp_path: Path, blocks: list[list[Row]]) -> None:
    result = merge(tmp_path, blocks, submission=SubmissionRules(), expected_images=0)
    assert written(tmp_path, "images") == written(tmp_path, "predictions") == []
    assert [(file.name, file.rows) for file in result.files] == [
        ("predictions/part-00000-of-00001.parquet", 0),
        ("images/part-00000-of-00001.parquet", 0),
        ("submission.csv", 0),
    ]
    assert set(result.counts.values()) == {0}


# Order


def test_a_thousand_parts_in_rounds(tmp_path: Path, tiny_groups: None, monkeypatch: pytest.MonkeyPatch) -> None:
    order = np.random.default_rng(0).permutation(2000)
    rows = [image(f"{order[row] % 1900:04d}", row, faces=row % 3) for row in range(2000)]
    open_files = _count_open_files(monkeypatch)
    result = merge(tmp_path, cut(rows, 2), max_open=64, rows_per_file=900, row_group=400)
    images, faces = expected(rows)
    assert written(tmp_path, "images") == images
    assert written(tmp_path, "predictions") == faces
    assert result.counts["duplicate"] == 100
    assert 0 < max(open_files) <= 64
    assert sorted(os.listdir(tmp_path)) == ["images", "parts", "predictions"]


def _count_open_files(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Returns a list that tells, at each row group read, how many parts and outputs are open."""
    depth, seen = [0], []
    plain = {
        (PartReader, "__init__"): 1,
        (PartReader, "close"): -1,
        (pq.ParquetWriter, "__init__"): 1,
        (pq.ParquetWriter, "close"): -1,
    }
    closed: set[int] = set()

    def counting(kind: type, name: str, step: int) -> None:
        original = getattr(kind, name)

        def wrapped(self: Any, *arguments: Any, **other: Any) -> Any:
            if step < 0 and id(self) in closed:  # closing twice is allowed
                return original(self, *arguments, **other)
            if step > 0:
                closed.discard(id(self))
            else:
                closed.add(id(self))
            depth[0] += step
            seen.append(depth[0])
            return original(self, *arguments, **other)

        monkeypatch.setattr(kind, name, wrapped)

    for (kind, name), step in plain.items():
        counting(kind, name, step)
    return seen


def test_open_files_as_the_system_counts_them(tmp_path: Path, tiny_groups: None) -> None:
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("this system does not show open files in /proc")
    rows = [image(f"{row * 7 % 500:03d}", row, faces=1) for row in range(500)]
    before = len(os.listdir(descriptors))
    seen: list[int] = []
    merge(tmp_path, cut(rows, 5), max_open=8, progress=lambda _: seen.append(len(os.listdir(descriptors)) - before))
    assert 1 < max(seen) <= 8
    assert len(os.listdir(descriptors)) == before


def test_parts_that_follow_one_another_are_merged_without_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        pytest.fail("a round was made")

    monkeypatch.setattr(sorted_parts, "RunFile", refuse)
    rows = [image(f"{row:04d}", row, faces=1) for row in range(400)]
    merge(tmp_path, cut(rows, 4), max_open=5)
    assert written(tmp_path, "images") == expected(rows)[0]


def test_order_is_that_of_utf8_bytes(tmp_path: Path) -> None:
    ids = ["\U0001f600", "\uffee", "a/b", "a.b", "a", "B", "ä", "a\u0308", "z"]
    merge(tmp_path, [[image(name, at)] for at, name in enumerate(ids)])
    assert [row["image_id"] for row in written(tmp_path, "images")] == sorted(ids, key=str.encode)


IDS = st.text(st.sampled_from("ab/ä\uffee\U0001f600"), min_size=1, max_size=3)


@hypothesis_settings(max_examples=40)
@given(
    ids=st.lists(st.tuples(IDS, st.integers(0, 2)), max_size=40),
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    group_bytes=st.sampled_from([1, 400, 2000, 10**6]),
    max_open=st.integers(4, 9),
    data=st.data(),
)
def test_any_rows_in_any_blocks(
    tmp_path_factory: pytest.TempPathFactory,
    ids: list[tuple[str, int]],
    sizes: tuple[int, int],
    group_bytes: int,
    max_open: int,
    data: st.DataObject,
) -> None:
    rows = [image(name, position, faces=faces) for position, (name, faces) in enumerate(ids)]
    one, other = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("other")
    blocks = data.draw(st.permutations(cut(rows, sizes[0])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "GROUP_BYTES", group_bytes)
        patch.setattr(sorted_parts, "PIECE_BYTES", group_bytes)
        patch.setattr(sorted_parts, "RUN_BYTES", 3 * group_bytes)
        patch.setattr(sorted_parts, "MERGED_AT_ONCE", max_open - 2)
        options: dict[str, Any] = {"rows_per_file": 7, "row_group": 3, "submission": SubmissionRules(no_face_label="0")}
        first = merge(one, blocks, max_open=max_open, expected_images=len(rows), **options)
    second = merge(other, cut(rows, sizes[1]), **options)
    images, faces = expected(rows)
    assert written(one, "images") == images
    assert written(one, "predictions") == faces
    assert bytes_of(one) == bytes_of(other)
    assert first == second
    counts = first.counts
    parts_of_it = ("labelled", "no_face", "rejected", "duplicate")
    assert counts["images"] == len(rows) == sum(counts[name] for name in parts_of_it)


# Ids that occur twice


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_the_first_position_wins_across_parts_and_batches(tmp_path: Path, tiny_groups: None, size: int) -> None:
    rows = [image("same", position, faces=1 + position % 2) for position in range(50)]
    result = merge(tmp_path, cut(rows[::-1], size), max_open=6)
    images = written(tmp_path, "images")
    assert [(row["source"], row["status"], row["faces"]) for row in images] == [
        ("in/0", "labelled", 1),
        *((f"in/{position}", "duplicate", 0) for position in range(1, 50)),
    ]
    assert [(row["x"], row["y"]) for row in written(tmp_path, "predictions")] == [(0, 0)]
    parts_of_it = {"labelled": 1, "no_face": 0, "rejected": 0, "duplicate": 49}
    assert result.counts == {"images": 50, **parts_of_it, "faces": 1, "unlabelled_faces": 0}


def test_a_rejected_image_that_came_first_wins_too(tmp_path: Path) -> None:
    merge(tmp_path, [[image("x", 5, faces=2)], [rejected("x", 2)]])
    assert [row["status"] for row in written(tmp_path, "images")] == ["rejected", "duplicate"]
    assert written(tmp_path, "predictions") == []


def test_damaged_archives_keep_their_names(tmp_path: Path) -> None:
    rows = [rejected("", 4, "damaged_archive"), rejected("a.zip", 9, "damaged_archive"), image("a.zip/1", 3, 1)]
    result = merge(tmp_path, [rows])
    assert [row["image_id"] for row in written(tmp_path, "images")] == ["", "a.zip", "a.zip/1"]
    assert result.reasons == {"damaged_archive": 2}


# The account


@pytest.mark.parametrize("planned", [1, 3])
def test_missing_or_surplus_images_stop_the_merge_before_anything_is_published(tmp_path: Path, planned: int) -> None:
    with pytest.raises(AccountError, match=f"{planned} images were planned, but the parts hold 2") as caught:
        merge(tmp_path, [[image("a", 0)], [image("b", 1)]], expected_images=planned)
    assert (caught.value.expected, caught.value.found) == (planned, 2)
    assert bytes_of(tmp_path) == {}


def test_a_status_that_nobody_knows_stops_the_merge(tmp_path: Path) -> None:
    with pytest.raises(AccountError, match="2 images were merged, but 1 have a known status"):
        merge(tmp_path, [[image("a", 0), image("b", 1, status="lost")]])
    assert bytes_of(tmp_path) == {}


def test_progress_counts_images(tmp_path: Path, tiny_groups: None) -> None:
    seen: list[int] = []
    merge(tmp_path, cut([image(f"{row:02d}", row) for row in range(20)], 4), progress=seen.append)
    assert seen == sorted(set(seen))
    assert seen[-1] == 20


@pytest.mark.parametrize("label, correct", [(None, 1), ("happy", 2)])
def test_true_labels_are_compared_with_the_label_of_the_submission(
    tmp_path: Path, label: str | None, correct: int
) -> None:
    rows = [
        image("1", 0, faces=1, true_label="happy"),
        image("2", 1, faces=1, true_label="angry"),
        image("3", 2, true_label="happy"),
        image("4", 3, faces=1, true_label="holiday"),
        image("5", 4, faces=1),
        image("1", 5, faces=1, true_label="happy"),
    ]
    result = merge(tmp_path, [rows], submission=SubmissionRules(no_face_label=label or "angry"))
    assert (result.known, result.correct) == (3, correct)
    assert merge(tmp_path, [rows]).correct == 1  # no submission, no label for image 3


@pytest.mark.parametrize("policy, label", [("largest", 1), ("first", 0), ("confident", 0)])
def test_the_face_policy_decides_the_label(tmp_path: Path, policy: Any, label: int) -> None:
    row = image("a", 0, faces=2)
    row["faces"][0].update(width=3, label_index=0, confidence=0.9)
    row["faces"][1].update(width=4, label_index=1, confidence=0.8)
    merge(tmp_path, [[row]], submission=SubmissionRules(face_policy=policy))
    assert (tmp_path / "submission.csv").read_text() == f"id,label\na,{label}\n"


# Again, after a kill, and when something fails


def test_a_second_merge_gives_the_same_bytes_and_removes_what_is_stale(tmp_path: Path) -> None:
    rows = [image(f"{row}", row, faces=1) for row in range(7)]
    first = merge(tmp_path, [rows], submission=SubmissionRules())
    before = bytes_of(tmp_path)
    merge(tmp_path, [rows], rows_per_file=2)
    assert len(os.listdir(tmp_path / "images")) == 4
    assert not (tmp_path / "submission.csv").exists()
    left = tmp_path / "images" / "part-00009.unfinished"
    left.write_text("of a killed merge")
    (tmp_path / ".merging").mkdir()
    (tmp_path / ".merging" / "000000.parquet").write_text("of a killed merge")
    standing: list[bool] = []
    again = merge(tmp_path, [rows], submission=SubmissionRules(), progress=lambda _: standing.append(left.exists()))
    assert again == first
    assert standing == [False]  # gone before new files need its space
    assert bytes_of(tmp_path) == before


def test_files_of_the_user_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "part-of-my-own.txt").write_text("mine")
    merge(tmp_path, [[image("a", 0)]])
    assert (tmp_path / "images" / "part-of-my-own.txt").read_text() == "mine"


def test_images_of_a_sample_without_a_label_keep_the_tables(tmp_path: Path) -> None:
    (tmp_path / "submission.csv").write_text("of an earlier run")
    with open(tmp_path / "sample", "w+b") as file:
        file.write(b"Id,Emotion\na,angry\nb,angry\n")
        file.seek(0)
        sample = read_sample(file, classes=CLASSES, rules=SubmissionRules())
    (tmp_path / "sample").unlink()
    with pytest.raises(UnlabelledImages, match="1 images have no label"):
        merge(tmp_path, [[image("a", 0), image("b", 1, faces=1)]], sample=sample)
    assert [row["image_id"] for row in written(tmp_path, "images")] == ["a", "b"]
    assert sorted(os.listdir(tmp_path)) == ["images", "parts", "predictions"]


def test_a_sample_is_followed(tmp_path: Path) -> None:
    with open(tmp_path / "sample.csv", "w+b") as file:
        file.write(b"Id,Emotion\n2,angry\n1,angry\n")
        file.seek(0)
        sample = read_sample(file, classes=CLASSES, rules=SubmissionRules())
    blocks = [[image("t/1.jpg", 0, faces=1), image("t/2.jpg", 10, faces=1)]]
    result = merge(tmp_path, blocks, sample=sample)
    assert (tmp_path / "submission.csv").read_text() == "Id,Emotion\n2,angry\n1,happy\n"
    assert result.files[-1].rows == 2
    with pytest.raises(SampleError):
        merge(tmp_path, [[image("other.jpg", 0, faces=1)]], sample=sample)


def test_a_damaged_part_is_named_and_nothing_is_published(tmp_path: Path) -> None:
    paths = write_parts(tmp_path / "parts", [[image(f"{row}", row, faces=1)] for row in range(3)])
    data = bytearray(Path(paths[1]).read_bytes())
    data[40] ^= 1
    Path(paths[1]).write_bytes(bytes(data))
    with pytest.raises(DamagedPart) as caught:
        merge_parts(paths, str(tmp_path), spec=SPEC)
    assert caught.value.path == paths[1]
    assert bytes_of(tmp_path) == {}


def test_parts_of_a_head_with_other_classes_are_refused(tmp_path: Path) -> None:
    paths = write_parts(tmp_path / "parts", [[image("a", 0)]], ClassOutput(("a", "b", "c")))
    with pytest.raises(
        DamagedPart, match=r"gives label_index, confidence, p \(3\), not label_index, confidence, p \(2\);"
    ):
        merge_parts(paths, str(tmp_path), spec=SPEC)


@pytest.mark.parametrize("max_open", [4, 32])
def test_the_no_label_score_goes_through_every_round(tmp_path: Path, max_open: int) -> None:
    rows = [image(f"{number % 7}", number, faces=2) for number in range(30)]  # twins among them
    for row in rows:
        for number, face in enumerate(row["faces"]):
            face["no_label_score"] = (row["position"] * 2 + number) / 100
    paths = write_parts(tmp_path / "parts", cut(rows, 1), ClassOutput(CLASSES, rejecting=True))
    merge_parts(paths, str(tmp_path), spec=ClassOutput(CLASSES, rejecting=True), max_open=max_open)
    found = {(row["image_id"], row["face_index"]): row["no_label_score"] for row in written(tmp_path, "predictions")}
    assert found == {(f"{n}", face): (n * 2 + face) / 100 for n in range(7) for face in (0, 1)}
    schema = pq.read_schema(next((tmp_path / "predictions").iterdir()))
    assert schema.names.index("no_label_score") == schema.names.index("confidence") + 1
    assert schema.field("no_label_score").type == pa.float64()


def test_without_such_a_head_there_is_no_such_column(tmp_path: Path) -> None:
    merge(tmp_path, [[image("a", 0, faces=1)]])
    assert "no_label_score" not in pq.read_schema(next((tmp_path / "predictions").iterdir())).names


@pytest.mark.parametrize("of_parts", [False, True])
def test_parts_of_a_head_that_rejects_otherwise_are_refused(tmp_path: Path, of_parts: bool) -> None:
    paths = write_parts(tmp_path / "parts", [[image("a", 0)]], ClassOutput(CLASSES, rejecting=of_parts))
    with pytest.raises(DamagedPart, match=r"p \(2\), no_label_score"):
        merge_parts(paths, str(tmp_path), spec=ClassOutput(CLASSES, rejecting=not of_parts))


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    paths = write_parts(tmp_path / "parts", [[image(f"{row}", row, faces=1)] for row in range(3)])
    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(StorageError, match="No space left on device; free space there"):
        merge_parts(paths, str(tmp_path), spec=SPEC)
    assert bytes_of(tmp_path) == {}


@pytest.mark.parametrize("blocks", [3, 30])
def test_a_request_to_stop_is_heard(tmp_path: Path, blocks: int) -> None:
    paths = write_parts(
        tmp_path / "parts", [[image(f"{row:02d}", row), image("z", 100 + row)] for row in range(blocks)]
    )
    stopping.ask_to_stop()
    try:
        with pytest.raises(stopping.Stopped):
            merge_parts(paths, str(tmp_path), spec=SPEC, max_open=5)
    finally:
        stopping.forget()
    assert bytes_of(tmp_path) == {}
    assert not (tmp_path / ".merging").exists()


@pytest.mark.parametrize("wrong", [{"max_open": 3}, {"rows_per_file": 0}, {"row_group": 0}])
def test_sizes_that_make_no_sense_are_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        merge(tmp_path, [[image("a", 0)]], **wrong)


def test_rows_held_at_once_do_not_grow_with_the_number_of_parts(
    tmp_path: Path, tiny_groups: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []
    plain: Callable[..., Iterator[pa.Table]] = sorted_parts.merged_rows

    def watched(*given: Any) -> Iterator[pa.Table]:
        for rows in plain(*given):
            held.append(rows.num_rows)
            yield rows

    monkeypatch.setattr(sorted_parts, "merged_rows", watched)
    rows = [image(f"{row * 37 % 600:04d}", row, faces=1) for row in range(600)]
    merge(tmp_path, cut(rows, 20), max_open=6)
    assert max(held) <= 4 * 2 * 3  # runs at once, pieces that each holds, and rows in a piece


@pytest.mark.parametrize("runs_at_once, rounds", [(256, 1), (4, 3), (2, 6)])
def test_every_row_is_written_once_a_round(
    tmp_path: Path, tiny_groups: None, monkeypatch: pytest.MonkeyPatch, runs_at_once: int, rounds: int
) -> None:
    """60 runs at first, a row group each, of which so many are joined at a time."""
    written: list[int] = []
    plain = RunFile._append

    def watched(file: RunFile, rows: pa.Table) -> Piece:
        written.append(rows.num_rows)
        return plain(file, rows)

    monkeypatch.setattr(sorted_parts, "MERGED_AT_ONCE", runs_at_once)
    monkeypatch.setattr(sorted_parts, "RUN_BYTES", 1)
    monkeypatch.setattr(RunFile, "_append", watched)
    rows = [image(f"{row * 37 % 600:04d}", row, faces=1) for row in range(600)]
    merge(tmp_path, cut(rows, 20), max_open=6)
    assert sum(written) == 600 * rounds
