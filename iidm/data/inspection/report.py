"""What was found in the folders of a data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...types import UserError
from ..files.common import first_few
from .annotations import Annotations, find_file_layouts, joined, read_annotations
from .doubts import doubtful
from .files import SPLIT, File, Files, find_files
from .layout import Layout, Pairs, find_layouts, images_alone, pairs_of
from .naming import Naming, name_annotations, name_values
from .pictures import Header, Values, count_values, read_headers
from .roles import sort_pictures


@dataclass
class Report:
    """One data set as it was found: what `tell` says and `describe` writes."""

    roots: tuple[Path, ...]
    layout: Layout
    splits: dict[str, Pairs]
    """train, val or test -> its images and labels; `train` alone where the folders tell no split."""
    headers: dict[Path, Header]
    """Of the images, and of labels that are pictures."""
    naming: Naming
    values: Values | None = None
    """What pictures of labels hold."""
    annotations: Annotations | None = None
    """What annotation files hold."""
    doubts: list[str] = field(default_factory=list)
    """Lines on what is wrong or looks so."""
    notes: list[str] = field(default_factory=list)
    """Lines on what else there is."""

    @property
    def train(self) -> str:
        """The split that trains."""
        return "train" if "train" in self.splits else next(iter(self.splits))

    @property
    def val(self) -> str | None:
        """The split that validates, if one has labels: `val`, or else `test`."""
        others = [s for s in ("val", "test") if s in self.splits and s != self.train]
        return next((s for s in others if self.count(s)[1]), None)

    def count(self, split: str) -> tuple[int, int]:
        """How many images a split has, and how many of them have a label."""
        pairs = self.splits[split]
        return len(pairs.images), len(pairs.names)

    @property
    def images(self) -> list[File]:
        """All images, in the order of the splits and their names."""
        return [file for pairs in self.splits.values() for file in pairs.images.values()]

    @property
    def labeled(self) -> list[tuple[File, File]]:
        """All images that have a label, with it."""
        return [(pairs.images[n], pairs.labels[n]) for pairs in self.splits.values() for n in pairs.names]


def group_folders(folders: Sequence[Path]) -> list[list[Path]]:
    """Which folders are one data set: a folder without images, as labeling tools export them, belongs to the one that
    is named before it (the first to the one after it).

    Raises:
        UserError: a folder that does not exist; no folder has images.
    """
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"There is no folder {folder}." if not folder.exists() else f"{folder} is no folder.")
    groups: list[list[Path]] = []
    waiting: list[Path] = []
    for folder in folders:
        if sort_pictures(find_files([folder]).pictures)["image"]:
            groups.append([folder, *waiting])
            waiting = []
        elif groups:
            groups[-1].append(folder)
        else:
            waiting.append(folder)
    if not groups:
        raise UserError(
            f"There are no images (.jpg, .png, .webp, .bmp, .tif) below {', '.join(map(str, folders))}. Give the folder"
            " of the camera's images too: inspect IMAGES LABELS."
        )
    return groups


def inspect_folders(roots: Sequence[Path]) -> Report:
    """Find the images and labels of one data set, and what they hold.

    Raises:
        UserError: no images.
    """
    found = find_files([root.absolute() for root in roots])
    roles = sort_pictures(found.pictures)
    documents, broken = _annotations(found)
    layout, kind, notes = _choose(roles, documents)
    drawn = [d for d, content in documents.items() if content.kind == kind]
    labels = drawn if kind else roles["label"]
    splits = _splits(layout, roles["image"], labels, kind)
    pictures = [] if kind else [file.path for pairs in splits.values() for file in pairs.labels.values()]
    headers = read_headers([f.path for pairs in splits.values() for f in pairs.images.values()] + pictures)
    report = Report(tuple(roots), layout, splits, headers, Naming(()), notes=notes)
    if kind:
        used = _used(layout, splits, drawn, kind)
        report.annotations = joined(documents[file] for file in used)
        report.naming = name_annotations(kind, report.annotations.names)
    elif pictures:
        report.values = count_values([label.path for _, label in report.labeled], headers)
        hints = "/".join((*_last(layout.label_root), *layout.labels, layout.label_suffix))
        report.naming = name_values(report.values, found.lists, hints)
    report.notes += _left_aside(report, found, roles, documents)
    report.doubts = [*broken, *doubtful(splits, headers, report.values, report.annotations, report.naming)]
    return report


def _annotations(found: Files) -> tuple[dict[File, Annotations], list[str]]:
    """The annotation files, and lines on those that look like one and cannot be read."""
    documents, broken = {}, []
    for file in found.documents:
        content = read_annotations(file.path)
        if content is not None and content.problem:
            broken.append(f"{file.path} {content.problem}")
        elif content is not None:
            documents[file] = content
    return documents, broken


def _choose(roles: dict[str, list[File]], documents: dict[File, Annotations]) -> tuple[Layout, str, list[str]]:
    """The layout that labels the most images, the kind of its annotations ('' for pictures), and lines on others."""
    images = roles["image"]
    if not images:
        raise UserError("There are no images.")
    ways: list[tuple[int, int, Layout, str]] = []
    for layout, count in find_layouts(images, roles["label"]):
        ways.append((-count, len(ways), layout, ""))
    for kind in ("labelme", "cityscapes-polygons"):
        files = [file for file, content in documents.items() if content.kind == kind]
        for layout, count in find_layouts(images, files):
            ways.append((-count, 100 + len(ways), layout, kind))
    for kind in ("coco", "cvat"):
        chosen = {file: content for file, content in documents.items() if content.kind == kind}
        for layout, count, _ in find_file_layouts(images, chosen):
            ways.append((-count, 200 + len(ways), layout, kind))
    if not ways:
        alone = images_alone(images)
        assert alone is not None
        return alone, "", []
    # Labels as pictures come first unless annotations label clearly more.
    most = -min(way[0] for way in ways)
    first = min((way for way in ways if -way[0] >= 0.9 * most), key=lambda way: way[1])
    notes = [
        f"also there: {-count} labels as {_where(layout)}" for count, _, layout, _ in ways if layout is not first[2]
    ]
    return first[2], first[3], notes[:6]


def _where(layout: Layout) -> str:
    assert layout.label_root is not None
    tail = f"*{layout.label_suffix}{layout.label_ending}"
    path = layout.label_root.joinpath(*layout.labels)
    return str(path) if path.suffix in (".json", ".xml") else f"{path}/{tail}"


def _splits(layout: Layout, images: Sequence[File], labels: Sequence[File], kind: str) -> dict[str, Pairs]:
    """The pairs of each split that has images."""
    if kind in ("coco", "cvat"):
        return {role: _named_pairs(layout, images, labels, spelled, kind) for role, spelled in _roles(layout)}
    splits = {role: pairs_of(layout, images, labels, spelled) for role, spelled in _roles(layout)}
    return {role: pairs for role, pairs in splits.items() if pairs.images} or splits


def _roles(layout: Layout) -> list[tuple[str, str]]:
    return list(layout.splits) or [("train", "")]


def _named_pairs(layout: Layout, images: Sequence[File], labels: Sequence[File], spelling: str, kind: str) -> Pairs:
    """The pairs of a split whose labels are in one file: those images that the file names."""
    alone = pairs_of(Layout(layout.image_root, layout.images), images, (), spelling)
    path = layout.folder("labels", spelling)
    file = next((f for f in labels if f.path == path), None)
    content = read_annotations(path) if file else None
    if file is None or content is None:
        return alone
    names = [name.replace("\\", "/").rpartition(".")[0] for name in content.images]
    by_last: dict[str, list[str]] = {}
    for name in alone.images:
        by_last.setdefault(name.rpartition("/")[2], []).append(name)
    found = {}
    for name in names:
        last = by_last.get(name.rpartition("/")[2], [])
        near = [n for n in last if name.endswith(n)] or (last if len(last) == 1 else [name])
        own = name if name in alone.images else near[0]
        found[own] = file
    return Pairs(alone.images, found, alone.doubles)


def _used(layout: Layout, splits: dict[str, Pairs], drawn: Sequence[File], kind: str) -> list[File]:
    """The annotation files that the splits read."""
    if kind in ("coco", "cvat"):
        paths = {layout.folder("labels", spelled) for _, spelled in _roles(layout)}
        return [file for file in drawn if file.path in paths]
    return [pairs.labels[name] for pairs in splits.values() for name in pairs.names] or list(drawn)


def _last(root: Path | None) -> tuple[str, ...]:
    return () if root is None else root.parts[-2:]


def _left_aside(
    report: Report, found: Files, roles: dict[str, list[File]], documents: dict[File, Annotations]
) -> list[str]:
    """Lines on the files that are no part of the data set."""
    lines = []
    used = {file.path for file in report.images}
    rest = Counter("/".join(f.folders) or "." for f in roles["image"] if f.path not in used)
    if rest:
        lines.append(
            f"{sum(rest.values())} images elsewhere are left aside, as a description has one folder of"
            f" images and one of labels: in {first_few(list(rest))}"
        )
    if report.val == "test":
        lines.append("test validates, as there is no other split for it")
    unused = [s for s in report.splits if s not in (report.train, report.val)]
    lines += [f"{s}: {report.count(s)[0]} images are left aside" for s in unused]
    if roles["other"]:
        folders = Counter("/".join(f.folders) or "." for f in roles["other"])
        lines.append(
            f"{len(roles['other'])} pictures of other kinds (instances, depth, ...): in {first_few(list(folders))}"
        )
    others = found.others + Counter(f.ending.lower() for f in found.documents if f not in documents)
    if others:
        told = ", ".join(f"{n} {ending}" for ending, n in others.most_common(6))
        lines.append(f"other files, which are not read: {told}")
    if report.layout.has_split and not report.layout.splits:
        lines.append(f"no folder stands for {SPLIT}")
    return lines
