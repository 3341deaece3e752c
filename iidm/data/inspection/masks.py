"""Labels that are one mask a class: found among pictures that look like labels, and what they hold."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace
from os.path import commonprefix

import numpy as np

from ...types import UserError
from ..files.common import evenly
from ..files.listing import MARKS
from ..labels.masks import Mask, read_mask, read_masks
from ..labels.shapes import Bitmap
from .annotations import Annotations
from .files import SPLIT, File, abstract, words
from .layout import Layout
from .naming import has_background
from .overlaps import Overlaps, Pair, groups, numbered
from .roles import IMAGE_WORDS, LABEL_WORDS, OTHER_WORDS
from .values import SAMPLED

_TRIED = 2
"""Masks of each class that are looked at."""


def split_off_masks(
    found: Sequence[tuple[Layout, int]], labels: Sequence[File]
) -> tuple[list[tuple[Layout, int]], list[tuple[Layout, int]]]:
    """The layouts of label maps, and those of one mask a class in place of its layouts of single classes.

    Layouts of masks differ in their last folder or in their suffix alone, which is no word for labels. Their pictures
    hold 0 and one other value, and some image has several.
    """
    groups: dict[Layout, list[tuple[Layout, str, int]]] = defaultdict(list)
    for layout, count in found:
        for whole, name in _ways(layout):
            if not set(words(name)) <= LABEL_WORDS | IMAGE_WORDS | OTHER_WORDS:
                groups[whole].append((layout, name, count))
    masks, members = [], set[Layout]()
    for whole, parts in groups.items():
        free = [(part, _names(part[0], labels)) for part in parts if part[0] not in members]
        parts = [part for part, own in free if are_masks(own.values())]
        if len(parts) > 1 and max(Counter(name for _, own in free for name in own).values()) > 1:
            members |= {layout for layout, _, _ in parts}
            classes = tuple(sorted(name for _, name, _ in parts))
            masks.append((replace(whole, classes=classes), max(count for _, _, count in parts)))
    return [way for way in found if way[0] not in members], masks


def _ways(layout: Layout) -> list[tuple[Layout, str]]:
    """The layout as that of a class: what is left without the name of the class, and that name."""
    ways = []
    if layout.labels and SPLIT not in layout.labels[-1]:
        ways.append((replace(layout, labels=layout.labels[:-1]), layout.labels[-1]))
    if layout.label_suffix and layout.label_suffix[0] in f"{MARKS}/":  # the latter: x/road.png beside x/image.jpg
        name, end = layout.label_suffix[1:], ""
        last = max(name.rfind(mark) for mark in MARKS)
        if last > 0 and name[last + 1 :].lower() in LABEL_WORDS:  # x_road_mask.png
            name, end = name[:last], name[last:]
        ways.append((replace(layout, label_suffix=end), name))
        if layout.labels and name == layout.labels[-1]:  # road/x_road.png
            ways.append((replace(layout, labels=layout.labels[:-1], label_suffix=end), name))
    return ways


def _names(layout: Layout, labels: Sequence[File]) -> dict[tuple[str, ...], File]:
    """The labels of a layout, by the folders and the name that an image has too."""
    found = {}
    for file in labels:
        parts, _, spelling = abstract(file.folders)
        is_there = file.root == layout.label_root and parts[: len(layout.labels)] == layout.labels
        if is_there and file.ending == layout.label_ending and file.name.endswith(layout.label_suffix):
            key = (spelling, *file.folders[len(layout.labels) :], file.name.removesuffix(layout.label_suffix))
            found[key] = file
    return found


def are_masks(files: Collection[File]) -> bool:
    """Whether some of the files hold 0 and one other value."""
    try:
        for file in evenly(list(files), _TRIED):
            read_mask(file.path)
    except UserError:
        return False
    return bool(files)


def mask_annotations(images: Sequence[tuple[Mask, ...]]) -> Annotations:
    """What the masks of some images hold; of `SAMPLED` images, evenly spaced, the pixels are looked at."""
    found = Annotations("masks", Counter(sorted(mask.name for masks in images for mask in masks)))
    overlaps, rests, clashing = Overlaps(), list[float](), dict[str, tuple[float, set[Pair]]]()
    for masks in evenly(images, SAMPLED):
        try:
            shapes = read_masks(masks).shapes
        except UserError as error:
            found.problems.append(str(error))
            continue
        inside = np.stack([shape.form.mask for shape in shapes if isinstance(shape.form, Bitmap)])
        pairs, count = overlaps.add([shape.name for shape in shapes], inside), inside.sum(0)
        rests.append(float((count == 0).mean()))
        if pairs:
            clashing[_where(masks)] = float((count > 1).mean()), pairs
    found.looked_at = len(rests), len(images)
    found.rest = sum(rests) / len(rests) if rests else None
    found.one_class = groups(overlaps.strong())
    share_folder = any(len({mask.path.parent for mask in masks}) < len(masks) for masks in images)
    found.doubts += [*overlaps.lines(), *numbered(found.names, share_folder)]
    # of names that cover the same pixels this is said already
    others = {where: share for where, (share, pairs) in clashing.items() if pairs - overlaps.strong().keys()}
    if others:
        worst = max(others, key=lambda where: others[where])
        found.doubts.append(
            f"{len(others)} of {len(rests)} images that were looked at have pixels in masks of two"
            f" classes, up to {others[worst]:.1%} ({worst}): those are ignored. Mend the masks where one holds"
        )
    return found


def rest_notes(found: Annotations) -> list[str]:
    """A line where masks leave no pixel to a background."""
    if found.rest != 0 or has_background(found.names):
        return []
    looked, there = found.looked_at
    if looked == there:
        return ["masks cover every pixel: no class background is needed"]
    return [
        f"masks cover every pixel of the {looked} of {there} images that were looked at: no class background is"
        " written. Pixels of other images that are in no mask are ignored, and a run tells of them"
    ]


def _where(masks: Sequence[Mask]) -> str:
    names = [mask.path.name for mask in masks]
    if len(set(names)) == 1:
        return names[0]
    if len({mask.path.parent for mask in masks}) == 1 and masks[0].path.stem == masks[0].name:  # a folder an image
        return masks[0].path.parent.name
    return commonprefix(names).rstrip(MARKS) or names[0]
