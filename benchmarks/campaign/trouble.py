"""What goes wrong beside a kill: a full disk, a folder that is read only, damaged files (power cuts: power.py).

Root mounts a small tmpfs, or the folder read only, in a mount namespace of this process: nothing of it outlives it, and
nobody else sees it. Without that right a limit on the size of files stands for a full disk, and the folder's mode for
one that is read only; root ignores modes, so a root without mounts leaves that out.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from random import Random

_NEW_NAMESPACE = 0x00020000
_REMOUNT, _READ_ONLY, _BIND, _RECURSIVE, _PRIVATE = 0x20, 0x1, 0x1000, 0x4000, 0x40000
_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


@cache
def may_mount() -> bool:
    """Take a mount namespace of one's own; False where that is not allowed."""
    if _libc.unshare(_NEW_NAMESPACE) != 0:
        return False
    return _libc.mount(b"none", b"/", None, _RECURSIVE | _PRIVATE, None) == 0


def _mount(source: str, place: Path, kind: str, flags: int, options: str = "") -> None:
    result = _libc.mount(source.encode(), os.fsencode(place), kind.encode(), flags, options.encode())
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(place))


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[None]:
    """Meanwhile `folder` is a disk of its own of that size, empty at first; what is on it at the end is lost."""
    folder.mkdir(parents=True, exist_ok=True)
    _mount("iidm-campaign", folder, "tmpfs", 0, f"size={size_bytes}")
    try:
        yield
    finally:
        _libc.umount2(os.fsencode(folder), _DETACH)


def free_space(folder: Path) -> None:
    """Give the disk of `small_disk` room for everything."""
    _mount("iidm-campaign", folder, "tmpfs", _REMOUNT, "size=2g")


@contextmanager
def read_only(folder: Path, mounts: bool) -> Iterator[None]:
    """Meanwhile nothing can be written in a folder."""
    if not mounts:
        modes = {path: path.stat().st_mode for path in (folder, *folder.rglob("*"))}
        for path, mode in modes.items():
            path.chmod(mode & ~0o222)
        try:
            yield
        finally:
            for path, mode in modes.items():
                with suppress(FileNotFoundError):
                    path.chmod(mode)
        return
    _mount(str(folder), folder, "", _BIND)
    try:
        _mount("none", folder, "", _BIND | _REMOUNT | _READ_ONLY)
        yield
    finally:
        _libc.umount2(os.fsencode(folder), _DETACH)


def damage(path: Path, rng: Random) -> str:
    """Cut a file off, or turn one bit of it over; says which."""
    body = bytearray(path.read_bytes())
    place = rng.randrange(len(body))
    if rng.random() < 0.5:
        path.write_bytes(body[:place])
        return f"{path.name} cut off at byte {place} of {len(body)}"
    bit = rng.randrange(8)
    body[place] ^= 1 << bit
    path.write_bytes(body)
    return f"{path.name}: bit {bit} of byte {place} turned over"
