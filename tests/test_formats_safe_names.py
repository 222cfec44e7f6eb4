"""Names of files made from texts that may hold anything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_runs import HOSTILE

from transforms.formats.safe_names import face_name, folder_names, photo_name, unlabelled_name

IDS = st.one_of(st.sampled_from(HOSTILE), st.text(min_size=1, max_size=400))


@given(IDS, st.integers(0, 10**10), st.sampled_from([".jpg", ".png", ".json"]))
def test_a_name_is_one_safe_component(image_id: str, row: int, ending: str) -> None:
    name = photo_name(row, image_id, ending)
    assert name.startswith(f"{row + 1:07d}-") and name.endswith(ending)
    assert len(name.encode()) <= 160 and not set(name) & set("/\\\0\n\r\t\"'<>:|?*&=+@$`!%#")
    assert name.isprintable()


@given(st.lists(IDS, min_size=2, max_size=6, unique=True))
def test_two_images_never_get_one_name(ids: list[str]) -> None:
    names = [photo_name(row, image_id, ".jpg").casefold() for row, image_id in enumerate(ids)]
    names += [face_name(row, image_id, 0, ".jpg").casefold() for row, image_id in enumerate(ids)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("image_id", "name"),
    [
        ("trips/2024/IMG_1.jpg", "0000001-IMG_1.jpg"),
        ("a.tar/b/c.d.png", "0000001-c.d.jpg"),
        ("..", "0000001-image.jpg"),
        ("-rf", "0000001-rf.jpg"),
        ("x/<script>.png", "0000001-_script_.jpg"),
        ("漢字.png", "0000001-漢字.jpg"),
        ("gnp\u202eevil.png", "0000001-gnp_evil.jpg"),
        ("é" * 100 + ".png", "0000001-" + "é" * 40 + ".jpg"),
        ("no ending", "0000001-no_ending.jpg"),
    ],
)
def test_a_name_says_what_it_can_of_the_id(image_id: str, name: str) -> None:
    assert photo_name(0, image_id, ".jpg") == name


@given(st.lists(IDS, min_size=1, max_size=6, unique=True))
def test_labels_get_folders_of_their_own(labels: list[str]) -> None:
    folders = folder_names(labels)
    assert len({folder.casefold() for folder in folders}) == len(labels)
    for folder in folders:
        assert folder.casefold() not in ("", ".", "..", "unlabelled") and "/" not in folder
        assert len(folder.encode()) <= 100 and folder.isprintable()


def test_plain_labels_keep_their_names() -> None:
    assert folder_names(["happy", "sad"]) == ["happy", "sad"]
    assert folder_names(["Happy", "happy"]) != ["Happy", "happy"]  # one folder where case does not count
    assert len(set(folder_names(["a/b", "a_b-c14cddc033f6"]))) == 2  # the second is the name that the first gets
    assert unlabelled_name(["happy"]) == "unlabelled" and unlabelled_name(["unlabelled"]) == "unlabelled_"
