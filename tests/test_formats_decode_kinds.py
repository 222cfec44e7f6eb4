"""Pixels as people see them: every kind of BMP, TIFF, PNM, PNG, GIF, HEIC and AVIF that other programs write."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pictures
import pytest
from pictures import BLUE, GREEN, RED, WHITE
from PIL import Image

from transforms.formats.decode import decode
from transforms.formats.records import Limits, Reason, RejectedContent

QUARTERS = pictures.quarters()
GRADIENT = pictures.gradient(40, 30)


def _image(data: bytes, channels: int = 3) -> np.ndarray:
    return decode(data, channels=channels, limits=Limits()).image


def _reason(data: bytes) -> Reason:
    with pytest.raises(RejectedContent) as caught:
        _image(data)
    return caught.value.reason


def _saved(image: np.ndarray | Image.Image, form: str, **settings: object) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, form, **settings)  # type: ignore[arg-type]
    return file.getvalue()


def _near(image: np.ndarray, other: np.ndarray, most: float) -> bool:
    return image.shape == other.shape and bool(np.abs(image.astype(int) - other).mean() <= most)


# --- BMP --------------------------------------------------------------------------------------------------------------


def _bmp(rows: bytes, bits: int, *, width: int = 2, packing: int = 0, header: int = 40, tail: bytes = b"") -> bytes:
    """Returns a BMP of one row; `tail` lies after the first forty bytes of the header."""
    info = struct.pack("<I2i2H6I", header, width, 1, 1, bits, packing, len(rows), 0, 0, 0, 0) + tail
    return b"BM" + struct.pack("<3I", 0, 0, 14 + len(info)) + info + rows


MASKS = struct.pack("<3I", 0xFF0000, 0xFF00, 0xFF)
SIX, TEN = struct.pack("<3I", 0xF800, 0x7E0, 0x1F), struct.pack("<3I", 1023 << 20, 1023 << 10, 1023)


@pytest.mark.parametrize(
    "data, row",
    [
        (_bmp(b"\3\2\1\0\6\5\4\0", 32), [(1, 2, 3), (4, 5, 6)]),
        (_bmp(b"\3\2\1\x80\6\5\4\0", 32), [(1, 2, 3), (4, 5, 6)]),  # the fourth byte is nobody's
        (_bmp(b"\3\2\1\x80\6\5\4\0", 32, packing=3, header=52, tail=MASKS), [(1, 2, 3), (4, 5, 6)]),
        (_bmp(b"\3\2\1\x80\6\5\4\0", 32, packing=3, tail=MASKS), [(1, 2, 3), (4, 5, 6)]),
        (
            _bmp(b"\3\2\1\xff\6\5\4\0", 32, packing=3, header=56, tail=MASKS + b"\0\0\0\xff"),
            [(1, 2, 3), (255, 255, 255)],
        ),
        (_bmp(b"\3\2\1\0\6\5\4\0", 32, packing=6, tail=MASKS + b"\0\0\0\xff"), [(1, 2, 3), (4, 5, 6)]),
        (_bmp(struct.pack("<2H", 0x7C00, 0x1F), 16), [RED, BLUE]),
        (_bmp(struct.pack("<2H", 0xF800, 0x7E0), 16, packing=3, tail=SIX), [RED, GREEN]),
        (_bmp(struct.pack("<2I", 0x3FF00000, 1023), 32, packing=3, tail=TEN), [RED, BLUE]),
        (_bmp(b"\xff\0\0\0\xff\0\0\0", 24), [BLUE, GREEN]),
        (_bmp(b"\xff\0\0\0\xff\0", 24), [BLUE, GREEN]),  # without the padding of the last row
    ],
)  # fmt: skip
def test_bmp_without_a_palette(data: bytes, row: list[tuple[int, int, int]]) -> None:
    assert _image(data)[0].tolist() == [list(pixel) for pixel in row]


@pytest.mark.parametrize("bits, packed", [(1, b"\x40"), (2, b"\x10"), (4, b"\x01"), (8, b"\0\1")])
def test_bmp_with_a_palette(bits: int, packed: bytes) -> None:
    palette = bytes([*BLUE[::-1], 0, *RED[::-1], 0] + [0] * 4 * (2**bits - 2))
    data = _bmp(packed.ljust(4, b"\0"), bits, tail=palette)
    assert _image(data)[0].tolist() == [list(BLUE), list(RED)]


@pytest.mark.parametrize("packing, runs", [(1, b"\1\0\1\1\0\1"), (2, b"\2\x01\0\1"), (1, b"\0\3\0\1\0\0\0\1")])
def test_run_length_encoded_bmp(packing: int, runs: bytes) -> None:
    palette = bytes([*BLUE[::-1], 0, *RED[::-1], 0])
    bits = {1: 8, 2: 4}[packing]
    data = _bmp(runs, bits, packing=packing, tail=palette.ljust(4 * 2**bits, b"\0"))
    assert _image(data)[0].tolist() == [list(BLUE), list(RED)]


def test_bmp_from_top_to_bottom() -> None:
    data = pictures.bmp(QUARTERS)
    upside_down = data.replace(struct.pack("<2i", 32, 48), struct.pack("<2i", 32, -48), 1)
    assert np.array_equal(_image(upside_down), QUARTERS[::-1])


@pytest.mark.parametrize("packing", [4, 5, 7])
def test_a_bmp_that_holds_another_file_is_undecodable(packing: int) -> None:
    assert _reason(_bmp(bytes(8), 24, packing=packing)) is Reason.UNDECODABLE


# --- TIFF -------------------------------------------------------------------------------------------------------------


def _tiff(content: bytes, tags: dict[int, list[int]]) -> bytes:
    """Returns a TIFF of one piece with these tags, numbers of 16 bits where they fit, else of 32."""
    content += bytes(len(content) % 2)
    entries, spill = b"", b""
    at = 8 + len(content) + 2 + 12 * len(tags) + 4
    for tag, values in sorted(tags.items()):
        kind = "H" if max(values) < 2**16 else "I"
        packed = struct.pack(f"<{len(values)}{kind}", *values)
        if len(packed) > 4:
            packed, spill = struct.pack("<I", at + len(spill)), spill + packed
        entries += struct.pack("<2HI", tag, 3 if kind == "H" else 4, len(values)) + packed.ljust(4, b"\0")
    head = b"II*\0" + struct.pack("<I", 8 + len(content))
    return head + content + struct.pack("<H", len(tags)) + entries + bytes(4) + spill


def _strip(rows: bytes, width: int, height: int, bits: list[int], photometric: int, **more: list[int]) -> bytes:
    tags = {256: [width], 257: [height], 258: bits, 259: [1], 262: [photometric], 273: [8], 277: [len(bits)]}
    tags |= {278: [height], 279: [len(rows)]} | {int(tag[1:]): values for tag, values in more.items()}
    return _tiff(rows, tags)


def _sixteen(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}H", *(257 * value for value in values))


@pytest.mark.parametrize(
    "data, row",
    [
        (_strip(b"\x1b", 4, 1, [2], 1), [0, 85, 170, 255]),
        (_strip(b"\x1b", 4, 1, [2], 0), [255, 170, 85, 0]),
        (_strip(b"\x05\xaf", 4, 1, [4], 1), [0, 85, 170, 255]),
        (_strip(b"\x50", 4, 1, [1], 1), [0, 255, 0, 255]),
        (_strip(b"\x50", 4, 1, [1], 0), [255, 0, 255, 0]),
        (_strip(b"\x0a", 4, 1, [1], 0, t266=[2]), [255, 0, 255, 0]),  # the lowest bit first
        (_strip(b"\x07\xff\x64\x80", 2, 1, [8, 8], 1, t338=[2]), [7, 177]),  # on white
        (_strip(b"\x07\xff\x32\x80", 2, 1, [8, 8], 1, t338=[1]), [7, 177]),
        (_strip(b"\x07\xff\x64\x80", 2, 1, [8, 8], 1, t338=[0]), [7, 100]),
        (_strip(_sixteen(7, 255, 100, 0), 2, 1, [16, 16], 1, t338=[2]), [7, 255]),
    ],
)
def test_grey_tiff(data: bytes, row: list[int]) -> None:
    assert _image(data, 1)[0].tolist() == row
    assert _image(data)[0].tolist() == [[value] * 3 for value in row]


@pytest.mark.parametrize("bits, packed", [(2, b"\x1b"), (4, b"\x01\x23"), (8, b"\0\1\2\3")])
def test_palette_tiff(bits: int, packed: bytes) -> None:
    red, green, blue = [0, 65535, 0, 65535], [65535, 0, 0, 65535], [0, 0, 65535, 65535]
    table = [value for part in (red, green, blue) for value in [*part, *[0] * (2**bits - 4)]]
    expected = [list(GREEN), list(RED), list(BLUE), list(WHITE)]
    assert _image(_strip(packed, 4, 1, [bits], 3, t320=table))[0].tolist() == expected
    eight = [value // 257 for value in table]  # as some writers do
    assert _image(_strip(packed, 4, 1, [bits], 3, t320=eight))[0].tolist() == expected


def test_one_bit_palette_tiff() -> None:
    table = [0, 65535, 65535, 0, 0, 0]
    assert _image(_strip(b"\x40", 2, 1, [1], 3, t320=table))[0].tolist() == [list(GREEN), list(RED)]


@pytest.mark.parametrize("deep", [False, True])
def test_cmyk_tiff(deep: bool) -> None:
    inks = [255, 0, 0, 0, 0, 0, 0, 255, 100, 50, 0, 30]
    data = _strip(_sixteen(*inks) if deep else bytes(inks), 3, 1, [16 if deep else 8] * 4, 5)
    expected = [[0, 255, 255], [0, 0, 0], [137, 181, 225]]
    assert np.abs(_image(data)[0].astype(int) - expected).max() <= 1


def test_four_samples_without_a_note_are_colours_and_alpha() -> None:
    assert _image(_strip(bytes([9, 8, 7, 255, 9, 8, 7, 0]), 2, 1, [8] * 4, 2))[0].tolist() == [[9, 8, 7], [255] * 3]


@pytest.mark.parametrize("compression", [1, 8, 32946])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("order", ["<", ">"])
def test_planes_are_put_together(bits: int, order: str, compression: int) -> None:
    tifffile = pytest.importorskip("tifffile", reason="comes with the sample extra")
    planes = np.ascontiguousarray(QUARTERS.transpose(2, 0, 1)).astype(np.uint16 if bits == 16 else np.uint8)
    file = io.BytesIO()
    tifffile.imwrite(
        file, planes * np.uint16(257) if bits == 16 else planes, photometric="rgb", planarconfig="separate",
        compression={1: None, 8: 8, 32946: 32946}[compression], predictor=compression == 8, byteorder=order,
        rowsperstrip=10,
    )  # fmt: skip
    assert np.array_equal(_image(file.getvalue()), QUARTERS)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_tiles_are_put_together(planar: str) -> None:
    tifffile = pytest.importorskip("tifffile", reason="comes with the sample extra")
    file, image = io.BytesIO(), QUARTERS.transpose(2, 0, 1) if planar == "separate" else QUARTERS
    settings = {"photometric": "rgb", "planarconfig": planar, "tile": (16, 32), "compression": 8}
    tifffile.imwrite(file, np.ascontiguousarray(image), **settings)
    assert np.array_equal(_image(file.getvalue()), QUARTERS)


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate", "lzma", "zstd", "raw"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "1", "P", "CMYK", "I;16"])
def test_tiff_as_pillow_packs_it(compression: str, mode: str) -> None:
    image = Image.fromarray(QUARTERS)
    if mode == "I;16":
        image = Image.fromarray(GRADIENT.astype(np.uint16) * 257)
    else:
        image = image.convert("RGBA").convert("LA") if mode == "LA" else image.convert(mode)
    expected = np.dstack([GRADIENT] * 3) if mode == "I;16" else np.asarray(image.convert("RGB"))
    assert _near(_image(_saved(image, "TIFF", compression=compression, tiffinfo={278: 7})), expected, 0.3)


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
@pytest.mark.parametrize("rows", [7, 48])
def test_fax_codes(compression: str, rows: int) -> None:
    image = Image.fromarray(QUARTERS).convert("1")
    data = _saved(image, "TIFF", compression=compression, tiffinfo={278: rows})
    assert np.array_equal(_image(data, 1), np.asarray(image.convert("L")))


@pytest.mark.parametrize("mode", ["RGB", "L", "YCbCr"])
def test_jpeg_in_tiff(mode: str) -> None:
    image = Image.fromarray(QUARTERS).convert(mode)
    data = _saved(image, "TIFF", compression="jpeg", quality=95)
    assert _near(_image(data), np.asarray(image.convert("RGB")), 4)


@pytest.mark.parametrize(
    "tags",
    [
        {259: [6]}, {259: [34712]}, {262: [8]}, {262: [32803]}, {258: [12]}, {258: [32]}, {258: [8, 16]}, {339: [2]},
        {339: [3]}, {317: [3], 259: [8]}, {277: [17]}, {278: [0], 322: [0], 324: [8]},
    ],
)  # fmt: skip
def test_tiff_of_unknown_meaning_is_undecodable(tags: dict[int, list[int]]) -> None:
    rows = zlib.compress(bytes(64)) if 317 in tags else bytes(64)
    known = {256: [8], 257: [8], 258: [8], 259: [1], 262: [1], 273: [8], 277: [1], 278: [8], 279: [len(rows)]}
    if 258 in tags and len(tags[258]) > 1:
        known[277] = [2]
    assert _image(_tiff(bytes(256), {**known, 279: [256]})).shape == (8, 8, 3)
    assert _reason(_tiff(rows.ljust(256, b"\0"), {**known, **tags})) is Reason.UNDECODABLE


def test_a_strip_that_unpacks_to_too_little_is_undecodable() -> None:
    packed = zlib.compress(bytes(63))
    assert _reason(_strip(packed, 8, 8, [8], 1, t259=[8])) is Reason.UNDECODABLE
    assert _reason(_strip(bytes(63), 8, 8, [8], 1)) is Reason.UNDECODABLE


# --- PBM, PGM, PPM ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data, row",
    [
        (b"P1\n# a comment\n4 1\n0 1 0 1\n", [255, 0, 255, 0]),
        (b"P1 4 1\n0101", [255, 0, 255, 0]),
        (b"P4 4 1\n\x50", [255, 0, 255, 0]),
        (b"P2 4 1 255\n0 7 200 255", [0, 7, 200, 255]),
        (b"P2 4 1 3\n0 1 # one\n2 3", [0, 85, 170, 255]),
        (b"P2 4 1 65535\n0 257 514 65535", [0, 1, 2, 255]),
        (b"P2 4 1 15\n0 1 2 99999999999999999999", [0, 17, 34, 255]),
        (b"P3 1 1 255 1 2 3", None),
    ],
)
def test_pnm_of_every_kind(data: bytes, row: list[int] | None) -> None:
    assert _image(data)[0].tolist() == ([[1, 2, 3]] if row is None else [[value] * 3 for value in row])


@pytest.mark.parametrize(
    "data", [b"P2 4 1 255\n1 2 x 4", b"P2 4 1 255\n1 2 333333", b"P1 4 1\n0 1 2 1", b"P1 4 1\n01 # 01"]
)
def test_words_that_are_no_numbers_are_undecodable(data: bytes) -> None:
    assert _reason(data) is Reason.UNDECODABLE


# --- PNG and GIF ------------------------------------------------------------------------------------------------------


def _with(kind: bytes, content: bytes) -> bytes:
    data = pictures.png(QUARTERS)
    return data[:33] + pictures.png_chunk(kind, content) + data[33:]


XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
RAW = b"\nexif\n  %d\n" % len(pictures.exif(6)) + (b"Exif\0\0" + pictures.exif(6)).hex().encode()


@pytest.mark.parametrize(
    "kind, content",
    [
        (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0en\0word\0" + zlib.compress(XMP)),
        (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<tiff:Orientation>6</tiff:Orientation>"),
        (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(RAW)),
        (b"tEXt", b"Raw profile type exif\0" + RAW),
        (b"eXIf", pictures.exif(6)),
    ],
)
def test_orientation_in_a_png(kind: bytes, content: bytes) -> None:
    assert np.array_equal(_image(_with(kind, content)), np.rot90(QUARTERS, -1))


def test_exif_goes_before_xmp() -> None:
    data = _with(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)
    data = data[:33] + pictures.png_chunk(b"eXIf", pictures.exif(3)) + data[33:]
    assert np.array_equal(_image(data), QUARTERS[::-1, ::-1])


@pytest.mark.parametrize(
    "content", [b"", b"XML:com.adobe.xmp\0\1\0\0\0junk", b"XML:com.adobe.xmp\0", b"Other\0\0\0\0\0" + XMP]
)
def test_a_damaged_text_is_no_orientation(content: bytes) -> None:
    assert np.array_equal(_image(_with(b"iTXt", content)), QUARTERS)


def test_grey_with_alpha_is_laid_on_white() -> None:
    image = np.dstack([GRADIENT, np.full_like(GRADIENT, 51)])
    expected = np.round((GRADIENT * 51.0 + 255 * 204) / 255)
    assert _near(_image(pictures.png(image), 1), expected, 0.01)
    assert _near(_image(_saved(image, "TIFF"), 1), expected, 0.01)


def test_a_gif_whose_first_frame_lies_somewhere() -> None:
    data = bytearray(pictures.gif([pictures.plain(2, 3, 1)], [RED, GREEN]))
    data[6:10] = struct.pack("<2H", 8, 6)
    at = data.index(b"\x2c")
    data[at + 1 : at + 5] = struct.pack("<2H", 4, 3)
    expected = pictures.plain(6, 8, WHITE)
    expected[3:5, 4:7] = GREEN
    assert np.array_equal(_image(bytes(data)), expected)
    data[at + 1 : at + 5] = struct.pack("<2H", 7, 5)  # reaches over the edge
    expected = pictures.plain(6, 8, WHITE)
    expected[5:, 7:] = GREEN
    assert np.array_equal(_image(bytes(data)), expected)


@pytest.mark.parametrize("interlace", [0, 1])
def test_gif_as_pillow_packs_it(interlace: int) -> None:
    image = Image.fromarray(QUARTERS).quantize(16)
    assert np.array_equal(_image(_saved(image, "GIF", interlace=interlace)), np.asarray(image.convert("RGB")))


# --- HEIC and AVIF ----------------------------------------------------------------------------------------------------


def _heic(image: np.ndarray, **settings: object) -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(image)).save(file, quality=-1, chroma=444, **settings)
    return file.getvalue()


LARGE = pictures.quarters(96, 64)


def test_heic() -> None:
    assert _near(_image(_heic(LARGE)), LARGE, 3)


def test_avif() -> None:
    assert _near(_image(_saved(LARGE, "AVIF", quality=95, subsampling="4:4:4")), LARGE, 3)


@pytest.mark.parametrize("orientation, turns", [(3, 2), (6, -1), (8, 1)])
def test_heic_and_avif_are_turned_once(orientation: int, turns: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    expected = np.rot90(LARGE, turns)
    assert _near(_image(_saved(LARGE, "AVIF", quality=95, subsampling="4:4:4", exif=exif.tobytes())), expected, 3)
    heic = _heic(LARGE, exif=exif.tobytes())
    decoded = decode(heic, channels=3, limits=Limits())
    assert (decoded.height, decoded.width) == expected.shape[:2]
    assert _near(decoded.image, expected, 3)


@pytest.mark.parametrize("form", ["HEIC", "AVIF"])
def test_alpha_of_heic_and_avif_is_laid_on_white(form: str) -> None:
    image = np.dstack([LARGE, np.full(LARGE.shape[:2], 51, np.uint8)])
    data = _heic(image) if form == "HEIC" else _saved(image, "AVIF", quality=95, subsampling="4:4:4")
    assert _near(_image(data), np.round(LARGE * 0.2 + 204), 3)


@pytest.mark.parametrize("form", ["HEIC", "AVIF"])
def test_a_cut_heic_or_avif_is_never_decoded(form: str) -> None:
    data = _heic(LARGE) if form == "HEIC" else _saved(LARGE, "AVIF")
    for end in range(12, len(data), 11):
        assert _reason(data[:end]) in (Reason.TRUNCATED, Reason.UNDECODABLE, Reason.NOT_AN_IMAGE)


@pytest.mark.parametrize("form", ["HEIC", "AVIF"])
def test_pixels_of_heic_and_avif_are_counted_before_decoding(form: str) -> None:
    data = _heic(LARGE) if form == "HEIC" else _saved(LARGE, "AVIF")
    with pytest.raises(RejectedContent) as caught:
        decode(data, channels=3, limits=Limits(max_pixels=96 * 64 - 1))
    assert (caught.value.reason, caught.value.width, caught.value.height) == (Reason.TOO_MANY_PIXELS, 64, 96)
