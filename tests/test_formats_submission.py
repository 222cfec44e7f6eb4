"""The submission file: literal ids and labels in, literal bytes out, and nothing left behind where it is refused."""

from __future__ import annotations

import csv
import io
import os
import pickle
import tracemalloc
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.heads.output_spec import ClassOutput
from transforms.formats.submission import rules as submission
from transforms.formats.submission.rules import (
    CollidingIds,
    LabelledIds,
    SubmissionError,
    SubmissionRules,
    check_ids,
    choose_face,
    image_key,
    image_keys,
)
from transforms.formats.submission.sample import (
    Sample,
    SampleError,
    SampleReport,
    match_sample,
    read_sample,
    refuse_stranger,
)
from transforms.formats.submission.write import SubmissionReport, UnlabelledImages, write_submission

CLASSES = ("angry", "happy", "sad")
SPEC = ClassOutput(tuple(CLASSES))
PLAIN = SubmissionRules()
FOLDER = SubmissionRules(drop_folder=True)
EXTENSION = SubmissionRules(drop_extension=True)
BOTH = SubmissionRules(drop_folder=True, drop_extension=True)


def labelled(rows: Sequence[tuple[str, int]], size: int = 2) -> Callable[[], Iterable[LabelledIds]]:
    """Returns batches of so many rows."""

    def batches() -> Iterator[LabelledIds]:
        for start in range(0, len(rows), size):
            group = rows[start : start + size]
            ids = pa.array([name for name, _ in group], pa.string())
            yield LabelledIds(ids, np.asarray([label for _, label in group], np.int32))

    return batches


def sample_of(text: str, rules: SubmissionRules = PLAIN) -> Sample:
    return read_sample(io.BytesIO(text.encode()), classes=CLASSES, rules=rules, name="sample.csv")


# Which face


FACES = {
    "counts": [2, 0, 1, 3],
    "box": [[0, 0, 5, 5], [0, 0, 6, 5], [0, 0, 1, 1], [0, 0, 2, 8], [9, 9, 4, 4], [0, 0, 3, 3]],
    "confidence": [0.9, 0.5, 0.4, 0.3, 0.8, 0.8],
}


@pytest.mark.parametrize(
    "policy, chosen", [("largest", [1, -1, 2, 3]), ("confident", [0, -1, 2, 4]), ("first", [0, -1, 2, 3])]
)
def test_the_face_that_stands_for_an_image(policy: submission.FacePolicy, chosen: list[int]) -> None:
    faces = {name: np.asarray(values) for name, values in FACES.items()}
    all_of_them = np.ones(6, bool)
    found = choose_face(**faces, labelled=all_of_them, policy=policy)
    assert found.tolist() == chosen


@pytest.mark.parametrize(
    "policy, chosen", [("largest", [0, -1, -1, 4]), ("confident", [0, -1, -1, 4]), ("first", [0, -1, -1, 4])]
)
def test_a_face_without_a_label_stands_for_no_image(policy: submission.FacePolicy, chosen: list[int]) -> None:
    faces = {name: np.asarray(values) for name, values in FACES.items()}
    labelled = np.asarray([True, False, False, False, True, True])
    assert choose_face(**faces, labelled=labelled, policy=policy).tolist() == chosen
    assert choose_face(**faces, labelled=np.zeros(6, bool), policy=policy).tolist() == [-1] * 4


@pytest.mark.parametrize("policy", ["largest", "confident", "first"])
@pytest.mark.parametrize("counts", [[], [0], [0, 0]])
def test_images_without_faces(policy: submission.FacePolicy, counts: list[int]) -> None:
    nobody = {"box": np.zeros((0, 4), np.int32), "confidence": np.zeros(0), "labelled": np.zeros(0, bool)}
    found = choose_face(np.asarray(counts), **nobody, policy=policy)
    assert found.tolist() == [-1] * len(counts)


def test_the_area_of_a_large_face_does_not_overflow() -> None:
    box = np.asarray([[0, 0, 100, 100], [0, 0, 60_000, 60_000]], np.int32)
    assert choose_face(np.asarray([2]), box=box, confidence=np.zeros(2), labelled=np.ones(2, bool)).tolist() == [1]


# Ids


