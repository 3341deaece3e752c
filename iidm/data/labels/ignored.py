"""What the ignored value 255 hides in labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...types import IGNORE_INDEX
from .encodings import LabelEncoding


def ignored_share(histogram: NDArray[np.int64]) -> float:
    """The share of pixels that no loss and no metric counts; 0 where there are none.

    Args:
        histogram: int64 [256], pixels of each train id.
    """
    return float(histogram[IGNORE_INDEX] / max(1, histogram.sum()))


def is_binary_mask(histogram: NDArray[np.int64], encoding: LabelEncoding) -> bool:
    """Whether labels hold only 0 and 255 on disk, of which 255 is ignored: half of a mask's classes vanish.

    Args:
        histogram: int64 [256], pixels of each train id.
        encoding: by which they were read.
    """
    if encoding.by != "ids" or not histogram[IGNORE_INDEX]:
        return False
    table = dict(encoding.train_ids)
    ignored = [i for i, train_id in table.items() if train_id == IGNORE_INDEX]
    seen = set(np.flatnonzero(histogram[:IGNORE_INDEX]).tolist())
    return IGNORE_INDEX in ignored and 0 not in ignored and seen == {table.get(0)}


def ignored_note(what: str, histogram: NDArray[np.int64], encoding: LabelEncoding) -> str | None:
    """One line about the pixels of labels that are ignored, or None where there are none.

    Args:
        what: which labels, e.g. `source`.
        histogram: int64 [256], pixels of each train id.
        encoding: by which they were read.
    """
    share = ignored_share(histogram)
    if not share:
        return None
    said = f"{share:.1%} of the labeled pixels of {what} are ignored"
    if is_binary_mask(histogram, encoding):
        return (
            f"{said}: the labels hold only 0 and 255, as masks do, and 255 counts as ignored. `ids = [255]` makes it a"
            " class."
        )
    return f"{said}."
