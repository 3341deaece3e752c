"""Damage inside a PNG, found by its own checksums and without decoding it."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

END = b"IEND\xaeB`\x82"
"""The last bytes of a whole PNG."""
_CRITICAL = (b"IHDR", b"PLTE", b"IDAT")
"""The parts without which there is no picture; a decoder leaves aside others that are damaged."""


def is_png(head: bytes) -> bool:
    """Whether a file that begins so is a PNG."""
    return head.startswith(b"\x89PNG\r\n\x1a\n")


def png_damage(encoded: NDArray[np.uint8]) -> str | None:
    """What is wrong with the parts of a PNG, uint8 [bytes], or None where they are whole and their checksums right;
    also None where just its end is missing."""
    body, place = encoded.data, 8
    while place + 12 <= len(body):
        length, kind = int.from_bytes(body[place : place + 4], "big"), bytes(body[place + 4 : place + 8])
        end = place + 12 + length
        if kind == b"IEND":
            return None
        if end > len(body):
            return f"its part at byte {place:,} is cut off"
        if kind in _CRITICAL and zlib.crc32(body[place + 4 : end - 4]) != int.from_bytes(body[end - 4 : end], "big"):
            return f"the checksum of its part at byte {place:,} is wrong"
        place = end
    return None
