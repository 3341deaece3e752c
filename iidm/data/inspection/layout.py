"""How the images and labels below some folders belong together."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from os.path import commonprefix
from pathlib import Path

from ..files.common import evenly
from .files import SPLIT, SPLITS, File, abstract, split_of, tails, words
from .roles import LABEL_WORDS, known_tails

_TRIED = 40
"""Labels of one folder and suffix by which its images are looked for."""
_PREFERRED = ("labelids", "trainids", "polygons", "color")
"""Of several kinds of labels for the same images, the first of these; others stand between the second and third."""


@dataclass(frozen=True)
class Layout:
    """Where a data set's images and labels lie. A folder may hold `{split}`."""

    image_root: Path
    images: tuple[str, ...]
    """Folders below the root; empty: the root itself."""
    label_root: Path | None = None
    labels: tuple[str, ...] = ()
    image_suffix: str = ""
    label_suffix: str = ""
    label_ending: str = ""
    """In lower case; `.png`, `.json`, ..."""
    splits: tuple[tuple[str, str], ...] = ()
    """(train, val or test; its spelling) in this order, where the folders have {split}."""
    classes: tuple[str, ...] = ()
    """Names of classes, where the labels are one mask a class."""

    @property
    def has_split(self) -> bool:
        """Whether the images' folder has {split}."""
        return any(SPLIT in part for part in self.images)

    @property
    def label_files(self) -> str:
        """`/*_mask.png`: which files of the labels' folder; empty where one file holds the labels."""
        is_file = self.labels and self.labels[-1].lower().endswith((".json", ".xml"))
        return "" if is_file else f"/*{self.label_suffix}{self.label_ending}"

    def is_within(self, other: Layout) -> bool:
        """Whether the labels lie in the folder of another layout's, or below it."""
        return self.label_root == other.label_root and self.labels[: len(other.labels)] == other.labels

    def place(self, kind: str, spelling: str = SPLIT) -> Path:
        """Where `images` or `labels` of a split of this spelling lie."""
        root, parts = (self.image_root, self.images) if kind == "images" else (self.label_root, self.labels)
        assert root is not None
        return root.joinpath(*(p.replace(SPLIT, spelling) for p in parts))


def find_layouts(images: Sequence[File], labels: Sequence[File]) -> list[tuple[Layout, int]]:
    """All ways in which the labels belong to images, and how many of the labels do; the best first.

    A label has its image's name (both without their suffix) and lies in the same folder, or in one whose path differs
    from the image's in one place: `images/train/a.jpg` and `labels/train/a.png`.
    """
    image_tails, label_tails = known_tails(images), known_tails(labels)
    index = _index(images, image_tails)
    groups: dict[tuple[object, ...], list[File]] = defaultdict(list)
    for file in labels:
        tail = next(t for t in tails(file.name) if t in label_tails)
        groups[file.root, file.folders, tail, file.ending].append(file)
    counts: Counter[Layout] = Counter()
    for files in groups.values():
        tried = evenly(files, _TRIED if len(groups) < 100 else 4)
        votes = Counter(match for file in tried for match in _matches(file, index, label_tails))
        if votes:
            # Names that end alike pair with and without that end: the shorter suffix is the simpler.
            best = max(votes, key=lambda w: (votes[w], -len(w.image_suffix + w.label_suffix)))
            counts[best] += round(votes[best] / len(tried) * len(files))
    found = [(with_splits(layout, images), count) for layout, count in _joined(counts)]
    return sorted(found, key=lambda pair: (-pair[1], _rank(pair[0])))


def in_lower_case(files: Iterable[File]) -> list[File]:
    """The files as if their names, but for what may be a suffix, were written in lower case."""

    def lowered(file: File) -> str:
        tail = tails(file.name)[0]
        return file.name.removesuffix(tail).casefold() + tail

    return [replace(file, name=lowered(file)) for file in files]


def with_splits(layout: Layout, images: Sequence[File]) -> Layout:
    """The layout with the splits that its images lie in."""
    if not layout.has_split:
        return layout
    spelled: dict[str, str] = {}
    for file in images:
        parts, role, spelling = abstract(file.folders)
        if file.root == layout.image_root and role and parts[: len(layout.images)] == layout.images:
            spelled.setdefault(role, spelling)
    return replace(layout, splits=tuple((role, spelled[role]) for role in SPLITS if role in spelled))


