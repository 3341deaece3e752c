"""SHA256SUMS beside the files of a folder: is each still what was written? `sha256sum -c SHA256SUMS` tells it too."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

SUMS = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64})  ([^/\s]+)")
_CHUNK_BYTES = 1 << 22


def write_sums(folder: Path) -> None:
    """Write FOLDER/SHA256SUMS over the files that are in it."""
    files = sorted(path for path in folder.iterdir() if path.name != SUMS)
    (folder / SUMS).write_text("".join(f"{sha256(path)}  {path.name}\n" for path in files))


def find_damage(folder: Path) -> str:
    """What is wrong with a folder that `write_sums` has described: which file, and what of it; empty for nothing.

    Raises: FileNotFoundError where the folder has no SHA256SUMS.
    """
    *lines, last = (folder / SUMS).read_bytes().decode(errors="replace").split("\n")
    sums = {line[2]: line[1] for text in lines if (line := _LINE.fullmatch(text))}
    present = {path.name for path in folder.iterdir() if _is_ours(path.name)}
    if last or len(sums) != len(lines) or not present <= sums.keys():
        return f"{SUMS} is damaged"
    for name, wanted in sums.items():
        path = folder / name
        try:
            if sha256(path) != wanted:
                return f"{name} is not what was written, its checksum differs"
        except OSError as error:
            return f"{name} cannot be read, {error.strerror}"
    return ""


def _is_ours(name: str) -> bool:
    """Whether a file may be one that was described: file managers and network disks leave others (.DS_Store, ._x)."""
    return name.endswith((".safetensors", ".json")) and not name.startswith(".")


def sha256(path: Path) -> str:
    """Of a file's bytes, as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
