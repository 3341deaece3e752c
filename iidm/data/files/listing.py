"""Which files of a folder are images or labels, and their names: one walk for every command.

- Links are followed, each real folder and each real image once; a link back to a folder above is none to follow.
- Hidden files and folders, what desktops and archives leave (`Thumbs.db`, `@eaDir`, `__MACOSX`, ...) and the pictures
  that `iidm.predict` wrote are no images. Neither are labels that lie among the images.
- A name is the path below the folder without suffix and ending, in Unicode's composed form (NFC), so that é is one name
  however a disk writes it. Images that would share a name keep their endings in it.

Whatever is no image is counted, by kind.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from ...types import UserError
from .aside import LABEL, RESULTS, Aside
from .common import first_few
from .walking import Found, walk

LABEL_ENDINGS = (".png", ".bmp", ".tif", ".tiff")
"""Of label pictures: lossless ones."""
LOSSY_ENDINGS = (".jpg", ".jpeg", ".jfif", ".mpo", ".webp")
IMAGE_ENDINGS = (".png", *LOSSY_ENDINGS, *LABEL_ENDINGS[1:])
"""Of files that are read as images, in any case; what they hold is decided by their content (headers.py)."""
VIDEO_ENDINGS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mts", ".m2ts", ".ts", ".mpg", ".3gp", ".wmv")
"""Of files that `iidm.predict` reads as videos, in any case."""
RESULT_ENDINGS = (".ids.png", ".color.png", ".overlay.png", ".confidence.png")
"""What `iidm.predict` writes of an image as pictures."""
VIDEO_RESULT = ".overlay.mp4"
"""End of the name of what it writes of a video."""


@dataclass(frozen=True)
class Listing:
    """The images or the labels below a folder."""

    folder: Path
    paths: dict[str, Path]
    """Name (path below the folder without suffix and ending, `/` between parts) -> file, sorted by name."""
    aside: Aside
    stems: Mapping[str, str] = field(default_factory=dict)
    """The name of the label of those images whose own name holds their ending, as another image has that name too."""
    are_labeled: bool = False
    """Whether labels belong to them: else nobody asks which label such an image has."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines on what a user might not expect: what was left aside, images that share a name."""
        lines = [str(self.aside)] if str(self.aside) else []
        if self.stems:
            label = "; each has the label of that name" if self.are_labeled else ""
            lines.append(
                f"{self.folder}: {len(self.stems)} images share their name with one of another ending and are called"
                f" by both ({first_few(list(self.stems), 4)}){label}"
            )
        return tuple(lines)

    def only(self, names: Iterable[str]) -> Listing:
        """The same listing with some of its names."""
        paths = {name: self.paths[name] for name in names}
        stems = {name: stem for name, stem in self.stems.items() if name in paths}
        return replace(self, paths=paths, stems=stems)


MARKS = "_-. "
"""What may stand between the name of an image and that of a class, in the name of a mask."""


class Beside(NamedTuple):
    """Where the labels lie, for a list of images, or the images for a list of labels: both may share a folder, or one
    lies below the other."""

    folder: Path
    suffix: str = ""
    classes: frozenset[str] = frozenset()
    """Names of classes, where x_road.png beside x.jpg is its mask of the class road."""


def composed(name: str) -> str:
    """A name in Unicode's composed form (NFC), in which names are compared."""
    return unicodedata.normalize("NFC", name)


def list_images(
    folder: Path,
    suffix: str = "",
    *,
    what: str,
    labels: Beside | None = None,
    others: tuple[str, ...] = (),
    may_be_empty: bool = False,
) -> Listing:
    """All images below `folder` (nested ones too) whose name ends with `suffix` before its ending.

    Args:
        what: what the images are, for errors.
        labels: where their labels lie: what is one is no image.
        others: endings of files that the caller reads itself.

    Raises:
        UserError: there is none, and it may not be empty.
    """
    suffix, labels = composed(suffix), _composed(labels)
    found, counts = walk(folder, without=_real(labels))
    shares = labels is not None and _real(labels) == os.path.realpath(folder)
    candidates = [file for file in found if file.ending in IMAGE_ENDINGS and file.has(suffix)]
    results = predicted_among(found)
    own_labels = _labels_among(candidates, suffix, labels.suffix, labels.classes) if shares and labels else set()
    images: list[Found] = []
    seen: set[str] = set()
    chosen = {file.below for file in candidates}
    named = {file.name_without(suffix) for file in candidates}
    for file in sorted(found, key=lambda f: f.is_link):
        if file.below in results or file.below.endswith(VIDEO_RESULT):
            counts[RESULTS] += 1
        elif file.ending in others:
            continue
        elif file.below in own_labels or (shares and labels and _is_only_label(file, suffix, labels.suffix)):
            counts[LABEL] += 1
        elif labels and _is_annotation(file, labels, named if shares else set()):
            counts[LABEL] += 1
        elif file.below not in chosen:
            counts[_kind(file, IMAGE_ENDINGS, suffix)] += 1
        elif file.real in seen:
            counts["link to what is listed already"] += 1
        else:
            seen.add(file.real)
            images.append(file)
    paths, stems = _named(images, suffix, counts)
    aside = Aside(folder, counts)
    if not paths and not may_be_empty:
        raise UserError(_nothing(what, folder, IMAGE_ENDINGS, suffix, aside))
    return Listing(folder, dict(sorted(paths.items())), aside, stems, labels is not None)


