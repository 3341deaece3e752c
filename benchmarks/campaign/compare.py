"""Whether two folders hold the same, bit for bit, but for times."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

Rule = Callable[[bytes], object]
"""What of a file must be the same."""


def contents(folder: Path, rules: Mapping[str, Rule]) -> dict[str, object]:
    """What is compared of a folder, by its path in it: of a file what `rules` say for its name, else its bytes; of a
    link where it points to, whether or not that is there; that a folder is there (its name ends with a slash)."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"a link to {os.readlink(path)}"
        elif path.is_file():
            found[name] = rules.get(path.name, bytes)(path.read_bytes())
        else:
            found[f"{name}/"] = None
    return found


def left_in(folder: Path, *, all_is_temporary: bool = False) -> list[str]:
    """A line for each temporary file, folder or link in a folder that is no result of a command; locks stay in one."""
    found = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.suffix != ".lock"]
    return [f"{folder.name}/{name} was left" for name in found if all_is_temporary or is_temporary(name.name)]


def differences(found: Mapping[str, object], wanted: Mapping[str, object]) -> list[str]:
    """A line for each file, link or folder that is missing, too much, or other than it should be."""
    lines = [f"{name} is missing" for name in sorted(wanted.keys() - found.keys())]
    for name in sorted(found.keys() - wanted.keys()):
        lines.append(f"{name} is {'a temporary file that was left' if is_temporary(name) else 'not in the other'}")
    for name in sorted(found.keys() & wanted.keys()):
        if found[name] != wanted[name]:
            lines.append(f"{name} differs")
    return lines


def is_temporary(name: str) -> bool:
    """Whether a file, or a folder above it, is one that a finished command leaves no more."""
    return any(part.startswith(".") or part.endswith(".part") for part in Path(name).parts)


def without(*keys: str) -> Rule:
    """JSON without these keys, however deep: what differs between two runs of the same numbers."""

    def strip(value: object) -> object:
        if isinstance(value, dict):
            return {key: strip(one) for key, one in value.items() if key not in keys}
        return [strip(one) for one in value] if isinstance(value, list) else value

    def rule(body: bytes) -> object:
        try:
            return strip(json.loads(body))
        except ValueError as error:
            return f"no JSON: {error}"

    return rule


def nothing(body: bytes) -> object:
    """Only that the file is there."""
    return None
