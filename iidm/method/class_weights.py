"""What a pixel's cross-entropy weighs by the class of its label: as the user says, or by how rare the class is.

`auto` is median frequency balancing (Eigen and Fergus, arXiv 1411.4734; SegNet, arXiv 1511.00561):

    f(c) = pixels of c / labeled pixels of all images that show c,        w(c) = median of f / f(c)

so that a class of the median frequency weighs 1. Source and labeled target are counted apart and f is their mean: a
step reads as many crops of either, however many images there are. A class that only one of them shows has that one's
f. Weights end at 1/10 and 10 (CAP): a class of some hundred pixels would otherwise be most of the loss of its image.
A class without any labeled pixel weighs 1.

Not the effective number of samples (Cui et al., arXiv 1901.05555): with pixels in millions it is 1 / (1 - beta) for
every class, at any beta that is in use, and all weights are equal.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from iidm.config import LossConfig, unknown_name
from iidm.types import UserError

CAP = 10.0
"""The largest weight of `auto`; the smallest is 1 / CAP. This project's choice."""


def class_weights(
    wish: Sequence[str], names: Sequence[str], counts: Sequence[NDArray[np.int64]] = ()
) -> list[float] | None:
    """The weight of each class, or None where there are none.

    Args:
        wish: `loss.class_weights`.
        names: of the classes.
        counts: int64 [N,K] pixels of each class in each labeled image, of each labeled stream; for `auto`.

    Raises:
        UserError: a class that does not exist (with the nearest), another number of weights than classes, nothing
            but zeros.
    """
    if tuple(wish) == ("none",):
        return None
    found = median_frequency(counts, len(names)) if tuple(wish) == ("auto",) else _given(wish, names)
    if not any(found):
        raise UserError("--loss.class-weights are all 0: nothing would be learned. Give one class a weight above 0.")
    return found


def _given(wish: Sequence[str], names: Sequence[str]) -> list[float]:
    if "=" not in wish[0]:
        if len(wish) != len(names):
            raise UserError(
                f"--loss.class-weights needs a number for each of the {len(names)} classes in their order"
                f" ({', '.join(names)}), and {len(wish)} came. By name some are enough: {names[-1]}=2."
            )
        return [float(word) for word in wish]
    found = dict.fromkeys(names, 1.0)
    for word in wish:
        name, _, number = word.rpartition("=")
        if name not in found:
            raise unknown_name("class", name, names)
        found[name] = float(number)
    return list(found.values())


def median_frequency(counts: Sequence[NDArray[np.int64]], classes: int) -> list[float]:
    """The weights of `auto`, from int64 [N,K] pixels of each labeled stream. Raises UserError where there is none."""
    if not counts:
        raise UserError("--loss.class-weights auto counts labels, and this run reads no labeled images; leave it out.")
    pixels = np.array([count.sum(0) for count in counts], np.float64)
    around = np.array([((count > 0) * count.sum(1, keepdims=True)).sum(0) for count in counts], np.float64)
    shown = around > 0
    frequency = np.divide(pixels, around, out=np.zeros((len(counts), classes)), where=shown)
    mean = frequency.sum(0) / np.maximum(shown.sum(0), 1)
    present = shown.any(0)
    weights = np.ones(classes)
    if present.any():
        weights[present] = np.clip(np.median(mean[present]) / mean[present], 1 / CAP, CAP)
    return [float(weight) for weight in weights]


def class_weights_note(weights: Sequence[float], names: Sequence[str], loss: LossConfig) -> str:
    """One line that says the weights."""
    each = ", ".join(f"{name} {weight:.3g}" for name, weight in zip(names, weights, strict=True))
    if loss.class_weights != ("auto",):
        return f"class weights in the loss: {each}"
    twice = f"; --loss.class-balance {loss.class_balance:g} counts rarity too, 0 is usual beside them"
    return f"class weights in the loss, by how rare each is: {each}{twice if loss.class_balance > 0 else ''}"
