"""The words of a command line: how the command was called, and its words as an object."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import tyro

from .full_help import full_help

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


HELP = {"-h", "--help", "--help-all"}


def parse_arguments(kind: type[T], command: str, argv: Sequence[str]) -> T:
    """The words of a command as one of its dataclass `kind`, whose docstrings are the help.

    Raises: SystemExit for --help, and (tyro) for options and values that do not exist, with the nearest.
    """
    if HELP & set(argv):
        sys.exit(print(full_help(program(command), kind)))
    return tyro.cli(kind, prog=program(command), args=expanded(argv))
