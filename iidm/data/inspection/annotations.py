"""Annotation files of labeling tools: which kind a file is, which images it is about, and its classes with counts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from os.path import commonprefix
from pathlib import Path, PurePosixPath

from ...types import UserError
from ..labels.annotations import read_json
from ..labels.cityscapes_polygons import is_cityscapes, read_cityscapes
from ..labels.coco import category_names, is_coco, read_coco
from ..labels.cvat import label_names, read_cvat
from ..labels.encodings import AnnotationKind
from ..labels.labelme import is_labelme, read_labelme
from ..labels.shapes import Entry
from .files import File, abstract, split_of
from .layout import Layout, with_splits

KIND_NAMES: Mapping[AnnotationKind, str] = {
    "coco": "COCO JSON",
    "cvat": "CVAT XML",
    "labelme": "LabelMe JSON",
    "cityscapes-polygons": "Cityscapes polygons",
    "masks": "one mask a class",
}


@dataclass
class Annotations:
    """What annotation files hold."""

    kind: AnnotationKind
    names: Counter[str] = field(default_factory=Counter)
    """Class -> how many areas of it there are; in the order of the file, those without any among them."""
    images: list[str] = field(default_factory=list)
    """What it calls its images (COCO and CVAT)."""
    empty: set[int] = field(default_factory=set)
    """Places of those among them that nothing with an area is annotated in."""
    no_area: Counter[str] = field(default_factory=Counter)
    """What covers no area and labels no pixel -> how many of it there are."""
    problems: list[str] = field(default_factory=list)
    """What training could not read."""
    doubts: list[str] = field(default_factory=list)
    """What can be read and looks odd."""
    rest: float | None = None
    """Share of the pixels that no mask holds, of one mask a class; None where none was looked at."""
    looked_at: tuple[int, int] = (0, 0)
    """How many images' masks were looked at, and how many images have any."""
    one_class: list[list[str]] = field(default_factory=list)
    """Names whose masks cover the same pixels: of one class, perhaps."""

    @property
    def annotated(self) -> list[str]:
        """Those of its images that something with an area is annotated in (COCO and CVAT)."""
        return [name for place, name in enumerate(self.images) if place not in self.empty]


def read_annotations(path: Path) -> Annotations | None:
    """Read a JSON or XML file as training does; None for one that is no annotation file.

    Raises:
        UserError: it cannot be read.
    """
    if path.suffix.lower() == ".xml":
        names = label_names(path)
        return None if names is None else _counted("cvat", names, read_cvat(path))
    table = read_json(path)
    if is_coco(table):
        entries = read_coco(path, table)
        return _counted("coco", category_names(table), entries)
    if is_labelme(table):
        return _counted("labelme", (), [Entry("", partial(read_labelme, path, table))])
    if is_cityscapes(table):
        return _counted("cityscapes-polygons", (), [Entry("", partial(read_cityscapes, path, table))])
    return None


def _counted(kind: AnnotationKind, names: Iterable[str], entries: Sequence[Entry]) -> Annotations:
    found = Annotations(kind, Counter(dict.fromkeys(names, 0)), [entry.file_name for entry in entries])
    for place, entry in enumerate(entries):
        try:
            annotated = entry.read()
        except UserError as error:
            found.problems.append(str(error))
        else:
            if not annotated.shapes:
                found.empty.add(place)
            found.names.update(shape.name for shape in annotated.shapes)
            found.no_area.update(annotated.left_out)
    return found


def joined(kind: AnnotationKind, parts: Iterable[Annotations]) -> Annotations:
    """What several files of one kind hold together."""
    whole = Annotations(kind)
    for part in parts:
        whole.names.update(part.names)
        whole.no_area.update(part.no_area)
        whole.problems += part.problems
    return whole


