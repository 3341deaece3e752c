"""`--help` of the commands, and `train --help-all`: every option with its docstring and its default, as plain text."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import tyro

from .short_help import field_docs

_COLUMN = 26
"""Where the texts begin."""
_VALUES = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH", bool: ""}


class _Option(NamedTuple):
    """A word of the command line, and what its help tells."""

    called: str
    """`--least-region-px INT`, or `RUN` of a word that stands for itself."""
    text: str
    default: Any
    """MISSING: it must be given."""
    is_positional: bool


def full_help(
    called: str, kind: type[Any], base: Any = None, head: Sequence[str] = (), without: Sequence[str] = ()
) -> str:
    """Every option of a command.

    Args:
        called: how the command is called.
        kind: the dataclass of what it is told; groups of options are dataclasses in it.
        base: an instance with the defaults; None: those of the class.
        head: lines that stand before the options; none: the docstring of the class.
        without: fields that are told there.
    """
    own = list(_options(kind, base, ""))
    positional = [option for option in own if option.is_positional]
    needed = [option for option in own if not option.is_positional and option.default is MISSING]
    words = [option.called if option.default is MISSING else f"[{option.called}]" for option in positional]
    usage = ["usage:", called, *words, *(option.called for option in needed), "[OPTIONS]"]
    lines = [" ".join(usage) + "        defaults in brackets", "", *(head or _wrapped(kind.__doc__ or "", "")), ""]
    skipped = {_name(name) for name in without}
    own = [*positional, *needed, *(o for o in own if o not in positional and o not in needed)]
    lines += [line for option in own if option.called.split()[0] not in skipped for line in _lines(option)]
    for title, group, values, prefix in _groups(kind, base, ""):
        lines += ["", *_wrapped(title, "")]
        lines += [line for option in _options(group, values, prefix) for line in _lines(option)]
    return "\n".join(lines)


def _options(kind: type[Any], base: Any, prefix: str) -> Iterator[_Option]:
    """The fields of a dataclass that are no groups."""
    hints, docs = get_type_hints(kind, include_extras=True), field_docs(kind)
    for field in fields(kind):
        if is_dataclass(hints[field.name]):
            continue
        value, metavar, is_positional = _plain(hints[field.name])
        default = field.default if base is None else getattr(base, field.name)
        if is_positional:
            called = metavar or field.name.upper() + ("..." if value.endswith("...") else "")
        else:
            called = f"{_name(prefix + field.name)} {metavar or value}".rstrip()
            called += f", {_name(prefix + 'no_' + field.name)}" if default is True else ""
        yield _Option(called, docs[field.name], default, is_positional)


def _groups(kind: type[Any], base: Any, prefix: str) -> Iterator[tuple[str, type[Any], Any, str]]:
    """The groups of options in a dataclass, and in these: title, dataclass, values, what their names begin with."""
    hints, docs = get_type_hints(kind, include_extras=True), field_docs(kind)
    for field in fields(kind):
        group = hints[field.name]
        if isinstance(group, type) and is_dataclass(group):
            values = None if base is None else getattr(base, field.name)
            inner = f"{prefix}{field.name}."
            yield docs[field.name], group, values, inner
            yield from _groups(group, values, inner)


def _name(field: str) -> str:
    return "--" + field.replace("_", "-")


def _plain(hint: Any) -> tuple[str, str, bool]:
    """Of the type of a field: how its value is written, the word that stands for it, if any, and whether it is given
    without a name."""
    metavar, is_positional = "", False
    if get_origin(hint) is Annotated:
        hint, *marks = get_args(hint)
        is_positional = any(mark is tyro.conf.Positional for mark in marks)
        metavar = next((mark.metavar for mark in marks if getattr(mark, "metavar", None)), "")
    return _value(hint), metavar, is_positional


def _value(hint: Any) -> str:
    if get_origin(hint) in (Union, UnionType):
        return _value(next(one for one in get_args(hint) if one is not type(None)))
    if get_origin(hint) is Literal:
        return "{" + ",".join(map(str, get_args(hint))) + "}"
    if get_origin(hint) is tuple:
        first, *others = get_args(hint)
        return _value(first) + ("..." if others == [...] else "".join(" " + _value(other) for other in others))
    return _VALUES[hint]


def _lines(option: _Option) -> list[str]:
    """The option, and beside it (below it, if it is long) what it is."""
    value = option.default
    is_told = not (value is MISSING or value is None or value is False or value in ((), ""))
    text = _wrapped(option.text + (f" [{_shown(value)}]" if is_told else ""), " " * _COLUMN)
    if len(option.called) + 4 > _COLUMN:
        return [f"  {option.called}", *text]
    return [f"{'  ' + option.called:{_COLUMN}}{text[0].lstrip()}", *text[1:]]


def _shown(value: Any) -> str:
    """A default as it is written on a command line."""
    if value is True:
        return "on"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _wrapped(text: str, indent: str) -> list[str]:
    width = min(shutil.get_terminal_size(fallback=(100, 24)).columns, 120)
    wrapper = textwrap.TextWrapper(max(width, _COLUMN + 20), indent, indent, break_on_hyphens=False)
    return wrapper.wrap(" ".join(text.split())) or [""]
