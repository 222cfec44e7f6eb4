"""Pictures made by code for tests: encoded by hand where a library would hide what is tested, nasty ones beside good.

Not a test: other tests `import pictures`.
"""

from __future__ import annotations

import csv
import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from transforms.formats.records import Reason
from transforms.formats.shards.tfrecord import masked_crc32c

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
FER_LABELS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


# --- pixels -----------------------------------------------------------------------------------------------------------


def plain(height: int, width: int, colour: Sequence[int] | int = RED) -> np.ndarray:
    """Returns (h, w, channels) or, for a number, (h, w) uint8 of one colour."""
    shape = (height, width) if isinstance(colour, int) else (height, width, len(colour))
    return np.full(shape, colour, np.uint8)


def gradient(height: int, width: int) -> np.ndarray:
    """Returns (h, w) uint8 that grows to the right and downwards: no two corners are alike."""
    rows, columns = np.mgrid[0:height, 0:width]
    return ((rows * 170 // max(1, height - 1)) + (columns * 85 // max(1, width - 1))).astype(np.uint8)


def quarters(height: int = 48, width: int = 32) -> np.ndarray:
    """Returns (h, w, 3) uint8: red, green above blue, white, so that every turn and mirroring shows."""
    image = plain(height, width)
    image[: height // 2, width // 2 :] = GREEN
    image[height // 2 :, : width // 2] = BLUE
    image[height // 2 :, width // 2 :] = WHITE
    return image


def portrait() -> np.ndarray:
    """Returns (512, 512, 3) uint8 RGB with one real face; skips the test where scikit-image is not installed."""
    return np.array(pytest.importorskip("skimage.data", reason="needs the sample extra").astronaut())


# --- encoders ---------------------------------------------------------------------------------------------------------


def exif(orientation: int, order: str = "<") -> bytes:
    """Returns an EXIF block that holds the orientation and nothing else."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(order + "IHHHIHHI", 8, 1, 0x112, 3, 1, orientation, 0, 0)


def jpeg(image: np.ndarray, *, orientation: int | None = None, quality: int = 95, progressive: bool = False) -> bytes:
    """Returns a JPEG of RGB or grey pixels."""
    settings = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)]
    data = _encode(".jpg", image, settings)
    return data if orientation is None else with_segment(data, b"Exif\0\0" + exif(orientation))


def with_segment(data: bytes, content: bytes, mark: int = 0xE1) -> bytes:
    """Returns a JPEG with one more segment right after its start."""
    return data[:2] + bytes([0xFF, mark]) + struct.pack(">H", len(content) + 2) + content + data[2:]


def many_scans(count: int) -> bytes:
    """Returns a progressive JPEG whose last scan comes `count` times."""
    data = jpeg(quarters(), progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + data[-2:]


def cmyk_jpeg(ink: tuple[int, int, int, int], *, adobe: bool = True) -> bytes:
    """Returns an 8 by 8 CMYK JPEG of one colour, values stored inverted; `adobe` states so in a marker."""
    bits = ""
    for value in ink:
        level = 8 * ((255 - value) - 128)  # the mean of a flat block, times eight
        size = abs(level).bit_length()
        bits += f"{size:04b}"  # the code of each category is its number in four bits
        bits += f"{level if level > 0 else level + 2**size - 1:0{size}b}" if size else ""
        bits += "0"  # no more of this block
    bits += "1" * (-len(bits) % 8)
    scan = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
    parts = [
        (0xEE, b"Adobe" + struct.pack(">3HB", 100, 0, 0, 0)) if adobe else None,
        (0xDB, b"\0" + b"\1" * 64),
        (0xC0, struct.pack(">B2HB", 8, 8, 8, 4) + b"".join(bytes([i, 0x11, 0]) for i in range(1, 5))),
        (0xC4, b"\0" + bytes([0, 0, 0, 12, *[0] * 12]) + bytes(range(12))),
        (0xC4, b"\x10" + bytes([1, *[0] * 15]) + b"\0"),
        (0xDA, b"\4" + b"".join(bytes([i, 0]) for i in range(1, 5)) + b"\0\x3f\0"),
    ]
    head = b"".join(bytes([0xFF, part[0]]) + struct.pack(">H", len(part[1]) + 2) + part[1] for part in parts if part)
    return b"\xff\xd8" + head + scan + b"\xff\xd9"


def png(
    image: np.ndarray,
    *,
    depth: int = 0,
    palette: Sequence[tuple[int, int, int]] | None = None,
    clear: bytes | None = None,
    orientation: int | None = None,
) -> bytes:
    """Returns a PNG of (h, w[, 2, 3 or 4]) uint8 or uint16.

    Args:
        image: for `depth` below 8 the small numbers themselves.
        depth: bits of a sample; 0 for those of the array.
        palette: then the pixels are indices.
        clear: content of the tRNS chunk.
        orientation: goes into an eXIf chunk.
    """
    channels = 1 if image.ndim == 2 else image.shape[2]
    colours = 3 if palette else {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    depth = depth or image.dtype.itemsize * 8
    rows = [pack(row.reshape(-1), depth) for row in image]
    chunks = [png_chunk(b"IHDR", struct.pack(">2I5B", image.shape[1], image.shape[0], depth, colours, 0, 0, 0))]
    if orientation is not None:
        chunks.append(png_chunk(b"eXIf", exif(orientation, ">")))
    if palette:
        chunks.append(png_chunk(b"PLTE", bytes(np.array(palette, np.uint8))))
    if clear is not None:
        chunks.append(png_chunk(b"tRNS", clear))
    chunks += [png_chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))), png_chunk(b"IEND", b"")]
    return PNG_MAGIC + b"".join(chunks)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """Returns a chunk with its length and check sum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def pack(samples: np.ndarray, depth: int) -> bytes:
    """Returns samples as PNG and BMP store a row of them: big end first, the last byte filled with zeros."""
    if depth >= 8:
        return samples.astype(f">u{depth // 8}").tobytes()
    bits = (samples[:, None] >> np.arange(depth - 1, -1, -1)) & 1
    return np.packbits(bits.reshape(-1).astype(np.uint8)).tobytes()


def webp(image: np.ndarray, *, orientation: int | None = None, quality: int = 101) -> bytes:
    """Returns a WebP of RGB or RGBA pixels, lossless by default."""
    data = _encode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, quality])
    if orientation is None:
        return data
    height, width = image.shape[:2]
    sides = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    block = exif(orientation)
    body = b"WEBPVP8X" + struct.pack("<I4B", 10, 0x08, 0, 0, 0) + sides + data[12:]
    body += b"EXIF" + struct.pack("<I", len(block)) + block
    return b"RIFF" + struct.pack("<I", len(body)) + body


def bmp(image: np.ndarray) -> bytes:
    """Returns a BMP of grey, RGB or RGBA pixels."""
    return _encode(".bmp", image, [])


def old_bmp(image: np.ndarray) -> bytes:
    """Returns a 24-bit BMP with the twelve-byte header of OS/2."""
    height, width = image.shape[:2]
    rows = b"".join(bytes(row[:, ::-1]) + b"\0" * (-3 * width % 4) for row in image[::-1])
    return b"BM" + struct.pack("<I2HI", 26 + len(rows), 0, 0, 26) + struct.pack("<I4H", 12, width, height, 1, 24) + rows


def gif(frames: Sequence[np.ndarray], palette: Sequence[tuple[int, int, int]], *, clear: int | None = None) -> bytes:
    """Returns a GIF of (h, w) palette indices (at most 4 colours); `clear` is the transparent one."""
    height, width = frames[0].shape
    colours = [*palette, *[(0, 0, 0)] * (4 - len(palette))]
    data = b"GIF89a" + struct.pack("<2H3B", width, height, 0x81, 0, 0) + bytes(np.array(colours, np.uint8))
    for frame in frames:
        control = struct.pack("<BHB", 0 if clear is None else 1, 10, clear or 0)
        data += b"\x21\xf9\x04" + control + b"\0"
        data += b"\x2c" + struct.pack("<4HB", 0, 0, width, height, 0) + b"\x02" + _gif_blocks(frame)
    return data + b"\x3b"


def _gif_blocks(indices: np.ndarray) -> bytes:
    """Returns the indices as codes of three bits, the table cleared before codes would grow."""
    codes: list[int] = []
    for position, index in enumerate(indices.reshape(-1)):
        if position % 2 == 0:
            codes.append(4)
        codes.append(int(index))
    bits = "".join(f"{code:03b}"[::-1] for code in [*codes, 5])
    bits += "0" * (-len(bits) % 8)
    packed = bytes(int(bits[i : i + 8][::-1], 2) for i in range(0, len(bits), 8))
    blocks = [packed[i : i + 255] for i in range(0, len(packed), 255)]
    return b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"


def tiff(
    image: np.ndarray,
    *,
    orientation: int = 1,
    order: str = "<",
    photometric: int | None = None,
    extra: int | None = None,
) -> bytes:
    """Returns an uncompressed TIFF of one strip.

    Args:
        image: (h, w[, 3 or 4]) of uint8, uint16, int32 or float32.
        orientation: 1 to 8.
        order: `<` or `>`.
        photometric: 0 white is zero, 1 black is zero, 2 RGB, 5 CMYK.
        extra: kind of the fourth channel: 1 premultiplied alpha, 2 plain alpha.
    """
    channels = 1 if image.ndim == 2 else image.shape[2]
    if photometric is None:
        photometric = 1 if channels == 1 else 2
    pixels = image.astype(image.dtype.newbyteorder(order)).tobytes()
    numbers = {"u": 1, "i": 2, "f": 3}[image.dtype.kind]
    tags = [
        (256, [image.shape[1]]), (257, [image.shape[0]]), (258, [image.dtype.itemsize * 8] * channels), (259, [1]),
        (262, [photometric]), (273, [8]), (274, [orientation]), (277, [channels]), (278, [image.shape[0]]),
        (279, [len(pixels)]), (284, [1]), *([(338, [extra])] if extra is not None else []),
        (339, [numbers] * channels),
    ]  # fmt: skip
    start = 8 + len(pixels) + len(pixels) % 2
    spill, entries = b"", b""
    spill_at = start + 2 + 12 * len(tags) + 4
    for tag, values in tags:
        kind = "I" if tag in (256, 257, 273, 278, 279) else "H"
        packed = struct.pack(f"{order}{len(values)}{kind}", *values)
        if len(packed) > 4:
            packed, spill = struct.pack(order + "I", spill_at + len(spill)), spill + packed
        entries += struct.pack(order + "2HI", tag, 4 if kind == "I" else 3, len(values)) + packed.ljust(4, b"\0")
    mark = b"II*\0" if order == "<" else b"MM\0*"
    directory = struct.pack(order + "H", len(tags)) + entries + bytes(4) + spill
    return mark + struct.pack(order + "I", start) + pixels.ljust(start - 8, b"\0") + directory


def pnm(image: np.ndarray, largest: int = 255) -> bytes:
    """Returns a binary PGM or PPM."""
    kind = 5 if image.ndim == 2 else 6
    head = b"P%d\n%d %d\n%d\n" % (kind, image.shape[1], image.shape[0], largest)
    return head + image.astype(np.uint8 if largest < 256 else ">u2").tobytes()


def _encode(suffix: str, image: np.ndarray, settings: list[int]) -> bytes:
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGBA2BGRA if image.shape[2] == 4 else cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(suffix, image, settings)
    assert done
    return data.tobytes()


# --- sets -------------------------------------------------------------------------------------------------------------


def good_files(count: int = 6, *, side: int = 48) -> dict[str, bytes]:
    """Returns small grey PNG files, no two alike, in two folders that name classes."""
    folders = ("happy", "sad")
    return {
        f"{folders[i % 2]}/{i:04d}.png": png(plain(side, side, i % 256) + (np.arange(side) < i // 256).astype(np.uint8))
        for i in range(count)
    }


def huge_png(width: int = 60_000, height: int = 60_000) -> bytes:
    """Returns a PNG of a few bytes that claims 3.6 billion pixels."""
    return png(plain(1, 1, 0)).replace(struct.pack(">2I", 1, 1), struct.pack(">2I", width, height), 1)


def nasty_files() -> dict[str, tuple[bytes, Reason | None]]:
    """Returns files and what becomes of each when it is decoded with the usual limits: a reason, or None if good."""
    picture, grey = quarters(), gradient(40, 30)
    thumbnail = with_segment(jpeg(picture), b"Exif\0\0" + exif(1) + jpeg(plain(8, 8)))
    good: dict[str, bytes] = {
        "rgb.jpg": jpeg(picture), "progressive.jpg": jpeg(picture, progressive=True), "grey.jpg": jpeg(grey),
        "cmyk.jpg": cmyk_jpeg((255, 0, 0, 0)), "thumbnail.jpg": thumbnail,
        "trailing.jpg": jpeg(picture) + b"camera notes" * 9, "turned.jpg": jpeg(picture, orientation=6),
        "rgb.png": png(picture), "rgba.png": png(plain(20, 10, (9, 8, 7, 100))), "grey.png": png(grey),
        "deep.png": png(grey.astype(np.uint16) * 257), "one_bit.png": png(grey % 2, depth=1),
        "palette.png": png(grey % 2, palette=[RED, BLUE], clear=b"\0"), "one_pixel.png": png(plain(1, 1, 7)),
        "lossless.webp": webp(picture), "lossy.webp": webp(picture, quality=90),
        "moving.gif": gif([plain(8, 6, 1), plain(8, 6, 2)], [RED, GREEN, BLUE]),
        "rgb.bmp": bmp(picture), "old.bmp": old_bmp(picture), "rgb.tif": tiff(picture),
        "deep.tif": tiff(grey.astype(np.uint16)),
        "grey.pgm": pnm(grey), "rgb.ppm": pnm(picture), "wrong_suffix.jpg": png(picture),
    }  # fmt: skip
    bad: dict[str, tuple[bytes, Reason]] = {
        "empty.jpg": (b"", Reason.EMPTY),
        "text.jpg": (b"I am no image, whatever my name says\n", Reason.NOT_AN_IMAGE),
        "bmw.bmp": (b"BMW is a maker of cars, and this is text", Reason.NOT_AN_IMAGE),
        "zeros.png": (bytes(1000), Reason.NOT_AN_IMAGE),
        "page.png": (b"<html><body>404 not found</body></html>", Reason.NOT_AN_IMAGE),
        "sound.webp": (b"RIFF" + struct.pack("<I", 36) + b"WAVEfmt " + bytes(28), Reason.NOT_AN_IMAGE),
        "huge.png": (huge_png(), Reason.TOO_MANY_PIXELS),
        "cut.jpg": (good["rgb.jpg"][:-20], Reason.TRUNCATED),
        "cut_behind_thumbnail.jpg": (thumbnail[: -len(good["rgb.jpg"]) // 2], Reason.TRUNCATED),
        "cut.png": (good["rgb.png"][:-20], Reason.TRUNCATED),
        "cut.webp": (good["lossless.webp"][:-4], Reason.TRUNCATED),
        "cut.gif": (good["moving.gif"][:-4], Reason.TRUNCATED),
        "cut.bmp": (good["rgb.bmp"][:-4], Reason.TRUNCATED),
        "cut.tif": (good["rgb.tif"][:-80], Reason.TRUNCATED),
        "cut.pgm": (good["grey.pgm"][:-4], Reason.TRUNCATED),
        "wrong_sum.png": (_flip(good["rgb.png"], good["rgb.png"].index(b"IDAT") + 10), Reason.UNDECODABLE),
        "scans.jpg": (many_scans(101), Reason.TOO_COSTLY),
        "no_size.jpg": (b"\xff\xd8\xff\xd9", Reason.UNDECODABLE),
        "no_pixels.png": (huge_png(0, 7), Reason.UNDECODABLE),
        "float.tif": (tiff(grey.astype(np.float32)), Reason.UNDECODABLE),
    }
    return {**{name: (data, None) for name, data in good.items()}, **bad}


def _flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]


# --- files ------------------------------------------------------------------------------------------------------------


def write_folder(path: Path, files: Mapping[str, bytes]) -> Path:
    """Writes each file below the folder `path`; returns it."""
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def tar_bytes(files: Mapping[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    """Returns a tar file."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=form) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def write_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    """Writes a tar file, gzipped if its name ends so; returns its path."""
    data = tar_bytes(files)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix in (".gz", ".tgz") else data)
    return path


def write_zip(path: Path, files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    """Writes a zip file; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return path


def tfrecord(example: bytes) -> bytes:
    """Returns one record of a TFRecord file."""
    length = struct.pack("<Q", len(example))
    return length + struct.pack("<I", masked_crc32c(length)) + example + struct.pack("<I", masked_crc32c(example))


def example(features: Mapping[str, bytes]) -> bytes:
    """Returns a tf.Example of byte strings, as a protocol buffer made by hand."""
    entries = b"".join(
        field(1, field(1, key.encode()) + field(2, field(1, field(1, value)))) for key, value in features.items()
    )
    return field(1, entries)


def field(number: int, content: bytes) -> bytes:
    """Returns a length-delimited field of a protocol buffer."""
    size, digits = len(content), b""
    while size > 0x7F:
        digits, size = digits + bytes([size & 0x7F | 0x80]), size >> 7
    return bytes([number << 3 | 2]) + digits + bytes([size]) + content


def write_tfrecord(path: Path, files: Mapping[str, bytes]) -> Path:
    """Writes a TFRecord file, gzipped if its name ends so; the folder of a name is its class; returns the path."""
    records = []
    for name, encoded in files.items():
        features = {"image/encoded": encoded, "image/filename": name.encode()}
        if "/" in name:
            features["image/class/text"] = name.split("/")[-2].encode()
        records.append(tfrecord(example(features)))
    data = b"".join(records)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return path


def write_parquet(path: Path, files: Mapping[str, bytes], *, rows_in_group: int = 1000) -> Path:
    """Writes a Parquet file as Hugging Face does, the folder of a name as a column `label`; returns its path."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = pa.array(
        [{"bytes": data, "path": name} for name, data in files.items()],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    labels = pa.array([name.split("/")[-2] if "/" in name else None for name in files], pa.string())
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"image": images, "label": labels})
    pq.write_table(table, path, row_group_size=rows_in_group, write_page_checksum=True)
    return path


def write_fer_csv(path: Path, files: Mapping[str, bytes]) -> Path:
    """Writes 48 by 48 grey pictures as FER2013's CSV file; the folder of a name is its class; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["emotion", "pixels", "Usage"])
        for name, data in files.items():
            label = name.split("/")[-2] if "/" in name else "neutral"
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
            table.writerow([FER_LABELS.index(label), " ".join(map(str, pixels.reshape(-1))), "Training"])
    return path
