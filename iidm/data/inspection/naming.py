"""Names of the values that labels hold: from lists beside them, or from well-known palettes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ...types import IGNORE_INDEX
from ..labels.colors import packed
from ..labels.palettes import FIRST_ID, NOT_SCORED, PALETTES
from ..specs.class_table import BACKGROUND
from .files import words
from .lists import Lists
from .smoothing import class_colors
from .values import Values

VOID_NAMES = frozenset("void unlabeled unlabelled unlabled ignore ignored _ignore_ __ignore__ unknown".split())
_MOST_CLASSES = 255
_BACKGROUND_COLOR, _FOREGROUND_COLOR = 0x404040, 0xFF3030
"""Colours of made up classes, for pictures."""
_PLATE = "license plate"
"""Has no id in Cityscapes: what lies beneath it counts."""


@dataclass(frozen=True)
class Named:
    """One class: its name and what is it in the labels."""

    name: str
    color: int | None = None
    """0xrrggbb, to draw it by or, in colour labels, to know it by."""
    ids: tuple[int, ...] = ()
    scored: bool = True
    """Whether a loss and a metric count it."""
    guessed: bool = False
    """Whether the name is made up."""


@dataclass(frozen=True)
class Naming:
    """The classes of some labels and where their names come from."""

    classes: tuple[Named, ...]
    origin: str = ""
    """`Cityscapes labelIds`, the path of a list, or '' where the names are made up."""
    why: str = ""
    """What the origin was recognised by."""
    blurred: frozenset[int] = frozenset()
    """Values that are taken for blurred edges and are no classes, though a class may have one of them."""

    def by_value(self, is_color: bool) -> dict[int, Named]:
        """Value in the labels -> class; of classes that share a colour the first."""
        table: dict[int, Named] = {}
        for entry in self.classes:
            for value in (entry.color,) if is_color else entry.ids:
                if value is not None:
                    table.setdefault(value, entry)
        return table


def name_values(values: Values, lists: Lists, hints: str) -> Naming:
    """Name the values of labels.

    Args:
        values: what was counted.
        lists: names that lie beside the labels.
        hints: the names of the labels' folders and their suffix, by which ids without colours are recognised.
    """
    seen = sorted(values.pixels)
    if values.kind == "colors":
        return _named_colors(values, lists, seen)
    if values.kind == "palette" and (naming := _listed_palette(values, lists, seen)):
        return naming
    for path, names in lists.names.items():
        if max((v for v in seen if v != IGNORE_INDEX), default=0) < len(names):
            entries = [Named(name, ids=(i,), scored=not _is_void(name)) for i, name in enumerate(names)]
            return Naming(_with_ignored(entries, seen), str(path), "a list of names")
    # After the lists: many tools paint classes of any names with the colours of Pascal VOC.
    if values.kind == "palette" and (naming := _known_palette(values, seen)):
        return naming
    told = _told_ids(hints, seen)
    if told:
        return Naming(_with_ignored(_known_ids(told), seen), told, "the names of files and folders")
    return _unnamed_ids(values, seen)


def _named_colors(values: Values, lists: Lists, seen: Sequence[int]) -> Naming:
    """Names of the colours, but for those of blurred edges."""
    plain = _name_colors(values, lists, seen)
    kept = class_colors(values, {c for c, entry in plain.by_value(True).items() if not entry.guessed})
    if len(kept) == len(seen):
        return plain
    classes = values._replace(pixels=Counter({c: values.pixels[c] for c in kept}))
    return replace(_name_colors(classes, lists, sorted(kept)), blurred=frozenset(seen) - kept)


def _name_colors(values: Values, lists: Lists, seen: Sequence[int]) -> Naming:
    for path, listed in lists.colors.items():
        if _explained(values, listed.values()) > 0.5:
            entries = [Named(name, color, scored=not _is_void(name)) for name, color in listed.items()]
            return _with_unknown(entries, values, seen, str(path), "a list of colours")
    known = recognise(values)
    if known:
        entries = [
            Named(name, packed(color), scored=name not in NOT_SCORED.get(known, ())) for name, color in PALETTES[known]
        ]
        return _with_unknown(entries, values, seen, known, "its colours")
    return _with_unknown([], values, seen, "", "")


def _with_unknown(entries: list[Named], values: Values, seen: Sequence[int], origin: str, why: str) -> Naming:
    """The named colours, and those that have no name: classes of their own."""
    entries = sorted(entries, key=lambda e: not e.scored)  # a colour that two classes share is the scored one's
    first: dict[int | None, Named] = {}
    for entry in entries:
        first.setdefault(entry.color, entry)
    unknown = [c for c in seen if c not in first]
    kept = sorted(unknown, key=lambda c: -values.pixels[c])[: _MOST_CLASSES - len(first)]
    black = not any(entry.name.lower() == BACKGROUND for entry in first.values())
    made = [Named(BACKGROUND if c == 0 and black else _color_name(c), c, guessed=True) for c in sorted(kept)]
    return Naming((*first.values(), *made), origin, why)


def _color_name(color: int) -> str:
    """A made up name; of ids that were written as gray RGB, or as red (CARLA), the id."""
    red, green, blue = color >> 16, color >> 8 & 255, color & 255
    if green == blue and green in (0, red) and 0 < red < 64:
        return f"class {red}"
    return f"color {color:06x}"


def _listed_palette(values: Values, lists: Lists, seen: Sequence[int]) -> Naming | None:
    """Names of palette indices by their colours, from a list of those."""
    for path, colors in lists.colors.items():
        listed = {color: name for name, color in colors.items()}
        if all(values.colors.get(i) in listed for i in seen if i != IGNORE_INDEX):
            entries = [
                Named(listed[values.colors[i]], values.colors[i], (i,), not _is_void(listed[values.colors[i]]))
                for i in seen
                if values.colors.get(i) in listed
            ]
            return Naming(_with_ignored(entries, seen), str(path), "a list of colours")
    return None


def _known_palette(values: Values, seen: Sequence[int]) -> Naming | None:
    """Names of palette indices by their colours, from a data set that is well known."""
    for name, palette in PALETTES.items():
        first = FIRST_ID.get(name, 0)
        ids = [i for i in seen if i != IGNORE_INDEX and i >= first]
        fits = [i - first < len(palette) and values.colors.get(i) == packed(palette[i - first][1]) for i in ids]
        if len(set(values.colors[i] for i in ids if i in values.colors)) >= 2 and fits and all(fits):
            return Naming(_with_ignored(_known_ids(name), seen), name, "its palette")
    return None


def _known_ids(name: str) -> list[Named]:
    first = FIRST_ID.get(name, 0)
    return [
        Named(text, packed(color), (i + first,), text not in NOT_SCORED.get(name, ()))
        for i, (text, color) in enumerate(PALETTES[name])
    ]


def _with_ignored(entries: Iterable[Named], seen: Sequence[int]) -> tuple[Named, ...]:
    """The classes, and the ids that were seen beside them as ignored ones."""
    entries = tuple(entries)
    known = {i for entry in entries for i in entry.ids}
    rest = tuple(Named(f"id {i}", ids=(i,), scored=False) for i in seen if i not in known)
    return (*entries, *rest)


def _told_ids(hints: str, seen: Sequence[int]) -> str:
    """The label set that names of files and folders tell, if all ids fit it; '' for none."""
    told, top = set(words(hints)), max((i for i in seen if i != IGNORE_INDEX), default=0)
    tries = [
        ("Cityscapes trainIds", {"trainids", "labeltrainids"}, 18),
        ("Cityscapes labelIds", {"labelids", "gtfine"}, 33),
        ("CamVid, 11 classes", {"camvid", "camvid11"}, 11),
        ("CamVid, 32 classes", {"camvid", "camvid32"}, 31),
        ("Pascal VOC", {"voc", "voc2012", "vocdevkit", "segmentationclass", "segmentationclassaug"}, 20),
        ("ADE20K", {"ade", "ade20k", "adechallengedata2016"}, 150),
    ]
    return next((name for name, known, most in tries if told & known and top <= most), "")


def _unnamed_ids(values: Values, seen: Sequence[int]) -> Naming:
    """Made up names. 0 and another value alone are background and foreground; 255 beside others is ignored."""
    colors = values.colors
    total, blurred = sum(values.pixels.values()), frozenset[int]()
    main = [v for v in seen if values.pixels[v] > 0.002 * total]
    if len(seen) > 32 and len(main) <= 8:  # a mask whose edges are blurred
        seen, blurred = main, frozenset(seen) - set(main)
    if len(seen) == 2 and seen[0] == 0:
        pair = zip((BACKGROUND, "foreground"), (_BACKGROUND_COLOR, _FOREGROUND_COLOR), seen, strict=True)
        return Naming(tuple(Named(n, colors.get(v, c), (v,), guessed=True) for n, c, v in pair), blurred=blurred)
    entries = []
    for i in seen[:_MOST_CLASSES]:
        is_black = i == 0 and bool(colors) and colors.get(0, 0) == 0
        if i == IGNORE_INDEX and len(seen) > 1:
            entries.append(Named("id 255", ids=(i,), scored=False))
        else:
            entries.append(Named(BACKGROUND if is_black else f"class {i}", colors.get(i), (i,), guessed=True))
    return Naming(tuple(entries), blurred=blurred)


def name_annotations(kind: str, names: Mapping[str, int], *, has_rest: bool = True) -> Naming:
    """Classes of annotation files: by the Cityscapes names where those are theirs, else as they are, behind a
    background of which they say nothing, where they leave a rest."""
    if kind == "cityscapes-polygons":
        known = {name: color for name, color in PALETTES["Cityscapes labelIds"]}
        told = "Cityscapes labelIds"
        if sum(names[name] for name in names if _base(name) in known) > 0.5 * sum(names.values()):
            scored = [Named(n, packed(c)) for n, c in PALETTES["Cityscapes trainIds"]]
            own = {entry.name for entry in scored} | {_PLATE}
            void = [Named(n, scored=False) for n in names if n not in own and not _group_of(n, scored)]
            return Naming((*scored, *void), told, "its names")
    entries = [Named(name, scored=not _is_void(name)) for name in names]
    if has_rest and kind != "cityscapes-polygons" and not has_background(names):
        entries.insert(0, Named(BACKGROUND, _BACKGROUND_COLOR, guessed=True))
    return Naming(tuple(entries), "", "")


def has_background(names: Iterable[str]) -> bool:
    """Whether one of the names is that of a background."""
    return any(name.lower() in (BACKGROUND, "_background_") for name in names)


def _base(name: str) -> str:
    return name.removesuffix("group")


def _group_of(name: str, entries: Sequence[Named]) -> bool:
    """Whether a name is Cityscapes' for a crowd of a scored class: `cargroup`."""
    return name.endswith("group") and _base(name) in {entry.name for entry in entries} and name != "polegroup"


def recognise(values: Values) -> str:
    """The well-known palette that has all of the colours, or those of 98 % of the pixels; '' for none.

    Of several the one with the fewest classes. Black and white and fewer than three others tell nothing.
    """
    telling = [c for c in values.pixels if c not in (0, 0xFFFFFF)]
    found = []
    for name, palette in PALETTES.items():
        codes = {packed(color) for _, color in palette} | ({0xE0E0C0, 0} if name == "Pascal VOC" else {0})
        hits = sum(c in codes for c in telling)
        if hits >= 3 and _explained(values, codes) >= 0.98:
            found.append((-_explained(values, codes), len(palette), name))
    return min(found)[2] if found else ""


def _explained(values: Values, colors: Iterable[int]) -> float:
    """Share of the pixels that have one of the colours."""
    known = set(colors)
    return sum(n for c, n in values.pixels.items() if c in known) / max(1, sum(values.pixels.values()))


def _is_void(name: str) -> bool:
    return name.strip().lower() in VOID_NAMES
