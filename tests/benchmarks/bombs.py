"""What hostile images cost: sizes that no number holds, rows that no decoder writes, small files that mean much work.

Every file is made here by code and decoded in a fresh process of its own, twice, with memory that is filled with two
different values (`MALLOC_PERTURB_`): seconds and peak memory of the decoding, what came of it, and whether both came to
the same pixels. With `--before COMMIT` an older commit does the same in a worktree of its own, and is ended after two
minutes a file.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zlib
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import measuring
import numpy as np

LIMIT_S = 120.0
SLOWEST_S, LARGEST_MB = 10.0, 1000.0  # what is claimed of every file
FILLINGS = ("85", "170")
CHILD = r"""
import hashlib, json, re, sys, time
import cv2, numpy as np
cv2.setNumThreads(1)
from transforms.formats.decode import decode
from transforms.formats.records import Limits, RejectedContent
data = open(sys.argv[1], "rb").read()
def peak():  # kB; ru_maxrss would count what the parent had
    return int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1])
open("/proc/self/clear_refs", "w").write("5")
before = peak()
began, digest = time.perf_counter(), ""
try:
    image = decode(data, channels=3, limits=Limits(), min_side=12)
    digest, outcome = hashlib.sha256(image.image.tobytes()).hexdigest(), f"{image.width} by {image.height} pixels"
    sizes = image.width, image.height
except RejectedContent as rejected:
    outcome, sizes = str(rejected.reason), (rejected.width, rejected.height)
seconds = time.perf_counter() - began
try:
    np.zeros(2, np.int32)[:] = sizes  # as a block keeps them
except Exception as error:
    outcome = f"{type(error).__name__} after decoding"
print(json.dumps({"s": seconds, "mb": (peak() - before) / 1024, "outcome": outcome, "digest": digest}))
"""


# --- the files --------------------------------------------------------------------------------------------------------


def picture(height: int, width: int) -> np.ndarray:
    """Returns (h, w, 3) uint8 of soft blots, another each time the size differs."""
    blots = np.random.default_rng(height * width).integers(0, 256, (height // 16 + 2, width // 16 + 2, 3), np.uint8)
    return cv2.resize(blots, (width, height), interpolation=cv2.INTER_CUBIC)


def encoded(suffix: str, image: np.ndarray, *settings: int) -> bytes:
    """Returns what OpenCV writes."""
    return cv2.imencode(suffix, image, settings)[1].tobytes()


def chunk(kind: bytes, content: bytes) -> bytes:
    """Returns a chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_chunks(chunks: bytes) -> bytes:
    """Returns a PNG of 64 by 64 with further chunks after its header."""
    data = encoded(".png", picture(64, 64))
    return data[:33] + chunks + data[33:]


def wide_png() -> bytes:
    """One flipped bit: 2**31 pixels and more."""
    data = bytearray(encoded(".png", picture(48, 48)))
    data[16] ^= 0x80
    return bytes(data)


def wide_tiff() -> bytes:
    """A TIFF that claims 2**32 - 1 pixels a row."""
    tags = {256: 2**32 - 1, 257: 48, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 48, 279: 2304}
    return tiff(tags, bytes(2304))


def narrow_bmp() -> bytes:
    """A BMP of a width below zero."""
    data = bytearray(encoded(".bmp", picture(48, 48)))
    data[18:22] = struct.pack("<i", -48)
    return bytes(data)


