"""How the pixels of a TIFF lie, in checked numbers.

Not here: reading them from the file (`tiff.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

NONE, GROUP_3_ROWS, GROUP_3, GROUP_4, LZW, JPEG, DEFLATE, PACK_BITS = 1, 2, 3, 4, 5, 7, 8, 32773
FAX = (GROUP_3_ROWS, GROUP_3, GROUP_4)
OLD_DEFLATE, LZMA, ZSTD = 32946, 34925, 50000
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, SEPARATED, YCBCR = 0, 1, 2, 3, 5, 6
PREMULTIPLIED, PLAIN_ALPHA = 1, 2
TILED = "tiles"


def _nothing() -> np.ndarray:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class Layout:
    """How the pixels lie.

    Attributes:
        width, height: of the image.
        bits: of a sample. samples: of a pixel.
        photometric, compression, predictor, fill_order: as TIFF numbers them.
        planar: each sample has pieces of its own.
        order: `<` or `>`, of 16-bit numbers.
        tiled: pieces are tiles, all of one size; else strips as wide as the image, the last one shorter.
        piece_width, piece_height: of a tile or strip.
        place_tag, count_tag: that say where the pieces lie.
        extra: kinds of the samples after the colours.
        fax: options of group 3 and group 4.
        starts, sizes: (pieces,) int64 of the pieces in the file; at most one byte past its end.
        colours: (3 * 2**bits,) uint16, the palette.
        tables: of JPEG.
    """

    width: int
    height: int
    bits: int
    samples: int
    photometric: int
    compression: int
    predictor: int
    planar: bool
    fill_order: int
    order: str
    tiled: bool
    piece_width: int
    piece_height: int
    place_tag: int
    count_tag: int
    extra: tuple[int, ...]
    fax: tuple[int, int]
    starts: np.ndarray = field(default_factory=_nothing)
    sizes: np.ndarray = field(default_factory=_nothing)
    colours: np.ndarray = field(default_factory=_nothing)
    tables: bytes = b""

    @property
    def across(self) -> int:
        """Pieces side by side."""
        return -(-self.width // self.piece_width)

    @property
    def pieces_a_plane(self) -> int:
        """Pieces that hold the whole image, or one sample of it where samples lie apart."""
        return self.across * -(-self.height // self.piece_height)

    @property
    def pieces(self) -> int:
        """All pieces."""
        return self.pieces_a_plane * (self.samples if self.planar else 1)

    @property
    def samples_a_piece(self) -> int:
        """Samples of a pixel in one piece."""
        return 1 if self.planar else self.samples

    @property
    def row_bytes(self) -> int:
        """Bytes of a piece's row when unpacked."""
        return -(-self.piece_width * self.samples_a_piece * self.bits // 8)

    def rows_of(self, piece: int) -> int:
        """Returns the rows that a piece holds."""
        if self.tiled:
            return self.piece_height
        return min(self.piece_height, self.height - piece % self.pieces_a_plane * self.piece_height)

    def placed(self, starts: np.ndarray, sizes: np.ndarray, *, colours: np.ndarray, tables: bytes) -> Layout:
        """Returns the layout with what lies elsewhere in the file."""
        return replace(self, starts=starts, sizes=sizes, colours=colours, tables=tables)