@pytest.mark.parametrize(
    "image_id, folder, extension, both",
    [
        ("a/b/0001.jpg", "0001.jpg", "a/b/0001", "0001"),
        ("0001.jpg", "0001.jpg", "0001", "0001"),
        ("a.tar/0001", "0001", "a.tar/0001", "0001"),
        ("a/IMG_1.5", "IMG_1.5", "a/IMG_1.5", "IMG_1.5"),
        ("a/x.tar.gz", "x.tar.gz", "a/x.tar", "x.tar"),
        ("a/.jpg", ".jpg", "a/.jpg", ".jpg"),
        (".hidden.JPEG", ".hidden.JPEG", ".hidden", ".hidden"),
        ("a\nb/c\n.png", "c\n.png", "a\nb/c\n", "c\n"),
        ("a.jpg\n", "a.jpg\n", "a.jpg\n", "a.jpg\n"),
        ("größe/ß😀.webp", "ß😀.webp", "größe/ß😀", "ß😀"),
        ("a/", "", "a/", ""),
    ],
)
def test_keys(image_id: str, folder: str, extension: str, both: str) -> None:
    assert image_key(image_id, SubmissionRules()) == image_id
    assert image_key(image_id, FOLDER) == folder
    assert image_key(image_id, EXTENSION) == extension
    assert image_key(image_id, BOTH) == both


@given(st.lists(st.text(st.sampled_from("/.aB1\n ä😀"), max_size=9)))
def test_keys_of_many_are_the_keys_of_each(ids: list[str]) -> None:
    for rules in (SubmissionRules(), FOLDER, EXTENSION, BOTH):
        assert image_keys(pa.array(ids, pa.string()), rules).to_pylist() == [image_key(name, rules) for name in ids]


@pytest.mark.parametrize(
    "ids, rules, first, second, key",
    [
        (["a/1.jpg", "b/2.jpg", "b/1.jpg"], FOLDER, "a/1.jpg", "b/1.jpg", "1.jpg"),
        (["a/1.jpg", "a/1.png"], EXTENSION, "a/1.jpg", "a/1.png", "a/1"),
        (["1.jpg", "a/2.jpg", "a/1.png"], BOTH, "1.jpg", "a/1.png", "1"),
    ],
)
def test_ids_that_collide_are_named(ids: list[str], rules: SubmissionRules, first: str, second: str, key: str) -> None:
    with pytest.raises(CollidingIds, match=f"{first!r} and {second!r} would both get the id {key!r}") as caught:
        check_ids(lambda: iter(ids), rules)
    assert (caught.value.first, caught.value.second, caught.value.key) == (first, second, key)


@pytest.mark.parametrize(
    "ids, rules",
    [
        ([], BOTH),
        (["a/1.jpg", "b/1.jpg"], SubmissionRules()),
        (["a/1.jpg", "b/1.jpg"], EXTENSION),
        (["a/1.jpg", "a/1.jpg", "a/1.jpg"], BOTH),  # the merge lets the first win
        (["a/1\udcff.jpg", "a/2\udcff.jpg"], BOTH),
    ],
)
def test_ids_that_do_not_collide(ids: list[str], rules: SubmissionRules) -> None:
    check_ids(lambda: iter(ids), rules)


def test_equal_hashes_of_different_ids_are_no_collision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "hash", len, raising=False)
    check_ids(lambda: iter(["a/12", "bc/34"]), FOLDER)
    with pytest.raises(CollidingIds):
        check_ids(lambda: iter(["a/12", "bc/34", "bcd/12"]), FOLDER)


def test_the_early_check_keeps_little_of_each_id() -> None:
    count = 100_000
    tracemalloc.start()
    check_ids(lambda: (f"some/folder/of/photos/{row:08d}.jpg" for row in range(count)), BOTH)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 * count


# Without a sample


def write(
    path: Path,
    rows: Sequence[tuple[str, int]],
    rules: SubmissionRules = PLAIN,
    sample: Sample | None = None,
) -> SubmissionReport:
    return write_submission(str(path), labelled(rows), labels=SPEC, rules=rules, sample=sample)


