"""A report in words, and as the TOML file that describes the data set."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from ...types import IGNORE_INDEX
from ..files.common import counted, first_few
from ..files.headers import JPEG_FORMATS, Header
from ..labels.colors import color_text
from ..specs.class_table import BACKGROUND
from .annotations import KIND_NAMES, Annotations
from .doubts import KINDS
from .files import SPLIT
from .layout import Layout
from .naming import Named, has_background
from .report import Report

_SHOWN = 40
"""Classes that are told; the others are counted."""


def tell(report: Report) -> list[str]:
    """The report in lines for a person."""
    layout = report.layout
    headers = [file.header for files in report.files.values() for file in files]
    count, labeled = len(headers), len(report.labels)
    formats = Counter("unreadable" if header is None else _format(header) for header in headers)
    kinds = ", ".join(name if n == count else f"{n} {name}" for name, n in formats.most_common())
    shown = "{" + ",".join(spelled for _, spelled in layout.splits) + "}"
    suffix = f", names end in {layout.image_suffix}" if layout.image_suffix else ""
    lines = [
        ", ".join(str(root) for root in report.roots),
        f"  images   {count} ({kinds}), {_sizes(headers)}",
        f"           in {layout.place('images', shown)}{suffix}",
    ]
    if layout.label_root is None:
        lines.append("  labels   none were found")
    else:
        lines.append(f"  labels   {labeled} of {count} images have one{_kind(report)}")
        lines.append(f"           in {layout.place('labels', shown)}{_such_as(report) or layout.label_files}")
    if len(report.splits) > 1 or layout.splits:
        told = [f"{split} {report.count(split)[0]} ({report.count(split)[1]} labeled)" for split in report.splits]
        lines.append(f"  splits   {', '.join(told)}")
    lines += _told_classes(report)
    lines += [f"  doubt    {line}" for line in report.doubts]
    lines += [f"  note     {line}" for line in report.notes]
    return lines


def _format(header: Header) -> str:
    return "JPEG" if header.format in JPEG_FORMATS else header.format


def _sizes(headers: Iterable[Header | None]) -> str:
    sizes = Counter(header.size for header in headers if header is not None)
    if not sizes:
        return "none of which can be read"
    told = [f"{h}x{w}" if len(sizes) == 1 else f"{n} of {h}x{w}" for (h, w), n in sizes.most_common(3)]
    more = f" and {len(sizes) - 3} other sizes" if len(sizes) > 3 else ""
    return f"{', '.join(told)}{more} (HxW)"


def _kind(report: Report) -> str:
    if report.annotations is not None:
        return f": {KIND_NAMES[report.annotations.kind]}"
    return "" if report.values is None else f": {KINDS[report.values.kind]}"


def _such_as(report: Report) -> str:
    """A mask's path below the folder, which tells how it is read; empty for other labels."""
    masks = next((masks for pairs in report.splits.values() for masks in pairs.masks), ())
    if not masks or report.layout.label_root is None:
        return ""
    split = next(split for split, pairs in report.splits.items() if pairs.masks)
    place = report.layout.place("labels", dict(report.layout.splits).get(split, ""))
    path = masks[0].path
    shown = path.relative_to(place) if path.is_relative_to(place) else path
    return f": {shown} is a mask of {masks[0].name}"


