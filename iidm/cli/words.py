"""The words of a command line: how the command was called, and its words as an object."""

from __future__ import annotations

import os
import sys
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import tyro

from ..types import UserError

T = TypeVar("T")

SAME = {
    "train": {"--out": "--run-dir", "--output": "--run-dir", "--work-dir": "--run-dir", "--steps": "--max-steps"},
    "inspect": {"--out": "--write", "--output": "--write"},
}
"""Words that other commands (and other programs) have for an option of this one; they are taken for it."""
TOML_FIRST = {"prepare": "dataset", "study": "study"}
"""Commands whose first word may be a TOML file -> its field."""
SAME_ELSEWHERE = {"--output": "--out", "-o": "--out"}
OTHERS = {
    "--epochs": "a run is counted in steps, each on one batch of every kind of image: --max-steps N",
    "--batch-size": "there is one for each kind of image: --data.source-batch, --data.target-batch (labeled ones) and"
    " --data.unlabeled-batch",
    "--gpu": "the first GPU is taken; for another one write CUDA_VISIBLE_DEVICES=1 before the command",
    "--gpus": "a run on several GPUs is started by torchrun (docs/scale.md); for one other than the first write"
    " CUDA_VISIBLE_DEVICES=1 before the command",
}
"""Options of other programs for training that have no single one here, and what there is in their place."""


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


def expanded(words: Sequence[str], command: str) -> list[str]:
    """The words of a command with its own names for options (`SAME`), and with `~` as the home folder: a shell does
    that itself, but not in `--out=~/results` or in quotes.

    Raises: UserError for an option of another program (`OTHERS`), and for an empty value, which no option has: as a
        path it would be the folder that the user is in, and all of it would be read.
    """
    same = SAME.get(command, SAME_ELSEWHERE)
    found: list[str] = []
    for before, word in pairwise([program(command), *words]):
        name, is_option, value = word.partition("=") if word.startswith("-") else ("", "", word)
        if command == "train" and name in OTHERS:
            raise UserError(f"{program(command)} has no {name}: {OTHERS[name]}.")
        if not word or is_option and not value:
            place = name if is_option else f"What follows {before}"
            raise UserError(f"{place} is empty, as where a variable of the shell is not set. Give it a value.")
        found.append(same.get(name, name) + is_option + os.path.expanduser(value))
    return found


def parse_arguments(kind: type[T], command: str, argv: Sequence[str], description: str | None = None) -> T:
    """The words of a command as one of its dataclass `kind`, whose docstrings are the help.

    Raises: SystemExit (tyro) for --help, and for options and values that do not exist, with the nearest.
    """
    words = ["--help" if word == "--help-all" else word for word in expanded(argv, command)]
    if command in TOML_FIRST:
        found = toml_elsewhere(words, {"", *option_defaults(kind())} - {f"--{TOML_FIRST[command]}"})
        if found:
            raise UserError(
                f"{program(command)} takes a TOML file as its first word, without an option, and {found[1]} follows"
                f" {found[0]}. Write {program(command)} {found[1]} and the options after it."
            )
    with files_told(words):
        try:
            return tyro.cli(kind, prog=program(command), description=description, args=words)
        except SystemExit as end:
            if end.code and words and words[0] in _takes_several(kind):
                print(f"iidm: {words[0]} takes all words after it; what is no option stands first.", file=sys.stderr)
            raise


def toml_elsewhere(words: Sequence[str], options: Container[str]) -> tuple[str, str] | None:
    """The first TOML file that is none of these options' value: the word before it (empty: none that is an option), and
    the file. A folder with the ending .toml, such as that of a run, is no such file."""
    for before, word in pairwise(["", *words]):
        option, has_value, file = word.partition("=")
        if not (word.startswith("-") and has_value):
            option, file = before if before.startswith("-") and "=" not in before else "", word
        if file.endswith(".toml") and not file.startswith("-") and not os.path.isdir(file):
            if option.replace("_", "-").replace("--no-", "--") not in options:
                return option, file
    return None


def option_defaults(values: Any, prefix: str = "--") -> dict[str, Any]:
    """Option -> its value in a dataclass, of all its fields and of those of the dataclasses in it."""
    found: dict[str, Any] = {}
    for field in fields(values):
        name, value = prefix + field.name.replace("_", "-"), getattr(values, field.name)
        found |= option_defaults(value, f"{name}.") if is_dataclass(value) else {name: value}
    return found


@contextmanager
def files_told(words: Sequence[str]) -> Iterator[None]:
    """A context in which words are parsed: after a mistake it tells which of them is a file with the name of an option,
    as the parser cannot know it."""
    try:
        yield
    except SystemExit as end:
        file = next((word for word in words if word.startswith("-") and os.path.lexists(word)), None)
        if end.code and file is not None:
            print(f"iidm: {file} is read as an option; the file of this name is ./{file}", file=sys.stderr)
        raise


def _takes_several(kind: Any) -> set[str]:
    """Options of a command with any number of values."""
    return {"--" + field.name.replace("_", "-") for field in fields(kind) if isinstance(field.default, tuple)}
