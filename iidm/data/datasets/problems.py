"""What is wrong with many files, told once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..files.common import counted, first_few

SHOWN_NAMES = 3
"""Further files that are named of each kind of fault."""

_DAMAGED = re.compile(r"cannot be read|cut off|is empty|does not exist|is damaged")
_VALUES = re.compile(r"'[^']*'|#[0-9a-f]{6}|\d+")


class Problem(NamedTuple):
    """What is wrong with a file."""

    stream: str
    file: Path
    others: tuple[Path, ...]
    """Other files that the text may name."""
    text: str
    """Without a full stop."""

    @property
    def is_damage(self) -> bool:
        """Whether another copy of the file would help."""
        return _DAMAGED.search(self.text) is not None

    @property
    def fault(self) -> str:
        """The same for two files with the same kind of fault: the text up to its first colon, without values."""
        text = self.text
        for path in (self.file, *self.others):
            text = text.replace(str(path), "")
        return _VALUES.sub("", text.split(": ")[0])


def told_once(problems: Sequence[Problem], most: int) -> str:
    """`fault_lines` in one."""
    return "; ".join(fault_lines(problems, most))


def fault_lines(problems: Sequence[Problem], most: int) -> list[str]:
    """One clause for each kind of fault: the first file's in full, how many more have it, and the first of them.

    Args:
        most: kinds of fault that are told; of the others the count.
    """
    kinds: dict[str, list[Problem]] = {}
    for problem in problems:
        kinds.setdefault(problem.fault, []).append(problem)
    clauses = []
    for first, *more in list(kinds.values())[:most]:
        clause = f"{first.stream}: {first.text}"
        if more:
            names = first_few([problem.file.name for problem in more], SHOWN_NAMES)
            clause += f" (the same fault in {counted(len(more), 'more file')}: {names})"
        clauses.append(clause)
    left = sum(len(group) for group in list(kinds.values())[most:])
    return [*clauses, *([f"and {left} more"] if left else [])]
