"""Beam's coder for blocks: estimates the size of a block without encoding it.

Beam samples the sizes of elements between stages. By default it encodes blocks for that, at first every one, later one
in several: it copies up to 64 MB of pictures to learn one number. With this coder, blocks are encoded only where a
runner splits the chain of stages.
"""

from __future__ import annotations

from typing import Any

import apache_beam as beam

from transforms.block import Block

_FALLBACK = beam.coders.FastPrimitivesCoder()
_ROW_BYTES = 200  # per image, roughly: id, digest, status and their Python objects


class BlockCoder(beam.coders.Coder):
    """Beam's own coder for arbitrary objects, with an added-up estimate of the size."""

    def encode(self, value: Block) -> bytes:
        return bytes(_FALLBACK.encode(value))

    def decode(self, encoded: bytes) -> Block:
        block: Block = _FALLBACK.decode(encoded)
        return block

    def estimate_size(self, value: Block) -> int:
        """Returns the approximate size of a block in bytes: pictures, crops and features."""
        pictures = int(value.sizes.sum()) if value.data.count(None) < len(value) else 0
        return pictures + _ROW_BYTES * len(value) + value.faces.nbytes + value.fresh.nbytes

    def is_deterministic(self) -> bool:
        return False

    def to_type_hint(self) -> Any:
        return Block


beam.coders.registry.register_coder(Block, BlockCoder)