def _index(images: Sequence[File], known: Iterable[str]) -> dict[tuple[str, str], list[File]]:
    """(name without suffix, suffix) -> images."""
    known, index = frozenset(known), defaultdict(list)
    for file in images:
        for tail in tails(file.name):
            if tail in known:
                index[file.name.removesuffix(tail), tail].append(file)
    return index


def _matches(label: File, index: dict[tuple[str, str], list[File]], label_tails: frozenset[str]) -> set[Layout]:
    """The layouts in which this label has an image."""
    found = set()
    image_tails = {tail for _, tail in index}
    for own in tails(label.name):
        for tail in image_tails if own in label_tails else ():
            candidates = index.get((label.name.removesuffix(own), tail), ())
            if candidates:
                image = max(_near(candidates, label), key=lambda image: _nearness(image, label))
                layout = _layout(image, label, tail, own)
                if layout:
                    found.add(layout)
    return found


def _near(images: Sequence[File], label: File) -> Sequence[File]:
    """Of very many images of one name those of a folder beside the label's or of the same name."""
    if len(images) < 64:
        return images
    up, last = label.folders[:-1], label.folders[-1:]
    return [f for f in images if f.folders[:-1] == up or f.folders[-1:] == last] or images[:64]


def _nearness(image: File, label: File) -> tuple[int, int, int]:
    return (
        _common(image.folders[::-1], label.folders[::-1]),
        image.root == label.root,
        _common(image.folders, label.folders),
    )


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    """How many parts two paths share at their beginning."""
    return len(commonprefix([tuple(a), tuple(b)]))


def _layout(image: File, label: File, image_suffix: str, label_suffix: str) -> Layout | None:
    """The folders of which image and label lie at the same place."""
    inner = _common(image.folders[::-1], label.folders[::-1])
    if image.root == label.root and image.folders == label.folders:
        inner = 0
    below = image.folders[len(image.folders) - inner :]
    i, k = image.folders[: len(image.folders) - inner], label.folders[: len(label.folders) - inner]
    if below and split_of(below[0]) and not abstract(i)[1]:
        i, k = (*i, below[0]), (*k, below[0])
    image_parts, image_split, _ = abstract(i)
    label_parts, label_split, _ = abstract(k)
    if label_split and label_split != image_split:
        return None
    if image_split and not label_split:  # all labels in one folder
        label_parts = k
    return Layout(image.root, image_parts, label.root, label_parts, image_suffix, label_suffix, label.ending)


def _joined(counts: Counter[Layout]) -> list[tuple[Layout, int]]:
    """Labels beside their images in several folders are one layout, of the folder that holds them all."""
    beside: dict[tuple[object, ...], list[Layout]] = defaultdict(list)
    result = []
    for layout in counts:
        if layout.images == layout.labels and layout.image_root == layout.label_root:
            upper = next((i + 1 for i, p in enumerate(layout.images) if SPLIT in p), 0)
            key = (layout.image_root, layout.images[:upper], layout.image_suffix, layout.label_suffix)
            beside[key, layout.label_ending].append(layout)
        else:
            result.append((layout, counts[layout]))
    for group in beside.values():
        shared = tuple(commonprefix([layout.images for layout in group]))
        whole = replace(group[0], images=shared, labels=shared)
        result.append((whole, sum(counts[layout] for layout in group)))
    return result


def _rank(layout: Layout) -> tuple[bool, int, int, str]:
    # of label.png and extra.png in the folder of a sample the one that says so
    is_other = layout.label_suffix.startswith("/") and not set(words(layout.label_suffix)) <= LABEL_WORDS
    text = (layout.label_suffix + "/".join(layout.labels)).lower()
    kind = next((i for i, word in enumerate(_PREFERRED) if word in text), 1.5)
    return is_other, int(kind * 2), len(layout.labels) + len(layout.images), str(layout.labels)


def images_alone(images: Sequence[File]) -> Layout:
    """The layout of images that have no labels: the folder that holds them all, with its splits."""
    root = Counter(f.root for f in images).most_common(1)[0][0]
    folders = []
    for file in images:
        if file.root == root:
            parts = abstract(file.folders)[0]
            folders.append(parts[: next((i + 1 for i, p in enumerate(parts) if SPLIT in p), len(parts))])
    return with_splits(Layout(root, tuple(commonprefix(folders))), images)
