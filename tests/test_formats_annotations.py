"""Tables of known faces: literal texts of each form in, numbers out; faults name file and line."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from transforms.formats.annotations import Annotations, merged, read_annotations
from transforms.formats.records import FormatError

SAMPLES = Path(__file__).parents[2] / "shared" / "data" / "faces" / "samples.tar"

OURS = """image,width,height,x,y,w,h,occlusion
a.jpg,520,384,24.2,34.6,41.5,50.2,none
a.jpg,520,384,103,32.9,45,41.5,mask
b.jpg,10,20,,,,,
"""
WITH_MORE = """image,width,height,x,y,w,h,occlusion,box_from,tx,ty,tw,th,tscore,group
c.jpg,400,372,4.2,0.0,188.3,258.5,none,human,25.0,41.3,160.9,218.1,0.92,2861
c.jpg,400,372,9,9,20,20,none,yunet,9,9,20,20,0.7,2861
"""
FDDB = """2002/08/11/big/img_591
1
123.583300 85.549500 1.265839 269.693400 161.781200  1
2002/08/01/big/img_1468
2
30.0 10.0 0.0 100.0 50.0  1
30.0 10.0 1.5707963267948966 100.0 50.0  1
"""
WIDER = """0--Parade/0_Parade_marchingband_1_849.jpg
1
449 330 122 149 0 0 0 0 0 0 
0--Parade/0_Parade_Parade_0_452.jpg
0
0 0 0 0 0 0 0 0 0 0 
61--Street_Battle/61_a.jpg
2
401 88 47 52 1 0 0 1 2 0
432 68 0 70 0 1 1 0 0 1
"""  # noqa: W291 - as published


def read(text: str) -> Annotations:
    return read_annotations(io.BytesIO(text.encode()), "table.txt")


def words(table: Annotations, image: str) -> list[set[str]]:
    return [set(some) for some in table.faces[image].words]


def test_a_csv_has_a_row_a_face_and_an_empty_one_for_an_image_without() -> None:
    table = read(OURS)
    assert table.form == "csv"
    assert list(table.faces) == ["a.jpg", "b.jpg"]
    assert table.faces["a.jpg"].boxes.tolist() == [[24.2, 34.6, 41.5, 50.2], [103, 32.9, 45, 41.5]]
    assert np.isnan(table.faces["a.jpg"].ellipses).all()
    assert words(table, "a.jpg") == [set(), {"mask"}]
    assert table.faces["a.jpg"].size == (520, 384)
    assert len(table.faces["b.jpg"]) == 0
    assert table.faces["b.jpg"].boxes.shape == (0, 4)


def test_what_made_a_box_is_a_word_of_it() -> None:
    assert words(read(WITH_MORE), "c.jpg") == [{"human"}, {"yunet"}]


def test_width_and_height_are_the_faces_where_there_is_no_w_and_h() -> None:
    faces = read("image,x,y,width,height\na.jpg,1,2,3,4\n").faces["a.jpg"]
    assert faces.boxes.tolist() == [[1, 2, 3, 4]]
    assert faces.size is None


def test_fddb_gives_ellipses_and_the_boxes_around_them() -> None:
    table = read(FDDB)
    assert table.form == "fddb"
    assert table.faces["2002/08/11/big/img_591"].ellipses.tolist() == [
        [123.5833, 85.5495, 1.265839, 269.6934, 161.7812]
    ]
    np.testing.assert_allclose(
        table.faces["2002/08/01/big/img_1468"].boxes, [[70, 40, 60, 20], [90, 20, 20, 60]], atol=1e-9
    )


def test_wider_gives_boxes_and_flags_and_an_image_without_faces() -> None:
    table = read(WIDER)
    assert table.form == "wider"
    first, none, street = table.faces.values()
    assert first.boxes.tolist() == [[449, 330, 122, 149]]
    assert len(none) == 0
    assert street.boxes.tolist() == [[401, 88, 47, 52], [432, 68, 0, 70]]
    assert words(table, "61--Street_Battle/61_a.jpg") == [
        {"blur1", "invalid1", "occ2"},
        {"expr1", "illum1", "pose1", "invalid1"},  # without width nobody can find it
    ]


@pytest.mark.parametrize(
    ("text", "image_id", "name"),
    [
        (OURS, "a.jpg", "a.jpg"),
        (OURS, "photos.tar/deep/a.jpg", "a.jpg"),
        (OURS, "photos.tar/aa.jpg", None),
        (FDDB, "samples.tar/fddb/originalPics/2002/08/11/big/img_591.jpg", "2002/08/11/big/img_591"),
        (FDDB, "v1.0/2002/08/11/big/img_591", "2002/08/11/big/img_591"),
        (WIDER, "WIDER_val/images/61--Street_Battle/61_a.jpg", "61--Street_Battle/61_a.jpg"),
    ],
)
def test_an_image_is_known_by_the_end_of_its_id(text: str, image_id: str, name: str | None) -> None:
    assert read(text).name_of(image_id) == name


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        ("", "is not a table of faces"),
        ("2002/07/19/big/img_130\n2002/07/19/big/img_131\n", "FDDB-fold-01-ellipseList"),  # the list of names beside it
        ("image,x,y\na,1,2\n", "has the columns image, x, y; a table of faces needs image, x, y, w and h"),
        ("image,x,y,w,h\na,1,2,3\n", "line 2"),
        ("image,x,y,w,h\na,1,2,3,z\n", "line 2: could not convert"),
        ("image,x,y,w,h\na,1,2,nan,4\n", "line 2: expected 4 numbers, found "),
        ("image,x,y,w,h\na,1,2,0,4\n", "line 2: a face needs a width"),
        ("image,x,y,w,h\na,1,2,3,4,5\n", "line 2: more cells"),
        ("image,x,y,w,h\n,1,2,3,4\n", "line 2: the image name is empty"),
        ("a.jpg\n2\n1 2 3 4 0 0 0 0 0 0\n", "ends after 1 of 2 faces of a.jpg"),
        ("a.jpg\n1\n1 2 3 4 0 0 0 0 0 0\nb.jpg\nc.jpg\n", "line 5: expected the number of faces"),
        (WIDER + "61--Street_Battle/61_a.jpg\n1\n1 2 3 4 0 0 0 0 0 0\n", "is listed twice"),
        ("img_1\n1\n3 0 1 5 5 1\n", "line 3: an ellipse needs two radii"),
    ],
)
def test_a_fault_names_the_file_and_the_line(text: str, reported: str) -> None:
    with pytest.raises(FormatError, match=r"table\.txt") as caught:
        read(text)
    assert reported in str(caught.value)


def test_folds_become_one_table() -> None:
    other = "img_7\n0\n" + FDDB.replace("img_", "img_9")
    table = merged([("one", read(FDDB)), ("two", read(other))])
    assert len(table.faces) == 5
    with pytest.raises(FormatError, match="is also in the table before it"):
        merged([("one", read(FDDB)), ("two", read(FDDB))])
    with pytest.raises(FormatError, match="tables of one form"):
        merged([("one", read(FDDB)), ("two", read(OURS))])


@pytest.fixture(scope="module")
def published() -> dict[str, Annotations]:
    if not SAMPLES.exists():
        pytest.skip("needs the sample set with FDDB's and WIDER's own lists")
    with tarfile.open(SAMPLES) as archive:
        names = [name for name in archive.getnames() if name.endswith(("ellipseList.txt", "bbx_gt.txt"))]
        return {name.rpartition("/")[2]: read_annotations(archive.extractfile(name), name) for name in names}


def test_lists_as_they_are_published(published: dict[str, Annotations]) -> None:
    folds = merged((name, table) for name, table in published.items() if "FDDB" in name)
    assert sum(map(len, folds.faces.values())) == 11
    assert len(folds.faces) == 7
    wider = merged((name, table) for name, table in published.items() if "wider" in name)
    assert len(wider.faces) == 10
    assert sum(map(len, wider.faces.values())) == 249


def test_our_table_of_them_says_the_same(published: dict[str, Annotations]) -> None:
    with (SAMPLES.parent / "samples.csv").open("rb") as file:
        ours = read_annotations(file, "samples.csv")
    for table in published.values():
        for name, faces in table.faces.items():
            image = next(other for other in ours.faces if table.name_of(other) == name)
            np.testing.assert_allclose(ours.faces[image].boxes, faces.boxes, atol=0.06)  # rounded there
            assert len(table.faces) and ours.faces[image].words == faces.words
