"""Whether a file says what the network says: both label the same images."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray

from iidm.engine.metrics import Scores
from iidm.types import ClassSet

from .deployed import Deployed
from .images import Known
from .opened import Labels

TIE = 1e-3
"""Two classes whose logits, computed by the network in float32, differ by no more are a tie: order of summation decides
between them. Logits of trained networks span 10 to 30."""

Network = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""uint8 [H,W,3] -> train ids uint8 [H,W]."""


@dataclass
class Measured:
    """What came out of labeling the images with a file, or with the network itself."""

    confusion: NDArray[np.int64]
    """[K,K], rows truth, columns said."""
    ms: list[float] = field(default_factory=list)
    """Of each image but the first."""
    pixels: int = 0
    equal: int = 0
    """Pixels with the network's label."""
    gap: float = 0.0
    """Over the pixels with another label: the most that the logits of the two labels lie apart."""

    @property
    def share(self) -> str:
        """Of equal pixels, in per cent; 100 only where all are."""
        return "100" if self.equal == self.pixels else f"{min(100 * self.equal / self.pixels, 99.9999):.4f}"

    @property
    def all_ties(self) -> bool:
        """Whether every pixel with another label is a tie."""
        return self.gap <= TIE

    def miou(self, classes: ClassSet) -> float | None:
        """0..1; None where no pixel had a label."""
        if not self.confusion.any():
            return None
        return Scores(torch.from_numpy(self.confusion), classes).miou

    @property
    def median_ms(self) -> float:
        """NaN where there was one image only."""
        return median(self.ms) if self.ms else float("nan")


def check(
    files: Mapping[str, Labels],
    network: Network,
    deployed: Deployed,
    images: Iterable[Known],
    ids: Sequence[int] | None,
    num_classes: int,
) -> tuple[Measured, dict[str, Measured]]:
    """Label every image with the network and with each file.

    Args:
        files: by name.
        network: `iidm predict`, in float32.
        deployed: the same network as a module, which is asked for the logits of pixels that differ.
        ids: of the classes, where the files give others than train ids.

    Returns: of the network, and of each file.
    """
    own = Measured(np.zeros((num_classes, num_classes), np.int64))
    found = {name: Measured(np.zeros((num_classes, num_classes), np.int64)) for name in files}
    train_id = np.full(256, 255, np.uint8)
    train_id[list(range(num_classes) if ids is None else ids)] = np.arange(num_classes)
    for number, known in enumerate(images):
        label = _timed(lambda image: network(image[0])[None], known.image, own, first=number == 0)
        _count(own, label, label, known)
        logits: torch.Tensor | None = None
        for name, said_by in files.items():
            said = train_id[_timed(said_by, known.image, found[name], first=number == 0)]
            _count(found[name], said, label, known)
            different = torch.from_numpy(said != label)
            if bool(different.any()):
                if logits is None:
                    with torch.inference_mode():
                        logits = deployed.logits(torch.from_numpy(known.image)[None])[0]
                found[name].gap = max(found[name].gap, _gap(logits, said, label, different))
    return own, found


def _timed(labels: Labels, image: NDArray[np.uint8], measured: Measured, first: bool) -> NDArray[np.uint8]:
    start = time.perf_counter()
    label = labels(np.ascontiguousarray(image)[None])[0]
    if not first:  # which makes what later calls find made
        measured.ms.append(1000 * (time.perf_counter() - start))
    return label


def _count(measured: Measured, said: NDArray[np.uint8], label: NDArray[np.uint8], known: Known) -> None:
    measured.pixels += said.size
    measured.equal += int((said == label).sum())
    if known.label is not None:
        counted = known.label < len(measured.confusion)
        np.add.at(measured.confusion, (known.label[counted], said[counted]), 1)


def _gap(logits: torch.Tensor, said: NDArray[np.uint8], label: NDArray[np.uint8], where: torch.Tensor) -> float:
    """The most that the logits [K,H,W] of `label` and of `said` lie apart, over the pixels `where` they differ; what is
    no class is infinitely far.

    In either direction: the logits are of the module that is in the file, and where that is at fault, not the file,
    those of what the file says are the larger ones.
    """
    values = logits[:, where]
    other, own = (torch.from_numpy(ids)[where].long() for ids in (said, label))
    if int(other.max()) >= len(values):
        return float("inf")
    return float((values.gather(0, own[None]) - values.gather(0, other[None])).abs().max())
