"""What was found in the folders of a data set."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from ...types import UserError
from ..datasets.check import SampleReport, check_sample
from ..files.aside import Aside
from ..files.common import counted, first_few
from ..files.listing import IMAGE_ENDINGS
from ..labels.encodings import AnnotationKind
from ..labels.matching import case_words, match_but_for_case
from .annotations import Annotations, find_file_layouts, joined, read_annotations
from .doubts import bad_files, odd_annotations, odd_values
from .files import SPLIT, File, Files, find_files
from .layout import Layout, find_layouts, images_alone, in_lower_case
from .lists import ValList, find_val_list, read_lists
from .mask_folders import find_mask_folders, with_mask_folders
from .masks import mask_annotations, rest_notes, split_off_masks
from .naming import Naming, name_annotations, name_values
from .pairs import Pairs, open_pairs
from .sample_folders import Roles, fixed_name, is_joined, place_of, sort_samples, why_things
from .values import Values, count_values


@dataclass
class Report:
    """One data set as it was found: what `tell` says and `describe` writes."""

    roots: tuple[Path, ...]
    layout: Layout
    splits: dict[str, Pairs]
    """train, val or test -> its images and labels; `train` alone where the folders tell no split."""
    files: dict[str, list[SampleReport]]
    """Split -> what its images and their label pictures are like."""
    naming: Naming
    values: Values | None = None
    """What pictures of labels hold."""
    annotations: Annotations | None = None
    """What annotation files hold."""
    val_list: ValList | None = None
    """The list of those that validate, where no folder tells them."""
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
        return len(pairs.images), len(pairs.labels)

    @property
    def labels(self) -> list[Path]:
        """The label of each image that has one, in the order of the splits and their names."""
        return [path for pairs in self.splits.values() for path in pairs.labels.values()]


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
    others = Counter[str]()
    for folder in folders:
        files = find_files([folder])
        others += files.others
        if sort_samples(files.pictures).pictures["image"]:
            groups.append([folder, *waiting])
            waiting = []
        elif groups:
            groups[-1].append(folder)
        else:
            waiting.append(folder)
    if not groups:
        there = f"; there are {Aside(folders[0], others).words()}" if others else ""
        raise UserError(
            f"There are no images ({', '.join(IMAGE_ENDINGS)}) below {', '.join(map(str, folders))}{there}. Give the"
            " folder of the camera's images too: inspect IMAGES LABELS."
        )
    return groups


def inspect_folders(roots: Sequence[Path]) -> Report:
    """Find the images and labels of one data set, and what they hold.

    Raises:
        UserError: no images.
    """
    found = find_files([root.absolute() for root in roots])
    sorted_in = sort_samples(found.pictures, found.lists)
    roles = sorted_in.pictures
    documents, doubts = _annotations(found)
    layout, kind, notes, two_readings = _choose(sorted_in, documents)
    by_path = {file.path: content for file, content in documents.items()}
    splits = _splits(layout, kind, by_path)
    with ThreadPoolExecutor(4 * (os.cpu_count() or 1)) as pool:  # as the check of a run
        files = {split: list(pool.map(check_sample, pairs.samples)) for split, pairs in splits.items()}
    report = Report(tuple(roots), layout, splits, files, Naming(()), doubts=doubts, notes=notes)
    labels, unread = report.labels, dict[Path, str]()
    doubts += two_readings if labels or kind is None else []  # else an error says so
    if kind == "masks":
        report.annotations = found_masks = mask_annotations(
            [masks for pairs in splits.values() for masks in pairs.masks]
        )
        report.naming = name_annotations(kind, found_masks.names, has_rest=bool(labels) and found_masks.rest != 0)
        notes += rest_notes(found_masks)
    elif kind:
        used = dict.fromkeys(labels) or [path for path, content in by_path.items() if content.kind == kind]
        report.annotations = joined(kind, (by_path[path] for path in used if path in by_path))
        report.naming = name_annotations(kind, report.annotations.names)
    elif labels:
        lists = read_lists(found.lists)
        doubts += lists.problems
        report.values, unread = count_values(labels)
        hints = "/".join((*_last(layout.label_root), *layout.labels, layout.label_suffix))
        report.naming = name_values(report.values, lists, hints)
    for split, pairs in splits.items():
        own = set(pairs.labels.values())
        doubts += [*pairs.doubts, *bad_files(split, files[split], {p: t for p, t in unread.items() if p in own})]
    if report.values is not None:
        doubts += odd_values(report.values, report.naming, labels)
    if report.annotations is not None:
        doubts += odd_annotations(report.annotations)
    if report.val is None:
        report.val_list = find_val_list(found.val_lists, report.splits[report.train].labels)
    report.notes += _left_aside(report, found, roles, documents)
    return report


def _annotations(found: Files) -> tuple[dict[File, Annotations], list[str]]:
    """The annotation files, and lines on those that look like one and cannot be read."""
    documents, broken = {}, []
    for file in found.documents:
        try:
            content = read_annotations(file.path)
        except UserError as error:
            broken.append(str(error))
        else:
            if content is not None:
                documents[file] = content
    return documents, broken


def _choose(
    sorted_in: Roles, documents: dict[File, Annotations]
) -> tuple[Layout, AnnotationKind | None, list[str], list[str]]:
    """The layout that labels the most images, the kind of its annotations (None for pictures), lines on others, and on
    labels that have two readings."""
    roles = sorted_in.pictures
    images = roles["image"]
    if not images:
        raise UserError("There are no images.")
    ways: list[tuple[int, int, Layout, AnnotationKind | None]] = []
    of_images = find_mask_folders(images, roles["label"])
    maps, masks = split_off_masks(find_layouts(images, roles["label"]), roles["label"])
    maps, masks, two_readings = with_mask_folders(maps, masks, of_images)
    for layout, count in maps:
        ways.append((-count, len(ways), layout, None))
    for layout, count in masks:
        ways.append((-count, 50 + len(ways), layout, "masks"))
    one_each: tuple[AnnotationKind, ...] = ("labelme", "cityscapes-polygons")
    for kind in one_each:
        files = [sorted_in.called(file) for file, content in documents.items() if content.kind == kind]
        for layout, count in find_layouts(images, files):
            ways.append((-count, 100 + len(ways), layout, kind))
    one_for_all: tuple[AnnotationKind, ...] = ("coco", "cvat")
    for kind in one_for_all:
        chosen = {file: content for file, content in documents.items() if content.kind == kind}
        for layout, count in find_file_layouts(images, chosen):
            ways.append((-count, 200 + len(ways), layout, kind))
    if not ways:
        # Labels whose names differ from the images' in upper and lower case are looked at, so that this is told.
        near = find_layouts(in_lower_case(images), in_lower_case(roles["label"]))
        whys = [*sorted_in.whys, *(folders.why for folders in of_images if folders.why)]
        whys = whys or why_things(images, roles["label"])
        return near[0][0] if near else images_alone(images), None, [], whys
    # Labels as pictures come first unless annotations label clearly more.
    most = -min(way[0] for way in ways)
    first = min((way for way in ways if -way[0] >= 0.9 * most), key=lambda way: way[1])
    notes = [
        f"also there: {-count} labels as {layout.place('labels')}{layout.label_files}"
        for count, _, layout, _ in ways
        if layout is not first[2]
    ]
    notes = [*sorted_in.whys, *notes[:6]]
    return first[2], first[3], notes, [line for place, line in two_readings if first[2].is_within(place)]


def _splits(layout: Layout, kind: AnnotationKind | None, documents: Mapping[Path, Annotations]) -> dict[str, Pairs]:
    """The pairs of each split that has images."""
    roles = list(layout.splits) or [("train", "")]
    opened = {role: open_pairs(layout, spelled, kind, documents) for role, spelled in roles}
    found = {role: pairs for role, pairs in opened.items() if pairs is not None}
    if not found:
        raise UserError(f"{layout.place('images')} holds no images that training would read beside the labels.")
    return found


def _last(root: Path | None) -> tuple[str, ...]:
    return () if root is None else root.parts[-2:]


def _other_case(documents: Mapping[File, Annotations], images: Sequence[File]) -> list[str]:
    """A line where annotation files name images in another case than the disk."""
    entries = [name for content in documents.values() for name in content.images]
    by_path = {str(file.path): file.path for file in images}
    near = match_but_for_case(entries, by_path)
    return [case_words([entries[at] for at in near.values()], [by_path[name] for name in near])] if near else []


def _left_aside(
    report: Report, found: Files, roles: dict[str, list[File]], documents: dict[File, Annotations]
) -> list[str]:
    """Lines on the files that are no part of the data set."""
    lines = []
    used = {path for pairs in report.splits.values() for path in pairs.images.values()}
    rest = Counter(place_of(f) for f in roles["image"] if f.path not in used)
    if rest:
        lines.append(
            f"{sum(rest.values())} images elsewhere are left aside, as a description has one folder of"
            f" images and one of labels: in {first_few(list(rest))}"
        )
    if report.val == "test":
        lines.append("test validates, as there is no other split for it")
    unused = [s for s in report.splits if s not in (report.train, report.val)]
    lines += [f"{s}: {report.count(s)[0]} images are left aside" for s in unused]
    if roles["label"] and report.layout.label_root is None and report.annotations is None:
        names = first_few([file.path.name for file in roles["label"]], 3)
        lines.append(f"{len(roles['label'])} pictures look like labels, but have the name of no image: {names}")
    used |= {path for pairs in report.splits.values() for path in pairs.labels.values()}
    used |= {mask.path for pairs in report.splits.values() for masks in pairs.masks for mask in masks}
    ends = {report.layout.label_suffix, *(f"/{name}{report.layout.label_suffix}" for name in report.layout.classes)}
    beside = [f for f in roles["label"] if is_joined(f) and f.path not in used and f"/{fixed_name(f)}" not in ends]
    if beside and report.layout.label_root is not None:
        names = first_few(list(Counter(map(place_of, beside))))
        lines.append(f"{counted(len(beside), 'picture')} that may be labels too, but are not read: in {names}")
    if documents and report.annotations is None and not report.labels:
        names = first_few([file.path.name for file in documents], 3)
        lines.append(f"{len(documents)} annotation files name none of these images (other names or folders): {names}")
        lines += _other_case(documents, roles["image"])
    if roles["other"]:
        folders = Counter(map(place_of, roles["other"]))
        lines.append(
            f"{len(roles['other'])} pictures of other kinds (instances, depth, ...): in {first_few(list(folders))}"
        )
    others = found.others + Counter(f.ending for f in found.documents if f not in documents)
    others += Counter({".txt": len(found.val_lists) - (report.val_list is not None)})
    if others:
        lines.append(f"left aside: {Aside(report.roots[0], others).words()}")
    if report.layout.has_split and not report.layout.splits:
        lines.append(f"no folder stands for {SPLIT}")
    return lines
