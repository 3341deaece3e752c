"""How labels become train ids.

Every public data set and tool writes classes in its own way: 8-bit gray ids (Cityscapes), palette indices (GTA5), the
red channel of a 16-bit PNG (SYNTHIA), colours (CVAT, VOC), named outlines (COCO, LabelMe). A reader that guesses turns
a palette into colours or a 16-bit id into 0; here each form is named, and an id, a colour or a name that the data set
does not have is an error.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...types import IGNORE_INDEX, UserError
from .colors import color_text, look_up, unknown_colors
from .pictures import Picture, PictureKind, read_ids, read_picture

__all__ = ["ANNOTATION_KINDS", "Kind", "LabelEncoding", "encoding", "merged", "read_ids"]

AnnotationKind = Literal["coco", "labelme", "cvat", "cityscapes-polygons", "masks"]
Kind = Literal[PictureKind, AnnotationKind]

ANNOTATION_KINDS: tuple[AnnotationKind, ...] = ("coco", "labelme", "cvat", "cityscapes-polygons", "masks")
"""Kinds of which the labels are drawn, from outlines or from one mask a class, not read from pictures."""

Table = tuple[tuple[int, int], ...]
"""Pairs (id or packed colour, train id)."""

_UNKNOWN = -1
_WIDE = ("red16", "ids", "auto")
"""Kinds whose ids reach 65535."""
_COLOR_KEY, _NAME_KEY = 1 << 32, 1 << 48
"""What sets colours and names apart from ids in `LabelEncoding.keys`."""


@dataclass(frozen=True)
class LabelEncoding:
    """How a label file is read, and which id, colour or name on disk is which train id."""

    kind: Kind
    """`gray8`: 8-bit gray; `palette`: indices of a palette PNG; `red16`: the red channel of a 16-bit RGB PNG; `ids`:
    gray of 8 or 16 bits or palette, whichever the file is; `colors`: the colours of any picture; `auto`: ids, or
    colours where the file is RGB; or one of `ANNOTATION_KINDS`."""
    train_ids: Table
    """(id on disk, train id) of every id that may occur; 255 is ignored. Any other id is an error."""
    colors: Table = ()
    """(packed colour, train id) of every colour that may occur in a picture that is read by colour."""
    names: tuple[tuple[str, int], ...] = ()
    """(name, train id) of every name that may occur in annotation files."""
    unlabeled: int = IGNORE_INDEX
    """Train id of pixels without any annotation."""
    empty_is_labeled: bool = False
    """Whether an image that a file of all images (COCO, CVAT) lists without any annotation has a label, all of it
    `unlabeled`. Many tools list all images, those that nobody has looked at yet among them."""
    class_names: tuple[str, ...] = ()
    """For messages."""
    by: Literal["ids", "colors", "names"] = "ids"
    """By which of the three tables the labels of a data set at hand are read."""

    def __post_init__(self) -> None:
        ids = [i for i, _ in self.train_ids]
        top = 65535 if self.kind in _WIDE else 255
        if len(set(ids)) != len(ids):
            double = next(i for i in ids if ids.count(i) > 1)
            raise UserError(f"The id map names id {double} more than once.")
        for i, train_id in self.train_ids:
            if not (0 <= i <= top and 0 <= train_id <= IGNORE_INDEX):
                raise UserError(f"The id map holds {i}:{train_id}; ids are 0 to {top}, train ids 0 to 255 (ignored).")

    @cached_property
    def lookup(self) -> NDArray[np.int16]:
        """int16 [256] or [65536]: train id of each id on disk, -1 where there is none."""
        table = np.full(65536 if self.kind in _WIDE else 256, _UNKNOWN, np.int16)
        for i, train_id in self.train_ids:
            table[i] = train_id
        return table

    @property
    def known(self) -> tuple[int, ...]:
        """Every id that may occur on disk, sorted."""
        return tuple(sorted(i for i, _ in self.train_ids))

    @property
    def unlabeled_class(self) -> int | None:
        """Train id of pixels without any annotation; None where they are ignored."""
        return None if self.unlabeled == IGNORE_INDEX else self.unlabeled

    @property
    def _has_colors(self) -> bool:
        return any(train_id != IGNORE_INDEX for _, train_id in self.colors)

    @property
    def keys(self) -> Table:
        """What the labels at hand are told apart by, as numbers: ids, colours or names with their train ids.

        A prepared folder keeps them, so that it serves every data set whose classes can be told from it.
        """
        return self._keys(self.by)

    def keys_like(self, stored: Iterable[tuple[int, int]]) -> Table:
        """The keys of the same kind as those that a prepared folder keeps."""
        top = max((i for i, _ in stored), default=0)
        return self._keys("names" if top >= _NAME_KEY else "colors" if top >= _COLOR_KEY else "ids")

    def _keys(self, by: str) -> Table:
        if by == "colors":
            return tuple((_COLOR_KEY | color, t) for color, t in self.colors)
        if by == "names":
            return tuple((_name_key(name), t) for name, t in (*self.names, ("", self.unlabeled)))
        return self.train_ids

    def of_any_place(self) -> LabelEncoding:
        """The same classes, for labels that lie elsewhere and may be of another kind than these annotations."""
        return replace(self, kind="auto") if self.kind in ANNOTATION_KINDS else self

    def read(self, path: Path) -> NDArray[np.uint8]:
        """Read one label picture.

        Returns:
            uint8 [H,W] train ids at the size on disk, 255 ignored.

        Raises:
            UserError: the file cannot be read, has another form, or holds an id or a colour that the encoding does
                not name.
        """
        assert self.kind not in ANNOTATION_KINDS, "annotations are drawn into pictures first"
        picture = read_picture(path, self.kind, has_colors=self._has_colors)  # type: ignore[arg-type]
        if picture.is_color:
            return self._by_color(path, picture.values)
        train_ids = np.take(self.lookup, picture.values)
        if self.kind == "auto" and picture.palette is not None and self.colors:
            self._require_one_meaning(path, picture)
        if train_ids.size and train_ids.min() < 0:
            unknown = np.unique(picture.values[train_ids < 0])
            shown = ", ".join(str(i) for i in unknown[:8]) + (", ..." if len(unknown) > 8 else "")
            raise UserError(
                f"Label {path} holds ids that its data set does not name: {shown} (known:"
                f" {_ranges(self.known)}). Give them to a class (`ids`) or to `ignore` in the TOML file, without one in"
                " the id map (train id 255 ignores a class), or give the right data set."
            )
        return train_ids.astype(np.uint8)

    def _by_color(self, path: Path, colors: NDArray[np.uint32]) -> NDArray[np.uint8]:
        table = dict(self.colors)
        train_ids = look_up(colors, table)
        missing = train_ids < 0
        if missing.any():
            raise unknown_colors(path, colors, missing, table, dict(enumerate(self.class_names)))
        return train_ids.astype(np.uint8)

    def _require_one_meaning(self, path: Path, picture: Picture) -> None:
        """Raise UserError where a palette's colours are all classes', but not those of their indices.

        Programs that shrink pictures turn colours into a palette with indices in any order: such a label has valid
        ids that mean nothing.
        """
        assert picture.palette is not None
        used = np.flatnonzero(np.bincount(picture.values.ravel(), minlength=256))
        if not len(used) or used[-1] >= len(picture.palette):
            return
        by_color, by_id = look_up(picture.palette[used], dict(self.colors)), self.lookup[used]
        if (by_color < 0).any() or (by_color == by_id).all():
            return
        at = int(np.flatnonzero(by_color != by_id)[0])
        raise UserError(
            f"Label {path} is a palette picture whose indices and colours are different classes: index {used[at]} is"
            f" {self._called(int(by_id[at]))}, but its colour {color_text(int(picture.palette[used[at]]))} is"
            f' {self._called(int(by_color[at]))}. Say which counts: label_kind = "ids" or label_kind = "colors".'
        )

    def _called(self, train_id: int) -> str:
        if train_id < 0:
            return "no class"
        return repr(self.class_names[train_id]) if train_id < len(self.class_names) else "ignored"


def encoding(kind: Kind, train_ids: Mapping[int, int], ignored: Iterable[int] = ()) -> LabelEncoding:
    """The encoding of a map id -> train id; `ignored` ids are those that become 255 beside it."""
    table = {i: IGNORE_INDEX for i in ignored} | dict(train_ids)
    return LabelEncoding(kind, tuple(sorted(table.items())))


def merged(
    base: LabelEncoding, train_ids: Mapping[int, int], class_names: tuple[str, ...] | None = None
) -> LabelEncoding:
    """`base` followed by a map of its train ids to others; those that the map does not name become 255.

    Args:
        class_names: of the train ids that come out; None: they keep their names.
    """

    def to(train_id: int) -> int:
        return train_ids.get(train_id, IGNORE_INDEX)

    return replace(
        base,
        train_ids=tuple((i, to(t)) for i, t in base.train_ids),
        colors=tuple((color, to(t)) for color, t in base.colors),
        names=tuple((name, to(t)) for name, t in base.names),
        unlabeled=to(base.unlabeled),
        class_names=base.class_names if class_names is None else class_names,
    )


def drawn(base: LabelEncoding) -> LabelEncoding:
    """The encoding of label pictures that were drawn from annotations by `base`: gray train ids."""
    ids = (*range(len(base.class_names)), IGNORE_INDEX)
    return replace(base, kind="gray8", train_ids=tuple((i, i) for i in ids), by="names")


def _name_key(name: str) -> int:
    return _NAME_KEY | int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big")


def _ranges(ids: tuple[int, ...]) -> str:
    """0, 1, 2, 5 as `0-2, 5`."""
    parts: list[list[int]] = []
    for i in ids:
        if parts and i == parts[-1][1] + 1:
            parts[-1][1] = i
        else:
            parts.append([i, i])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)