@pytest.mark.parametrize(
    "rules, expected",
    [
        (SubmissionRules(), "id,label\na/1.jpg,2\na/2.jpg,0\nb/3.png,1\n"),
        (SubmissionRules(values="name"), "id,label\na/1.jpg,sad\na/2.jpg,angry\nb/3.png,happy\n"),
        (SubmissionRules("image", "emotion", drop_folder=True), "image,emotion\n1.jpg,2\n2.jpg,0\n3.png,1\n"),
        (BOTH, "id,label\n1,2\n2,0\n3,1\n"),
    ],
)
def test_plain_submission(tmp_path: Path, rules: SubmissionRules, expected: str) -> None:
    path = tmp_path / "submission.csv"
    report = write(path, [("a/1.jpg", 2), ("a/2.jpg", 0), ("b/3.png", 1)], rules)
    assert path.read_bytes() == expected.encode()
    assert report == SubmissionReport(rows=3, without_label=0, values=rules.values or "index")
    assert os.listdir(tmp_path) == ["submission.csv"]


NASTY = ["a,b", 'say "x"', "two\nlines", "return\rhere", " leading", "trailing ", "\ttab", "ä😀", "'", "=1+1", '"']


def test_ids_that_need_quotes(tmp_path: Path) -> None:
    path = tmp_path / "submission.csv"
    write(path, [(name, 1) for name in NASTY])
    assert path.read_bytes().decode() == (
        'id,label\n"a,b",1\n"say ""x""",1\n"two\nlines",1\n"return\rhere",1\n" leading",1\n"trailing ",1\n'
        '"\ttab",1\nä😀,1\n\',1\n=1+1,1\n"""",1\n'
    )


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), unique=True))
def test_any_id_comes_back_from_csv(tmp_path_factory: pytest.TempPathFactory, ids: list[str]) -> None:
    path = tmp_path_factory.mktemp("csv") / "submission.csv"
    write(path, [(name, row % 3) for row, name in enumerate(ids)])
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, strict=True))
    assert rows == [["id", "label"], *([name, str(row % 3)] for row, name in enumerate(ids))]


def test_images_without_a_label_get_the_stated_one(tmp_path: Path) -> None:
    path = tmp_path / "submission.csv"
    report = write(path, [("1", -1), ("2", 0), ("3", -1)], SubmissionRules(values="name", no_face_label="sad"))
    assert path.read_text() == "id,label\n1,sad\n2,angry\n3,sad\n"
    assert report == SubmissionReport(rows=3, without_label=2, values="name")


def test_a_label_may_be_stated_by_its_index(tmp_path: Path) -> None:
    write(tmp_path / "submission.csv", [("1", -1)], SubmissionRules(no_face_label="2"))
    assert (tmp_path / "submission.csv").read_text() == "id,label\n1,2\n"


@pytest.mark.parametrize("label", ["joy", "3", "-1", "", "²"])
def test_a_stated_label_must_be_a_class(tmp_path: Path, label: str) -> None:
    with pytest.raises(SubmissionError, match=r"no_face_label=.* is not a class; choose one of angry, happy, sad"):
        write(tmp_path / "submission.csv", [("1", 0)], SubmissionRules(no_face_label=label))


def test_images_without_a_label_are_left_out_counted_and_named(tmp_path: Path) -> None:
    path = tmp_path / "submission.csv"
    path.write_text("of an earlier run")
    report = write(path, [*((str(row), -1) for row in range(6)), ("x", 1)])
    assert path.read_text() == "id,label\nx,1\n"
    assert report == SubmissionReport(1, without_label=6, left_out=6, left_out_names=("0", "1", "2", "3", "4"))


def test_collisions_stop_it_and_leave_no_file(tmp_path: Path) -> None:
    path = tmp_path / "submission.csv"
    path.write_text("of an earlier run")
    with pytest.raises(CollidingIds, match="'a/1' and 'b/1'"):
        write(path, [("a/1", 0), ("a/2", 0), ("b/1", 0)], FOLDER)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("image_id, rules", [("", SubmissionRules()), ("a/", FOLDER)])
def test_an_empty_id_stops_it(tmp_path: Path, image_id: str, rules: SubmissionRules) -> None:
    with pytest.raises(SubmissionError, match=f"image {image_id!r} would get an empty id"):
        write(tmp_path / "submission.csv", [("x", 0), (image_id, 0)], rules)
    assert os.listdir(tmp_path) == []


def test_no_images_give_a_header(tmp_path: Path) -> None:
    assert write(tmp_path / "submission.csv", []) == SubmissionReport(0, 0)
    assert (tmp_path / "submission.csv").read_text() == "id,label\n"


