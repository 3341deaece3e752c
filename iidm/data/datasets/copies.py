"""Validation images that training has too, as copies under other names: scores would be too good."""

from __future__ import annotations

import filecmp
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from ...types import Sample
from ..files.common import first_few
from .dataset import Domains

_PEEKED_BYTES = 4096
"""Of a file's middle: images without compression have one size, and these bytes tell nearly all of them apart."""


def copies_note(domains: Domains) -> str | None:
    """A note on validation images whose files are, byte for byte, those of training images of the target; None where
    there are none, and where images are prepared. Of files of different sizes none is read."""
    val = _files(domains.val.samples) if domains.val and domains.val.prepared is None else []
    if not val:
        return None
    sizes: dict[int, list[Path]] = defaultdict(list)
    for path in val:
        sizes[_size(path)].append(path)
    sets = (domains.labeled, domains.unlabeled)
    training = [path for d in sets if d and d.prepared is None for path in _files(d.samples) if _size(path) in sizes]
    peeked = {_middle(path): path for path in training}
    same = {}
    for path in (path for size in {_size(path) for path in training} for path in sizes[size]):
        other = peeked.get(_middle(path))
        if other is not None and filecmp.cmp(path, other, shallow=False):
            same[path] = other
    if not same:
        return None
    told = first_few([f"{path.name} is {other}" for path, other in sorted(same.items())], 2)
    copies = "1 image is a copy" if len(same) == 1 else f"{len(same)} images are copies"
    return f"validation: {copies} of training images, so scores will be too good: {told}"


def _files(samples: Iterable[Sample]) -> list[Path]:
    return [sample.image for sample in samples]


def _size(path: Path) -> int:
    """Bytes; -1 where the file is gone, which a run may skip (`data.skip_damaged`) and no validation image is."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _middle(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(_size(path) // 2)
        return file.read(_PEEKED_BYTES)
