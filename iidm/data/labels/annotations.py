"""Annotation files become label pictures once: everything after reads 8-bit PNGs of train ids.

The pictures lie in the cache folder as labels-<key>/<name>.png, written beside and renamed; the key changes with all
that changes them: the files, the images, the classes' names and the rule for pixels without annotation.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ...text import read_text
from ...types import UserError
from ..files.common import Progress, cache_folder, first_few
from .cityscapes_polygons import is_cityscapes, read_cityscapes
from .coco import is_coco, read_coco
from .cvat import label_names, read_cvat
from .drawing import Job, Size, draw_whole, read_card
from .encodings import AnnotationKind, LabelEncoding
from .labelme import is_labelme, read_labelme
from .masks import Mask, read_masks
from .matching import case_words, match, match_but_for_case
from .shapes import Annotated

VERSION = 3
"""Of the drawing: a change of rules draws anew."""


Files = Sequence[Path] | Mapping[str, Path] | Mapping[str, tuple[Mask, ...]]
"""Annotation files of many images, or the file or the masks of each image by the sample's name."""


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


def is_of_kind(path: Path, kind: Literal["coco", "cvat"]) -> bool:
    """Whether a file has the form of COCO or CVAT. Raises UserError where it cannot be read."""
    return is_coco(read_json(path)) if kind == "coco" else label_names(path) is not None


def draw_labels(
    kind: AnnotationKind,
    files: Files,
    images: Mapping[str, Path],
    encoding: LabelEncoding,
    image_size: Callable[[Path], Size],
    *,
    progress: Progress | None = None,
) -> Drawn:
    """Draw the label of every image that annotation files know, or find them drawn.

    Args:
        kind: which tool's form.
        files: files of many images each (COCO, CVAT), or sample name -> file (LabelMe, Cityscapes) or masks.
        images: sample name -> image.
        encoding: its `names` and `unlabeled` say what is drawn.
        image_size: (H, W) of an image, as training sees it.
        progress: called with (images drawn, all).

    Returns: a label for each image that has one. An image without any annotation has one only where pixels without
        annotation are a class, and in COCO and CVAT files where `encoding.empty_is_labeled` says so.

    Raises:
        UserError: a file cannot be read, names a class that is unknown (all such names in one error), or is about an
            image of another size; two files annotate one image; the cache folder cannot be written.
    """
    root = cache_folder() / f"labels-{_key(kind, files, images, encoding)}"
    card = read_card(root)
    if card is None:
        jobs, notes = _jobs(kind, files, images)
        card = draw_whole(root, jobs, notes, encoding, image_size, progress)
    return Drawn({name: root / f"{name}.png" for name in card["labels"]}, tuple(card["notes"]))


def _key(
    kind: AnnotationKind,
    files: Files,
    images: Mapping[str, Path],
    encoding: LabelEncoding,
) -> str:
    """A hash of all that the labels depend on."""
    about = (VERSION, kind, encoding.names, encoding.unlabeled, encoding.empty_is_labeled, encoding.class_names)
    digest = hashlib.sha256(repr(about).encode())
    for entry in files.values() if isinstance(files, Mapping) else files:
        for mask in entry if isinstance(entry, tuple) else (Mask("", entry),):
            digest.update(mask.name.encode() + _facts(mask.path))
    for name, path in images.items():
        digest.update(os.fsencode(name) + b"\0" + _facts(path))
    return digest.hexdigest()[:24]


def _facts(path: Path) -> bytes:
    try:
        stat = path.stat()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from None
    return os.fsencode(f"{path.absolute()}\0{stat.st_size}\0{stat.st_mtime_ns}\n")