def test_errors_survive_the_way_from_a_worker() -> None:
    for error in (
        UnlabelledImages("m", count=3, names=("a",)),
        CollidingIds("m", first="a", second="b", key="k"),
        SampleError("m"),
    ):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), vars(again)) == (type(error), "m", vars(error))


# Reading a sample


def test_a_sample_fixes_columns_ids_and_values() -> None:
    sample = sample_of("\ufeffimage,emotion\r\n0002,happy\r\n0001,happy\r\n\r\n")
    assert (sample.columns, sample.id_at, sample.label_at) == (("image", "emotion"), 0, 1)
    assert sample.rows == {"0002": 0, "0001": 1}
    assert sample.others == []
    assert sample.rules == SubmissionRules(values="name", drop_folder=True, drop_extension=True)


@pytest.mark.parametrize(
    "ids, folder, extension",
    [
        (["1.jpg", "2.jpg"], True, False),
        (["a/1", "2"], False, True),
        (["a/1.jpg", "2"], False, False),
        (["1", "2.5"], True, True),
    ],
)
def test_what_the_ids_of_a_sample_lack(ids: list[str], folder: bool, extension: bool) -> None:
    text = "id,label\n" + "".join(f"{name},0\n" for name in ids)
    rules = sample_of(text).rules
    assert (rules.drop_folder, rules.drop_extension) == (folder, extension)
    rules = sample_of(text, SubmissionRules(drop_folder=False, drop_extension=True)).rules
    assert (rules.drop_folder, rules.drop_extension) == (False, True)  # what is set stands


@pytest.mark.parametrize(
    "labels, values",
    [
        (["0", "2"], "index"),
        (["-1", "99"], "index"),
        (["happy", "sad"], "name"),
        (["happy", ""], "name"),
        (["", ""], "index"),
    ],
)
def test_what_the_labels_of_a_sample_are(labels: list[str], values: str) -> None:
    text = "id,label\n" + "".join(f"{row},{label}\n" for row, label in enumerate(labels))
    assert sample_of(text).rules.values == values
    assert sample_of(text, SubmissionRules(values="name")).rules.values == "name"


def test_classes_that_look_like_numbers_are_names() -> None:
    sample = read_sample(io.BytesIO(b"id,label\n1,10\n"), classes=("1", "10", "2"), rules=SubmissionRules())
    assert sample.rules.values == "name"


@pytest.mark.parametrize(
    "text, message",
    [
        ("", r"sample\.csv is empty"),
        ("\n\n", r"sample\.csv is empty"),
        ("id,label\n", "has a header but no ids"),
        ("id;label\n1;0\n", "has one column, 'id;label'; it needs an id and a label, separated by a comma"),
        ("id,id\n1,0\n", "two columns with the same name"),
        ("id,label\n1,0\n2\n", "row 2 has 1 columns, its header 2"),
        ("id,label\n1,0\n,0\n", "row 2 has no id"),
        ("id,label\n1,0\n2,0\n1,0\n", "row 3 repeats the id '1'"),
        ("id,a,b\n1,0,0\n", r"columns id, a, b and none is called 'label'.*--set write\.label_column="),
        ("id,label\n1,joy\n", r"neither indices nor all classes, such as 'joy' \(classes: angry, happy, sad\)"),
        ("id,label\n1,0.5\n", "such as '0.5'"),
        ('id,label\n"1,0\n', "is not valid CSV"),
    ],
)
def test_samples_that_cannot_be_followed(text: str, message: str) -> None:
    with pytest.raises(SampleError, match=message):
        sample_of(text)


@pytest.mark.parametrize("header", ["1.jpg,0", "a/1.PNG,happy", "0,test/1.webp"])
def test_a_sample_without_a_header_is_refused_by_its_looks(header: str) -> None:
    with pytest.raises(SampleError, match=r"sample\.csv has an image where the header should be: .*add a first line"):
        sample_of(f"{header}\n2.jpg,0\n")


def test_a_column_may_be_called_as_an_image_is() -> None:
    sample = sample_of("image,label\nother,0\n")
    assert match_sample(sample, lambda: ["test/image.jpg", "test/other.jpg"]).missing == 0


