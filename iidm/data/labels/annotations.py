"""Annotation files become label pictures once: everything after reads 8-bit PNGs of train ids.

The pictures lie in the cache folder as labels-<key>/<name>.png, written beside and renamed; the key changes with all
that changes them: the files, the images, the classes' names and the rule for pixels without annotation.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ...text import read_text
from ...types import UserError
from ..files.common import Progress, cache_folder, first_few
from .cityscapes_polygons import is_cityscapes, read_cityscapes
from .coco import is_coco, read_coco
from .cvat import read_cvat
from .drawing import Job, Size, draw_whole, read_card
from .encodings import AnnotationKind, LabelEncoding
from .labelme import is_labelme, read_labelme
from .matching import match
from .shapes import Annotated

VERSION = 2
"""Of the drawing: a change of rules draws anew."""


class Drawn(NamedTuple):
    """Labels that were drawn from annotations."""

    paths: dict[str, Path]
    """Sample name -> 8-bit PNG of train ids."""
    notes: tuple[str, ...]
    """What was left aside, a line each."""


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises UserError where it cannot be read."""
    try:
        return json.loads(read_text(path, "Annotation file"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"Annotation file {path} cannot be read ({error}). Export it again.") from None


def kind_of_json(path: Path) -> Literal["coco", "labelme", "cityscapes-polygons"]:
    """Which tool's form a JSON file has. Raises UserError for another one."""
    table = read_json(path)
    if is_coco(table):
        return "coco"
    if is_labelme(table):
        return "labelme"
    if is_cityscapes(table):
        return "cityscapes-polygons"
    raise UserError(
        f"{path} is no annotation file that is known: COCO (images, annotations, categories), LabelMe (shapes) or"
        " Cityscapes' polygons (imgHeight, objects)."
    )


def draw_labels(
    kind: AnnotationKind,
    files: Path | Mapping[str, Path],
    images: Mapping[str, Path],
    encoding: LabelEncoding,
    image_size: Callable[[Path], Size],
    *,
    progress: Progress | None = None,
) -> Drawn:
    """Draw the label of every image that annotation files know, or find them drawn.

    Args:
        kind: which tool's form.
        files: one file for all images (COCO, CVAT), or sample name -> file (LabelMe, Cityscapes).
        images: sample name -> image.
        encoding: its `names` and `unlabeled` say what is drawn.
        image_size: (H, W) of an image, as training sees it.
        progress: called with (images drawn, all).

    Returns: a label for each image that has one. An image without any annotation has one only where pixels without
        annotation are a class, and in COCO and CVAT files where `encoding.empty_is_labeled` says so.

    Raises:
        UserError: a file cannot be read, names a class that is unknown (all such names in one error), or is about an
            image of another size; the cache folder cannot be written.
    """
    root = cache_folder() / f"labels-{_key(kind, files, images, encoding)}"
    card = read_card(root)
    if card is None:
        jobs, notes = _jobs(kind, files, images)
        card = draw_whole(root, jobs, notes, encoding, image_size, progress)
    return Drawn({name: root / f"{name}.png" for name in card["labels"]}, tuple(card["notes"]))


def _key(
    kind: AnnotationKind, files: Path | Mapping[str, Path], images: Mapping[str, Path], encoding: LabelEncoding
) -> str:
    """A hash of all that the labels depend on."""
    about = (VERSION, kind, encoding.names, encoding.unlabeled, encoding.empty_is_labeled, encoding.class_names)
    digest = hashlib.sha256(repr(about).encode())
    for path in [files] if isinstance(files, Path) else files.values():
        digest.update(_facts(path))
    for name, path in images.items():
        digest.update(os.fsencode(name) + b"\0" + _facts(path))
    return digest.hexdigest()[:24]


def _facts(path: Path) -> bytes:
    try:
        stat = path.stat()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from None
    return os.fsencode(f"{path.absolute()}\0{stat.st_size}\0{stat.st_mtime_ns}\n")


def _jobs(
    kind: AnnotationKind, files: Path | Mapping[str, Path], images: Mapping[str, Path]
) -> tuple[list[Job], list[str]]:
    """What is to be drawn, and notes on what does not fit together."""
    if not isinstance(files, Path):
        reads = {"labelme": read_labelme, "cityscapes-polygons": read_cityscapes}[kind]
        jobs = [
            Job(name, images[name], _lazily(reads, path), f"Annotation file {path}", path.stat().st_mtime_ns, False)
            for name, path in files.items()
            if name in images
        ]
        alone = [path for name, path in files.items() if name not in images]
        notes = [f"{len(alone)} annotation files have no image: {first_few(alone, 3)}."] if alone else []
        return jobs, notes
    entries = read_cvat(files) if kind == "cvat" else read_coco(files, _coco_table(files))
    file_names = [entry.file_name for entry in entries]
    time_ns = files.stat().st_mtime_ns
    places = match(file_names, images, f"Annotation file {files}")
    jobs = [
        Job(name, images[name], entries[at].read, f"Annotation file {files}, image {file_names[at]!r}", time_ns, True)
        for name, at in places.items()
    ]
    used = set(places.values())
    strangers = [name for place, name in enumerate(file_names) if place not in used]
    without = [name for name in images if name not in places]
    notes = []
    if strangers:
        notes.append(f"{files}: {len(strangers)} annotated images are not among the images: {first_few(strangers, 3)}.")
    if without:
        notes.append(f"{files}: {len(without)} of {len(images)} images are not in it: {first_few(without, 3)}.")
    if not places:
        if not file_names:
            raise UserError(f"Annotation file {files} names no image. Export it again, with the annotated images.")
        raise UserError(
            f"Annotation file {files} is about none of the {len(images)} images: it names {first_few(file_names, 3)},"
            f" the images are {first_few(list(images), 3)}. Name the folder of the images that the tool exported with"
            " it (Label Studio and Roboflow give images other names), or the file that belongs to these."
        )
    return jobs, notes


def _lazily(reads: Callable[[Path, dict[str, Any]], Annotated], path: Path) -> Callable[[], Annotated]:
    def read() -> Annotated:
        table = read_json(path)
        is_right = is_labelme if reads is read_labelme else is_cityscapes
        if not is_right(table):
            tool = "LabelMe" if reads is read_labelme else "Cityscapes' polygons"
            raise UserError(f"Annotation file {path} has not the form of {tool}.")
        return reads(path, table)

    return read


def _coco_table(path: Path) -> dict[str, Any]:
    table = read_json(path)
    if not is_coco(table):
        raise UserError(f"Annotation file {path} is no COCO file: it needs images, annotations and categories.")
    return table
