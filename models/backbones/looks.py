"""What a `face_vgg` looks at besides the whole face: nothing, places with attention, or regions of their own.

A network calls `at` after the convolutions of each block and `joined` at the end. Needs Keras once it is called.
"""

from __future__ import annotations

from typing import Any

ATTENDED = 3, 4  # blocks whose maps get attention
CUT = 3  # the block from whose map regions are cut, where the network has that many


class Looks:
    """Looks at the whole face alone."""

    def at(self, block: int, x: Any, dtype: Any = None) -> Any:
        """Returns the map that goes on from a block, counted from 1, before its max-pool."""
        return x

    def joined(self, x: Any) -> Any:
        """Returns the last map with what was seen elsewhere."""
        return x


class AttentionLooks(Looks):
    """Raises the maps of blocks 3 and 4 around the centres of the action units."""

    def __init__(self, centres: Any) -> None:
        self._centres = centres

    def at(self, block: int, x: Any, dtype: Any = None) -> Any:
        """Returns the map times 1 + attention in blocks 3 and 4."""
        if block not in ATTENDED:
            return x
        from models.backbones.region_layers import Attention

        return Attention(dtype=dtype, name=f"block{block}_attention")([x, self._centres])


class RegionLooks(Looks):
    """Cuts regions from the map of block 3, or of the last one, and joins what their convolutions say."""

    def __init__(self, centres: Any, blocks: int) -> None:
        self._centres, self._cut = centres, min(CUT, blocks)
        self._seen: Any = None

    def at(self, block: int, x: Any, dtype: Any = None) -> Any:
        """Returns the map unchanged; keeps what the regions of block 3 say."""
        if block == self._cut:
            from models.backbones.region_layers import RegionConvolutions

            self._seen = RegionConvolutions(dtype=dtype, name="regions")([x, self._centres])
        return x

    def joined(self, x: Any) -> Any:
        """Returns the last map with the regions' answers as further channels."""
        from models.backbones.region_layers import BesideMap

        return BesideMap(name="whole_and_regions")([x, self._seen])
