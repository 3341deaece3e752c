"""Checks of single values, with the option's name in the error."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from ..types import UserError


def require(condition: bool, name: str, value: object, need: str) -> None:
    """Raise UserError `--name must be need, not value` where the condition does not hold."""
    if not condition:
        raise UserError(f"--{name.replace('_', '-')} must be {need}, not {value!r}.")


def require_share(name: str, value: float) -> None:
    """Require a value between 0 and 1."""
    require(0.0 <= value <= 1.0, name, value, "between 0 and 1")


def unknown_name(what: str, name: str, known: Any) -> UserError:
    """The error for a name that is not in `known`, with the nearest one that is."""
    near = get_close_matches(name, list(known), n=1, cutoff=0.4)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UserError(f"There is no {what} {name!r}.{hint} Known: {', '.join(sorted(known))}.")
