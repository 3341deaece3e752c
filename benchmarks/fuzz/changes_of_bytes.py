"""Changes to any bytes."""

from __future__ import annotations

import random
from collections.abc import Callable

Change = Callable[[bytes, random.Random], bytes]

NUMBERS = (
    0,
    1,
    -1,
    2,
    7,
    255,
    256,
    65535,
    65536,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**53,
    2**63 - 1,
    2**63,
    2**64,
    -(2**63),
)
_BYTES = (
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\r\n",
    b"\r",
    b"\n",
    b'"',
    b"#",
    b"{",
    b"]",
    b"\x80",
    b"\xed\xa0\x80",
)


def flip_bits(body: bytes, draw: random.Random) -> bytes:
    """One bit, or a few."""
    changed = bytearray(body or b"\0")
    for _ in range(draw.choice((1, 1, 2, 8, 64))):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def set_bytes(body: bytes, draw: random.Random) -> bytes:
    """A run of them, to zero, to 255 or to chance."""
    start, length = _span(body, draw)
    fill = draw.choice((bytes(length), b"\xff" * length, draw.randbytes(length)))
    return body[:start] + fill + body[start + length :]


def cut_off(body: bytes, draw: random.Random) -> bytes:
    """All behind a place, or all before it."""
    place = draw.choice((0, 1, len(body) - 1, draw.randrange(len(body) + 1)))
    return body[place:] if draw.random() < 0.2 else body[: max(place, 0)]


def insert(body: bytes, draw: random.Random) -> bytes:
    """Bytes that text files are known for, or many of one kind."""
    place = draw.choice((0, len(body), draw.randrange(len(body) + 1)))
    what = draw.choice(_BYTES) * draw.choice((1, 1, 2, 1000))
    return body[:place] + what + body[place:]


def remove(body: bytes, draw: random.Random) -> bytes:
    """A run of bytes."""
    start, length = _span(body, draw)
    return body[:start] + body[start + length :]


def repeat(body: bytes, draw: random.Random) -> bytes:
    """A run of bytes once more."""
    start, length = _span(body, draw)
    return body[: start + length] + body[start:]


def swap(body: bytes, draw: random.Random) -> bytes:
    """Two halves, or two runs of equal length."""
    start, length = _span(body, draw)
    other = draw.randrange(max(len(body) - length, 0) + 1)
    first, second = sorted((start, other))
    length = min(length, second - first, len(body) - second)
    a, b = body[first : first + length], body[second : second + length]
    return body[:first] + b + body[first + length : second] + a + body[second + length :]


def write_number(body: bytes, draw: random.Random) -> bytes:
    """A large number somewhere, in either order of bytes."""
    return _number_at(body, draw.randrange(max(len(body), 1)), draw)


def line_ends(body: bytes, draw: random.Random) -> bytes:
    """Of Windows, or of old Macs; or another encoding."""
    if draw.random() < 0.3:
        return body.decode("utf-8", "replace").encode(draw.choice(("utf-16", "utf-16-be", "utf-32", "cp037")))
    return body.replace(b"\n", draw.choice((b"\r\n", b"\r", b"\0\n")))


BYTE_CHANGES: tuple[Change, ...] = (
    *(flip_bits, flip_bits, set_bytes, cut_off, insert, remove, repeat, swap, write_number, line_ends),
)


def change_header(body: bytes, draw: random.Random) -> bytes:
    """A number in the first bytes, where formats have their sizes."""
    return _number_at(body, draw.randrange(min(len(body), draw.choice((96, 96, 800))) or 1), draw)


def _number_at(body: bytes, place: int, draw: random.Random) -> bytes:
    size = draw.choice((1, 2, 4, 4, 8))
    number = draw.choice((*NUMBERS, draw.getrandbits(8 * size))) % 2 ** (8 * size)
    return body[:place] + number.to_bytes(size, draw.choice(("big", "little"))) + body[place + size :]


def _span(body: bytes, draw: random.Random) -> tuple[int, int]:
    start = draw.randrange(max(len(body), 1))
    return start, draw.choice((1, 2, 4, 16, 256, 4096))
