"""Text files as editors write them."""

from __future__ import annotations

import codecs
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
