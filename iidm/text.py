"""Text files: read as editors write them, written whole or not at all. And how wide a terminal shows a text."""

from __future__ import annotations

import codecs
import os
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from .types import UserError

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_text(path: Path, what: str, *, undecodable: Literal["strict", "surrogateescape"] = "strict") -> str:
    """A text file: UTF-8 with or without a byte order mark, or UTF-16 with one.

    Args:
        what: what the file is, as the error begins: `The list`.
        undecodable: `surrogateescape`: bytes that are no UTF-8 become lone surrogates, as in file names of such bytes.

    Raises:
        OSError: the file cannot be read.
        UserError: it has another encoding, or is no text.
    """
    body = path.expanduser().read_bytes()
    try:
        if body.startswith(_UTF16):
            return body.decode("utf-16")
        if b"\0" not in body:
            return body.decode("utf-8-sig", undecodable)
    except UnicodeDecodeError:
        pass
    raise UserError(f"{what} {path} is no UTF-8 text. Save it as UTF-8.") from None


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all: after a kill or a power cut there is the one of before, or the new one.

    What a kill leaves beside it has the same name each time, and becomes the file when that is written again.
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, body: bytes) -> None:
    """As `write_text`, of bytes."""
    half = path.with_name(f".{path.name}")
    try:
        half.write_bytes(body)
        put_in_place(half, path)
    except OSError:  # a full disk, which what was written would fill on
        with suppress(OSError):
            half.unlink(missing_ok=True)
        raise


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """The name beside its place that a file is written under, in a context at whose end it takes its place.

    Where an error cuts the writing short, as on a full disk, what was written is removed: it would fill the disk on. Of
    large files that are not worth a wait for the disk, as `put_in_place` waits; a power cut may take them.
    """
    half = path.with_name(f".{path.name}")
    try:
        yield half
        os.replace(half, path)
    except BaseException:
        with suppress(OSError):
            half.unlink(missing_ok=True)
        raise


def put_in_place(half: Path, path: Path) -> None:
    """Give a file that was written beside its place its name; after a power cut it still has it, and is whole.

    A name lies in the folder, which has to be on the disk too: file systems may keep a rename for seconds.
    """
    sync(half)
    os.replace(half, path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Make sure that a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def shown_width(text: str) -> int:
    """Columns that a terminal gives a text: two for each wide letter (Chinese, Japanese, Korean), none for an accent
    that stands above the letter before it."""
    shown = (c for c in text if not unicodedata.combining(c))
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in shown)


def padded(text: str, width: int) -> str:
    """The text with spaces behind it, `width` columns wide or as wide as it is."""
    return text + " " * (width - shown_width(text))
