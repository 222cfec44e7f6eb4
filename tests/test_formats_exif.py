"""EXIF: what is read of each format, held against Pillow, and that nothing in a file makes it fail."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import gradient, jpeg, nasty_files, plain, png, png_chunk, with_segment
from PIL import Image

from transforms.formats.exif import NO_EXIF, Exif, read_exif

TAKEN = "2024:05:01 10:30:59"
FULL = Exif("2024-05-01T10:30:59+02:00", "Acme Snap 3", 48.8582222, -2.2945)


def block(
    *,
    make: str = "Acme",
    model: str = "Snap 3",
    taken: str = TAKEN,
    offset: str = "+02:00",
    latitude: Any = (48.0, 51.0, 29.6),
    north: str = "N",
    longitude: Any = (2.0, 17.0, 40.2),
    east: str = "W",
) -> Image.Exif:
    """Returns an EXIF block as Pillow makes it; empty texts are left out."""
    exif = Image.Exif()
    inner = {0x8769: {36867: taken, 36881: offset}, 0x8825: {1: north, 2: latitude, 3: east, 4: longitude}}
    for tag, value in {271: make, 272: model, **inner}.items():
        if isinstance(value, dict):
            exif[tag] = {inner_tag: one for inner_tag, one in value.items() if one}
        elif value:
            exif[tag] = value
    return exif


def encoded(form: str, exif: Image.Exif | bytes) -> bytes:
    """Returns a picture in this format with the block."""
    file = io.BytesIO()
    if form == "TIFF" and isinstance(exif, Image.Exif):  # Pillow writes inner directories only of what it has read
        made, exif = exif.tobytes(), Image.Exif()
        exif.load(made)
    if form == "HEIF":
        pytest.importorskip("pillow_heif", reason="needs pillow-heif, which makes HEIC").register_heif_opener()
    Image.fromarray(gradient(32, 32)).convert("RGB").save(file, form, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF"])
def test_every_format_that_has_exif_is_read(form: str) -> None:
    assert read_exif(encoded(form, block())) == FULL


@pytest.mark.parametrize("order", ["II", "MM"])
def test_both_orders_of_bytes(order: str) -> None:
    exif = block()
    exif._loaded, exif.endian = True, "<" if order == "II" else ">"
    data = encoded("JPEG", exif.tobytes())
    assert data[data.index(b"Exif") + 6 :].startswith(order.encode())
    assert read_exif(data) == FULL


def test_a_png_of_imagemagick_is_read() -> None:
    raw = block().tobytes()
    text = b"Raw profile type exif\0" + b"\nexif\n" + b"%8d\n" % len(raw) + raw.hex().encode() + b"\n"
    plain_png = png(gradient(8, 8))
    data = plain_png[:33] + png_chunk(b"tEXt", text) + plain_png[33:]
    assert read_exif(data) == FULL


@pytest.mark.parametrize("name", ["gradient.jpg", "no exif"])
def test_photos_without_exif_say_nothing(name: str) -> None:
    assert read_exif(jpeg(plain(8, 8)) if name == "gradient.jpg" else b"P5 1 1 255 a") == NO_EXIF


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"offset": ""}, {"taken_at": "2024-05-01T10:30:59"}),
        ({"offset": "+25:00"}, {"taken_at": "2024-05-01T10:30:59"}),
        ({"taken": "0000:00:00 00:00:00"}, {"taken_at": None}),
        ({"taken": "2024:02:31 10:00:00"}, {"taken_at": None}),
        ({"taken": "yesterday"}, {"taken_at": None}),
        ({"make": ""}, {"camera": "Snap 3"}),
        ({"make": "ACME", "model": "Acme Snap"}, {"camera": "Acme Snap"}),
        ({"make": "", "model": ""}, {"camera": None}),
        ({"make": "A\u202eB\x07C", "model": "x\ny"}, {"camera": "A?B C x y"}),
        ({"make": "m" * 900, "model": "M" * 900}, {"camera": "M" * 64}),
        ({"north": "S", "east": "E"}, {"latitude": -48.8582222, "longitude": 2.2945}),
        ({"north": ""}, {"latitude": None, "longitude": None}),
        ({"east": "X"}, {"latitude": None, "longitude": None}),
        ({"latitude": (91.0, 0.0, 0.0)}, {"latitude": None, "longitude": None}),
        ({"longitude": (1.0, 2.0)}, {"latitude": None, "longitude": None}),
        ({"longitude": (0.0, 0.0, 0.0), "latitude": (0.0, 0.0, 0.0)}, {"latitude": 0.0, "longitude": 0.0}),
    ],
)
def test_nonsense_costs_its_own_column(changed: dict[str, Any], expected: dict[str, Any]) -> None:
    values = {name: getattr(FULL, name) for name in ("taken_at", "camera", "latitude", "longitude")}
    found = read_exif(encoded("JPEG", block(**changed)))
    assert found == Exif(**{**values, **expected})


def directory(entries: list[tuple[int, int, int, int]], start: int = 8) -> bytes:
    """Returns a block of one directory: (tag, type, count, value or offset) each."""
    head = b"II*\0" + struct.pack("<I", start) + bytes(start - 8)
    return head + struct.pack("<H", len(entries)) + b"".join(struct.pack("<2H2I", *e) for e in entries) + bytes(4)


@pytest.mark.parametrize(
    "hostile",
    [
        directory([(0x8769, 4, 1, 8), (0x8825, 4, 1, 8)]),  # directories that are their own parents
        directory([(0x8769, 4, 1, 2**32 - 1), (0x010F, 2, 2**32 - 1, 9)]),  # past the end
        directory([(0x8769, 2, 4, 8), (0x8825, 5, 1, 0), (0x010F, 5, 9, 9)]),  # of other types
        directory([(0x010F, 2, 2**31, 0)] * 4_000),
        directory([(0x8825, 4, 1, 8), (1, 2, 2, 78), (2, 5, 2**31, 8), (3, 2, 2, 69), (4, 5, 3, 8)]),
        b"II*\0", b"MM\0*", b"II", b"", b"II*\0\xff\xff\xff\xff",
    ],
)  # fmt: skip
def test_hostile_blocks_say_nothing(hostile: bytes) -> None:
    found = read_exif(with_segment(jpeg(plain(8, 8)), b"Exif\0\0" + hostile[:65_000]))
    assert found.latitude is None and found.taken_at is None


def test_a_fraction_by_zero_is_none() -> None:
    exif = block().tobytes().replace(struct.pack(">2I", 51, 1), struct.pack(">2I", 51, 0))
    exif = exif.replace(struct.pack("<2I", 51, 1), struct.pack("<2I", 51, 0))
    found = read_exif(encoded("JPEG", exif))
    assert (found.latitude, found.longitude, found.camera) == (None, None, FULL.camera)


FORMS = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")


@pytest.fixture(scope="module")
def files() -> list[bytes]:
    return [encoded(form, block()) for form in FORMS]


@given(st.integers(0, len(FORMS) - 1), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8), st.data())
def test_damage_never_raises(files: list[bytes], form: int, hits: list[tuple[float, int]], data: st.DataObject) -> None:
    damaged = bytearray(files[form])
    for where, value in hits:
        damaged[min(len(damaged) - 1, int(where * min(len(damaged), 700)))] = value
    cut = data.draw(st.integers(1, len(damaged)))
    found = read_exif(bytes(damaged[:cut] if data.draw(st.booleans()) else damaged))
    assert found.latitude is None or (abs(found.latitude) <= 90 and abs(found.longitude or 0) <= 180)


@given(st.binary(max_size=400))
def test_any_block_never_raises(content: bytes) -> None:
    for start in (b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b"II+\0\x08\0\0\0"):
        read_exif(with_segment(jpeg(plain(8, 8)), b"Exif\0\0" + start + content))
        read_exif(start + content)


def test_nasty_files_say_nothing_and_never_raise() -> None:
    for name, (data, _) in nasty_files().items():
        assert read_exif(data).taken_at is None, name


def test_a_long_file_costs_no_time() -> None:
    import time

    data = jpeg(np.zeros((8, 8, 3), np.uint8))[:2] + b"\xff\xe2\0\x02" * 3_000_000
    start = time.process_time()
    assert read_exif(data) == NO_EXIF
    assert time.process_time() - start < 1
