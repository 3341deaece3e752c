"""Classes as a user writes them: names, colours, ids, and what of labels is ignored."""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ...types import IGNORE_INDEX, ClassSet, UserError
from ..labels.colors import RGB, packed, parse_color
from ..labels.encodings import Kind, LabelEncoding

BACKGROUND = "background"
"""The class that pixels without annotation are, unless something else is said."""


@dataclass(frozen=True)
class ClassEntry:
    """One class and what it is in label files."""

    name: str
    color: str = ""
    """#rrggbb; empty: a generated one, which no label is read by."""
    ids: tuple[int, ...] = ()
    colors: tuple[str, ...] = ()
    """Further colours in label pictures."""
    names: tuple[str, ...] = ()
    """Names in annotation files; empty: its name."""


@dataclass(frozen=True)
class Ignored:
    """What of labels no loss and no metric counts."""

    ids: tuple[int, ...] = ()
    colors: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


def class_set(entries: Sequence[ClassEntry]) -> ClassSet:
    """Names and display colours."""
    colors = [entry.color or (entry.colors[0] if entry.colors else "") for entry in entries]
    palette = tuple(parse_color(color) if color else generated_color(k) for k, color in enumerate(colors))
    return ClassSet(tuple(entry.name for entry in entries), palette)


def label_table(
    entries: Sequence[ClassEntry],
    ignored: Ignored,
    kind: Kind = "auto",
    unlabeled: str | None = None,
    empty_images: str = "unlabeled",
) -> LabelEncoding:
    """How label files of the classes are read.

    Args:
        unlabeled: `ignore` or a class's name: what pixels without annotation are; None: the class `background` where
            there is one.
        empty_images: `labeled` or `unlabeled`: what images are that COCO and CVAT files list without any annotation.

    Raises:
        UserError: another word; an id, a colour or a name of two classes, or of a class and ignored; a class without a
            colour where labels are read by colour.
    """
    names = tuple(entry.name for entry in entries)
    if kind == "colors":
        without = [entry.name for entry in entries if not entry.color and not entry.colors]
        if without:
            raise UserError(f'label_kind = "colors" needs the color of each class; {without[0]!r} has none.')
    if unlabeled is None:
        unlabeled = BACKGROUND if BACKGROUND in names else "ignore"
    if unlabeled != "ignore" and unlabeled not in names:
        raise UserError(
            f'unlabeled must be "ignore" or a class\'s name, not {unlabeled!r} (classes: {", ".join(names)}).'
        )
    if empty_images not in ("labeled", "unlabeled"):
        raise UserError(f'empty_images must be "labeled" or "unlabeled", not {empty_images!r}.')
    return LabelEncoding(
        kind,
        _table("id", names, [(i, k, str(i)) for k, e in enumerate(entries) for i in e.ids], _keyed(ignored.ids, int)),
        colors=_table(
            "color",
            names,
            [(_color(c), k, c) for k, e in enumerate(entries) for c in (e.color, *e.colors) if c],
            _keyed(ignored.colors, _color),
        ),
        names=_table(
            "name",
            names,
            [(n, k, repr(n)) for k, e in enumerate(entries) for n in (e.names or (e.name,))],
            _keyed(ignored.names, str),
        ),
        unlabeled=IGNORE_INDEX if unlabeled == "ignore" else names.index(unlabeled),
        empty_is_labeled=empty_images == "labeled",
        class_names=names,
        by="colors" if kind == "colors" else "ids",
    )


Key = TypeVar("Key", int, str)


def _table(
    what: str, names: Sequence[str], of_classes: Sequence[tuple[Key, int, str]], ignored: Mapping[Key, object]
) -> tuple[tuple[Key, int], ...]:
    """Pairs (key, train id), sorted; a key of two classes, or of one and ignored, is an error that names the class."""
    table: dict[Key, int] = {}
    for key, train_id, text in of_classes:
        if key in table or key in ignored:
            also = f"class {names[table[key]]!r} has it too" if key in table else f"ignored {what}s hold it too"
            raise UserError(f"{what} {text} of class {names[train_id]!r} is named more than once: {also}.")
        table[key] = train_id
    return tuple(sorted({**table, **dict.fromkeys(ignored, IGNORE_INDEX)}.items()))


def _keyed(values: Iterable[Any], key: Callable[[Any], Key]) -> dict[Key, Any]:
    return {key(value): value for value in values}


def _color(text: str) -> int:
    return packed(parse_color(text))


def generated_color(index: int) -> RGB:
    """A colour unlike its neighbours': hues a golden ratio apart, in three brightnesses."""
    red, green, blue = colorsys.hsv_to_rgb(index * 0.618034 % 1.0, 0.75, (0.95, 0.7, 0.5)[index % 3])
    return round(red * 255), round(green * 255), round(blue * 255)