@pytest.mark.parametrize("labels", ["0", "5", ""])
def test_classes_that_are_their_own_indices_ask_nothing(labels: str) -> None:
    text = f'id,label\n1,"{labels}"\n'
    found = read_sample(io.BytesIO(text.encode()), classes=("0", "1", "2"), rules=PLAIN)
    assert found.rules.values == ("name" if labels == "0" else "index")


@pytest.mark.parametrize("first", ["7", "007"])
def test_a_sample_without_a_header_is_refused_by_the_images(tmp_path: Path, first: str) -> None:
    sample = sample_of(f"{first},0\n8,0\n")
    words = rf"has an image where the header should be: {first}, 0"
    images = [(f"test/{first}.jpg", 1), ("test/8.jpg", 2)]
    with pytest.raises(SampleError, match=words):
        match_sample(sample, lambda: [name for name, _ in images])
    with pytest.raises(SampleError, match=words):  # where ids are known only when they are read
        write(tmp_path / "submission.csv", images, sample=sample)
    assert os.listdir(tmp_path) == []


def test_names_in_a_sample_are_not_made_indices() -> None:
    text = "id,label\n1,happy\n2,sad\n"
    with pytest.raises(SampleError, match=r"class names as labels, but write\.label_values=index .* to follow"):
        sample_of(text, SubmissionRules(values="index"))
    assert sample_of(text, SubmissionRules(values="name")).rules.values == "name"
    assert sample_of("id,label\n1,0\n", SubmissionRules(values="name")).rules.values == "name"  # a placeholder


@pytest.mark.parametrize("labels", [["0", "0"], ["-1", "-1"], ["", ""], ["0", "1"]])
def test_classes_that_are_numbers_beside_labels_that_are_none_of_them_ask(labels: list[str]) -> None:
    text = "id,label\n" + "".join(f"{at},{label}\n" for at, label in enumerate(labels)).replace(",\n", ',""\n')
    given = {"classes": ("1", "2", "3"), "name": "sample.csv"}
    with pytest.raises(SampleError, match=r"which are numbers \(1, 2, 3\), or indices from 0; choose one"):
        read_sample(io.BytesIO(text.encode()), rules=PLAIN, **given)
    for values in ("name", "index"):
        rules = SubmissionRules(values=values)
        assert read_sample(io.BytesIO(text.encode()), rules=rules, **given).rules.values == values


def test_a_label_may_stand_before_the_id(tmp_path: Path) -> None:
    sample = sample_of("label,image_id\n0,b.jpg\n0,a.jpg\n")
    path = tmp_path / "submission.csv"
    write_submission(str(path), labelled([("a.jpg", 1), ("b.jpg", 2)]), labels=SPEC, rules=PLAIN, sample=sample)
    assert path.read_text() == "label,image_id\n2,b.jpg\n1,a.jpg\n"


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("rules", [PLAIN, BOTH])
def test_names_that_a_mac_has_decomposed_match(tmp_path: Path, form: Any, rules: SubmissionRules) -> None:
    other = "NFD" if form == "NFC" else "NFC"
    ids = [unicodedata.normalize(form, name) for name in ("café.jpg", "é.jpg")]
    sample = sample_of(
        "id,label\n" + "".join(f"{name.removesuffix('.jpg') if rules is BOTH else name},0\n" for name in ids), rules
    )
    images = [
        (unicodedata.normalize(other, f"a/{name}" if rules is BOTH else name), at + 1) for at, name in enumerate(ids)
    ]
    path = tmp_path / "submission.csv"
    report = write_submission(str(path), labelled(images), labels=SPEC, rules=rules, sample=sample)
    assert report.sample is not None and (report.sample.missing, report.sample.unexpected) == (0, 0)
    assert [line.split(",")[1] for line in path.read_text().splitlines()] == ["label", "1", "2"]
    assert match_sample(sample, lambda: [name for name, _ in images]).missing == 0


