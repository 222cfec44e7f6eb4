"""Decoding: exact pixels of plain pictures in every format, every reason for a rejection, and no other exception."""

from __future__ import annotations

import random
import struct

import cv2
import numpy as np
import pictures
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import BLUE, GREEN, RED, WHITE

from transforms.formats.decode import Decoded, decode, reduction_for
from transforms.formats.records import Limits, Reason, RejectedContent

LIMITS = Limits()
NASTY = pictures.nasty_files()
GRADIENT = pictures.gradient(40, 30)
QUARTERS = pictures.quarters()


def _decode(data: bytes, channels: int = 3, **settings: object) -> Decoded:
    return decode(data, channels=channels, limits=LIMITS, **settings)  # type: ignore[arg-type]


def _pixel(data: bytes, channels: int = 3) -> list[int]:
    """Returns the colour of a picture that has only one."""
    image = _decode(data, channels).image
    pixels = np.unique(image.reshape(-1, channels), axis=0)
    assert len(pixels) == 1
    return [int(value) for value in pixels[0]]


def _rejected(data: bytes, **settings: object) -> RejectedContent:
    with pytest.raises(RejectedContent) as caught:
        decode(data, channels=3, **{"limits": LIMITS, **settings})  # type: ignore[arg-type]
    return caught.value


# --- the set of nasty files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, (_, reason) in NASTY.items() if reason is None])
def test_good_files_are_decoded_in_both_ways(name: str) -> None:
    data, _ = NASTY[name]
    colour, grey = _decode(data), _decode(data, 1)
    assert colour.image.shape == (colour.height, colour.width, 3)
    assert grey.image.shape == (grey.height, grey.width) == (colour.height, colour.width)
    assert colour.image.dtype == grey.image.dtype == np.uint8
    assert colour.reduction == grey.reduction == 1
    for image in (colour.image, grey.image):
        assert image.flags.c_contiguous and image.flags.writeable


@pytest.mark.parametrize("name", [name for name, (_, reason) in NASTY.items() if reason is not None])
def test_bad_files_are_rejected_for_their_reason(name: str) -> None:
    data, reason = NASTY[name]
    assert _rejected(data).reason is reason


def test_every_reason_of_decoding_occurs() -> None:
    occurring = {reason for _, reason in NASTY.values() if reason} | {Reason.TOO_SMALL}
    of_decoding = {reason for reason in Reason if reason.stage == "decode"} - {Reason.INTERNAL_ERROR}  # of any image
    assert occurring == of_decoding


# --- colours ----------------------------------------------------------------------------------------------------------


LOSSLESS = (pictures.png, pictures.webp, pictures.bmp, pictures.old_bmp, pictures.tiff, pictures.pnm)


@pytest.mark.parametrize("encode", LOSSLESS)
def test_lossless_formats_give_the_same_pixels(encode: object) -> None:
    assert np.array_equal(_decode(encode(QUARTERS)).image, QUARTERS)  # type: ignore[operator]


@pytest.mark.parametrize("encode", [pictures.png, pictures.bmp, pictures.tiff, pictures.pnm])
def test_grey_stays_what_it_is(encode: object) -> None:
    data = encode(GRADIENT)  # type: ignore[operator]
    assert np.array_equal(_decode(data, 1).image, GRADIENT)
    assert np.array_equal(_decode(data, 3).image, np.dstack([GRADIENT] * 3))


def test_jpeg_is_near() -> None:
    for data in (pictures.jpeg(pictures.plain(24, 16, (200, 100, 50))),):
        assert np.abs(np.array(_pixel(data)) - (200, 100, 50)).max() <= 2
        assert abs(_pixel(data, 1)[0] - 124) <= 2  # 0.299 R + 0.587 G + 0.114 B
    assert np.abs(_decode(pictures.jpeg(GRADIENT), 1).image.astype(int) - GRADIENT).max() <= 4


def test_grey_from_colour() -> None:
    data = pictures.png(pictures.plain(4, 4, (200, 100, 50)))
    assert _pixel(data, 1) == [124]


