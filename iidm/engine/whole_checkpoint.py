"""The newest checkpoint that is whole: one that was damaged after it was written is passed over, and that is told."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open

from ..types import UserError
from .checkpoint import TRAINING, list_checkpoints, read_metadata
from .checksums import find_damage


class Whole(NamedTuple):
    """What `find_whole_checkpoint` has found."""

    checkpoint: Path | None
    """The newest one that is whole; None where there is none at all."""
    damaged: tuple[Path, ...]
    """Newer ones, which are damaged."""
    notes: list[str]
    """A line for each of these: what is wrong with it, and which one is used."""


def find_whole_checkpoint(run_dir: Path) -> Whole:
    """The newest checkpoint of a run whose files are those that were written. Reads all of it.

    Raises: UserError where there are checkpoints, and all of them are damaged.
    """
    wrong: dict[Path, str] = {}
    for checkpoint in reversed(list_checkpoints(run_dir)):
        what = _damage(checkpoint)
        if not what:
            notes = [f"{path} is damaged ({text}): {checkpoint.name} before it is used" for path, text in wrong.items()]
            return Whole(checkpoint, tuple(wrong), notes)
        wrong[checkpoint] = what
    if wrong:
        told = "; ".join(f"{path.name}: {what}" for path, what in wrong.items())
        raise UserError(
            f"No checkpoint in {run_dir / 'checkpoints'} is whole ({told}). Copy one back, or remove that folder to"
            f" train from the first step on: --resume {run_dir}."
        )
    return Whole(None, (), [])


def set_aside(damaged: Path) -> None:
    """Give a damaged checkpoint a name under which it is not found; the next checkpoint that is saved removes it."""
    os.replace(damaged, damaged.with_name(f".{damaged.name}.damaged"))


def _damage(checkpoint: Path) -> str:
    """What is wrong with a checkpoint, or an empty text. Of one without checksums, which versions before this wrote,
    only that files are cut off is seen."""
    try:
        return find_damage(checkpoint)
    except FileNotFoundError:
        pass
    for path in (checkpoint / TRAINING, *sorted(checkpoint.glob("*.safetensors"))):
        try:
            with safe_open(path, "pt"):
                pass
        except (OSError, SafetensorError) as error:
            return f"{path.name} cannot be read, {error}"
    try:
        read_metadata(checkpoint)
    except UserError as error:
        return str(error).rstrip(".")
    return ""
