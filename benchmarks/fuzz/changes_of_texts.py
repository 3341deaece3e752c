"""Changes to texts, JSON and TOML: other words, other types, nesting."""

from __future__ import annotations

import json
import random
import re
import sys
from typing import Any

from .changes_of_bytes import NUMBERS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

VALUES: tuple[Any, ...] = (
    *NUMBERS,
    *(None, True, False, "", "x", "0", "nan", [], {}, [[]], [None], {"": None}, 0.5, -0.0, 1e308, 1e400),
    *(float("nan"), -float("inf"), 10**400, "../../outside", "/tmp/outside", "~", "\0", "\n", "\x1b[2J", "\ud800"),
    *("a" * 70_000, "\u00e9\u200f\U0001f600", "{split}", "{0.__class__}", "%s%n", "os.system", "__import__('os')"),
    *([0] * 3000, [1, 2], [1, "2"], ["a", "b"], {"a": {"b": {}}}),
)
"""What takes the place of a value of JSON or TOML."""


def change_words(body: bytes, draw: random.Random) -> bytes:
    """A word or a number becomes another one: a large number, a name of elsewhere, nothing, nesting."""
    text = body.decode("utf-8", "surrogateescape")
    found = list(re.finditer(r'-?[\d.]+|[\w/.{}-]+|"[^"]*"', text))
    if not found:
        raise ValueError("no words")
    one = draw.choice(found)
    if draw.random() < 0.05:
        new = draw.choice(("[", '{"a":', "<a>", "a.", "(")) * 100_000
    elif draw.random() < 0.3:
        new = draw.choice(found)[0]
    else:
        new = json.dumps(draw.choice(VALUES), default=str) if draw.random() < 0.5 else str(draw.choice(VALUES))
    return (text[: one.start()] + new + text[one.end() :]).encode("utf-8", "surrogatepass")


def change_lines(body: bytes, draw: random.Random) -> bytes:
    """A line goes, comes twice, or stands elsewhere."""
    lines = body.split(b"\n")
    line = lines.pop(draw.randrange(len(lines)))
    for _ in range(draw.choice((0, 1, 2, 2000))):
        lines.insert(draw.randrange(len(lines) + 1), line)
    return b"\n".join(lines)


def change_json(body: bytes, draw: random.Random) -> bytes:
    """A value of another type, a missing or another key, deep nesting."""
    return json.dumps(_changed(json.loads(body), draw), allow_nan=True).encode("utf-8", "surrogatepass")


def change_toml(body: bytes, draw: random.Random) -> bytes:
    """The same in a TOML file, which is written anew for it, tables in one line each."""
    table = _changed(tomllib.loads(body.decode()), draw)
    if not isinstance(table, dict):
        raise ValueError("a TOML file is a table")
    lines = [f"{_toml(str(key))} = {_toml(value)}" for key, value in table.items()]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _toml(value: Any) -> str:
    """A value as TOML has it; what it has no form for becomes a text."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(str(key))} = {_toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value if isinstance(value, (str, bool, int)) else str(value))


def change_json_line(body: bytes, draw: random.Random) -> bytes:
    """The same in one line of many."""
    lines = body.splitlines()
    place = draw.randrange(len(lines))
    lines[place] = change_json(lines[place], draw)
    return b"\n".join(lines) + b"\n"


def _changed(table: Any, draw: random.Random) -> Any:
    holder, key = _place_in(table, draw)
    kind = draw.random()
    if holder is None:
        return draw.choice(VALUES)
    if kind < 0.55:
        holder[key] = draw.choice(VALUES)
    elif kind < 0.7:
        del holder[key]
    elif kind < 0.8:
        nested: Any = holder[key]
        for _ in range(draw.choice((1, 3, 400, 3000))):
            nested = [nested] if draw.random() < 0.5 else {"a": nested}
        return _unlimited(table, holder, key, nested)
    elif isinstance(holder, dict):
        holder[draw.choice(("", "x", str(key) + "s", "__class__", "../x"))] = holder.pop(key)
    else:
        holder.extend(holder[key : key + 1] * draw.choice((1, 2, 1000)))
    return table


def _unlimited(table: Any, holder: Any, key: Any, nested: Any) -> Any:
    """Python's writer of JSON follows about 1000 levels; deeper ones are put in as text by `change_words`."""
    holder[key] = nested
    json.dumps(table)
    return table


def _place_in(table: Any, draw: random.Random) -> tuple[Any, Any]:
    """A list or object at any depth and one of its keys; (None, None): the whole."""
    places: list[tuple[Any, Any]] = []
    todo = [table]
    while todo:
        one = todo.pop()
        keys = list(one) if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else ()
        for key in list(keys)[:200]:
            places.append((one, key))
            todo.append(one[key])
    return draw.choice(places) if places and draw.random() > 0.02 else (None, None)
