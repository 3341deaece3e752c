"""A folder for each sample with fixed names inside, `0001/image.jpg` and `0001/label.png`: found by names and looks.

Their files are called `0001/image` and `0001/label` here: what comes after the folder is the suffix, in what is looked
for and in what is described (`image_suffix = "/image"`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ...types import UserError
from ..files.common import counted, first_few
from ..files.listing import MARKS, composed
from .files import SPLIT, File, split_of, words
from .lists import longest_of_one
from .roles import IMAGE_WORDS, LABEL_WORDS, OTHER_WORDS, sort_pictures

_Folder = tuple[Path, tuple[str, ...]]

_MOST_NAMES = 255
"""More are no classes."""


class Roles(NamedTuple):
    """The pictures by their role, as `sort_pictures` sorts them."""

    pictures: dict[str, list[File]]
    whys: tuple[str, ...] = ()
    """Why folders that look like samples are not read as such, in a line each."""
    folders: frozenset[_Folder] = frozenset()
    """Those of samples."""

    def called(self, file: File) -> File:
        """A file as its sample's pictures are called."""
        return _join(file) if (file.root, file.folders) in self.folders else file


def sort_samples(pictures: Sequence[File], lists: Iterable[Path] = ()) -> Roles:
    """The pictures by their role; those in folders of samples are called by folder and name.

    Args:
        lists: files that may name classes; those in folders of samples must agree.
    """
    folders = _folders(pictures)
    if not folders:
        return Roles(sort_pictures(pictures))
    joined = [_join(file) if (file.root, file.folders) in folders else file for file in pictures]
    roles = sort_pictures(joined)
    images, labels = (Counter(map(fixed_name, filter(is_joined, roles[role]))) for role in ("image", "label"))
    told = [name for name in images if set(words(name)) <= IMAGE_WORDS] or list(images)
    if not labels or not told or any(_is_usual(image, label) for image in told for label in labels):
        return Roles(sort_pictures(pictures))
    if why := _why_not(told, labels, folders) or _clash(folders, lists):
        own = {file.path: file for file in pictures}
        return Roles({role: [own[file.path] for file in files] for role, files in roles.items()}, (why,))
    others = [file for file in roles["image"] if is_joined(file) and fixed_name(file) != told[0]]
    left = set(others)
    roles["image"] = [file for file in roles["image"] if file not in left]
    roles["other"] = sorted([*roles["other"], *others], key=lambda file: file.path)
    return Roles(roles, (), frozenset(folders))


def is_joined(file: File) -> bool:
    """Whether a picture lies in the folder of a sample and is called by both."""
    return "/" in file.name


def fixed_name(file: File) -> str:
    """`label` of 0001/label."""
    return file.name.rpartition("/")[2]


def place_of(file: File) -> str:
    """Where pictures like this one lie, for messages: their folder, or `data/*/label` in folders of samples."""
    parts = (*file.folders, "*", fixed_name(file)) if is_joined(file) else file.folders
    return "/".join(parts) or "."


def _join(file: File) -> File:
    return replace(file, folders=file.folders[:-1], name=f"{composed(file.folders[-1])}/{file.name}")


def _folders(pictures: Iterable[File]) -> set[_Folder]:
    """Folders that may each be a sample: several hold a picture of the same name, which says image or label."""
    inside: dict[_Folder, set[str]] = defaultdict(set)
    for file in pictures:
        if file.folders and _may_be_sample(file.folders[-1]):
            inside[file.root, file.folders].add(file.name)
    often = Counter(name for names in inside.values() for name in names)
    telling = {name for name, count in often.items() if count > 1 and _tells(name)}
    return {folder for folder, names in inside.items() if telling & names}


def _is_of_labels(folder: str) -> bool:
    return set(words(folder)) <= LABEL_WORDS


def _may_be_sample(folder: str) -> bool:
    """Whether a folder's name is that of no split and no kind of pictures."""
    split = split_of(folder)
    return not (split and split[0] == SPLIT) and not set(words(folder)) <= IMAGE_WORDS | LABEL_WORDS | OTHER_WORDS


