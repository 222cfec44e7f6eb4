"""Encoded bytes to upright pixels, or the reason why not: JPEG, PNG, WebP, GIF, BMP, TIFF, PNM, HEIC and AVIF.

The header is read here first, by small parsers of our own: libraries allocate what a header claims, decode some cut
files without an error, and tell neither sizes nor causes. Every decision depends on the bytes alone, none on a clock.
A file a format: `probe` reads the header, `pixels` decodes. docs/formats.md says what is done to reach 8-bit pixels.
"""

from transforms.formats.decode.image import REVISION, Decoded, decode, exif_block, reduction_for

__all__ = ["REVISION", "Decoded", "decode", "exif_block", "reduction_for"]
