"""A folder an image that holds one mask a class, `masks/x/road.png`: found among pictures that look like labels."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ..files.common import counted, first_few
from ..files.listing import MARKS, composed
from ..labels.masks import without_start
from .files import File, abstract, words
from .layout import Layout, find_layouts
from .masks import are_masks
from .roles import IMAGE_WORDS, LABEL_WORDS, OTHER_WORDS

_MOST_NAMES = 255
"""More are no classes."""


class MaskFolders(NamedTuple):
    """Folders that are called like images."""

    layout: Layout
    """With the classes; without any these are no masks of classes."""
    images: int
    """How many have such a folder."""
    why: str = ""
    """Why there are no classes, in a line."""
    folders: tuple[str, ...] = ()
    """Their names, or those of folders that hold them."""
    other: Path | None = None
    """A file of them that is called like another image: its folder may be a class as well."""


def find_mask_folders(images: Sequence[File], labels: Sequence[File]) -> list[MaskFolders]:
    """Folders of label pictures that are called like images; the best first."""
    inside: dict[tuple[Path, tuple[str, ...]], list[File]] = defaultdict(list)
    for file in labels:
        if file.folders:
            inside[file.root, file.folders].append(file)
    ordered = sorted(image.name for image in images)
    # a folder stands for a label that has its image's name
    folders = {
        File(root, parts[:-1], name, own[0].ending, own[0].path): own
        for (root, parts), own in inside.items()
        if _is_begun((name := composed(parts[-1])), ordered)
    }
    found = []
    for layout, _ in find_layouts(images, list(folders)):
        if layout.label_suffix:
            continue
        if layout.images[:-1] == layout.labels and layout.image_root == layout.label_root:  # x/x.jpg and x/road.png
            layout = replace(layout, images=layout.labels)
        names = {image.name.removesuffix(layout.image_suffix) for image in images if image.root == layout.image_root}
        members = {
            folder: own
            for folder, own in folders.items()
            if folder.root == layout.label_root
            and abstract(folder.folders)[0][: len(layout.labels)] == layout.labels
            and folder.name in names
        }
        if members:
            found.append(_read(layout, members, names))
    return found


def _is_begun(name: str, ordered: Sequence[str]) -> bool:
    """Whether one of the names begins so."""
    at = bisect_left(ordered, name)
    return at < len(ordered) and ordered[at].startswith(name)


def _read(layout: Layout, members: dict[File, list[File]], images: set[str]) -> MaskFolders:
    """The classes of folders that are images."""
    end = _shared_end([file.name for own in members.values() for file in own])
    by_name: dict[str, list[File]] = defaultdict(list)
    for folder, own in members.items():
        for file in own:
            by_name[without_start(file.name, folder.name).removesuffix(end)].append(file)
    often = Counter({name: len(files) for name, files in by_name.items()})
    at = len(layout.labels)
    folders = tuple(sorted({abstract((*folder.folders, folder.name))[0][at] for folder in members}))
    layout = replace(layout, label_suffix=end)
    place = layout.place("labels")
    if len(members) > 1 and (max(often.values()) == 1 or len(often) > _MOST_NAMES):
        return MaskFolders(
            layout,
            0,
            f"{place} has folders called like images ({first_few(folders, 3)}), but the"
            f" {counted(often.total(), 'picture')} in them have {len(often)} names"
            f" ({first_few(list(often), 3)}): masks of single things cannot be read. Needed is a file for each"
            f" class, such as {folders[0]}/road.png",
        )
    told = LABEL_WORDS | IMAGE_WORDS | OTHER_WORDS
    classes = [name for name, files in by_name.items() if not set(words(name)) <= told and are_masks(files)]
    if 2 * len(classes) < len(often):
        return MaskFolders(layout, 0)
    other = next((f.path for folder, own in members.items() for f in own if f.name in images - {folder.name}), None)
    return MaskFolders(replace(layout, classes=tuple(sorted(classes))), len(members), "", folders, other)


def _shared_end(names: Iterable[str]) -> str:
    """`_mask`, where all names end so and it is a word for labels."""
    ends = {name[max(name.rfind(mark) for mark in MARKS) :] if set(name) & set(MARKS) else "" for name in names}
    end = ends.pop() if len(ends) == 1 else ""
    return end if end[1:].lower() in LABEL_WORDS else ""


def with_mask_folders(
    maps: Sequence[tuple[Layout, int]], masks: Sequence[tuple[Layout, int]], found: Sequence[MaskFolders]
) -> tuple[list[tuple[Layout, int]], list[tuple[Layout, int]], list[tuple[Layout, str]]]:
    """The layouts of label maps and those of masks, with the folders of images among the latter, and lines on layouts
    that have two readings: the one is kept that labels more images."""
    maps, masks, lines = list(maps), list(masks), list[tuple[Layout, str]]()
    for folders in (folders for folders in found if folders.layout.classes):
        rivals = [way for way in (*maps, *masks) if _is_of_same_files(way[0], folders)]
        is_better = all(count <= folders.images for _, count in rivals)
        if is_better:
            maps, masks = [way for way in maps if way not in rivals], [way for way in masks if way not in rivals]
        if is_better or folders.other is None:
            masks.append((folders.layout, folders.images))
        if folders.other is not None:
            lines.append((folders.layout, _two_readings(folders, is_better)))
    return maps, masks, lines


def _is_of_same_files(layout: Layout, folders: MaskFolders) -> bool:
    """Whether another layout reads files in these folders."""
    own = folders.layout
    inner = layout.labels[len(own.labels) :]
    return layout.is_within(own) and not set(inner[:1] or layout.classes).isdisjoint(folders.folders)


def _two_readings(folders: MaskFolders, is_folder_image: bool) -> str:
    assert folders.other is not None
    if is_folder_image:
        read = "a folder as an image and a file as a class. If it is the other way round, give the folders names"
    else:
        read = "a file as a label of its image. If a folder is an image and a file a class, give the files names"
    return (
        f"{folders.layout.place('labels')} has two readings: folders in it ({first_few(folders.folders, 3)}) are called"
        f" like images, and so are files in these ({folders.other.name}). Read is {read} that no image has"
    )