def test_composed_and_decomposed_images_keep_their_own_rows_or_are_named(tmp_path: Path) -> None:
    composed, decomposed = "é.jpg", unicodedata.normalize("NFD", "é.jpg")
    images = labelled([(composed, 1), (decomposed, 2)])
    both = sample_of(f"id,label\n{composed},0\n{decomposed},0\n")
    write_submission(str(tmp_path / "s.csv"), images, labels=SPEC, rules=PLAIN, sample=both)
    assert (tmp_path / "s.csv").read_text() == f"id,label\n{composed},1\n{decomposed},2\n"
    one = sample_of(f"id,label\n{composed},0\n")
    report = write_submission(str(tmp_path / "s.csv"), images, labels=SPEC, rules=PLAIN, sample=one)
    assert (tmp_path / "s.csv").read_text() == f"id,label\n{composed},1\n"  # the very id comes first
    assert report.sample is not None and report.sample.unexpected_names == (decomposed,)
    two = labelled([(f"a/{decomposed}", 1), (f"b/{decomposed}", 2)])
    with pytest.raises(CollidingIds, match="would both get the id"):
        write_submission(str(tmp_path / "s.csv"), two, labels=SPEC, rules=FOLDER, sample=one)


@pytest.mark.parametrize(
    "rules, wanted",
    [
        (SubmissionRules(drop_extension=False), "write.drop_extension=true"),
        (SubmissionRules(drop_folder=False), "write.drop_folder=true"),
        (SubmissionRules(drop_folder=False, drop_extension=False), "write.drop_folder=true write.drop_extension=true"),
    ],
)
def test_a_setting_that_keeps_the_sample_from_matching_is_named(rules: SubmissionRules, wanted: str) -> None:
    report = match_sample(sample_of("id,label\n1,0\n2,0\n", rules), lambda: ["a/1.jpg", "a/2.jpg"])
    with pytest.raises(SampleError, match=f"they would match by --set {wanted}$"):
        refuse_stranger(report)


def test_a_folder_that_the_ids_of_a_sample_have_before_them_is_named() -> None:
    sample = sample_of("id,label\ntest/1.jpg,0\ntest/2.jpg,0\n")
    with pytest.raises(SampleError, match=r"they would match by --input test=PATTERN, which puts test/ before"):
        refuse_stranger(match_sample(sample, lambda: ["1.jpg", "2.jpg"]))
    with pytest.raises(SampleError, match="give the sample that belongs to these images"):
        refuse_stranger(match_sample(sample, lambda: ["3.jpg"]))


def test_a_sample_in_another_encoding() -> None:
    with pytest.raises(SampleError, match="not UTF-8 at byte 0; save it as CSV in UTF-8"):
        read_sample(io.BytesIO("id,label".encode("utf-16")), classes=CLASSES, rules=SubmissionRules())


def test_the_file_of_a_sample_stays_open() -> None:
    file = io.BytesIO(b"id,label\n1,0\n")
    read_sample(file, classes=CLASSES, rules=SubmissionRules())
    assert not file.closed


# Following a sample


def test_a_sample_fixes_order_and_columns(tmp_path: Path) -> None:
    path = tmp_path / "submission.csv"
    sample = sample_of('label,"the, note",id\n0,"a ""b""",3\n0,,1\n0, c,2\n')
    report = write(path, [("x/1.jpg", 1), ("x/2.jpg", 2), ("x/3.jpg", 0)], sample=sample)
    assert path.read_text() == 'label,"the, note",id\n0,"a ""b""",3\n1,,1\n2," c",2\n'
    assert report.sample == SampleReport(3, 0, (), 0, (), drop_folder=True, drop_extension=True)
    assert report.sample.notes() == []


def test_differences_between_images_and_sample_are_reported(tmp_path: Path) -> None:
    sample = sample_of("id,label\n7,0\n1,0\n8,0\n", SubmissionRules(no_face_label="sad"))
    report = write(tmp_path / "submission.csv", [("1.jpg", 1), ("2.jpg", 2), ("3.jpg", -1)], sample=sample)
    assert (tmp_path / "submission.csv").read_text() == "id,label\n7,2\n1,1\n8,2\n"
    assert report.without_label == 2
    assert report.sample is not None
    assert report.sample.notes() == [
        "2 ids of the sample submission have no image: '7', '8'",
        "2 images are not in the sample submission: '2.jpg', '3.jpg'",
    ]


def test_ids_without_an_image_need_a_stated_label(tmp_path: Path) -> None:
    sample = sample_of("id,label\n2,0\n1,0\n3,0\n")
    (tmp_path / "submission.csv").write_text("of an earlier run")
    with pytest.raises(UnlabelledImages, match=r"2 images have no label.*: '2', '3'; .*no_face_label") as caught:
        write(tmp_path / "submission.csv", [("1.jpg", 1), ("2.jpg", -1)], sample=sample)
    assert (caught.value.count, caught.value.names) == (2, ("2", "3"))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("images", [[("a/1.jpg", 2), ("1.jpg", 1)], [("1.jpg", 1), ("a/1.jpg", 2)]])
