"""What is to be known of a data set to read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...types import ClassSet, UserError
from ..labels.encodings import LabelEncoding, merged

OTHER_SOURCE = "Name another source (--data.source.spec FILE.toml), or learn without one: --method target_intra."


@dataclass(frozen=True)
class SplitSpec:
    """Where the images and labels of a split lie; `{split}` stands for train or val."""

    images: str
    labels: str | None = None
    sequences: tuple[str, ...] = ()
    """Only images whose name starts with one of these; empty: all."""
    frames: tuple[int | None, int | None] = (None, None)
    """Of those, in the order of their names, only the ones from the first to before the second position."""

    @property
    def is_filtered(self) -> bool:
        """Whether only some of the folder's images belong to the split."""
        return bool(self.sequences) or self.frames != (None, None)

    def select(self, names: Sequence[str]) -> list[str]:
        """Those of the sorted names that belong to the split."""
        chosen = [n for n in names if not self.sequences or n.startswith(self.sequences)]
        return chosen[slice(*self.frames)]


@dataclass(frozen=True)
class DatasetSpec:
    """What is to be known of a data set to read it."""

    name: str
    classes: ClassSet
    encoding: LabelEncoding
    train: SplitSpec
    val: SplitSpec | None = None
    image_suffix: str = ""
    """End of an image's file name before `.png`, no part of the sample's name."""
    label_suffix: str = ""
    """End of a label's file name before `.png`, in place of `image_suffix`."""
    resize: tuple[int, int] | None = None
    """Box (H, W) in pixels that a training image must fit into, aspect ratio kept."""
    partial_labels: bool = False
    """Whether images of the training split may lack a label (folder data sets)."""
    root: Path | None = None
    """Folder that relative folders are below when the user gives none (the TOML file's own)."""
    file: Path | None = None
    """The TOML file that describes it, for messages."""

    def matched_to(self, classes: ClassSet) -> DatasetSpec:
        """The same data set with another's classes, which are matched by name (capitals do not count).

        Pixels of a class that `classes` lacks are ignored. Raises UserError where no name is common.
        """
        if self.classes.names == classes.names:
            return self
        index = {name.strip().casefold(): i for i, name in enumerate(classes.names)}
        # As it is written first: two classes may differ in capitals alone.
        exact = {name: i for i, name in enumerate(classes.names)}
        own = [exact.get(name, index.get(name.strip().casefold())) for name in self.classes.names]
        train_ids = {k: i for k, i in enumerate(own) if i is not None}
        if not train_ids:
            raise UserError(
                f"Classes are matched by name, and {self.name} has none that the target has. {self.name}:"
                f" {', '.join(self.classes.names)}. Target: {', '.join(classes.names)}."
                f" Give those that mean the same one name. {OTHER_SOURCE}"
            )
        return replace(
            self,
            classes=classes,
            encoding=merged(self.encoding, train_ids, classes.names if self.encoding.class_names else None),
        )
