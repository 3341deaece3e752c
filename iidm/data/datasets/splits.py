"""Which training images of the target are labeled: a budget's split, or lists of names in text files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

import numpy as np

from ...types import UserError
from ..files.common import first_few
from ..files.listing import IMAGE_ENDINGS


def labeled_split(
    names: Iterable[str], count: int, choice: Literal["random", "even"], seed: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Divide names into `count` labeled ones and the others.

    `random` takes the first of one shuffle of the sorted names, so a small budget lies within each larger
    one, as the paper's 100 within 200 within 500; `even` takes the middle of `count` equal stretches of the
    sorted names.

    Args:
        seed: of the shuffle (numpy's PCG64); the order that the names come in does not matter.

    Returns:
        Labeled and unlabeled names, each sorted.

    Raises:
        UserError: `count` is negative or larger than the number of names.
    """
    ordered = sorted(names)
    if not 0 <= count <= len(ordered):
        raise UserError(
            f"--data.labeled-count is {count}, but there are {len(ordered)} labeled training images."
            f" Give 0 to {len(ordered)}."
        )
    if choice == "random":
        chosen = np.random.Generator(np.random.PCG64(seed)).permutation(len(ordered))[:count].tolist()
    else:
        chosen = [(2 * i + 1) * len(ordered) // (2 * count) for i in range(count)]
    picked = set(chosen)
    labeled = tuple(n for i, n in enumerate(ordered) if i in picked)
    return labeled, tuple(n for i, n in enumerate(ordered) if i not in picked)


def read_list(path: Path, names: Sequence[str] | None = None) -> list[str]:
    """The names in a text file, one a line, with or without the image's ending; in the order of the file.

    Empty lines and lines that start with `#` are left aside.

    Args:
        path: the list.
        names: all names there are; None: every line is a name as it stands.

    Raises:
        UserError: no such file, no name in it, a name that does not exist (with the nearest), or one named
            twice.
    """
    try:
        lines = path.expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The list {path} cannot be read: {error}.") from None
    if names is None:
        return [entry for line in lines if (entry := line.strip()) and not entry.startswith("#")]
    known = set(names)
    listed: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        name = entry if entry in known else _without_ending(entry)
        if name not in known:
            near = get_close_matches(name, names, n=1, cutoff=0.4)
            hint = f"; the nearest is {near[0]!r}" if near else f"; there are {first_few(names, 3)}"
            raise UserError(f"{path}, line {number}: there is no image {entry!r}{hint}.")
        if name in listed:
            raise UserError(f"{path}, line {number}: {entry!r} stands in line {listed[name]} already.")
        listed[name] = number
    if not listed:
        raise UserError(f"The list {path} holds no names. Write one image name a line.")
    return list(listed)


def write_list(path: Path, names: Iterable[str]) -> None:
    """Write names, one a line; `read_list` reads them again."""
    path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def _without_ending(entry: str) -> str:
    stem, dot, ending = entry.rpartition(".")
    return stem if dot and f".{ending.lower()}" in IMAGE_ENDINGS else entry
