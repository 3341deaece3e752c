"""Checks of values, with their name in the error: those of options, and the keys of a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple

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


class ValueKind(NamedTuple):
    """What the value of a key must be."""

    words: str
    """As an error says it."""
    fits: Callable[[Any], bool]


def list_of(words: str, fits: Callable[[Any], bool]) -> ValueKind:
    """A list of what fits."""
    return ValueKind(words, lambda value: isinstance(value, list) and all(map(fits, value)))


TEXT = ValueKind("text", lambda value: isinstance(value, str))
TEXTS = list_of("a list of texts", TEXT.fits)


def check_keys(where: str, table: Mapping[str, Any], kinds: Mapping[str, ValueKind], what: str = "key") -> None:
    """The keys and values of a table, as TOML has them.

    Args:
        where: file and place in it, as the error begins.
        kinds: every key that there may be; none has to be there.
        what: what the error calls a key.

    Raises: UserError for an unknown key, with the nearest, and for a value of another kind.
    """
    for key, value in table.items():
        if key not in kinds:
            raise UserError(f"{where}: {unknown_name(what, key, kinds)}")
        if not kinds[key].fits(value):
            raise UserError(f"{where}: {key} must be {kinds[key].words}, not {value!r}.")