def list_videos(folder: Path) -> dict[str, Path]:
    """All videos below a folder that `iidm.predict` did not write: name -> file, as of images."""
    found, _ = walk(folder)
    videos = [file for file in found if file.ending in VIDEO_ENDINGS and not file.below.endswith(VIDEO_RESULT)]
    first: dict[str, Found] = {}
    for file in sorted(videos, key=lambda file: file.is_link):
        first.setdefault(file.real, file)
    return _named(list(first.values()), "", Counter())[0]


def list_labels(folder: Path, suffix: str = "", *, what: str, images: Beside | None = None) -> Listing:
    """All label pictures below `folder`, as `list_files` finds them.

    Raises:
        UserError: there is none, all are JPEGs, or two labels have one name.
    """
    return list_files(folder, LABEL_ENDINGS, suffix, what, images=images)


def list_files(
    folder: Path, endings: tuple[str, ...], suffix: str, what: str, *, images: Beside | None = None
) -> Listing:
    """All label files below `folder` whose name ends with `suffix` and one of `endings`.

    Of what lies beside them only pictures that might be labels are counted.

    Args:
        what: what the labels are of, for errors.
        images: where their images lie: what is one is no label.

    Raises:
        UserError: there is none, or two have one name.
    """
    suffix, images = composed(suffix), _composed(images)
    found, _ = walk(folder, without=_real(images))
    shares = images is not None and _real(images) == os.path.realpath(folder)
    candidates = [file for file in found if file.has(suffix)]
    counts: Counter[str] = Counter()
    if shares and images:
        pictures = [file for file in candidates if file.ending in IMAGE_ENDINGS]
        own_images = {file.below for file in pictures} - _labels_among(pictures, images.suffix, suffix, images.classes)
        candidates = [file for file in candidates if file.below not in own_images]
        if images.classes:  # what is no mask of a class and, by its suffix, no image
            of_none = [file for file in pictures if file.below in own_images and not file.has(images.suffix)]
            counts.update(_of_no_class(file, images.suffix) for file in of_none)
    paths: dict[str, Path] = {}
    for file in candidates:
        if file.ending not in endings:
            counts[file.ending] += file.ending in (*LOSSY_ENDINGS, ".gif")
            continue
        name = file.name_without(suffix)
        if name in paths:
            raise UserError(
                f"Two labels of {what} have the name {name!r}: {paths[name]} and {file.path}. Remove or rename one."
            )
        paths[name] = file.path
    aside = Aside(folder, +counts)
    if not paths:
        there = Counter(_kind(file, endings, suffix) for file in found if not (shares and file.ending in IMAGE_ENDINGS))
        message = _nothing(what, folder, endings, suffix, Aside(folder, there | +counts), kind="label ")
        if shares and images and images.suffix == suffix:
            message += " Images and labels share the folder, and no suffix tells them apart: give label_suffix."
        raise UserError(message)
    return Listing(folder, dict(sorted(paths.items())), aside)


def _composed(beside: Beside | None) -> Beside | None:
    return None if beside is None else beside._replace(suffix=composed(beside.suffix))


def _real(beside: Beside | None) -> str | None:
    return None if beside is None else os.path.realpath(beside.folder)


def predicted_among(found: Iterable[Found]) -> set[str]:
    """Paths below the folder of what `iidm.predict` wrote: two or three pictures of one name, or one beside its image
    or called as an image of another folder is in results."""
    found = list(found)
    names = {file.below for file in found}
    stems = {os.path.splitext(name)[0] for name in names if os.path.splitext(name)[1].lower() in IMAGE_ENDINGS}
    own, others = set(), []
    for name in names:
        for ending in RESULT_ENDINGS:
            if name.endswith(ending):
                base = name.removesuffix(ending)
                is_one_of_several = sum(base + other in names for other in RESULT_ENDINGS) > 1
                if is_one_of_several or base in stems or base in names:
                    own.add(name)
                else:
                    others.append((name, os.path.basename(base)))
    if others:
        elsewhere = {called for stem in stems for called in _names_in_results(stem)}
        own |= {name for name, called in others if called in elsewhere}
    return own


