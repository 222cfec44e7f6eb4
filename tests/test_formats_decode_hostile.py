"""Hostile images: numbers that fit nowhere, rows that no decoder writes, small files that mean much work."""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pictures
import pytest

from transforms.formats.decode import decode, png
from transforms.formats.decode.opencv import decoded_by_opencv
from transforms.formats.decode.quiet import quiet
from transforms.formats.records import Limits, Reason, RejectedContent

ROOT = Path(__file__).parents[1]
PICTURE = pictures.quarters(96, 64)
LAST = 2**31 - 1


def _rejected(data: bytes, **settings: object) -> RejectedContent:
    with pytest.raises(RejectedContent) as caught:
        decode(data, channels=3, **{"limits": Limits(), **settings})  # type: ignore[arg-type]
    return caught.value


def _outcome(data: bytes) -> str:
    try:
        image = decode(data, channels=3, limits=Limits()).image
    except RejectedContent as rejected:
        return str(rejected.reason)
    return f"{image.shape} {hashlib.sha256(image.tobytes()).hexdigest()}"


# --- numbers that fit nowhere -----------------------------------------------------------------------------------------


def _png(width: int, height: int) -> bytes:
    return pictures.huge_png(width, height)


def _tiff(width: int, height: int) -> bytes:
    sides = struct.pack("<2H2I2H2I", 256, 4, 1, 32, 257, 4, 1, 48)
    data = pictures.tiff(pictures.quarters())
    assert sides in data
    return data.replace(sides, struct.pack("<2H2I2H2I", 256, 4, 1, width, 257, 4, 1, height))


def _bmp(width: int, height: int) -> bytes:
    return pictures.bmp(pictures.quarters()).replace(struct.pack("<2i", 32, 48), struct.pack("<2I", width, height), 1)


@pytest.mark.parametrize("make", [_png, _tiff])
@pytest.mark.parametrize("width, height", [(2**31, 48), (32, 2**31), (2**32 - 1, 2**32 - 1), (2**31 + 32, 1)])
def test_a_side_that_no_column_holds_is_too_many_pixels_of_unknown_size(make: object, width: int, height: int) -> None:
    rejected = _rejected(make(width, height))  # type: ignore[operator]
    assert (rejected.reason, rejected.width, rejected.height) == (Reason.TOO_MANY_PIXELS, 0, 0)
    np.zeros(2, np.int32)[:] = rejected.width, rejected.height


def test_a_side_is_refused_however_many_pixels_are_let_in() -> None:
    assert _rejected(_png(2**31, 1), limits=Limits(max_pixels=2**40)).reason is Reason.TOO_MANY_PIXELS
    assert _rejected(_png(LAST, 2)).width == LAST


@pytest.mark.parametrize("width", [-32, -1, -(2**31), 0])
def test_a_bmp_that_is_no_pixel_wide_is_undecodable(width: int) -> None:
    rejected = _rejected(_bmp(width & 0xFFFFFFFF, 48))
    assert (rejected.reason, rejected.width, rejected.height) == (Reason.UNDECODABLE, 0, 0)


@pytest.mark.parametrize("height", [-(2**31), LAST])
def test_the_least_and_the_largest_height_of_a_bmp_are_too_many_pixels(height: int) -> None:
    assert _rejected(_bmp(32, height & 0xFFFFFFFF)).reason is Reason.TOO_MANY_PIXELS


SIDES_AT = {"rgb.png": range(16, 24), "rgb.bmp": range(10, 54), "rgb.tif": range(8), "moving.gif": range(6, 13)}


@pytest.mark.parametrize("name", SIDES_AT)
def test_every_flipped_bit_of_a_header_ends_as_an_image_or_a_rejection(name: str) -> None:
    data = pictures.nasty_files()[name][0]
    tail = range(len(data) - 200, len(data)) if name == "rgb.tif" else range(0)
    for at in (*SIDES_AT[name], *tail):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[at] ^= 1 << bit
            try:
                decoded = decode(bytes(flipped), channels=1, limits=Limits(max_pixels=10**6))
                sizes = decoded.width, decoded.height
            except RejectedContent as rejected:
                sizes = rejected.width, rejected.height
            assert min(sizes) >= 0 and max(sizes) <= LAST


# --- rows that no decoder writes --------------------------------------------------------------------------------------


