"""How Beam sees a block: tells its size without making bytes of it.

Beam samples the sizes of what passes between stages. Left to itself it would encode every block for that, at first
each, later one in several: a copy of all pictures in hand, up to 64 MB, to learn one number. Blocks are encoded only
where a runner cuts the chain of stages apart, which costs and changes nothing else.
"""

from __future__ import annotations

from typing import Any

import apache_beam as beam

from transforms.block import Block

_FALLBACK = beam.coders.FastPrimitivesCoder()
_ROW_BYTES = 200  # of an image: id, digest, status and the objects around them, roughly


class BlockCoder(beam.coders.Coder):
    """Beam's own coder of arbitrary objects, with a size that is added up instead of measured."""

    def encode(self, value: Block) -> bytes:
        return bytes(_FALLBACK.encode(value))

    def decode(self, encoded: bytes) -> Block:
        block: Block = _FALLBACK.decode(encoded)
        return block

    def estimate_size(self, value: Block) -> int:
        """Returns roughly the bytes of a block: pictures, crops and features."""
        pictures = int(value.sizes.sum()) if value.data.count(None) < len(value) else 0
        return pictures + _ROW_BYTES * len(value) + value.faces.nbytes + value.fresh.nbytes

    def is_deterministic(self) -> bool:
        return False

    def to_type_hint(self) -> Any:
        return Block


beam.coders.registry.register_coder(Block, BlockCoder)