def _tells(name: str) -> bool:
    """Whether the whole of a name says image or label: `rgb`, `label_ids`, and not `road_mask`."""
    own = set(words(name))
    return bool(own) and own <= IMAGE_WORDS | LABEL_WORDS


def _is_usual(image: str, label: str) -> bool:
    """Whether the names pair without their folder: image and image_mask, scan_rgb and scan_ids."""
    is_longer = len(label) > len(image) and label.startswith(image) and label[len(image)] in MARKS
    return is_longer or _base(image) == _base(label) != ""


def _base(name: str) -> str:
    """A name without the word for images or labels at its end; empty where it is that word."""
    at = max(name.rfind(mark) for mark in MARKS)
    end = name[at + 1 :].lower()
    return name[: max(at, 0)] if end in IMAGE_WORDS | LABEL_WORDS else name


def _why_not(images: Sequence[str], labels: Counter[str], folders: Collection[_Folder]) -> str:
    """Why pictures of these names cannot be read; empty where they can."""
    parent, shown = _shown(folders)
    if len(images) > 1:
        return (
            f"{parent} has a folder for each sample ({shown}) with several images in it ({first_few(sorted(images))}):"
            " which of them the labels belong to cannot be told. Call the one image, or move the others away"
        )
    is_each_once = len(labels) > 1 and max(labels.values()) == 1 and not any(map(_tells, labels))
    if len(folders) > 1 and (is_each_once or len(labels) > _MOST_NAMES):
        return (
            f"{parent} has a folder for each sample ({shown}), but the {counted(labels.total(), 'label picture')} in"
            f" them have {len(labels)} names ({first_few(sorted(labels), 3)}): masks of single things cannot be read."
            " Needed is a file for each class, such as road.png beside the image, or label.png with ids"
        )
    return ""


def _shown(folders: Iterable[_Folder]) -> tuple[Path, str]:
    """The folder that holds most of the samples' folders, and names of some of these."""
    (root, above), _ = Counter((root, parts[:-1]) for root, parts in folders).most_common(1)[0]
    names = sorted(parts[-1] for place, parts in folders if (place, parts[:-1]) == (root, above))
    return root.joinpath(*above), first_few(names, 3)


def _clash(folders: Collection[_Folder], lists: Iterable[Path]) -> str:
    """A line where lists of names in the samples' folders give an id several names; empty where they agree."""
    there = {root.joinpath(*parts) for root, parts in folders}
    try:
        longest_of_one(path for path in lists if path.parent in there)
    except UserError as error:
        return (
            f"{_shown(folders)[0]} has label pictures whose ids differ in meaning, and which are not read: {error}."
            " Name the folder of LabelMe's .json files, with these folders moved away, or export with one list of"
            " labels"
        )
    return ""


def why_things(images: Sequence[File], labels: Sequence[File]) -> list[str]:
    """A line where the masks of an image lie in a folder of their own beside it, called like no image: of single things
    (`0001/images/0001.png` and `0001/masks/*.png`, as the Data Science Bowl has them)."""
    with_image = Counter((f.root, parts) for f in images for parts in (f.folders, f.folders[:-1]) if parts)
    masks: dict[_Folder, list[File]] = defaultdict(list)
    for file in labels:
        sample = file.root, file.folders[:-1]
        if with_image[sample] == 1 and _may_be_sample(file.folders[-2]) and _is_of_labels(file.folders[-1]):
            masks[sample].append(file)
    if len(masks) < 2 or max(map(len, masks.values())) < 2:
        return []
    parent, shown = _shown(masks)
    first = min(masks, key=lambda folder: folder[1])
    count = sum(map(len, masks.values()))
    return [
        f"{parent} has a folder for each sample ({shown}) with several masks in {masks[first][0].folders[-1]}/, which"
        f" are called like no image ({count} pictures): masks of single things cannot be read. Join those of a sample"
        f" into one picture of ids, called like its image"
    ]
