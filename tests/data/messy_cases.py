"""Drawn descriptions of what people bring: images, labels, links, junk, faults, and what is said of them to a run."""

from __future__ import annotations

import os
import unicodedata
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

CLASSES = ("road", "car", "sky")
COLORS = ((128, 64, 128), (0, 0, 142), (70, 130, 180))
SUFFIX = "_mask"
"""Of labels that lie beside their images."""

STEMS = (
    "a",
    "b 1",
    "#1",
    "x.y",
    "IMG_7",
    "\u00e9",
    "e\u0301",
    "a_b",
    "a/b",
    "day 2/deep/c",
    "0007",
    "it's",
    "B",
    "b%20",
)
BYTES = os.fsdecode(b"\xff1")
"""A name that is no UTF-8."""

KINDS: dict[str, tuple[str, str, str]] = {
    "jpg": (".jpg", "JPEG", "RGB"),
    "JPG": (".JPG", "JPEG", "RGB"),
    "gray jpeg": (".jpeg", "JPEG", "L"),
    "cmyk jpg": (".jpg", "JPEG", "CMYK"),
    "mpo": (".jpg", "MPO", "RGB"),
    "png": (".png", "PNG", "RGB"),
    "gray png": (".png", "PNG", "L"),
    "rgba png": (".PNG", "PNG", "RGBA"),
    "la png": (".png", "PNG", "LA"),
    "palette png": (".png", "PNG", "P"),
    "bit png": (".png", "PNG", "1"),
    "webp": (".webp", "WEBP", "RGB"),
    "bmp": (".bmp", "BMP", "RGB"),
    "palette bmp": (".bmp", "BMP", "P"),
    "tif": (".tif", "TIFF", "RGB"),
    "gray tif": (".tiff", "TIFF", "L"),
    "cmyk tif": (".tif", "TIFF", "CMYK"),
    "jpg called png": (".png", "JPEG", "RGB"),
    "png called jpg": (".jpg", "PNG", "RGB"),
    # refused
    "deep png": (".png", "PNG", "I;16"),
    "gif called png": (".png", "GIF", "P"),
    "text called jpg": (".jpg", "", ""),
    # left aside
    "gif": (".gif", "GIF", "P"),
    "heic": (".heic", "", ""),
    "text": (".txt", "", ""),
}
"""Ending, Pillow's format ('' for text) and mode."""
REFUSED = ("deep png", "gif called png", "text called jpg")
ASIDE = ("gif", "heic", "text")
GOOD = tuple(kind for kind in KINDS if kind not in REFUSED + ASIDE)
GOOD_LABELS = ("gray", "palette", "colour", "deep")
BAD_LABELS = ("wrong size", "turned", "jpeg", "unknown id", "unknown colour")
BROKEN_EXIF = 9
JUNK = (".hidden.jpg", "Thumbs.db", "@eaDir/t.jpg", ".ipynb_checkpoints/a.png", "._a.jpg")


@dataclass(frozen=True)
class Picture:
    """One image, or a file among images."""

    stem: str
    kind: str
    orientation: int
    """0: no EXIF; 9: EXIF that is broken."""
    damage: str
    """`none`, `empty`, `cut` or `middle`."""
    label: str
    """`none`, `gray`, `palette`, `colour`, `deep`, `mask`, `ignored`, or one of BAD_LABELS."""

    @property
    def name(self) -> str:
        return self.stem + KINDS[self.kind][0]

    @property
    def has_exif(self) -> bool:
        return KINDS[self.kind][1] in ("JPEG", "PNG", "WEBP", "TIFF") and self.orientation > 0

    @property
    def turn(self) -> int:
        """The orientation that counts."""
        return self.orientation if self.has_exif and self.orientation != BROKEN_EXIF else 1

    @property
    def is_broken(self) -> bool:
        """Whether no command can read it."""
        return self.kind in REFUSED or self.damage in ("empty", "cut")