def _told_classes(report: Report) -> list[str]:
    """One line a class: what it is in the labels, its name, its share."""
    naming = report.naming
    if not naming.classes:
        return []
    origin = f"; names: {naming.origin} (by {naming.why})" if naming.origin else "; names are made up"
    if report.annotations is not None:
        total = sum(report.annotations.names.values())
        things = "masks" if report.annotations.kind == "masks" else "annotations"
        lines = [f"  classes  {counted(len(report.annotations.names), 'name')} of {total} {things}"]
        lines[0] += f"; {naming.origin}" if naming.origin else ""
        return lines + _clipped([f"{n:>8}  {name}" for name, n in report.annotations.names.items()])
    values = report.values
    assert values is not None
    seen, is_color = naming.by_value(values.kind == "colors"), values.kind == "colors"
    what = "colours" if is_color else "ids"
    head = f"  classes  {len(values.pixels)} {what} in {values.read} labels{_evenly(report)}{origin}"
    total = max(1, sum(values.pixels.values()))
    told = []
    for value in sorted(values.pixels):
        entry = seen.get(value)
        if entry is None or value in naming.blurred:
            continue  # a blurred edge: counted among the doubts
        share = f"{values.pixels[value] / total:8.2%}"
        ignored = "" if entry.scored else "  (ignored)"
        name = color_text(value) if is_color else f"{value:>5}"
        color = "" if is_color or value not in values.colors else f" {color_text(values.colors[value])}"
        told.append(f"{share}  {name}{color}  {entry.name}{ignored}")
    there = values.pixels.keys() - naming.blurred
    absent = [e for e in naming.classes if e.scored and there.isdisjoint(_values(e, is_color))]
    lines = [head, *_clipped(told)]
    if absent:
        names = ", ".join(e.name for e in absent[:8]) + (", ..." if len(absent) > 8 else "")
        lines.append(f"           not in these labels: {names}")
    return lines


def _evenly(report: Report) -> str:
    return ", evenly spaced" if report.values and report.values.read < len(report.labels) else ""


