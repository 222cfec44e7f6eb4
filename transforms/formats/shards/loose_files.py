"""Names of images, labels from names, and cutting a folder into blocks that stay stable when files come and go.

Not here: finding and opening files (`transforms/storage/store.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b

IMAGE_SUFFIXES = frozenset(
    {"jpg", "jpeg", "jpe", "jfif", "png", "apng", "webp", "bmp", "dib", "tif", "tiff", "gif"}
    | {"pbm", "pgm", "ppm", "pnm", "heic", "heif", "hif", "avif"}
)
MAX_BLOCK_IMAGES = 256
MAX_BLOCK_BYTES = 64 * 2**20
NAMES_SHOWN = 5  # enough to see which files were skipped

_DRIVE = re.compile(r"^[A-Za-z]:")
_NEEDS_CLEANING = re.compile(r"^/|//|/$|(?:^|/)\.{1,2}(?:/|$)|^[A-Za-z]:|[\\\x00\ud800-\udfff]|^$")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(slots=True)
class Skipped:
    """Collects what a listing skipped because its name is not that of an image: the number and the first five names."""

    count: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        """Counts one name."""
        self.count += 1
        if len(self.names) < NAMES_SHOWN:
            self.names.append(name)


@dataclass(frozen=True, slots=True)
class CleanName:
    """A member's name, fit to be written.

    Attributes:
        text: valid UTF-8, relative, with `/`, without `.`, `..` or empty parts.
        safe: False if the original name leads out of the archive's folder.
    """

    text: str
    safe: bool


def is_image_name(name: str) -> bool:
    """True for a name with an image's suffix or none that is neither hidden nor a Mac's shadow file."""
    *folders, base = name.replace("\\", "/").split("/")
    if base.startswith(".") or "__MACOSX" in folders:
        return False
    _, dot, suffix = base.rpartition(".")
    return not dot or suffix.lower() in IMAGE_SUFFIXES


def label_of(name: str) -> str | None:
    """Returns the label in a folder of classes: the name of the parent folder, or None at the top."""
    folder, slash, _ = name.rpartition("/")
    return folder.rpartition("/")[2] if slash else None


def text_of(raw: bytes) -> str:
    """Returns a stored name or label as text: UTF-8, with each invalid byte written as `%XX`."""
    return _writable(raw.decode("utf-8", "surrogateescape"))


def clean_name(name: str) -> CleanName:
    r"""Returns the name, fit to be written, and whether it is safe.

    Harmless oddities are only tidied: `./a//b.jpg` and `a\b.jpg` become `a/b.jpg`. A name that leads out of the
    folder (an absolute path, a drive letter, `..`, a NUL; `\` counts as `/`) is unsafe, and its offending characters
    become `%XX`. Bytes that are not UTF-8 (lone surrogates) become `%XX` too.

    >>> clean_name("../../x.jpg")
    CleanName(text='%2E%2E/%2E%2E/x.jpg', safe=False)
    """
    if not _NEEDS_CLEANING.search(name):
        return CleanName(name, True)
    slashed = _writable(name).replace("\\", "/")
    absolute, drive = slashed.startswith("/"), _DRIVE.match(slashed) is not None
    parts = [part for part in slashed.split("/") if part not in ("", ".")]
    safe = bool(parts) and not (absolute or drive or ".." in parts or "\0" in slashed)
    text = "/".join(part.replace("\0", "%00") if part != ".." else "%2E%2E" for part in parts) or "unnamed"
    if drive:
        text = text.replace(":", "%3A", 1)
    return CleanName("%2F" + text if absolute else text, safe)


def record_name(name: str) -> str:
    """Returns a name that a record or a table row only mentions, fit to be written.

    Such a name is not a path in an archive, so `/data/x.jpg` is harmless and becomes `data/x.jpg`.
    """
    return clean_name(_DRIVE.sub("", name).replace("\\", "/").lstrip("/")).text


def cut_blocks(
    ids: Iterable[str],
    sizes: Iterable[int],
    *,
    max_images: int = MAX_BLOCK_IMAGES,
    max_bytes: int = MAX_BLOCK_BYTES,
) -> Iterator[range]:
    """Yields ranges of positions, one per block, so that adding or removing a file changes only nearby blocks.

    A hash of the id decides whether a block ends after it, once in `max_images / 2` ids on average. So boundaries do
    not depend on files elsewhere. Between two such boundaries, the two limits cut as well.

    Args:
        ids: in the order of their UTF-8 bytes.
        sizes: encoded bytes of each; unknown sizes (-1) count as 0.
        max_images: per block.
        max_bytes: per block; a single larger image gets its own block.
    """
    every = max(1, max_images // 2)
    ends_block = (_hash(image_id) % every == 0 for image_id in ids)
    yield from _cut(sizes, ends_block, max_images=max_images, max_bytes=max_bytes)


def cut_runs(
    sizes: Iterable[int], *, max_images: int = MAX_BLOCK_IMAGES, max_bytes: int = MAX_BLOCK_BYTES
) -> Iterator[range]:
    """Yields ranges of positions as long as the limits allow, for archives, which change as a whole.

    Unknown sizes (-1) count as 0; a single image above `max_bytes` gets its own block.

    >>> list(cut_runs([10, 20, 90, 5], max_images=2, max_bytes=50))
    [range(0, 2), range(2, 3), range(3, 4)]
    """
    yield from _cut(sizes, None, max_images=max_images, max_bytes=max_bytes)


def _cut(
    sizes: Iterable[int], ends_block: Iterator[bool] | None, *, max_images: int, max_bytes: int
) -> Iterator[range]:
    start, held, position = 0, 0, -1
    for position, size in enumerate(sizes):
        size = max(size, 0)
        if position > start and (position - start >= max_images or held + size > max_bytes):
            yield range(start, position)
            start, held = position, 0
        held += size
        if ends_block is not None and next(ends_block):
            yield range(start, position + 1)
            start, held = position + 1, 0
    if position >= start:
        yield range(start, position + 1)


def _hash(image_id: str) -> int:
    return int.from_bytes(blake2b(image_id.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _writable(text: str) -> str:
    return _LONE_SURROGATE.sub(_escape, text) if _LONE_SURROGATE.search(text) else text


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # surrogateescape encodes one raw byte
        return f"%{code - 0xDC00:02X}"
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass"))