def _jobs(kind: AnnotationKind, files: Files, images: Mapping[str, Path]) -> tuple[list[Job], list[str]]:
    """What is to be drawn, and notes on what does not fit together."""
    if not isinstance(files, Mapping):
        return _jobs_of_lists(kind, files, images)
    reads = {"labelme": read_labelme, "cityscapes-polygons": read_cityscapes}
    jobs = []
    for name, entry in files.items():
        if name not in images:
            continue
        if isinstance(entry, tuple):
            newest = max(mask.path.stat().st_mtime_ns for mask in entry)
            jobs.append(Job(name, images[name], partial(read_masks, entry), f"Mask {entry[0].path}", newest, False))
        else:
            where, time_ns = f"Annotation file {entry}", entry.stat().st_mtime_ns
            jobs.append(Job(name, images[name], _lazily(reads[kind], entry), where, time_ns, False))
    if kind == "masks":
        return jobs, []
    alone = [path for name, path in files.items() if name not in images]
    notes = [f"{len(alone)} annotation files have no image: {first_few(alone, 3)}."] if alone else []
    return jobs, notes


def _jobs_of_lists(
    kind: AnnotationKind, files: Sequence[Path], images: Mapping[str, Path]
) -> tuple[list[Job], list[str]]:
    """`_jobs` of COCO and CVAT files, which list many images each."""
    found: dict[str, list[Job]] = {}
    strangers, listed, unmatched = list[str](), list[str](), list[str]()
    for file in files:
        entries = read_cvat(file) if kind == "cvat" else read_coco(file, _coco_table(file))
        file_names, time_ns = [entry.file_name for entry in entries], file.stat().st_mtime_ns
        places = match(file_names, images, f"Annotation file {file}")
        for name, at in places.items():
            where = f"Annotation file {file}, image {file_names[at]!r}"
            found.setdefault(name, []).append(Job(name, images[name], entries[at].read, where, time_ns, True))
        used = set(places.values())
        if alone := [name for place, name in enumerate(file_names) if place not in used]:
            strangers.append(f"{file}: {len(alone)} annotated images are not among the images: {first_few(alone, 3)}.")
        unmatched += alone
        listed += file_names
    _refuse_other_case(unmatched, {name: path for name, path in images.items() if name not in found}, files)
    what = str(files[0]) if len(files) == 1 else f"{len(files)} annotation files ({first_few(files, 3)})"
    if not found:
        if not listed:
            raise UserError(f"Annotation file {what} names no image. Export it again, with the annotated images.")
        raise UserError(
            f"Annotation file {what} is about none of the {len(images)} images: it names {first_few(listed, 3)},"
            f" the images are {first_few(list(images), 3)}. Name the folder of the images that the tool exported with"
            " it (Label Studio and Roboflow give images other names), or the file that belongs to these."
        )
    without = [name for name in images if name not in found]
    notes = [f"Labels are those of {what}."] if len(files) > 1 else []
    notes += strangers
    if without:
        notes.append(f"{what}: {len(without)} of {len(images)} images are not in it: {first_few(without, 3)}.")
    return [jobs[0] if len(jobs) == 1 else _one_of(jobs) for jobs in found.values()], notes


def _refuse_other_case(entries: Sequence[str], images: Mapping[str, Path], files: Sequence[Path]) -> None:
    """Raise UserError for entries that are an image's but for upper and lower case: it would count as unlabeled."""
    if near := match_but_for_case(entries, images):
        words = case_words([entries[at] for at in near.values()], [images[name] for name in near])
        raise UserError(f"Annotation file {first_few(files, 3)}: {words}.")


def _one_of(jobs: Sequence[Job]) -> Job:
    """The job of an image that several files list: what one of them annotates, while the others know nothing of it."""

    def read() -> Annotated:
        read_by = [(job, job.read()) for job in jobs]
        known = [entry for entry in read_by if entry[1].shapes]
        if len(known) > 1:
            raise UserError(
                f"Image {jobs[0].image} is annotated twice: {known[0][0].where}; {known[1][0].where}. Which of them"
                " holds cannot be told. Remove one, or name one file as labels."
            )
        return (known or read_by)[0][1]

    where = "; ".join(job.where for job in jobs)
    return replace(jobs[0], read=read, where=where, time_ns=max(job.time_ns for job in jobs))


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