def tiff(tags: dict[int, int], content: bytes, lists: bytes = b"") -> bytes:
    """Returns a TIFF of one strip; `lists` lie after the strip."""
    entries = b"".join(struct.pack("<2H2I", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    head = b"II*\0" + struct.pack("<I", 8 + len(content) + len(lists))
    return head + content + lists + struct.pack("<H", len(tags)) + entries + bytes(4)


def planar_tiff() -> bytes:
    """A 16-bit TIFF, deflated, whose colours lie in planes of their own."""
    planes = [zlib.compress((picture(301, 403)[..., i].astype("<u2") * 257).tobytes()) for i in range(3)]
    starts = np.cumsum([8, *map(len, planes)])[:3]
    content = b"".join(planes) + bytes(sum(map(len, planes)) % 2)
    at = 8 + len(content)
    lists = struct.pack("<6I", *starts, *map(len, planes)) + struct.pack("<4H", 16, 16, 16, 0)
    numbers = {256: (4, 1, 403), 257: (4, 1, 301), 258: (3, 3, at + 24), 259: (4, 1, 8), 262: (4, 1, 2)}
    numbers |= {273: (4, 3, at), 277: (4, 1, 3), 278: (4, 1, 301), 279: (4, 3, at + 12), 284: (4, 1, 2)}
    entries = b"".join(struct.pack("<2H2I", tag, *entry) for tag, entry in numbers.items())
    head = b"II*\0" + struct.pack("<I", at + len(lists))
    return head + content + lists + struct.pack("<H", len(numbers)) + entries + bytes(4)


def damaged_apng() -> bytes:
    """An animated PNG with sixty bytes of its first frame overwritten."""
    draw = np.random.default_rng(0)
    noisy = (picture(200, 160) // 2 + draw.integers(0, 128, (200, 160, 3))).astype(np.uint8)
    packed = zlib.compress(b"".join(b"\0" + bytes(row) for row in noisy))
    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">2I5B", 160, 200, 8, 2, 0, 0, 0))
    frame, at = struct.pack(">4I2H2B", 160, 200, 0, 0, 1, 10, 0, 0), len(packed) * 3 // 10
    damaged = bytearray(chunk(b"IDAT", packed))
    damaged[8 + at : 8 + at + 60] = b"\xff" * 60
    second = chunk(b"fcTL", struct.pack(">I", 1) + frame)
    second += chunk(b"fdAT", struct.pack(">I", 2) + packed)
    first = chunk(b"acTL", struct.pack(">2I", 2, 0)) + chunk(b"fcTL", struct.pack(">I", 0) + frame)
    return head + first + bytes(damaged) + second + chunk(b"IEND", b"")


def tag_bomb(mebibytes: int, entries: int) -> bytes:
    """A TIFF whose directory names the whole file again and again."""
    size, kinds = mebibytes * 2**20, (273, 279, 324, 325, 339, 258, 338, 262, 274)
    named = [(256, 3, 1, 100), (257, 3, 1, 100)]
    named += [(kinds[i % len(kinds)], 1, size - 64, 8) for i in range(entries)]
    head = b"II*\0" + struct.pack("<IH", 8, len(named))
    data = head + b"".join(struct.pack("<2H2I", *entry) for entry in named)
    return data + bytes(size - len(data))


def deep_png() -> bytes:
    """9999 by 9999 pixels of eight bytes in 777 kB."""
    packer, row = zlib.compressobj(9), bytes(1 + 9999 * 8)
    packed = b"".join(packer.compress(row) for _ in range(9999)) + packer.flush()
    head = chunk(b"IHDR", struct.pack(">2I5B", 9999, 9999, 16, 6, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def many_scans() -> bytes:
    """A progressive JPEG of twelve megapixels whose last scan comes 2,000 times."""
    data = encoded(".jpg", np.full((3000, 4000, 3), 99, np.uint8), cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * 2000 + data[-2:]


def many_segments() -> bytes:
    """A JPEG with five million empty comments."""
    data = encoded(".jpg", picture(64, 64))
    return data[:2] + b"\xff\xfe\0\2" * 5_000_000 + data[2:]


def many_frames() -> bytes:
    """A GIF of 5,000 frames on 4000 by 4000 pixels."""
    data = b"GIF89a" + struct.pack("<2H3B", 4000, 4000, 0x80, 0, 0) + bytes(3) + b"\xff" * 3
    frame = b"\x2c" + struct.pack("<4HB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"
    return data + frame * 5000 + b"\x3b"


def many_chunks() -> bytes:
    """A PNG with five million empty chunks."""
    return with_chunks(chunk(b"tESt", b"") * 5_000_000)


def packed_texts() -> bytes:
    """A PNG with texts and a profile that unpack to a gigabyte."""
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(2**20)) for _ in range(256)) + packer.flush()
    texts = chunk(b"zTXt", b"Raw profile type exif\0\0" + packed) + chunk(b"zTXt", b"Comment\0\0" + packed)
    texts += chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + packed)
    return with_chunks(chunk(b"iCCP", b"profile\0\0" + packed) + texts)


def many_webp_chunks() -> bytes:
    """A WebP with five million empty chunks before its EXIF."""
    still = encoded(".webp", picture(64, 64), cv2.IMWRITE_WEBP_QUALITY, 101)
    body = b"WEBPVP8X" + struct.pack("<I4B", 10, 0x08, 0, 0, 0) + b"\x3f\0\0\x3f\0\0" + still[12:]
    body += (b"JUNK" + bytes(4)) * 5_000_000
    return b"RIFF" + struct.pack("<I", len(body)) + body


FILES: dict[str, Callable[[], bytes]] = {
    "PNG, one bit flipped: 2³¹ wide": wide_png,
    "TIFF, 2³² − 1 wide": wide_tiff,
    "BMP, −48 wide": narrow_bmp,
    "TIFF, 16 bits in planes": planar_tiff,
    "animated PNG, damaged": damaged_apng,
    "TIFF, 4,000 tags of 1 MiB": lambda: tag_bomb(1, 4000),
    "TIFF, 9 tags of 64 MiB": lambda: tag_bomb(64, 9),
    "PNG, 9999² of 8 bytes": deep_png,
    "JPEG, 2,000 scans": many_scans,
    "JPEG, 5 million segments": many_segments,
    "GIF, 5,000 frames": many_frames,
    "PNG, 5 million chunks": many_chunks,
    "PNG, packed texts": packed_texts,
    "WebP, 5 million chunks": many_webp_chunks,
}


# --- decoding them ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """What became of a file: seconds, MB above what the process had before, outcome, and whether twice the same."""

    seconds: float
    megabytes: float
    outcome: str
    same: bool


def decoded(root: Path, file: Path, filling: str) -> dict[str, object]:
    """Returns what a fresh process of the checkout `root` says of a file."""
    environment = {**os.environ, "PYTHONPATH": str(root), "MALLOC_PERTURB_": filling}
    command = [sys.executable, "-c", CHILD, str(file)]
    try:
        ran = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        return {"s": LIMIT_S, "mb": float("nan"), "outcome": f"ended after {LIMIT_S:.0f} s", "digest": ""}
    if ran.returncode:
        fault = ran.stderr.strip().splitlines()[-1:] or [f"exit status {ran.returncode}"]
        return {"s": float("nan"), "mb": float("nan"), "outcome": fault[0][:60], "digest": ""}
    return dict(json.loads(ran.stdout.splitlines()[-1]))


def cost(root: Path, file: Path) -> Cost:
    """Returns the dearer of two decodings, and whether they came to the same."""
    first = decoded(root, file, FILLINGS[0])
    if first["s"] == LIMIT_S:
        return Cost(LIMIT_S, float("nan"), str(first["outcome"]), True)
    second = decoded(root, file, FILLINGS[1])
    same = (first["outcome"], first["digest"]) == (second["outcome"], second["digest"])
    seconds, megabytes = (max(float(str(one[key])) for one in (first, second)) for key in ("s", "mb"))
    return Cost(seconds, megabytes, str(first["outcome"]), same)


def table(root: Path, files: dict[str, Path], title: str) -> dict[str, Cost]:
    """Prints and returns what each file cost."""
    costs = {}
    for name, file in files.items():
        measuring.progress(f"{title}: {name}")
        costs[name] = cost(root, file)
    head = ["file", "kB", "seconds", "MB", "outcome", "twice the same"]
    lines = [
        [name, files[name].stat().st_size // 1000, f"{one.seconds:.2f}", f"{one.megabytes:.0f}", one.outcome, one.same]
        for name, one in costs.items()
    ]
    measuring.show(title, head, lines)
    return costs


def run(options: Namespace) -> int:
    """Makes the files, decodes them, prints, and returns the exit status."""
    with measuring.workplace(options) as work:
        files = {}
        for number, (name, make) in enumerate(FILES.items()):
            files[name] = work / f"{number:02d}"
            files[name].write_bytes(make())
        if options.before:
            with measuring.checkout(options.before) as old:
                table(old, files, f"Before ({options.before})")
        costs = table(measuring.ROOT, files, "Now")
    slowest, largest = max(one.seconds for one in costs.values()), max(one.megabytes for one in costs.values())
    faults = [name for name, one in costs.items() if "Error" in one.outcome or not one.seconds < LIMIT_S]
    return measuring.verdict(
        [
            ("every file ends as an image or as a rejection", not faults),
            ("both fillings of memory come to the same pixels", all(one.same for one in costs.values())),
            (f"the slowest takes {slowest:.2f} s, target {SLOWEST_S:.0f}", slowest <= SLOWEST_S),
            (f"the largest takes {largest:.0f} MB, target {LARGEST_MB:.0f}", largest <= LARGEST_MB),
        ]
    )


def main() -> int:
    made = measuring.parser(__doc__ or "")
    made.add_argument("--before", metavar="COMMIT", help="run the same against an older commit, too")
    return run(made.parse_args())


if __name__ == "__main__":
    sys.exit(main())
