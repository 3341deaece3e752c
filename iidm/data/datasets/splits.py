"""Which training images of the target are labeled: a budget's split, or lists of names in text files."""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

import numpy as np

from ...text import read_text, write_text
from ...types import UserError
from ..files.common import first_few
from ..files.listing import IMAGE_ENDINGS, composed

_LIKELY = 5000
"""Names before and after a wrong one in their order, among which the nearest is looked for."""


class TooFewLabeled(UserError):
    """More labeled images are asked for than there are."""

    def __init__(self, count: int, total: int) -> None:
        super().__init__(count, total)  # as they are: an exception is pickled by what it was made of
        self.count, self.total = count, total

    def __str__(self) -> str:
        return (
            f"--data.labeled-count is {self.count}, but there are {self.total} labeled training images. Give 0 to"
            f" {self.total}."
        )


class NoneUnlabeled(UserError):
    """A loss needs unlabeled target images, and all are labeled."""

    def __str__(self) -> str:
        return (
            "No target image is unlabeled, but L_inter or L_intra needs them. Label fewer (--data.labeled-count),"
            " name some with --data.unlabeled-list (labeled ones may be among them), or train without mixing:"
            " --method source_target (target_only without a source)."
        )


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
    picked = set(labeled_places(len(ordered), count, choice, seed))
    labeled = tuple(n for i, n in enumerate(ordered) if i in picked)
    return labeled, tuple(n for i, n in enumerate(ordered) if i not in picked)


def labeled_places(total: int, count: int, choice: Literal["random", "even"], seed: int) -> list[int]:
    """Which of `total` sorted names `labeled_split` takes, increasing."""
    if not 0 <= count <= total:
        raise TooFewLabeled(count, total)
    if seed < 0:
        raise UserError(f"--data.split-seed must be 0 or more, not {seed}.")
    if choice == "random":
        return sorted(np.random.Generator(np.random.PCG64(seed)).permutation(total)[:count].tolist())
    return [(2 * i + 1) * total // (2 * count) for i in range(count)]


def read_list(path: Path, names: Sequence[str] | Mapping[str, object] | None = None) -> list[str]:
    """The names in a text file, one a line, with or without the image's ending; in the order of the file.

    Empty lines are left aside, and lines that start with `#` unless an image is called so. A name may stand in double
    quotes, as a JSON string: `write_list` does that for names that would not be read back otherwise. Names are compared
    in Unicode's composed form, and the file may be UTF-8 or, with a byte order mark, UTF-16.

    Args:
        path: the list.
        names: all names there are (those of a mapping in composed form); None: every line is a name as it stands.

    Raises:
        UserError: no such file, no name in it, a name that does not exist (with the nearest), or one named
            twice.
    """
    try:
        lines = re.split(r"\r\n|\r|\n", read_text(path, "The list", undecodable="surrogateescape"))
    except OSError as error:
        raise UserError(f"The list {path} cannot be read: {error}.") from None
    if names is None:
        return [_unquoted(entry) for line in lines if (entry := line.strip()) and not entry.startswith("#")]
    originals = None if isinstance(names, Mapping) else {composed(name): name for name in names}
    known: Mapping[str, object] = originals if originals is not None else names  # type: ignore[assignment]
    listed: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        entry = line.strip()
        found = _find(entry, known)
        if found is None:
            if not entry or entry.startswith("#"):
                continue
            shown, words = _without_ending(composed(_unquoted(entry))), sorted(known)
            place = bisect_left(words, shown)
            near = get_close_matches(shown, words[max(place - _LIKELY, 0) : place + _LIKELY], n=1, cutoff=0.4)
            hint = f"; the nearest is {near[0]!r}" if near else f"; there are {first_few(list(names), 3)}"
            ends = [name for name in words if f"/{shown}".replace("\\", "/").endswith(f"/{name}")]
            if ends:
                hint = f". Names begin below the image folder: {max(ends, key=len)}"
            if any("\udc80" <= letter <= "\udcff" for letter in entry):
                hint = ", and the line is no UTF-8 text: save the list as UTF-8"
            raise UserError(f"{path}, line {number}: there is no image {entry!r}{hint}.")
        name = found if originals is None else originals[found]
        if name in listed:
            raise UserError(f"{path}, line {number}: {entry!r} stands in line {listed[name]} already.")
        listed[name] = number
    if not listed:
        raise UserError(f"The list {path} holds no names. Write one image name a line.")
    return list(listed)


def write_list(path: Path, names: Iterable[str]) -> None:
    """Write names, one a line; `read_list` reads them again."""
    write_text(path, list_text(names))


def list_text(names: Iterable[str]) -> str:
    """What `write_list` writes."""
    return "".join(f"{_quoted(name)}\n" for name in names)


def _find(entry: str, known: Mapping[str, object]) -> str | None:
    """The name that a line means: out of its quotes, or as it stands, with an ending or without."""
    for form in (_unquoted(entry), entry):
        for name in (composed(form), _without_ending(composed(form))):
            if name in known:
                return name
    return None


def _quoted(name: str) -> str:
    """The line of a name: in quotes where it would be read as something else."""
    is_plain = name.isprintable() and name == name.strip() and not name.startswith(("#", '"'))
    return name if is_plain else json.dumps(name, ensure_ascii=not name.isprintable())


def _unquoted(entry: str) -> str:
    if len(entry) < 2 or not (entry.startswith('"') and entry.endswith('"')):
        return entry
    try:
        return str(json.loads(entry))
    except ValueError:
        return entry


def _without_ending(entry: str) -> str:
    stem, dot, ending = entry.rpartition(".")
    return stem if dot and f".{ending.lower()}" in IMAGE_ENDINGS else entry