@pytest.mark.parametrize(
    "data, pixel",
    [
        (pictures.png(pictures.plain(4, 4, (0, 0, 0, 0))), [255, 255, 255]),
        (pictures.png(pictures.plain(4, 4, (9, 8, 7, 255))), [9, 8, 7]),
        (pictures.png(pictures.plain(4, 4, (100, 0, 255, 51))), [224, 204, 255]),
        (pictures.png(pictures.plain(4, 4, (100, 51))), [224, 224, 224]),
        (pictures.png(np.full((4, 4, 4), (65535, 0, 257, 13107), np.uint16)), [255, 204, 204]),
        (pictures.webp(pictures.plain(4, 4, (100, 0, 255, 51))), [224, 204, 255]),
        (pictures.tiff(pictures.plain(4, 4, (100, 0, 255, 51)), extra=2), [224, 204, 255]),
        (pictures.tiff(pictures.plain(4, 4, (20, 0, 51, 51)), extra=1), [224, 204, 255]),
        (pictures.tiff(np.full((4, 4, 4), (25700, 0, 65535, 13107), np.uint16), extra=2), [224, 204, 255]),
        (pictures.tiff(np.full((4, 4, 4), (5140, 0, 13107, 13107), np.uint16), extra=1), [224, 204, 255]),
        (pictures.bmp(pictures.plain(4, 4, (100, 0, 255, 51))), [224, 204, 255]),
        (pictures.bmp(pictures.plain(4, 4, (9, 8, 7, 0))), [9, 8, 7]),  # written by tools that know no alpha
        (pictures.png(pictures.plain(4, 4, 1), palette=[RED, BLUE]), [0, 0, 255]),
        (pictures.png(pictures.plain(4, 4, 1), palette=[RED, BLUE], clear=b"\xff\x33"), [204, 204, 255]),
        (pictures.png(pictures.plain(4, 4, (9, 8, 7)), clear=struct.pack(">3H", 9, 8, 7)), [255, 255, 255]),
        (pictures.png(pictures.plain(4, 4, 9), clear=struct.pack(">H", 9)), [255, 255, 255]),
        (pictures.png(pictures.plain(4, 4, 9), clear=struct.pack(">H", 8)), [9, 9, 9]),
        (pictures.png(pictures.plain(8, 8, 2), depth=2, clear=struct.pack(">H", 2)), [255, 255, 255]),
        (pictures.png(np.full((4, 4), 999, np.uint16), clear=struct.pack(">H", 999)), [255, 255, 255]),
        (pictures.png(pictures.plain(8, 8, 2), depth=2), [170, 170, 170]),
        (pictures.png(pictures.plain(8, 8, 1), depth=1), [255, 255, 255]),
        (pictures.gif([pictures.plain(6, 8, 1)], [RED, GREEN, BLUE]), [0, 255, 0]),
        (pictures.gif([pictures.plain(6, 8, 1)], [RED, GREEN, BLUE], clear=1), [255, 255, 255]),
        (pictures.tiff(pictures.plain(4, 4, 55), photometric=0), [200, 200, 200]),
        (pictures.tiff(np.full((4, 4), 55 * 257, np.uint16), photometric=0), [200, 200, 200]),
        (pictures.tiff(np.full((4, 4), 200 * 257, np.uint16), order=">"), [200, 200, 200]),
        (pictures.pnm(pictures.plain(4, 4, 7), largest=15), [119, 119, 119]),
        (pictures.pnm(np.full((4, 4, 3), (65535, 257, 0), np.uint16), largest=65535), [255, 1, 0]),
    ],
)
def test_plain_colours(data: bytes, pixel: list[int]) -> None:
    assert _pixel(data) == pixel


def test_sixteen_bits_are_rounded() -> None:
    every = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    assert np.array_equal(_decode(pictures.png(every), 1).image, np.round(every / 257).astype(np.uint8))
    assert np.array_equal(_decode(pictures.pnm(every, largest=65535), 1).image, np.round(every / 257).astype(np.uint8))