def find_file_layouts(images: Sequence[File], documents: Mapping[File, Annotations]) -> list[tuple[Layout, int]]:
    """How COCO or CVAT files belong to images: layouts whose labels are a file, or a folder of files that annotate
    different images, and how many images they name; the best first. A file's image names are paths below the images'
    folder, or names of files in it."""
    by_name: dict[str, list[File]] = defaultdict(list)
    for image in images:
        by_name[image.path.name].append(image)
    counts: Counter[Layout] = Counter()
    same_images: dict[tuple[Path, tuple[str, ...], Path], list[File]] = defaultdict(list)
    for document, content in documents.items():
        votes: Counter[tuple[Path, tuple[str, ...]]] = Counter()
        for name in content.images:
            path = PurePosixPath(name.replace("\\", "/"))
            fits = [(_fit(image, path, document), image) for image in by_name.get(path.name, ())]
            if fits:
                fit = max(found for found, _ in fits)
                votes[_place([image for found, image in fits if found == fit], fit[0])] += 1
        if votes:
            (root, folders), _ = votes.most_common(1)[0]
            layout = _file_layout(root, folders, document)
            counts[layout] += sum(votes.values())
            if not layout.has_split and split_of(document.path.stem) is None:
                same_images[root, folders, document.root].append(document)
    for (root, folders, _), files in same_images.items():
        if (folder := _folder_of_all(files, documents)) is not None:
            apart = [_file_layout(root, folders, file) for file in files]
            whole = Layout(root, folders, files[0].root, folder, label_ending=files[0].ending)
            counts[whole] = sum(counts.pop(layout) for layout in apart)
    found = [(with_splits(layout, images), count) for layout, count in counts.items()]
    return sorted(found, key=lambda entry: (-entry[1], str(entry[0].labels)))


def _folder_of_all(files: Sequence[File], documents: Mapping[File, Annotations]) -> tuple[str, ...] | None:
    """The folder that several files are read from together; None where they annotate an image twice, or others of
    their kind lie there too."""
    if len(files) < 2:
        return None
    shared = tuple(commonprefix([file.folders for file in files]))
    there = {file for file in documents if file.root == files[0].root and file.folders[: len(shared)] == shared}
    annotated = Counter(name for file in files for name in documents[file].annotated)
    return shared if there == set(files) and max(annotated.values(), default=1) == 1 else None


def _place(images: Sequence[File], inner: int) -> tuple[Path, tuple[str, ...]]:
    """Root and folders that one of some images lies in, but for the last `inner` ones. Of several that fit alike it is
    the folder of all: which of them is meant cannot be told, and whoever reads the labels there says so."""
    places = [image.folders[: len(image.folders) - inner] for image in images if image.root == images[0].root]
    return images[0].root, tuple(commonprefix(places))


def _fit(image: File, path: PurePosixPath, document: File) -> tuple[int, int]:
    """How many of the folders that a file names are the image's, and how many of its own folders."""
    named = [p for p in path.parts[:-1] if p not in (".", "/")]
    inner = 0
    while inner < min(len(named), len(image.folders)) and named[-1 - inner] == image.folders[-1 - inner]:
        inner += 1
    split = abstract((*document.folders, document.path.stem))[1]
    near = sum(a == b for a, b in zip(image.folders, document.folders, strict=False)) + (
        2 * (split != "" and split == abstract(image.folders)[1])
    )
    return inner, near


def _file_layout(root: Path, folders: tuple[str, ...], document: File) -> Layout:
    """The layout of images in a folder and the file of their labels, with {split} where both tell the same split."""
    label_parts = (*document.folders, document.path.name)
    image_parts, image_split, _ = abstract(folders)
    in_stem = split_of(document.path.stem)
    folder_parts, folder_split, _ = abstract(document.folders)
    if image_split and folder_split == image_split:
        label_parts = (*folder_parts, document.path.name)
    elif image_split and in_stem and in_stem[1] == image_split:
        label_parts = (*document.folders, in_stem[0] + document.ending)
    return Layout(root, image_parts, document.root, label_parts, label_ending=document.ending)
