"""Annotation files of labeling tools: which kind a file is, which images it is about, and its classes with counts."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from .files import File, abstract, split_of
from .layout import Layout, with_splits

KIND_NAMES = {
    "coco": "COCO JSON",
    "cvat": "CVAT XML",
    "labelme": "LabelMe JSON",
    "cityscapes-polygons": "Cityscapes polygons",
}
_NO_AREA = {
    "bbox": "boxes without polygon or mask",
    "polyline": "polylines",
    "points": "points",
    "cuboid": "cuboids",
    "skeleton": "skeletons",
    "tag": "tags",
}


@dataclass
class Annotations:
    """What annotation files hold."""

    kind: str
    """coco, cvat, labelme or cityscapes-polygons."""
    names: Counter[str] = field(default_factory=Counter)
    """Class -> how many objects of it there are; in the order of the file, those without any among them."""
    images: list[str] = field(default_factory=list)
    """What it calls its images (COCO and CVAT)."""
    no_area: Counter[str] = field(default_factory=Counter)
    """Objects that cover no area, by what they are: they label no pixel."""
    problem: str = ""
    """What is wrong with the file; then the others are empty."""


def read_annotations(path: Path) -> Annotations | None:
    """Read an annotation file; None for a file that is none. Never raises for a bad file."""
    try:
        if path.suffix.lower() == ".xml":
            return _cvat(path)
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, ElementTree.ParseError, RecursionError) as error:
        return Annotations("", problem=f"cannot be read ({error})")
    if not isinstance(data, dict):
        return None
    try:
        return _json(data)
    except (KeyError, TypeError, AttributeError) as error:
        return Annotations("", problem=f"has another form than its tool's ({type(error).__name__}: {error})")


def _json(data: dict[str, Any]) -> Annotations | None:
    if isinstance(data.get("images"), list) and isinstance(data.get("categories"), list):
        return _coco(data)
    if isinstance(data.get("shapes"), list) and ("imagePath" in data or "version" in data):
        found = Annotations("labelme")
        for shape in data["shapes"]:
            _count(found, str(shape["label"]))
        return found
    if isinstance(data.get("objects"), list) and "imgHeight" in data:
        found = Annotations("cityscapes-polygons")
        for thing in data["objects"]:
            _count(found, str(thing["label"]))
        return found
    return None


def _coco(data: dict[str, Any]) -> Annotations:
    found = Annotations("coco")
    names = {c["id"]: str(c["name"]) for c in data["categories"]}
    found.names.update({name: 0 for name in names.values()})
    found.images = [str(image["file_name"]) for image in data["images"]]
    for thing in data.get("annotations", ()):
        _count(
            found,
            names.get(thing["category_id"], f"category {thing['category_id']}"),
            "" if thing.get("segmentation") else "bbox",
        )
    return found


def _cvat(path: Path) -> Annotations | None:
    root = ElementTree.parse(path).getroot()
    if root.tag != "annotations":
        return None
    found = Annotations("cvat")
    found.names.update({label.findtext("name", "").strip(): 0 for label in root.iterfind(".//labels/label")})
    for image in root.iterfind("image"):
        found.images.append(image.get("name", ""))
        for shape in image:
            if shape.get("label") is not None:
                _count(found, str(shape.get("label")), shape.tag)
    return found if found.images else None


def _count(found: Annotations, name: str, shape: str = "") -> None:
    found.names[name] += 1
    if shape in _NO_AREA:
        found.no_area[_NO_AREA[shape]] += 1


def joined(parts: Iterable[Annotations]) -> Annotations:
    """What several files of one kind hold together."""
    whole: Annotations | None = None
    for part in parts:
        whole = whole or Annotations(part.kind)
        whole.names.update(part.names)
        whole.no_area.update(part.no_area)
        whole.images += part.images
    assert whole is not None
    return whole


def find_file_layouts(
    images: Sequence[File], documents: dict[File, Annotations]
) -> list[tuple[Layout, int, list[File]]]:
    """How COCO and CVAT files belong to images: layouts whose labels are a file, how many images they name, and the
    files; the best first. A file's image names are paths below the images' folder, or names of files in it."""
    by_name: dict[str, list[File]] = defaultdict(list)
    for image in images:
        by_name[image.stem + image.ending].append(image)
    counts: Counter[Layout] = Counter()
    files: dict[Layout, list[File]] = defaultdict(list)
    for document, content in documents.items():
        votes: Counter[tuple[Path, tuple[str, ...]]] = Counter()
        for name in content.images:
            path = PurePosixPath(name.replace("\\", "/"))
            best = max(by_name.get(path.name, ()), key=lambda image: _fit(image, path, document), default=None)
            if best is not None:
                inner = _fit(best, path, document)[0]
                votes[best.root, best.folders[: len(best.folders) - inner]] += 1
        if votes:
            (root, folders), _ = votes.most_common(1)[0]
            layout = _file_layout(root, folders, document)
            counts[layout] += sum(votes.values())
            files[layout].append(document)
    found = [(with_splits(layout, images), count, files[layout]) for layout, count in counts.items()]
    return sorted(found, key=lambda entry: (-entry[1], str(entry[0].labels)))


def _fit(image: File, path: PurePosixPath, document: File) -> tuple[int, int]:
    """How many of the folders that a file names are the image's, and how many of its own folders."""
    named = [p for p in path.parts[:-1] if p not in (".", "/")]
    inner = 0
    while inner < min(len(named), len(image.folders)) and named[-1 - inner] == image.folders[-1 - inner]:
        inner += 1
    split = abstract((*document.folders, document.stem))[1]
    near = sum(a == b for a, b in zip(image.folders, document.folders, strict=False)) + (
        2 * (split != "" and split == abstract(image.folders)[1])
    )
    return inner, near


def _file_layout(root: Path, folders: tuple[str, ...], document: File) -> Layout:
    """The layout of images in a folder and the file of their labels, with {split} where both tell the same split."""
    label_parts = (*document.folders, document.stem + document.ending)
    image_parts, image_split, _ = abstract(folders)
    in_stem = split_of(document.stem)
    folder_parts, folder_split, _ = abstract(document.folders)
    if image_split and folder_split == image_split:
        label_parts = (*folder_parts, document.stem + document.ending)
    elif image_split and in_stem and in_stem[1] == image_split:
        label_parts = (*document.folders, in_stem[0] + document.ending)
    return Layout(root, image_parts, document.root, label_parts, label_ending=document.ending.lower())
