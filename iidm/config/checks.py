"""Checks of values, with their name in the error: those of options, and the keys of a file."""

from __future__ import annotations

import re
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
    is_tables: bool = False
    """Whether it is a list of tables, each of which begins with its key in two brackets."""


def list_of(words: str, fits: Callable[[Any], bool]) -> ValueKind:
    """A list of what fits."""
    return ValueKind(words, lambda value: isinstance(value, list) and all(map(fits, value)))


def list_of_tables(key: str) -> ValueKind:
    """The tables below `[[key]]`."""
    return list_of(f"[[{key}]] tables", _is_table)._replace(is_tables=True)


def _is_table(value: Any) -> bool:
    return isinstance(value, dict)


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
            raise UserError(f"{where}: {key} must be {kinds[key].words}, not {_what_came(key, value, kinds[key])}")


def parse_mistake(error: Exception, text: str, key: str) -> str:
    """What to say of a text that is no TOML: that of tables which need two brackets or stand twice in words of its own,
    as the parser speaks of declared names and overwritten values there; else the parser's error.

    Args:
        key: of the list of tables that the file holds.
    """
    single = re.search(rf"^[ \t]*\[[ \t]*{key}[ \t]*\]", text, re.MULTILINE)
    if single:
        number = text.count("\n", 0, single.start()) + 1
        return f"line {number} is [{key}], which is one table, and a list of tables is needed. {_two_brackets(key)}"
    again = re.search(r"Cannot (?:declare|overwrite|mutate) .*at line (\d+)", str(error))
    if again:
        line = text.split("\n")[int(again[1]) - 1].strip()[:60]
        return (
            f"line {again[1]}, {line!r}, gives once more what stands above it. Keep one of the two; a further table"
            f" begins with a line [[{key}]]."
        )
    return f"{error}."


def _what_came(key: str, value: Any, kind: ValueKind) -> str:
    """A value that does not fit, and what to write."""
    is_list = isinstance(value, list) and any(map(_is_table, value))
    if kind.is_tables:
        return f"{'one table' if _is_table(value) else repr(value)}. {_two_brackets(key)}"
    if is_list or _is_table(value) and not kind.fits({}):  # else a table is right, and something in it is wrong
        came = "a list of tables" if is_list else "a table"
        return f"{came}. In place of the section in brackets write a line {key} = ..."
    return f"{value!r}."


def _two_brackets(key: str) -> str:
    return f"Begin each of them with a line [[{key}]], in two brackets, above its name and its other keys."