@dataclass(frozen=True)
class Folder:
    """A folder of images with labels."""

    pictures: tuple[Picture, ...]
    labels: str
    """`pictures`, `beside`, `coco`, `labelme` or `cvat`."""
    links: tuple[str, ...]
    """`loop`, `file`, `folder` (among training images alone), `broken`, or `none`."""
    junk: tuple[str, ...]
    has_results: bool

    def annotated(self) -> list[Picture]:
        """Pictures that have a label of their own: the first of each name, which has an ending in files that name
        images."""
        chosen: dict[str, Picture] = {}
        for picture in self.pictures:
            chosen.setdefault(composed(picture.name if self.labels in ("coco", "cvat") else picture.stem), picture)
        return [p for p in chosen.values() if p.label != "none" and (self.labels != "coco" or p.kind not in ASIDE)]

    def owner(self, picture: Picture) -> Picture | None:
        """The picture whose label is that of another one too: of the same name, with another ending perhaps.

        An entry of a file that names images belongs to the image with its ending, and without that to one of its stem.
        """
        alike = [p for p in self.annotated() if composed(p.stem) == composed(picture.stem)]
        if self.labels not in ("coco", "cvat"):
            return alike[0] if alike else None
        own = [p for p in alike if composed(p.name) == composed(picture.name)]
        return next(iter([*own, *(p for p in alike if p.kind in ASIDE)]), None)


@dataclass(frozen=True)
class Case:
    """A run's data and what is said of it."""

    source: Folder | None
    train: Folder
    val: Folder | None
    val_is_alike: bool
    """Whether val keeps its labels as train does."""
    toml: bool
    mistake: str
    """`none`, `key`, `folder`, `colour` or `class twice`."""
    labeled_count: int | None
    val_count: int | None
    resize: tuple[int, int] | None
    accepts: bool
    skip_damaged: bool
    crop_size: tuple[int, int]
    scale_range: tuple[float, float]
    image_format: str


def composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def mostly(usual: Any, *others: Any, times: int = 20) -> st.SearchStrategy[Any]:
    """`usual`, or one of the others in 1 of `times` cases each."""
    return st.sampled_from([usual] * max(1, times - len(others)) + list(others))


def pictures(labels: st.SearchStrategy[str]) -> st.SearchStrategy[Picture]:
    return st.builds(
        Picture,
        mostly(None, BYTES, times=40).flatmap(lambda s: st.just(s) if s else st.sampled_from(STEMS)),
        mostly(GOOD, REFUSED, ASIDE, ASIDE, times=30).flatmap(st.sampled_from),
        mostly(0, *range(1, 10), times=18),
        mostly("none", "empty", "cut", "middle", times=75),
        labels,
    )


def folders(labels: st.SearchStrategy[str], least: int, most: int) -> st.SearchStrategy[Folder]:
    return st.builds(
        Folder,
        st.lists(pictures(labels), min_size=least, max_size=most, unique_by=lambda p: p.name).map(tuple),
        mostly("pictures", "beside", "beside", "coco", "labelme", "cvat", times=12),
        st.lists(
            mostly("none", "loop", "loop", "file", "file", "folder", "folder", "broken", times=20),
            max_size=2,
            unique=True,
        ).map(tuple),
        st.lists(st.sampled_from(JUNK), max_size=2, unique=True).map(tuple),
        st.booleans(),
    )


_GOOD_LABELS = st.sampled_from(("gray", *GOOD_LABELS))
_ODD_LABELS = mostly("mask", "ignored", *BAD_LABELS, times=8)


def cases() -> st.SearchStrategy[Case]:
    labels = mostly(True, False, times=40).flatmap(lambda good: _GOOD_LABELS if good else _ODD_LABELS)
    all_have = mostly(True, False, times=60).flatmap(lambda has: labels if has else st.just("none"))
    some_have = st.booleans().flatmap(lambda has: labels if has else st.just("none"))
    return st.builds(
        Case,
        st.none() | folders(all_have, 1, 4),
        mostly(True, False, times=12).flatmap(
            lambda mixed: folders(some_have, 2, 6).map(_mixed) if mixed else folders(some_have, 1, 6)
        ),
        st.none() | folders(all_have, 1, 3),
        mostly(True, False, times=30),
        st.booleans(),
        mostly("none", "key", "folder", "colour", "class twice", times=40),
        mostly(None, 0, 1, 1, 1, 2, times=12),
        mostly(None, 1, 1, 9, times=16),
        st.sampled_from((None, None, (48, 64), (20, 26))),
        mostly(True, False, times=6),
        mostly(False, True, times=4),
        st.sampled_from(((24, 32), (40, 40), (16, 16))),
        st.sampled_from(((1.0, 1.0), (0.5, 2.0))),
        st.sampled_from(("raw", "jpeg", "png")),
    )


def _mixed(folder: Folder) -> Folder:
    """The same folder with a first picture that has a label and a last one that has none, if it has several."""
    first, *others = folder.pictures
    others[-1:] = [replace(last, label="none") for last in others[-1:]]
    return replace(folder, pictures=(replace(first, label="gray" if first.label == "none" else first.label), *others))
