"""Changes to the bytes of a valid file, by its format where that lets them get past the first check."""

from __future__ import annotations

import io
import random
import struct
import zipfile
import zlib
from pathlib import Path

from .changes_of_bytes import BYTE_CHANGES, Change, change_header, cut_off, flip_bits, write_number
from .changes_of_texts import change_json, change_json_line, change_lines, change_toml, change_words

_NOT_OF_THAT_FORMAT = (
    *(ValueError, LookupError, RecursionError, NotImplementedError, EOFError),
    *(struct.error, zipfile.BadZipFile, zlib.error),
)


def mutated(body: bytes, path: Path, draw: random.Random) -> bytes:
    """The bytes of the file `path` with one change, rarely with up to three."""
    own = _own_changes(path, body)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        change = draw.choice(own if own and draw.random() < 0.65 else BYTE_CHANGES)
        try:
            body = change(body, draw)
        except _NOT_OF_THAT_FORMAT:
            body = flip_bits(body, draw)  # an earlier change has left it without that format
    return body


def _own_changes(path: Path, body: bytes) -> tuple[Change, ...]:
    ending = path.suffix.lower()
    if ending == ".json":
        return (change_json,)
    if ending == ".jsonl":
        return (change_json_line,)
    if ending == ".toml":
        return (change_toml, change_toml, change_words)
    if ending in (".txt", ".xml", ".csv"):
        return (change_words, change_words, change_lines)
    if body.startswith(b"\x89PNG"):
        return (change_png, change_png, change_header)
    if ending == ".safetensors":
        return (change_safetensors,)
    if body.startswith(b"PK"):
        return (change_zip,)
    return (change_header,)


def change_png(body: bytes, draw: random.Random) -> bytes:
    """A part changed with its checksum mended, taken away, repeated or moved."""
    parts, place = [], 8
    while place + 12 <= len(body):
        (length,) = struct.unpack(">I", body[place : place + 4])
        parts.append((body[place + 4 : place + 8], body[place + 8 : place + 8 + length]))
        place += 12 + length
    number = 0 if draw.random() < 0.4 else draw.randrange(len(parts))
    kind, content = parts[number]
    if draw.random() < 0.7:
        if draw.random() < 0.2 and kind == b"IDAT":
            content = zlib.compress(bytes(draw.choice((0, 1, 10_000_000))))
        parts[number] = (kind, draw.choice((change_header, flip_bits, write_number, cut_off))(content, draw))
    else:
        part = parts.pop(number)
        for _ in range(draw.choice((0, 1, 2, 50))):
            parts.insert(draw.randrange(len(parts) + 1), part)
    chunks = (struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in parts)
    return body[:8] + b"".join(chunks)


def change_safetensors(body: bytes, draw: random.Random) -> bytes:
    """Its JSON header, or the length of that."""
    (length,) = struct.unpack("<Q", body[:8])
    head, tensors = body[8 : 8 + length], body[8 + length :]
    if draw.random() < 0.15:
        return struct.pack("<Q", draw.choice((0, length + 1, 2**20, 2**40, 2**63, 2**64 - 1))) + head + tensors
    head = change_json(head, draw)
    return struct.pack("<Q", len(head)) + head + tensors


def change_zip(body: bytes, draw: random.Random) -> bytes:
    """A member of another content or name, one more, or one less."""
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
        packed = archive.infolist()[0].compress_type
    number = draw.randrange(len(members))
    name, content = members[number]
    kind = draw.randrange(5)
    if kind <= 1:
        members[number] = (name, draw.choice((flip_bits, change_header, write_number, cut_off))(content, draw))
    elif kind == 2:
        members[number] = (draw.choice(("../../outside", "/tmp/outside", "", name.upper(), "a" * 5000)), content)
    elif kind == 3:
        members.append((draw.choice(("../../outside", name)), content))
    else:
        members.pop(number)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", packed) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return out.getvalue()