def test_alpha_is_laid_on_white_in_every_band() -> None:
    image = _decode(pictures.png(pictures.plain(1200, 1000, (0, 0, 0, 102)))).image
    assert (image.min(), image.max()) == (153, 153)


@pytest.mark.parametrize("adobe", [True, False])
@pytest.mark.parametrize("ink", [(255, 0, 0, 0), (0, 255, 0, 0), (0, 0, 0, 255), (0, 0, 0, 0), (100, 50, 0, 30)])
def test_cmyk_jpeg(ink: tuple[int, int, int, int], adobe: bool) -> None:
    expected = [(255 - colour) * (255 - ink[3]) / 255 for colour in ink[:3]]
    assert np.abs(np.array(_pixel(pictures.cmyk_jpeg(ink, adobe=adobe))) - expected).max() <= 3
    assert len(_pixel(pictures.cmyk_jpeg(ink, adobe=adobe), 1)) == 1


@pytest.mark.parametrize("kind", [np.float32, np.int32, np.int16, np.int8])
def test_numbers_without_a_white_are_undecodable(kind: type) -> None:
    assert _rejected(pictures.tiff(np.ones((4, 4), kind))).reason is Reason.UNDECODABLE


def test_the_first_frame_of_many() -> None:
    frames = [pictures.plain(20, 10, i % 3) for i in range(100)]
    assert _pixel(pictures.gif(frames[1:], [RED, GREEN, BLUE])) == [0, 255, 0]


