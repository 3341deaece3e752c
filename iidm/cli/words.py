"""The words of a command line: how the command was called, and its words as an object."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import tyro

T = TypeVar("T")


def program(command: str) -> str:
    """How a command of this package is called, as the user called this one: `iidm train` or `python -m iidm.train`."""
    called, python = Path(sys.argv[0]), sys.orig_argv[0]
    if Path(python).is_absolute():  # another program started it
        python = "python"
    if called.parent.name == "iidm" and called.name == "__main__.py":
        return f"{python} -m iidm {command}"
    if called.parent.name == "iidm" and called.suffix == ".py":
        return f"{python} -m iidm.{command}"
    return f"iidm {command}"


def expanded(words: Sequence[str]) -> list[str]:
    """The words with `~` as the home folder. A shell does that itself, but not in `--out=~/results` or in quotes."""
    found = []
    for word in words:
        name, is_option, value = word.partition("=") if word.startswith("--") else ("", "", word)
        found.append(name + is_option + os.path.expanduser(value))
    return found


def parse_arguments(kind: type[T], command: str, argv: Sequence[str], description: str | None = None) -> T:
    """The words of a command as one of its dataclass `kind`, whose docstrings are the help.

    Raises: SystemExit (tyro) for --help, and for options and values that do not exist, with the nearest.
    """
    words = ["--help" if word == "--help-all" else word for word in expanded(argv)]
    return tyro.cli(kind, prog=program(command), description=description, args=words)