def _names_in_results(stem: str) -> list[str]:
    """What results of an image may be called, whichever folder above it was named: a/b/c is c, b_c or a_b_c."""
    parts = stem.split("/")
    return ["_".join(parts[first:]) for first in range(len(parts))]


def _labels_among(
    pictures: Iterable[Found], suffix: str, label_suffix: str, classes: frozenset[str] = frozenset()
) -> set[str]:
    """Which of a folder's pictures are labels, where both lie in it."""
    pictures = list(pictures)
    if classes:
        names = [(file, file.name_without(label_suffix)) for file in pictures if file.ending in LABEL_ENDINGS]
        return {file.below for file, name in names if any(_is_mask(name, of) for of in classes)}
    if label_suffix != suffix:
        return {file.below for file in pictures if _is_only_label(file, suffix, label_suffix)}
    # No suffix tells them apart: t0.png is the label of t0.jpg, and so is every lossless picture where there is one.
    photographs = {file.name_without(suffix) for file in pictures if file.ending in LOSSY_ENDINGS}
    lossless = [file for file in pictures if file.ending in LABEL_ENDINGS]
    has_pairs = any(file.name_without(suffix) in photographs for file in lossless)
    return {file.below for file in lossless} if has_pairs else set()


def _is_mask(name: str, of: str) -> bool:
    """Whether a name says that a picture is the mask of a class: it ends with it, a folder is called so, or in a
    folder, which may be an image's, it is all of its name."""
    *folders, last = name.split("/")
    return (
        of in folders
        or (bool(folders) and last == of)
        or (len(last) > len(of) + 1 and last.endswith(of) and last[-len(of) - 1] in MARKS)
    )


def _is_only_label(file: Found, suffix: str, label_suffix: str) -> bool:
    """Whether a file of a folder that images and labels share has the labels' suffix and not the images' longer one.

    A JPEG with a suffix of labels is a label too, though one that is not read, and no image to train on.
    """
    endings = IMAGE_ENDINGS if label_suffix else LABEL_ENDINGS
    if label_suffix == suffix or file.ending not in endings or not file.has(label_suffix):
        return False
    return not (len(suffix) > len(label_suffix) and file.has(suffix))


def _is_annotation(file: Found, labels: Beside, images: set[str]) -> bool:
    """Whether a file is the file of the labels, or the JSON file of one of the `images` beside it."""
    return file.real == _real(labels) or (file.ending == ".json" and file.name_without(labels.suffix) in images)


def _kind(file: Found, endings: tuple[str, ...], suffix: str) -> str:
    if file.ending not in endings:
        return file.ending or "file without ending"
    return f"{file.ending} without {suffix!r} at the end of its name"


def _of_no_class(file: Found, suffix: str) -> str:
    """The kind of a picture that is called as no class; by its name where all samples have the same names."""
    return f"{os.path.basename(file.below) if '/' in suffix else file.ending} of no class"


def _named(images: list[Found], suffix: str, counts: Counter[str]) -> tuple[dict[str, Path], dict[str, str]]:
    """Name -> file, and the plain name of those that needed their ending."""
    plain = {file.below: file.name_without(suffix) for file in images}
    names = dict(plain)
    full = {file.below: composed(file.name_without(suffix) + file.raw_ending) for file in images}
    while True:
        often = Counter(names.values())
        shared = [below for below, name in names.items() if often[name] > 1 and name != full[below]]
        if not shared:
            break
        names.update({below: full[below] for below in shared})
    paths: dict[str, Path] = {}
    for file in sorted(images, key=lambda file: file.below):
        if names[file.below] in paths:
            counts["name in two Unicode forms"] += 1
        else:
            paths[names[file.below]] = file.path
    stems = {names[below]: plain[below] for below in names if names[below] != plain[below]}
    return paths, dict(sorted(stems.items()))


def _nothing(what: str, folder: Path, endings: tuple[str, ...], suffix: str, aside: Aside, kind: str = "") -> str:
    """The error where nothing was found."""
    if kind and any(ending in aside.counts for ending in LOSSY_ENDINGS):
        return (
            f"The labels of {what} in {folder} are JPEG or WebP ({aside.words()}), which change ids when they are"
            " saved. Write the labels as PNG from the tool that drew them."
        )
    patterns = ", ".join(f"*{suffix}{ending}" for ending in endings)
    place = "" if what == str(folder) else f" in {folder}"
    words = aside.words()
    if LABEL in aside.counts and not words:
        words = f"{aside.counts[LABEL]} that are labels by their name"
    return f"{what} has no {kind}files {patterns}{place}" + (f"; left aside: {words}." if words else ".")