# --- orientation ------------------------------------------------------------------------------------------------------


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turns as the EXIF standard words it: on which sides of the picture the first row and the first column lie."""
    sides = {
        1: "top left", 2: "top right", 3: "bottom right", 4: "bottom left",
        5: "left top", 6: "right top", 7: "right bottom", 8: "left bottom",
    }[orientation]  # fmt: skip
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    if "bottom" in sides:
        image = image[::-1]
    return image[:, ::-1] if "right" in sides else image


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("encode", [pictures.jpeg, pictures.png, pictures.webp, pictures.tiff])
@pytest.mark.parametrize("channels", [1, 3])
def test_orientation_is_applied_once(encode: object, orientation: int, channels: int) -> None:
    decoded = _decode(encode(QUARTERS, orientation=orientation), channels)  # type: ignore[operator]
    expected = _upright(QUARTERS if channels == 3 else cv2.cvtColor(QUARTERS, cv2.COLOR_RGB2GRAY), orientation)
    assert decoded.image.shape == expected.shape
    assert (decoded.height, decoded.width) == expected.shape[:2]
    assert np.abs(decoded.image.astype(int) - expected).mean() < 4  # a JPEG blurs the edges


def test_a_camera_held_upright() -> None:
    image = _decode(pictures.png(QUARTERS, orientation=6)).image  # the sensor's left is the top right
    assert [image[0, 0].tolist(), image[0, -1].tolist()] == [list(BLUE), list(RED)]
    assert [image[-1, 0].tolist(), image[-1, -1].tolist()] == [list(WHITE), list(GREEN)]


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_nonsense_is_no_orientation(orientation: int) -> None:
    assert np.array_equal(_decode(pictures.png(QUARTERS, orientation=orientation)).image, QUARTERS)


@pytest.mark.parametrize("block", [b"", b"II", b"II*\0\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff", b"junk" * 9])
def test_a_damaged_exif_block_is_no_orientation(block: bytes) -> None:
    data = pictures.with_segment(pictures.jpeg(QUARTERS), b"Exif\0\0" + block)
    assert _decode(data).image.shape == (48, 32, 3)


# --- reductions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size, at_least, reduction",
    [
        ((480, 640), (96, 96), 4),
        ((480, 640), (60, 80), 8),
        ((480, 640), (61, 80), 4),
        ((480, 640), (241, 10), 1),
        ((481, 641), (241, 321), 2),
        ((9, 9), (2, 2), 8),
        ((100, 100), (200, 200), 1),
    ],
)
def test_the_strongest_reduction_that_is_enough(
    size: tuple[int, int], at_least: tuple[int, int], reduction: int
) -> None:
    assert reduction_for(*size, at_least) == reduction


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_reduced_jpeg_tells_its_full_size(channels: int, orientation: int) -> None:
    data = pictures.jpeg(pictures.gradient(203, 101), orientation=orientation)
    decoded = _decode(data, channels, at_least=(20, 20))
    height, width = (203, 101) if orientation == 1 else (101, 203)
    assert (decoded.height, decoded.width, decoded.reduction) == (height, width, 4)
    assert decoded.image.shape[:2] == (-(-height // 4), -(-width // 4))
    smaller = cv2.resize(_decode(data, 1).image, decoded.image.shape[1::-1], interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(decoded.image.reshape(*smaller.shape, -1)[..., 0] - smaller).mean() < 3


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 100), st.integers(1, 100))
def test_both_sides_stay_long_enough(height: int, width: int, least_height: int, least_width: int) -> None:
    reduction = reduction_for(height, width, (least_height, least_width))
    assert reduction == 1 or (-(-height // reduction) >= least_height and -(-width // reduction) >= least_width)
    twice = reduction * 2
    assert twice > 8 or -(-height // twice) < least_height or -(-width // twice) < least_width


def test_only_jpeg_is_reduced() -> None:
    assert _decode(pictures.png(GRADIENT), at_least=(5, 5)).reduction == 1


# --- rejections -------------------------------------------------------------------------------------------------------


def test_too_small_and_too_many_pixels_tell_the_size() -> None:
    data = pictures.jpeg(pictures.plain(20, 30), orientation=6)
    small = _rejected(data, min_side=21)
    assert (small.reason, small.width, small.height) == (Reason.TOO_SMALL, 20, 30)
    many = _rejected(data, limits=Limits(max_pixels=599))
    assert (many.reason, many.width, many.height) == (Reason.TOO_MANY_PIXELS, 20, 30)
    assert _decode(data, min_side=20).width == 20


def test_the_order_of_checks() -> None:
    cut = pictures.jpeg(pictures.plain(20, 30))[:-9]
    assert _rejected(cut, limits=Limits(max_pixels=1), min_side=99).reason is Reason.TOO_MANY_PIXELS
    assert _rejected(cut, min_side=99).reason is Reason.TOO_SMALL
    assert _rejected(cut).reason is Reason.TRUNCATED


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_cut_anywhere_is_truncated(progressive: bool) -> None:
    data = pictures.jpeg(pictures.gradient(60, 60), progressive=progressive)
    for end in range(3, len(data)):
        assert _rejected(data[:end]).reason is Reason.TRUNCATED
    assert _decode(data).width == 60


def test_the_end_of_a_thumbnail_is_not_the_end_of_the_image() -> None:
    thumbnail = pictures.jpeg(pictures.plain(16, 16, GREEN))
    data = pictures.with_segment(pictures.jpeg(QUARTERS), b"Exif\0\0" + pictures.exif(1) + thumbnail)
    end = data.index(thumbnail) + len(thumbnail)
    assert data[end - 2 : end] == b"\xff\xd9"
    assert _rejected(data[:end]).reason is Reason.TRUNCATED
    assert _rejected(data[:-2]).reason is Reason.TRUNCATED
    assert (_decode(data).height, _decode(data).width) == (48, 32)


def test_the_end_inside_a_segment_between_scans_does_not_count() -> None:
    data = pictures.jpeg(pictures.gradient(60, 60), progressive=True)
    second = data.index(b"\xff\xda", data.index(b"\xff\xda") + 2)
    at = data.rindex(b"\xff\xc4", 0, second)  # a table of the second scan
    comment = b"\xff\xfe\0\x06\xff\xd9ab"
    assert _rejected(data[:at] + comment + data[at:-2]).reason is Reason.TRUNCATED
    assert _decode(data[:at] + comment + data[at:]).width == 60


@pytest.mark.parametrize("tail", [b"\0" * 100, b"\xff", b"notes", pictures.jpeg(QUARTERS)])
def test_bytes_behind_the_end_are_legal(tail: bytes) -> None:
    for encode in (pictures.jpeg, pictures.png, pictures.webp, pictures.bmp, pictures.tiff):
        assert _decode(encode(QUARTERS) + tail).width == 32
    assert _decode(NASTY["moving.gif"][0] + tail).width == 6


@pytest.mark.parametrize("name", ["rgb.png", "lossless.webp", "moving.gif", "rgb.bmp", "rgb.tif", "grey.pgm"])
def test_cut_files_are_never_decoded(name: str) -> None:
    data = NASTY[name][0]
    for end in range(30, len(data), 7):
        assert _rejected(data[:end]).reason in (Reason.TRUNCATED, Reason.NOT_AN_IMAGE)


def test_claims_cost_no_memory() -> None:
    width = struct.pack("<2HI", 256, 4, 1)
    huge = [
        pictures.huge_png(2**31 - 1, 2**31 - 1),
        pictures.tiff(GRADIENT).replace(width + struct.pack("<I", 30), width + b"\xff" * 4),
        pictures.bmp(GRADIENT).replace(struct.pack("<2i", 30, 40), struct.pack("<2i", 2**31 - 1, -(2**31)), 1),
        b"P5 999999999 999999999 255 ",
    ]
    for data in huge:
        assert _rejected(data).reason is Reason.TOO_MANY_PIXELS


def test_a_lack_of_memory_is_no_fault_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def imdecode(*_: object) -> None:
        error = cv2.error("out of memory")
        error.code = cv2.Error.StsNoMem
        raise error

    monkeypatch.setattr(cv2, "imdecode", imdecode)
    with pytest.raises(MemoryError, match="no memory to decode"):
        _decode(pictures.png(QUARTERS))


def test_pixels_that_contradict_the_header_are_undecodable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pictures.plain(5, 5))
    assert _rejected(pictures.png(QUARTERS)).reason is Reason.UNDECODABLE


# --- any bytes --------------------------------------------------------------------------------------------------------

SAMPLES = [data for data, _ in NASTY.values() if data]


def _try(data: bytes) -> None:
    try:
        image = decode(data, channels=3, limits=Limits(max_pixels=1_000_000), at_least=(8, 8)).image
    except RejectedContent:
        return
    assert image.dtype == np.uint8 and image.ndim == 3


@given(st.integers(0, len(SAMPLES) - 1), st.data())
def test_changed_and_cut_files_never_raise_anything_else(number: int, data: st.DataObject) -> None:
    raw = bytearray(SAMPLES[number])
    for _ in range(data.draw(st.integers(0, 5))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    _try(bytes(raw[: data.draw(st.integers(0, len(raw)))]))


@pytest.mark.parametrize("seed", range(4))
def test_damaged_headers_never_raise_anything_else(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(300):
        raw = bytearray(draw.choice(SAMPLES))
        for _ in range(draw.choice((1, 1, 3, 9))):
            raw[draw.randrange(min(len(raw), 80))] = draw.choice((0, 1, 127, 255, draw.randrange(256)))
        _try(bytes(raw))


MAGIC = [
    b"",
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"RIFFabcdWEBP",
    b"GIF89a",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"P5 ",
]


@given(st.binary(max_size=80), st.sampled_from(MAGIC))
def test_no_bytes_raise_anything_else(tail: bytes, magic: bytes) -> None:
    _try(magic + tail)


# --- a real picture ---------------------------------------------------------------------------------------------------


def test_a_portrait_survives() -> None:
    portrait = pictures.portrait()
    decoded = _decode(pictures.jpeg(portrait))
    assert np.abs(decoded.image.astype(int) - portrait).mean() < 4
