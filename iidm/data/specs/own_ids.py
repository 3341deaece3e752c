"""The way back: the id that a data set itself gives to each class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...types import IGNORE_INDEX, UserError
from .spec import DatasetSpec


def own_ids(spec: DatasetSpec) -> tuple[NDArray[np.uint8] | NDArray[np.uint16], list[str]]:
    """uint8 or, where one is above 255, uint16 [256]: the data set's id of each train id; and notes.

    A class that the data set has no id of is 255, and so is what is no class.

    Raises:
        UserError: a class of several ids, no class with an id, or 255 is an id of a class while another has none.
    """
    names = spec.classes.names
    ids = [[i for i, train_id in spec.encoding.train_ids if train_id == k] for k in range(len(names))]
    several = next((k for k, own in enumerate(ids) if len(own) > 1), None)
    if several is not None:
        raise UserError(
            f"--ids dataset needs one id for each class, and class {names[several]!r} of {spec.name} has"
            f" {len(ids[several])}: {', '.join(map(str, ids[several]))}. Take --ids train, or train with a TOML file"
            " that gives each class one id."
        )
    without = [name for name, own in zip(names, ids, strict=True) if not own]
    if len(without) == len(names):
        raise UserError(f"--ids dataset: the classes of {spec.name} have no ids. Take --ids train.")
    if without and any(IGNORE_INDEX in own for own in ids):
        raise UserError(
            f"--ids dataset: class {without[0]!r} has no id in {spec.name}, and 255 is the id of another. Take"
            " --ids train."
        )
    notes = [f"{spec.name} has no id of {', '.join(without)}: pixels of these classes are written as 255"]
    table = np.full(256, IGNORE_INDEX, np.uint16)
    table[: len(names)] = [own[0] if own else IGNORE_INDEX for own in ids]
    return (table if table.max() > 255 else table.astype(np.uint8)), notes if without else []
