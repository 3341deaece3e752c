"""What a run will learn from, told before its first step, and the likely mistakes that stop it there.

Every label is read once for it (`label_pixel_totals` keeps the counts), those of validation too: a run does not find a
bad one after its last step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ...config import DataConfig, Mistake
from ...text import padded, shown_width
from ...types import IGNORE_INDEX, ClassSet, UserError
from ..files.common import Progress, counted, evenly, first_few
from ..labels.encodings import ANNOTATION_KINDS, read_ids
from ..labels.pictures import PictureKind
from .dataset import Dataset, Domains
from .statistics import label_pixel_totals

MOSTLY = 0.95
"""A set of labels is mostly ignored when this share of its pixels is."""
NOTABLE = 0.01
"""A class that training lacks stops a run when it has this share of the labeled validation pixels."""
MANY_LABELS = 200
"""Fewer are read in no time: no progress is told."""
PEEKED_LABELS = 16
"""Labels of each set, evenly spaced, whose ids on disk are looked at."""
SHOWN_CLASSES = 12
"""Names of classes in a line, of many."""

TITLES: Mapping[str, str] = {
    "source": "source",
    "labeled": "labeled target",
    "unlabeled": "unlabeled target",
    "val": "validation",
}
"""The sets of a run, as people are told of them."""


@dataclass(frozen=True)
class LabelSet:
    """The labels of one of a run's sets, counted."""

    title: str
    dataset: Dataset
    pixels: NDArray[np.int64]
    """int64 [K+1] of each class and of what is ignored, at training resolution."""
    ids: Counter[int]
    """Pixels of each id on disk in some of the labels; empty where they are prepared."""

    @property
    def ignored_share(self) -> float:
        """Of all pixels."""
        return float(self.pixels[-1] / max(self.pixels.sum(), 1))

    @property
    def shares(self) -> NDArray[np.float64]:
        """float64 [K]: each class's share of the labeled pixels."""
        return np.asarray(self.pixels[:-1] / max(self.pixels[:-1].sum(), 1))


def summarize(domains: Domains, data: DataConfig, progress: Progress | None = None) -> list[str]:
    """Lines that tell images, labels, ignored pixels and the share of each class.

    Args:
        data: `accept` names likely mistakes that are meant; `skip_damaged` counts nothing in damaged training labels.
        progress: called with (labels counted, all) of each large set that was not counted before.

    Raises:
        UserError: a label that cannot be read or holds an unknown id; a likely mistake.
    """
    sets = {}
    for stream in ("source", "labeled", "val"):
        dataset: Dataset | None = getattr(domains, stream)
        if dataset is not None and dataset.samples:
            skip = data.skip_damaged and stream != "val"
            told = progress if len(dataset.samples) >= MANY_LABELS else None
            pixels = label_pixel_totals(dataset, skip_damaged=skip, progress=told)
            sets[stream] = LabelSet(TITLES[stream], dataset, pixels, peek_ids(dataset))
    refuse(find_mistakes(sets), data.accept)
    lines = []
    for stream, title in TITLES.items():
        if stream in sets:
            lines.append(_about(sets[stream]))
            lines += _binary_note(sets[stream])
        elif (dataset := getattr(domains, stream)) is not None:
            lines.append(f"{title}: {_images(dataset)}")
    return lines + _class_table(domains.classes, list(sets.values()))


def count_images(domains: Domains) -> list[str]:
    """How many images each set has, without a look at the labels."""
    sets = ((title, getattr(domains, stream)) for stream, title in TITLES.items())
    return [f"{title}: {_images(dataset)}" for title, dataset in sets if dataset is not None]


def find_mistakes(sets: Mapping[str, LabelSet]) -> dict[Mistake, str]:
    """Likely mistakes of a run's labels, each with what was seen and what to do. `sets` by stream."""
    found: dict[Mistake, str] = {}
    for labels in sets.values():
        if _are_train_ids(labels):
            found["train-ids"] = (
                f"{labels.title}: the labels hold {_ids(labels.ids)} alone. These look like train ids, but"
                f" {labels.dataset.name} reads them as ids, so most classes are missed. Describe the data set in a TOML"
                " file whose classes have these ids (docs/own-data.md)."
            )
        elif labels.ignored_share >= MOSTLY:
            found["ignored"] = (
                f"{labels.title}: {labels.ignored_share:.1%} of the labels' pixels are ignored"
                f"{_why_ignored(labels.ids)}. {_ADVICE_IF_IGNORED[labels.dataset.encoding.by == 'names']}"
            )
    training = [labels for stream, labels in sets.items() if stream != "val"]
    present = np.any([labels.pixels[:-1] > 0 for labels in training], axis=0) if training else np.zeros(0, bool)
    names = training[0].dataset.classes.names if training else ()
    if present.sum() == 1 and len(names) > 1 and "ignored" not in found:
        found["one-class"] = (
            f"All training labels hold one class, {names[int(present.argmax())]}, so the network would learn nothing"
            f" else{_why_ignored(training[0].ids)}."
        )
    elif "source" in sets and "val" in sets:
        missing = np.flatnonzero((sets["val"].shares >= NOTABLE) & ~present)
        if len(missing) and not found:
            found["missing-class"] = (
                f"Validation asks for {first_few([names[c] for c in missing])}, of which no training label has a pixel."
                " Check names and ids of the classes in source and target."
            )
    return found