def _clipped(lines: list[str]) -> list[str]:
    shown = [f"           {line}" for line in lines[:_SHOWN]]
    return shown + ([f"           and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else [])


def _values(entry: Named, is_color: bool) -> tuple[int, ...]:
    return entry.ids if not is_color else () if entry.color is None else (entry.color,)


def describe(report: Report, path: Path, *, classes: Sequence[Named] = ()) -> str:
    """The TOML file that describes the data set, as text.

    Args:
        path: where it will lie: folders below its own are written relative to it.
        classes: for a data set without labels, the classes of the one that it goes with.
    """
    lines = [f"# Written by iidm.inspect from {', '.join(str(root) for root in report.roots)}."]
    if report.values is not None and report.values.read < len(report.labels):
        lines.append(
            f"# {report.values.read} of {len(report.labels)} labels were read: others may hold further"
            f" {'colours' if report.values.kind == 'colors' else 'ids'}."
        )
    if report.naming.blurred:
        lines.append(
            f"# {len(report.naming.blurred)} blends at edges are no classes: training refuses these labels until they"
            " are exported without smoothing."
        )
    lines += _places(report, path.absolute().parent)
    if report.val is None:
        options = "--data.val-count N"
        if report.val_list is not None:
            options = f"--data.val-count {report.val_list.images} --data.val-list {report.val_list.path}"
        lines.append(f"# No labeled images to validate were found apart: train with {options}.")
    if report.annotations is not None:
        lines.append(f"label_kind = {_text(report.annotations.kind)}")
    named = report.naming.classes or tuple(classes)
    lines += _ignored(report, named)
    if report.naming.origin:
        lines.append(f"# The classes are those of {report.naming.origin}, recognised by {report.naming.why}.")
    if any(e.guessed for e in named):
        lines.append("# Names with the word guessed beside them are made up: give them their own.")
    return "\n".join([*lines, *_classes(report, named)]) + "\n"


def _places(report: Report, base: Path) -> list[str]:
    layout = report.layout
    spelled = dict(layout.splits)
    train, val = spelled.get(report.train, ""), spelled.get(report.val or "", "")
    trains_labeled = report.count(report.train)[1] > 0
    plain = layout.has_split and (train, val) == ("train", "val") and _labels_follow(layout) and trains_labeled
    lines = []
    for kind in ("images", "labels"):
        if kind == "labels" and layout.label_root is None:
            continue
        written = _below(layout.place(kind), base)
        if kind == "images" or trains_labeled:
            lines.append(f"{kind} = {_text(written if plain else written.replace(SPLIT, train))}")
        if report.val is not None and not plain:
            lines.append(f"val_{kind} = {_text(written.replace(SPLIT, val))}")
            if kind == "images" and report.val == "test":
                lines[-1] += "  # guessed: there is no other split to validate on"
    if layout.image_suffix:
        lines.append(f"image_suffix = {_text(layout.image_suffix)}")
    if layout.label_suffix:
        lines.append(f"label_suffix = {_text(layout.label_suffix)}")
    return lines


def _labels_follow(layout: Layout) -> bool:
    return layout.label_root is None or any(SPLIT in part for part in layout.labels)


def _below(path: Path, base: Path) -> str:
    try:
        return path.relative_to(base).as_posix()
    except ValueError:
        return path.as_posix()


def _ignored(report: Report, named: Iterable[Named]) -> list[str]:
    void = [entry for entry in named if not entry.scored]
    if report.annotations is not None:
        names = [entry.name for entry in void]
        lines = [f"ignore_names = [{', '.join(map(_text, names))}]"] if names else []
        lines += _rest(report.annotations, named)
        if any(pairs.empty for pairs in report.splits.values()):
            lines.append('empty_images = "unlabeled"  # guessed; "labeled" where somebody has looked at them')
        return lines
    if report.values is None:
        return []
    if report.values.kind == "colors":
        colors = [f'"{color_text(entry.color)}"' for entry in void if entry.color is not None]
        return [f"ignore_colors = [{', '.join(colors)}]"] if colors else []
    used = {i for entry in named if entry.scored for i in entry.ids}
    ids = sorted({i for entry in void for i in entry.ids} | ({IGNORE_INDEX} - used))
    return [f"ignore = {ids}"]


def _rest(found: Annotations, named: Iterable[Named]) -> list[str]:
    """What the pixels without any annotation are."""
    looked, there = found.looked_at
    some = f"in {looked} of {there} images that were looked at" if looked < there else "of the pixels"
    if any(e.name == BACKGROUND and e.guessed for e in named):
        share = "" if found.rest is None else f" ({_percent(found.rest)} {some})"
        return [f'unlabeled = "background"  # guessed{share}; "ignore" where parts of images are not annotated']
    if found.rest != 0 or has_background(found.names):
        return []
    why = "every pixel is in a mask" if looked == there else f"guessed: every pixel is in a mask {some}"
    return [f'unlabeled = "ignore"  # {why}']


def _percent(share: float) -> str:
    return f"{share:.2%}" if share >= 0.0001 else "under 0.01%"


def _classes(report: Report, named: Iterable[Named]) -> list[str]:
    """The [[classes]] tables; those of a data set without labels have names and colours alone."""
    lines = []
    taken: set[int] = set()
    values = report.values
    total = max(1, sum(values.pixels.values())) if values else 1
    for entry in named:
        if not entry.scored:
            continue
        beside = "  # guessed" if entry.guessed else ""
        for group in report.annotations.one_class if report.annotations else ():
            if entry.name in group:
                others = first_few([name for name in group if name != entry.name], 3)
                beside = f"  # doubt: its masks cover the pixels of {others}: one class?"
        lines += ["", "[[classes]]", f"name = {_text(entry.name)}{beside}"]
        if entry.color is not None and entry.color not in taken:
            lines.append(f'color = "{color_text(entry.color)}"')
            taken.add(entry.color)
        if values is not None and entry.ids:
            lines.append(f"ids = {list(entry.ids)}")
        if values is not None:
            own = set(_values(entry, values.kind == "colors")) - report.naming.blurred
            seen = sum(values.pixels[value] for value in own)
            lines[-1] += f"  # {seen / total:.2%} of the pixels that were read"
    return lines


def _text(value: str) -> str:
    """A TOML string."""
    return json.dumps(value, ensure_ascii=False)