def _apng(damage: bool) -> bytes:
    """Returns an animated PNG of two frames, the first one red at the top left; some of its bytes overwritten."""
    height, width, _ = PICTURE.shape
    still = pictures.png(PICTURE)
    at = still.index(b"IDAT") + 4
    content = bytearray(still[at : at + int.from_bytes(still[at - 8 : at - 4], "big")])
    second = bytes(content)
    if damage:
        content[len(content) // 3 : len(content) // 3 + 10] = b"\xff" * 10
    control = struct.pack(">4I2H2B", width, height, 0, 0, 1, 10, 0, 0)
    return b"".join(
        [
            still[:33],
            pictures.png_chunk(b"acTL", struct.pack(">2I", 2, 0)),
            pictures.png_chunk(b"fcTL", bytes(4) + control),
            pictures.png_chunk(b"IDAT", bytes(content)),
            pictures.png_chunk(b"fcTL", struct.pack(">I", 1) + control),
            pictures.png_chunk(b"fdAT", struct.pack(">I", 2) + second[::-1]),
            pictures.png_chunk(b"IEND", b""),
        ]
    )


def test_an_animated_png_is_its_still_image() -> None:
    assert np.array_equal(decode(_apng(damage=False), channels=3, limits=Limits()).image, PICTURE)


def test_a_damaged_animated_png_is_undecodable() -> None:
    assert _rejected(_apng(damage=True)).reason is Reason.UNDECODABLE


def test_an_animated_png_without_the_end_of_its_first_frame_is_undecodable() -> None:
    whole = _apng(damage=False)
    at = whole.index(b"IDAT") - 4
    length = int.from_bytes(whole[at : at + 4], "big")
    short = pictures.png_chunk(b"IDAT", whole[at + 8 : at + 8 + length // 2])
    assert _rejected(whole[:at] + short + whole[at + 12 + length :]).reason is Reason.UNDECODABLE


def _by_pillow(form: str, **settings: object) -> bytes:
    from io import BytesIO

    from PIL import Image

    file = BytesIO()
    image = Image.fromarray(PICTURE)
    image.convert(str(settings.pop("mode", "RGB"))).save(file, form, **settings)  # type: ignore[arg-type]
    return file.getvalue()


FAX = {f"{name}.tif": {"mode": "1", "compression": name} for name in ("group3", "group4", "tiff_ccitt")}
PACKED = ("tiff_lzw", "packbits", "zstd", "lzma", "tiff_adobe_deflate", "jpeg")


def _seeds() -> dict[str, bytes]:
    seeds = {name: data for name, (data, _) in pictures.nasty_files().items() if data}
    seeds |= {name: _by_pillow("TIFF", **settings) for name, settings in FAX.items()}
    seeds |= {f"{name}.tif": _by_pillow("TIFF", compression=name) for name in PACKED}
    seeds |= {"moving.png": _apng(damage=False), "damaged.png": _apng(damage=True)}
    seeds |= {
        "pixels.avif": _by_pillow("AVIF"),
        "palette.gif": _by_pillow("GIF"),
        "palette.bmp": _by_pillow("BMP", mode="P"),
    }
    return seeds


def _mutated(count: int) -> list[tuple[str, bytes]]:
    """Returns files of every kind, each whole and with a few bytes changed, cut out or overwritten."""
    draw, made = np.random.default_rng(0), []
    for name, seed in _seeds().items():
        made.append((name, seed))
        for _ in range(count):
            data, at = bytearray(seed), int(draw.integers(len(seed)))
            run = int(draw.choice([1, 2, 60]))
            if draw.random() < 0.3:
                del data[at : at + run]
            else:
                data[at : at + run] = bytes([int(draw.choice([0, 255, draw.integers(256)]))]) * len(data[at : at + run])
            made.append((name, bytes(data)))
    return made


def _print_outcomes() -> None:
    for name, data in _mutated(25):
        print(name, _outcome(data))


def test_no_pixel_depends_on_what_lay_in_memory_before() -> None:
    said = []
    for filling in ("85", "170"):
        ran = subprocess.run(
            [sys.executable, "-c", "import test_formats_decode_hostile as t; t._print_outcomes()"],
            env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "MALLOC_PERTURB_": filling},
            capture_output=True, text=True, timeout=300, check=True,
        )  # fmt: skip
        assert ran.stderr == "", "libraries print what names no file"
        said.append(ran.stdout.splitlines())
    assert len(said[0]) > 1000
    assert [pair for pair in zip(*said, strict=True) if pair[0] != pair[1]] == []


def test_a_fax_strip_that_ends_early_is_undecodable() -> None:
    data = _by_pillow("TIFF", mode="1", compression="group4")
    assert decode(data, channels=1, limits=Limits()).image.shape == (96, 64)
    at = (
        data.index(struct.pack("<2HI", 279, 4, 1))
        if struct.pack("<2HI", 279, 4, 1) in data
        else data.index(struct.pack("<2HI", 279, 3, 1))
    )
    (length,) = struct.unpack_from("<I", data, at + 8)
    for less in (4, 8):
        short = data[: at + 8] + struct.pack("<I", length - less) + data[at + 12 :]
        assert _rejected(short).reason is Reason.UNDECODABLE


# --- much work --------------------------------------------------------------------------------------------------------


def _with_chunks(chunks: bytes) -> bytes:
    data = pictures.png(pictures.quarters())
    return data[:33] + chunks + data[33:]


def _tag_bomb(size: int, entries: int) -> bytes:
    kinds = (273, 279, 324, 325, 339, 258, 338, 262, 274)
    named = [(256, 3, 1, 100), (257, 3, 1, 100)] + [(kinds[i % 9], 1, size - 64, 8) for i in range(entries)]
    head = b"II*\0" + struct.pack("<IH", 8, len(named)) + b"".join(struct.pack("<2H2I", *entry) for entry in named)
    return head + bytes(size - len(head))


def _deep_png(side: int) -> bytes:
    packer, row = zlib.compressobj(1), bytes(1 + side * 8)
    packed = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    head = pictures.png_chunk(b"IHDR", struct.pack(">2I5B", side, side, 16, 6, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + pictures.png_chunk(b"IDAT", packed) + pictures.png_chunk(b"IEND", b"")


def _webp_chunks(count: int) -> bytes:
    still = pictures.webp(pictures.quarters())
    body = b"WEBPVP8X" + struct.pack("<I4B", 10, 0x08, 0, 0, 0) + b"\x1f\0\0\x2f\0\0" + (b"JUNK" + bytes(4)) * count
    return b"RIFF" + struct.pack("<I", len(body + still[12:])) + body + still[12:]


def _one_strip_a_row(height: int) -> bytes:
    data = pictures.tiff(pictures.plain(8, 8, 7))
    return data.replace(struct.pack("<2H2I", 257, 4, 1, 8), struct.pack("<2H2I", 257, 4, 1, height)).replace(
        struct.pack("<2H2I", 278, 4, 1, 8), struct.pack("<2H2I", 278, 4, 1, 1)
    )


def _runs(length: int) -> bytes:
    head = struct.pack("<I2i2H6I", 40, 5000, 5000, 1, 8, 1, length, 0, 0, 256, 0)
    return b"BM" + struct.pack("<3I", 0, 0, 1078) + head + bytes(1024) + bytes(length)


COSTLY = {
    "scans": lambda: pictures.many_scans(101),
    "segments": lambda: pictures.jpeg(PICTURE)[:2] + b"\xff\xfe\0\2" * 10_001 + pictures.jpeg(PICTURE)[2:],
    "chunks": lambda: _with_chunks(pictures.png_chunk(b"tESt", b"") * 100_001),
    "webp chunks": lambda: _webp_chunks(100_001),
    "blocks": lambda: pictures.gif([pictures.plain(8, 6, 1)], [pictures.RED])[:-1] + b"\x21\xfe" + b"\1a" * 4_000_001,
    "strips": lambda: _one_strip_a_row(2**17 + 1),
    "runs": lambda: _runs(16 * 2**20 + 1),
    "words": lambda: b"P2 8 8 255\n" + b"1 " * (32 * 2**20 + 1),
}


@pytest.mark.parametrize("name", COSTLY)
def test_more_parts_than_any_honest_file_has_are_too_costly(name: str) -> None:
    data = COSTLY[name]()
    began = time.process_time()
    assert _rejected(data).reason is Reason.TOO_COSTLY
    assert time.process_time() - began < 5  # here, some 0.5 at most


def test_the_most_scans_that_are_let_in() -> None:
    assert decode(pictures.many_scans(80), channels=3, limits=Limits()).width == 32


def test_memory_is_bounded_by_the_pixels_that_are_let_in() -> None:
    data = _deep_png(2200)  # fifteen bytes a pixel while it is decoded: 73 MB
    assert decode(data, channels=3, limits=Limits()).width == 2200
    assert _rejected(data, limits=Limits(max_pixels=2200**2)).reason is Reason.TOO_COSTLY


def test_a_tiff_whose_tags_name_the_whole_file_is_one_row_at_once() -> None:
    data = _tag_bomb(2**20, 4000)
    began = time.process_time()
    assert _rejected(data).reason in (Reason.UNDECODABLE, Reason.TRUNCATED, Reason.TOO_COSTLY)
    assert time.process_time() - began < 1


def test_texts_and_profiles_are_not_unpacked() -> None:
    packed = zlib.compress(bytes(64 * 2**20), 9)
    chunks = pictures.png_chunk(b"iCCP", b"a\0\0" + packed) + pictures.png_chunk(b"zTXt", b"a\0\0" + packed)
    chunks += pictures.png_chunk(b"zTXt", b"Raw profile type exif\0\0" + packed)
    chunks += pictures.png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + packed)
    assert np.array_equal(decode(_with_chunks(chunks), channels=3, limits=Limits()).image, pictures.quarters())


def test_nothing_behind_the_end_of_a_png_reaches_the_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV looks for the data after IEND, and allocates what a length there claims."""
    given: list[bytes] = []

    def decoded(data: bytes, flags: int) -> np.ndarray | None:
        given.append(data)
        return decoded_by_opencv(data, flags)

    monkeypatch.setattr(png, "decoded_by_opencv", decoded)
    end = pictures.png_chunk(b"IEND", b"")
    rubbish = struct.pack(">I", 2**30) + b"IDAT" + bytes(99)
    for depth in (2, 8):
        whole = pictures.png(pictures.plain(9, 9, 1), depth=depth)
        assert _outcome(whole + rubbish) == _outcome(whole)
        assert _rejected(whole[:33] + end + rubbish).reason is Reason.UNDECODABLE
    assert len(given) == 6 and all(data.endswith(end) for data in given)


def test_only_the_first_frame_of_a_gif_is_decoded() -> None:
    frame = b"\x2c" + struct.pack("<4HB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"
    first = pictures.gif([pictures.plain(8, 6, 1)], [pictures.RED, pictures.GREEN])[:-1]
    broken = frame.replace(b"\x44", b"\xff")  # codes that mean nothing
    image = decode(first + broken * 5000 + b"\x3b", channels=3, limits=Limits()).image
    assert np.array_equal(image, pictures.plain(8, 6, pictures.GREEN))


# --- what libraries print ---------------------------------------------------------------------------------------------


def test_libraries_print_nothing_and_everybody_else_may(capfd: pytest.CaptureFixture[str]) -> None:
    data = bytearray(pictures.jpeg(pictures.gradient(60, 60)))
    at = data.index(b"\xff\xda") + 30
    data[at : at + 40] = bytes(40)
    _outcome(bytes(data))
    _outcome(pictures.nasty_files()["wrong_sum.png"][0])
    assert capfd.readouterr().err == ""
    os.write(2, b"spoken\n")
    assert capfd.readouterr().err == "spoken\n"


@pytest.mark.skipif(sys.platform != "linux", reason="C's stderr is found on Linux only")
def test_silence_ends_with_the_last_who_wants_it(capfd: pytest.CaptureFixture[str]) -> None:
    import ctypes

    library = ctypes.CDLL(None)

    def say(text: bytes) -> None:
        stream = ctypes.c_void_p.in_dll(library, "stderr")
        library.fputs(text, stream)
        library.fflush(stream)

    with quiet():
        with quiet():
            say(b"inner\n")
        say(b"outer\n")
    say(b"heard\n")
    assert capfd.readouterr().err == "heard\n"


def test_threads_get_the_same_pixels() -> None:
    files = list(_seeds().values())
    alone = [_outcome(data) for data in files]
    found: list[list[str]] = []
    threads = [threading.Thread(target=lambda: found.append([_outcome(data) for data in files])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [alone] * 4
