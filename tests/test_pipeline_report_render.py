"""Rendered pictures: what is chosen, where labels go, what is drawn, which files are written, and whose they are."""

from __future__ import annotations

import csv
import hashlib
import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_runs import CLASSES, HOSTILE, MadeUp, write_made_up
from pictures import gradient, jpeg, plain, png, write_tar

from pipeline.errors import UsageError
from pipeline.report.photo import Face, Photo
from pipeline.report.render.chosen import Choice, choose, groups
from pipeline.report.render.contact_sheets import HEIGHT, WIDTH, ContactSheets
from pipeline.report.render.drawn_photo import COLOURS, Look, counted, drawn_photo, size_of, with_caption
from pipeline.report.render.folder import clear, own_pictures
from pipeline.report.render.lettering import draw_text, height_of, shortened, width_of
from pipeline.report.render.places import places
from pipeline.report.render.rendering import NothingRead, Rendered, Source, Wish, cropped, render
from pipeline.run.plan import Layout, make_plan
from transforms.formats.encode import MARK_WITHIN, as_jpeg, as_png, is_marked
from transforms.formats.records import Limits

LIMITS = Limits()
GREY = (128, 128, 128)


# --- what is chosen ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run of 300 images: every third has a face, every tenth is rejected; labels in turn."""
    folder = tmp_path_factory.mktemp("many")
    images = [
        MadeUp(f"{at:03d}.jpg", status="rejected", reason="truncated", size=(0, 0))
        if at % 10 == 9
        else MadeUp(f"{at:03d}.jpg", [(1, 2, 30, 40, at // 3 % 2)] if at % 3 == 0 else ())
        for at in range(300)
    ]
    write_made_up(folder, images)
    return str(folder)


def test_without_a_choice_all_photos_that_have_pixels(many: str) -> None:
    chosen = choose(many, Choice(), "seed")
    assert chosen.rows.tolist() == [row for row in range(300) if row % 10 != 9] and chosen.of == 270


def test_a_sample_is_drawn_by_the_seed(many: str) -> None:
    rows = [choose(many, Choice(most=20), seed).rows.tolist() for seed in ("a", "a", "b")]
    assert rows[0] == rows[1] != rows[2] and rows[0] == sorted(set(rows[0])) and len(rows[0]) == 20
    assert max(rows[0]) > 200 and min(rows[0]) < 100
    assert choose(many, Choice(most=20), "a").of == 270


def test_photos_with_a_label(many: str) -> None:
    rows = choose(many, Choice(labels=(1,)), "a").rows.tolist()
    assert rows == [row for row in range(300) if row % 3 == 0 and row % 10 != 9 and row // 3 % 2 == 1]
    assert set(choose(many, Choice(most=5, labels=(1,)), "a").rows.tolist()) <= set(rows)


def test_photos_by_name_and_names_that_give_none(many: str) -> None:
    wanted = frozenset({"003.jpg", "009.jpg", "299.jpg", "nowhere.jpg"})
    chosen = choose(many, Choice(ids=wanted), "a")
    assert (chosen.rows.tolist(), chosen.without_pixels, chosen.unknown) == ([3], 2, ("nowhere.jpg",))


def test_groups_hold_each_photo_once_with_its_faces(many: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.report.render.chosen.GROUP", 7)
    found = list(groups(many, np.asarray([0, 1, 3, 6, 150, 151, 200, 298])))
    assert [len(group) for group in found] == [7, 1]
    assert [(photo.row, photo.image_id, len(photo.faces)) for photo in found[0][:3]] == [
        (0, "000.jpg", 1), (1, "001.jpg", 0), (3, "003.jpg", 1),
    ]  # fmt: skip


# --- where labels go --------------------------------------------------------------------------------------------------

BOX = st.tuples(st.integers(-20, 380), st.integers(-20, 280), st.integers(1, 200), st.integers(1, 200))
LABEL = st.tuples(st.integers(5, 120), st.integers(5, 30))


@given(st.lists(st.tuples(BOX, LABEL), min_size=1, max_size=30))
def test_no_label_lies_on_another_or_on_a_face_or_over_the_edge(faces: list) -> None:
    boxes = np.asarray([(x, y, x + w, y + h) for (x, y, w, h), _ in faces])
    found = places(boxes, (400, 300), lambda row: [faces[row][1], (4, 4)], range(len(faces)))
    for row, place in found.items():
        left, top, right, bottom = place.at
        assert 0 <= left < right <= 400 and 0 <= top < bottom <= 300
        assert (right - left, bottom - top) == [faces[row][1], (4, 4)][place.words]
        rest = [box for other, box in enumerate(boxes.tolist()) if other != row]
        rest += [p.at for other, p in found.items() if other != row]
        rest += [p.leader for other, p in found.items() if other != row and p.leader]
        for drawn in filter(None, (place.at, place.leader)):
            assert not [other for other in rest if meet(drawn, other)]


def meet(one: tuple, other: tuple) -> bool:
    return max(one[0], other[0]) < min(one[2], other[2]) and max(one[1], other[1]) < min(one[3], other[3])


def one(box: tuple[int, int, int, int], *others: tuple[int, int, int, int]) -> tuple[int, int, bool]:
    boxes = np.asarray([box, *others])
    place = places(boxes, (400, 300), lambda row: [(80, 20)], [0])[0]
    return place.at[0], place.at[1], place.leader is not None


@pytest.mark.parametrize(
    ("box", "others", "place"),
    [
        ((100, 100, 150, 160), (), (100, 78, False)),  # above
        ((100, 10, 150, 60), (), (100, 62, False)),  # below, where there is no room above
        ((390, 100, 400, 160), (), (320, 78, False)),  # pushed in from the edge
        ((100, 100, 150, 160), ((100, 70, 300, 99),), (100, 162, False)),  # below a taken place
        ((100, 5, 150, 295), (), (152, 5, False)),  # beside a box as high as the photo
        ((2, 2, 398, 298), (), (2, 2, False)),  # inside a box that fills the photo
    ],
)  # fmt: skip
def test_a_label_goes_where_there_is_room(box: tuple, others: tuple, place: tuple) -> None:
    assert one(box, *others) == place


def test_a_label_moves_away_when_everything_beside_its_box_is_taken() -> None:
    taken = ((0, 79, 118, 99), (132, 79, 400, 99), (0, 161, 400, 205), (0, 100, 99, 160), (151, 100, 400, 160))
    assert one((100, 100, 150, 160), *taken) == (100, 58, True)


# --- lettering --------------------------------------------------------------------------------------------------------


def test_text_is_drawn_and_cut_at_the_edges() -> None:
    canvas = np.full((40, 200, 3), 255, np.uint8)
    draw_text(canvas, "happy 93 %", 10, 5, 20, (0, 0, 0))
    inked = np.argwhere(canvas.min(axis=2) < 128)
    assert len(inked) > 150 and inked[:, 1].min() >= 9 and inked[:, 1].max() <= 10 + width_of("happy 93 %", 20)
    assert inked[:, 0].min() >= 5 and inked[:, 0].max() < 5 + height_of(20)
    for left, top in ((-30, -10), (190, 35), (500, 5), (5, 500), (-500, 5)):
        draw_text(canvas, "happy", left, top, 20, (0, 0, 0))


def test_a_long_text_loses_its_end_or_its_start() -> None:
    text = "a long name of a photo.jpg"
    assert shortened(text, 14, 500) == text
    for keep_end in (False, True):
        short = shortened(text, 14, 90, keep_end=keep_end)
        assert width_of(short, 14) <= 90 and (short.endswith("photo.jpg") if keep_end else short.startswith("a long"))
    assert shortened(text, 14, 3) == ""


@pytest.mark.parametrize("text", [*HOSTILE[:12], "счастье", "שמח", "سعيد", "幸せ"])
def test_any_text_can_be_drawn(text: str) -> None:
    from pipeline.report.visible_names import visible

    canvas = np.zeros((30, 300, 3), np.uint8)
    draw_text(canvas, shortened(visible(text), 14, 280), 2, 2, 14, (255, 255, 255))
    assert canvas.any()


# --- a photo ----------------------------------------------------------------------------------------------------------


def photo(*faces: tuple[int, int, int, int, int], width: int = 400, height: int = 300, name: str = "a.jpg") -> Photo:
    made = tuple(Face(n, (x, y, w, h), label, 0.93, 0.8) for n, (x, y, w, h, label) in enumerate(faces))
    return Photo(0, name, "d", width, height, None, made, len(made))


def test_a_box_lies_around_the_face_in_the_colour_of_its_label() -> None:
    drawn = drawn_photo(
        plain(600, 800, GREY), photo((100, 100, 60, 80, 1), width=800, height=600), CLASSES, (600, 800), Look()
    )
    assert (drawn[100:180, 100:160] == 128).all()  # the face itself is untouched
    assert tuple(drawn[140, 99]) == COLOURS[1] == tuple(drawn[181, 130])
    assert (drawn[:50] == 128).all() and (drawn[200:] == 128).all()
    chip = drawn[60:97, 100:200]
    assert (chip == COLOURS[1]).all(axis=2).mean() > 0.2  # the label above it


def test_pictures_are_drawn_at_a_size_that_letters_fit() -> None:
    look = Look()
    assert size_of(photo(width=48, height=48), look) == (480, 480)
    assert size_of(photo(width=400, height=300), look) == (600, 800)
    assert size_of(photo(width=620, height=310), look) == (500, 1000)
    assert size_of(photo(width=1200, height=900), look) == (900, 1200)
    assert size_of(photo(width=6000, height=4000), look) == (1067, 1600)
    assert size_of(photo(width=30_000, height=2), look) == (1, 1600)


def test_the_caption_tells_the_faces_of_each_label() -> None:
    faces = [(1, 1, 30, 30, 0), (50, 1, 30, 30, 0), (90, 1, 30, 30, 1), (90, 90, 9, 9, -1)]
    assert [item.text for item in counted(photo(*faces), CLASSES)] == ["happy: 2", "sad 93 %", "too small to label: 1"]
    assert [item.text for item in counted(photo(), CLASSES)] == ["no face found"]
    whole = photo((0, 0, 400, 300, 0))
    assert (drawn_photo(plain(300, 400), whole, CLASSES, (300, 400), Look()) == plain(300, 400)).all()  # no box
    assert [item.text for item in counted(whole, CLASSES)] == ["happy 93 %"]


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 4000), (4000, 1), (3, 700), (640, 480)])
def test_photos_of_any_shape_get_a_caption(width: int, height: int) -> None:
    one = photo((0, 0, 1, 1, 1), (0, 0, width, height, 2), width=width, height=height, name="long" * 1000)
    size = size_of(one, Look())
    drawn = with_caption(drawn_photo(plain(height, width), one, CLASSES, size, Look()), one, CLASSES)
    assert drawn.shape[1] >= size[1] and drawn.shape[0] > size[0] and drawn.dtype == np.uint8


def test_a_crowd_is_drawn_soon_and_every_face_has_a_box() -> None:
    faces = [(8 + 20 * (n % 48), 8 + 20 * (n // 48), 12, 12, n % 3) for n in range(1400)]
    crowd = photo(*faces, width=1000, height=640)
    drawn = drawn_photo(plain(640, 1000, GREY), crowd, CLASSES, (640, 1000), Look())
    for x, y, w, h, label in faces:
        assert (drawn[y : y + h, x : x + w] == 128).all() and tuple(drawn[y + 5, x - 1]) == COLOURS[label]


# --- contact sheets ---------------------------------------------------------------------------------------------------


def sheets_of(shapes: list[tuple[int, int]], value: int = 90) -> list[np.ndarray]:
    sheets, found = ContactSheets(CLASSES), []
    for number, (width, height) in enumerate(shapes):
        found += sheets.add(plain(height, width, (value,) * 3), photo(width=width, height=height, name=f"{number}.jpg"))
    return [*found, *sheets.finish()]


def test_sheets_have_no_gaps() -> None:
    draw = np.random.default_rng(0)
    sheets = sheets_of([(int(w), int(h)) for w, h in draw.integers(200, 900, (90, 2))])
    assert len(sheets) > 1
    for number, sheet in enumerate(sheets):
        assert sheet.shape[1] == WIDTH and sheet.shape[0] <= HEIGHT
        assert not (sheet == 0).all(axis=2).any()  # nothing black
        last = number == len(sheets) - 1
        middle = sheet[40]  # through the first row: photos, with thin white between them
        assert (middle == 255).all(axis=1).mean() < 0.1 or last


def test_photos_are_as_many_and_as_wide_as_they_were() -> None:
    (sheet,) = sheets_of([(400, 300), (300, 400), (1000, 250)])
    row = (sheet[100] == 90).all(axis=1).astype(int)
    starts, ends = np.flatnonzero(np.diff(row, prepend=0) == 1), np.flatnonzero(np.diff(row, append=0) == -1)
    aspects = (ends - starts + 1) / 250
    assert np.allclose(aspects, [4 / 3, 3 / 4, 4], atol=0.6) and len(aspects) == 3


@pytest.mark.parametrize("shape", [(1, 1), (30_000, 1), (1, 30_000), (48, 48)])
def test_odd_photos_fit_on_a_sheet(shape: tuple[int, int]) -> None:
    (sheet,) = sheets_of([shape, (300, 300)])
    assert sheet.shape[1] == WIDTH


# --- files ------------------------------------------------------------------------------------------------------------


class Made:
    """A run over files that are there, and what is rendered of it."""

    def __init__(self, folder: Path, images: list[MadeUp], *, packed: bool = False) -> None:
        self.run, self.inputs = folder / "run", folder / ("in.tar" if packed else "in")
        prefix = "in.tar/" if packed else ""
        if packed:
            write_tar(self.inputs, {image.image_id: image.data for image in images})
        for image in images if not packed else ():
            path = self.inputs / image.image_id
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image.data)
        self.images = [MadeUp(prefix + i.image_id, i.faces, i.size, data=i.data) for i in images]
        write_made_up(self.run, self.images)
        plan = make_plan([str(self.inputs)], str(folder / "plan"), Layout(4, 2**20), LIMITS)
        self.lines = [line for _, line in plan.lines()]

    def render(self, output: Path, wish: Wish | None = None, choice: Choice | None = None) -> Rendered:
        source = Source(str(self.run), CLASSES, lambda: iter(self.lines), LIMITS)
        chosen = choose(str(self.run), choice or Choice(), "seed")
        output.mkdir(exist_ok=True)
        return render(source, str(output), wish or Wish(), chosen)


def index_of(output: Path) -> list[dict[str, str]]:
    text = (output / "index.csv").read_bytes().decode("utf-8-sig")
    return list(csv.DictReader(io.StringIO(text, newline="")))


def files_of(output: Path) -> dict[str, str]:
    return {
        path.relative_to(output).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(output.rglob("*"))
        if path.is_file()
    }


def coloured(height: int, width: int) -> np.ndarray:
    """Returns (h, w, 3) uint8 RGB in which every pixel differs from its neighbours."""
    return np.stack([gradient(height, width), gradient(width, height).T, gradient(height, width)[::-1]], axis=2)


def picture(at: int) -> bytes:
    return png(coloured(48, 64) + np.uint8(at))


def five() -> list[MadeUp]:
    return [
        MadeUp(
            f"{at}/photo.png",
            [(10, 10, 20, 24, at % 2), (40, 10, 4, 4, -1)],
            (64, 48),
            data=picture(at),
        )
        for at in range(5)
    ]


@pytest.mark.parametrize("packed", [False, True])
def test_photos_sheets_and_crops_are_written(packed: bool, tmp_path: Path) -> None:
    made = Made(tmp_path, five(), packed=packed)
    reported = made.render(tmp_path / "out", Wish(crops=True, sheets=True))
    assert reported == Rendered(photos=5, crops=10, sheets=1)
    files = files_of(tmp_path / "out")
    assert files.keys() == {
        "index.csv", "sheet-0001.jpg",
        *(f"000000{n}-photo.jpg" for n in range(1, 6)),
        *(f"faces/{CLASSES[n % 2]}/000000{n + 1}-photo-face0.jpg" for n in range(5)),
        *(f"faces/unlabelled/000000{n}-photo-face1.jpg" for n in range(1, 6)),
    }  # fmt: skip
    rows = index_of(tmp_path / "out")
    assert {row["file"] for row in rows} == files.keys() - {"index.csv", "sheet-0001.jpg"}
    assert [(row["kind"], row["image_id"], row["label"]) for row in rows[:3]] == [
        ("photo", made.images[0].image_id, ""),
        ("face", made.images[0].image_id, "happy"),
        ("face", made.images[0].image_id, ""),
    ]
    assert cv2.imread(str(tmp_path / "out" / "0000001-photo.jpg")).shape[1] == 480
    made.render(tmp_path / "again", Wish(crops=True, sheets=True))
    assert files_of(tmp_path / "again") == files  # the same run, the same pictures


def test_a_crop_is_the_square_that_the_label_was_provenance(tmp_path: Path) -> None:
    image = coloured(100, 120)
    face = Face(0, (30, 20, 20, 40), 0, 0.9, 0.9)
    assert (cropped(image, face, 0.0) == image[20:60, 20:60]).all()
    assert (cropped(image, face, 0.25) == image[10:70, 10:70]).all()
    assert cropped(image, Face(0, (0, 0, 120, 100), 0, 0.9, 0.9), 0.5).shape == image.shape  # without a detector
    assert cropped(plain(3000, 3000), Face(0, (0, 0, 2999, 2000), 0, 0.9, 0.9), 0.0).shape == (1024, 1024, 3)
    assert cropped(image, Face(0, (110, 90, 30, 30), 0, 0.9, 0.9), 0.1).min() >= image.min()  # the edge repeats


def test_crops_as_png_hold_the_very_pixels(tmp_path: Path) -> None:
    made = Made(tmp_path, five()[:1])
    made.render(tmp_path / "out", Wish(crops=True, png=True))
    crop = cv2.imread(str(tmp_path / "out" / "faces" / "happy" / "0000001-photo-face0.png"))[..., ::-1]
    assert (crop == coloured(48, 64)[10:34, 8:32]).all()


def test_turned_photos_are_drawn_upright(tmp_path: Path) -> None:
    image = np.full((60, 100, 3), 40, np.uint8)
    image[:, :50] = 220
    data = jpeg(image, orientation=6)  # stored on its side: a quarter turn clockwise makes it upright
    made = Made(tmp_path, [MadeUp("a.jpg", size=(60, 100), data=data)])
    made.render(tmp_path / "out", Wish(png=True))
    drawn = cv2.imread(str(tmp_path / "out" / "0000001-a.png"))
    assert drawn.shape[1] < drawn.shape[0] and drawn[100, 100].mean() > 180 and drawn[380, 100].mean() < 80


def test_hostile_names_never_leave_the_folder(tmp_path: Path) -> None:
    images = [MadeUp(name, [(1, 1, 30, 30, 0)], (64, 48), data=picture(at)) for at, name in enumerate(HOSTILE)]
    made = Made.__new__(Made)
    made.run, made.images = tmp_path / "run", images
    write_made_up(made.run, images)
    data = {image.image_id: image.data for image in images}

    def read(_lines: object, wanted: dict[str, str], *_: object, **__: object) -> Iterator[tuple[str, bytes]]:
        yield from ((name, data[name]) for name in wanted)

    made.lines = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.report.render.rendering.read_what_is_left", read)
        reported = made.render(tmp_path / "out", Wish(crops=True, sheets=True))
    assert (reported.photos, reported.crops, reported.missing) == (len(HOSTILE), len(HOSTILE), 0)
    assert {path.name for path in tmp_path.iterdir()} == {"run", "out"}
    rows = index_of(tmp_path / "out")
    photos = [row for row in rows if row["kind"] == "photo"]
    assert {row["image_id"].removeprefix("'") for row in photos} == set(HOSTILE)
    assert len({row["file"].casefold() for row in rows}) == len(rows) == 2 * len(HOSTILE)
    assert not any(row["image_id"][0] in "=+-@" for row in rows)
    assert all((tmp_path / "out" / row["file"]).is_file() for row in rows)
    assert len(own_pictures(str(tmp_path / "out"))) == len(rows) + 2  # all are known as ours again


def test_photos_that_are_gone_or_changed_are_counted(tmp_path: Path) -> None:
    made = Made(tmp_path, five())
    (made.inputs / "0" / "photo.png").unlink()
    (made.inputs / "1" / "photo.png").write_bytes(png(gradient(20, 20)))
    reported = made.render(tmp_path / "out")
    assert (reported.photos, reported.missing) == (3, 2) and "0/photo.png" in reported.fault
    shutil.rmtree(made.inputs)
    before = files_of(tmp_path / "out")
    with pytest.raises(NothingRead):
        made.render(tmp_path / "out")
    assert files_of(tmp_path / "out") == before  # an earlier rendering stays


# --- whose the folder is ----------------------------------------------------------------------------------------------


def test_an_earlier_rendering_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    made, output = Made(tmp_path, five()), tmp_path / "out"
    assert own_pictures(str(output)) == set()  # there is none yet
    made.render(output, Wish(crops=True, sheets=True))
    (output / ".lock").touch()
    (output / "0000009-photo.jpg.0123abcd-1-2.tmp").write_bytes(b"half")
    before = files_of(output)
    clear(own_pictures(str(output)), str(output))
    assert sorted(path.name for path in output.rglob("*")) == [".lock"] and len(before) == 19


@pytest.mark.parametrize(
    "name",
    ["mine.jpg", "0000001-photo.jpg", "index.csv", "sheet-0001.jpg", "faces/happy/0000001-a-face0.jpg",
     "faces/mine.txt", "faces/happy/deep/a.jpg", "run.json", "0000001-photo.png.bak"],
)  # fmt: skip
def test_a_folder_with_the_users_files_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(jpeg(plain(8, 8)) if name.endswith("jpg") else b"image_id,label\n")
    with pytest.raises(UsageError, match="no rendering wrote it; give an empty folder"):
        own_pictures(str(tmp_path))
    assert path.is_file()


def test_links_are_not_followed(tmp_path: Path) -> None:
    made = Made(tmp_path, five())
    made.render(tmp_path / "out", Wish(crops=True))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "0000001-photo.jpg").symlink_to(tmp_path / "out" / "0000001-photo.jpg")
    with pytest.raises(UsageError, match="no rendering wrote it"):
        own_pictures(str(tmp_path / "other"))
    (tmp_path / "third").mkdir()
    (tmp_path / "third" / "faces").symlink_to(tmp_path / "out" / "faces")
    with pytest.raises(UsageError, match="no rendering wrote it"):
        own_pictures(str(tmp_path / "third"))
    with pytest.raises(UsageError, match="is a file"):
        own_pictures(str(tmp_path / "out" / "index.csv"))


def test_our_pictures_bear_a_mark_and_stay_sound() -> None:
    image = coloured(30, 40)
    for data in (as_jpeg(image, 90), as_png(image)):
        assert is_marked(data[:MARK_WITHIN])
        assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape == image.shape
    from PIL import Image

    with Image.open(io.BytesIO(as_png(image))) as opened:
        opened.load()  # checks the sums of the chunks
        assert "facelabel-pipeline" in opened.text["Software"]
    assert not is_marked(jpeg(image)[:MARK_WITHIN]) and not is_marked(png(image)[:MARK_WITHIN])
