"""Damage inside a JPEG, found without decoding it.

A decoder of JPEGs does not stop at damaged pixel data: it warns, without a name, and makes up the rest of the picture.
But pixel data is coded so that the byte 0xff is always followed by 0x00 or by a marker that may stand there; other
bytes in place of it (a broken disk, a bad download) break that rule after some hundred bytes. A few flipped bits may
not; those only a decoder notices.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_EOI, _SOS, _DRI, _TEM = 0xD9, 0xDA, 0xDD, 0x01
_FIRST_RESTART, _LAST_RESTART = 0xD0, 0xD7
_BETWEEN_SCANS = {0xC4, 0xDB, 0xDC, _DRI, 0xFE, *range(0xE0, 0xF0)}
"""Markers of what may stand between two scans: tables, the number of lines, comments, an application's own."""


END = b"\xff\xd9"
"""The last bytes of a whole JPEG; pixel data never holds them."""


def is_jpeg(head: bytes) -> bool:
    """Whether a file that begins so is a JPEG."""
    return head.startswith(b"\xff\xd8\xff")


def jpeg_damage(encoded: NDArray[np.uint8]) -> str | None:
    """What is wrong with the pixel data of a JPEG, uint8 [bytes], or None where its form is right; also None where its
    end is missing, which a decoder tells.

    Only the first picture of a file is looked at: cameras put smaller ones and other things behind it.
    """
    prefixes = np.flatnonzero(encoded[:-1] == 0xFF)
    following = encoded[prefixes + 1]
    places = prefixes[(following != 0) & (following != 0xFF)]
    markers = encoded[places + 1]
    is_restart = (markers >= _FIRST_RESTART) & (markers <= _LAST_RESTART)
    breaks, restarts = places[~is_restart], places[is_restart]
    place, has_restarts, in_pixels = 2, False, False
    while place + 1 < len(encoded):
        if in_pixels:
            found = int(np.searchsorted(breaks, place))
            if found == len(breaks):
                return None
            start, place = place, int(breaks[found])
            marker = int(encoded[place + 1])
            stray = restarts[np.searchsorted(restarts, start) :][:1]
            if not has_restarts and len(stray) and stray[0] < place:
                return f"its pixel data breaks off at byte {int(stray[0]):,}"
            if marker != _EOI and marker != _SOS and marker not in _BETWEEN_SCANS:
                return f"its pixel data breaks off at byte {place:,}"
        elif encoded[place] != 0xFF:
            return f"its parts do not follow each other at byte {place:,}"
        elif encoded[place + 1] == 0xFF:  # a marker may begin with several of them
            place += 1
            continue
        marker = int(encoded[place + 1])
        if marker == _EOI:
            return None
        place += 2
        if marker == _TEM or _FIRST_RESTART <= marker <= _LAST_RESTART:
            continue
        length = int.from_bytes(encoded[place : place + 2].tobytes(), "big")
        if place + length > len(encoded) or (marker == _SOS and not _begins_scan(encoded[place:], length)):
            return f"what stands at byte {place - 2:,} is no part of a JPEG"
        if marker == _DRI and length == 4:
            has_restarts = bool(encoded[place + 2 : place + 4].any())
        place += max(length, 2)
        in_pixels = marker == _SOS
    return None


def _begins_scan(part: NDArray[np.uint8], length: int) -> bool:
    """Whether the header of a scan is as long as the number of its components says."""
    return len(part) > 2 and 1 <= int(part[2]) <= 4 and length == 6 + 2 * int(part[2])