_ADVICE_IF_IGNORED = {
    False: "Check the ids of the classes.",
    True: "Pixels without an outline are, unless `unlabeled` in the TOML file names their class.",
}
"""By whether labels are drawn from annotations."""


def refuse(found: Mapping[Mistake, str], accept: Iterable[Mistake]) -> None:
    """Raise UserError for likely mistakes that `accept` does not name."""
    left = {name: text for name, text in found.items() if name not in accept}
    if left:
        raise UserError(f"{' '.join(left.values())} If it is meant so: --data.accept {' '.join(left)}.")


def peek_ids(dataset: Dataset) -> Counter[int]:
    """Pixels of each id on disk in some labels; empty where labels are prepared or have colours or names, not ids."""
    counts: Counter[int] = Counter()
    kind = dataset.encoding.kind
    if dataset.prepared is not None or dataset.encoding.by != "ids" or kind in ANNOTATION_KINDS:
        return counts
    for sample in evenly(dataset.samples, PEEKED_LABELS):
        if sample.label is not None:
            try:
                ids, pixels = np.unique(read_ids(sample.label, cast(PictureKind, kind)), return_counts=True)
            except UserError:
                continue
            counts.update(dict(zip(ids.tolist(), pixels.tolist(), strict=True)))
    return counts


def _are_train_ids(labels: LabelSet) -> bool:
    """Whether ids on disk can all be train ids while the encoding finds less than half of them in it."""
    train_ids = dict(labels.dataset.encoding.train_ids)
    present = set(labels.ids) - {IGNORE_INDEX}
    num_classes = len(labels.dataset.classes)
    if len(present) < 3 or not present <= set(range(num_classes)) or all(train_ids.get(i) == i for i in present):
        return False
    read = {train_ids.get(i, IGNORE_INDEX) for i in present} - {IGNORE_INDEX}
    return 2 * len(read) < len(present)


def _why_ignored(ids: Counter[int]) -> str:
    """What the ids on disk say of pixels that are ignored."""
    if not ids:
        return ""
    common, pixels = ids.most_common(1)[0]
    if set(ids) <= {0, IGNORE_INDEX}:
        return f": the labels hold {_ids(ids)} alone, and 255 is ignored unless a class has `ids = [255]`"
    return f": the most common id on disk is {common}, with {pixels / ids.total():.0%} of the pixels"


def _about(labels: LabelSet) -> str:
    ignored = f"{labels.ignored_share:.1%} of their pixels are ignored"
    return f"{labels.title}: {_images(labels.dataset)} with labels; {ignored}"


def _images(dataset: Dataset) -> str:
    return counted(len(dataset.samples), "image")


def _binary_note(labels: LabelSet) -> list[str]:
    """A line where labels are masks of 0 and 255, the second of which is ignored."""
    ignores_255 = dict(labels.dataset.encoding.train_ids).get(IGNORE_INDEX) == IGNORE_INDEX
    if set(labels.ids) not in ({0, IGNORE_INDEX}, {IGNORE_INDEX}) or not ignores_255:
        return []
    return [
        f"{labels.title}: the labels hold {_ids(labels.ids)} alone, and 255 is ignored; `ids = [255]` in the data"
        " set's TOML makes it a class"
    ]


def _class_table(classes: ClassSet, sets: list[LabelSet]) -> list[str]:
    """Each class's share of the labeled pixels, a column a set, and the classes that a set lacks."""
    if not sets:
        return []
    left = max(shown_width(name) for name in (*classes.names, "class, % of pixels"))
    lines = [padded("class, % of pixels", left) + "".join(labels.title.rjust(len(labels.title) + 3) for labels in sets)]
    for c, name in enumerate(classes.names):
        cells = [_percent(labels.shares[c]).rjust(len(labels.title) + 3) for labels in sets]
        lines.append(padded(name, left) + "".join(cells))
    absent = {labels.title: _absent(classes, [labels]) for labels in sets}
    nowhere = _absent(classes, sets)
    training = [labels for labels in sets if labels.title != TITLES["val"]]
    never = _absent(classes, training) if training else []
    lacking = []
    for title, names in absent.items():
        told_below = nowhere if title == TITLES["val"] else never
        own = [name for name in names if name not in told_below]
        if own:
            lacking.append(f"{title} has no {first_few(own, SHOWN_CLASSES)}")
    if never:
        which = "label" if never == nowhere else "training label"
        lacking.append(f"no {which} has {first_few(never, SHOWN_CLASSES)}: the network cannot learn that")
    return [*lines, *lacking]


def _absent(classes: ClassSet, sets: list[LabelSet]) -> list[str]:
    """The classes of which none of some sets has a pixel."""
    return [name for c, name in enumerate(classes.names) if not any(labels.pixels[c] for labels in sets)]


def _percent(share: float) -> str:
    if share == 0:
        return "-"
    return f"{100 * share:.1f}" if share >= 0.0005 else "<0.1"


def _ids(ids: Counter[int]) -> str:
    return f"the ids {', '.join(map(str, sorted(ids)))}" if len(ids) < 30 else f"{len(ids)} ids"