def test_an_image_with_the_very_id_comes_before_those_with_its_key(
    tmp_path: Path, images: list[tuple[str, int]]
) -> None:
    report = write(tmp_path / "submission.csv", images, sample=sample_of("id,label\n1.jpg,0\n"))
    assert (tmp_path / "submission.csv").read_text() == "id,label\n1.jpg,1\n"
    assert report.sample is not None
    assert report.sample.unexpected_names == ("a/1.jpg",)


@pytest.mark.parametrize("between", [0, 3])
def test_two_images_for_one_id_of_the_sample_are_named(tmp_path: Path, between: int) -> None:
    images = [("a/1.jpg", 2), *((f"x{row}", 0) for row in range(between)), ("b/1.jpg", 1)]
    with pytest.raises(CollidingIds, match=r"'a/1\.jpg' and 'b/1\.jpg' would both get the id '1\.jpg'"):
        write(tmp_path / "submission.csv", images, sample=sample_of("id,label\n1.jpg,0\n"))


@pytest.mark.parametrize("between", [0, 20_000])
def test_one_id_twice_is_one_image_and_no_collision(between: int) -> None:
    ids = ["a/1.jpg", *(f"x/n{row}" for row in range(between)), "a/1.jpg", "a/2.jpg"]
    report = match_sample(sample_of("id,label\n1,0\n2,0\n"), lambda: iter(ids))
    assert (report.missing, report.unexpected) == (0, between)
    with pytest.raises(CollidingIds, match=r"'a/2\.jpg' and 'b/2\.jpg' would both"):
        match_sample(sample_of("id,label\n1,0\n2,0\n"), lambda: iter([*ids, "b/2.jpg"]))


def test_collisions_that_the_sample_does_not_ask_for_do_no_harm(tmp_path: Path) -> None:
    write(tmp_path / "submission.csv", [("a/1", 2), ("b/1", 1), ("b/2", 0)], sample=sample_of("id,label\n2,0\n"))
    assert (tmp_path / "submission.csv").read_text() == "id,label\n2,0\n"


def test_a_sample_of_something_else_is_refused(tmp_path: Path) -> None:
    sample = sample_of("id,label\ntest_1,0\n", SubmissionRules(no_face_label="sad"))
    with pytest.raises(SampleError, match=r"no id of the sample .* its ids are 'test_1', images are 'a/1\.jpg'"):
        write(tmp_path / "submission.csv", [("a/1.jpg", 0)], sample=sample)
    with pytest.raises(SampleError, match="images are none"):
        write(tmp_path / "submission.csv", [], sample=sample)
    assert os.listdir(tmp_path) == []


def test_a_sample_can_be_matched_before_anything_is_read() -> None:
    sample = sample_of("id,label\n1,0\n2,0\n")
    report = match_sample(sample, lambda: iter(["a/1.jpg", "a/3.jpg"]))
    assert report == SampleReport(2, 1, ("2",), 1, ("a/3.jpg",), drop_folder=True, drop_extension=True)
    with pytest.raises(CollidingIds):
        match_sample(sample, lambda: iter(["a/1.jpg", "b/1.jpg"]))


def test_a_long_sample_keeps_its_order_and_little_memory(tmp_path: Path) -> None:
    count = 60_000
    names = [f"image_{row * 7919 % count:06d}" for row in range(count)]
    data = ("id,label\n" + "".join(f"{name},0\n" for name in names)).encode()
    images = [(f"test/{name}.jpg", int(name[-1]) % 3) for name in sorted(names)]
    tracemalloc.start()
    sample = read_sample(io.BytesIO(data), classes=CLASSES, rules=SubmissionRules())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    path = tmp_path / "submission.csv"
    write_submission(str(path), labelled(images, 5000), labels=SPEC, rules=SubmissionRules(), sample=sample)
    assert path.read_text() == "id,label\n" + "".join(f"{name},{int(name[-1]) % 3}\n" for name in names)
    assert peak < 300 * count
