"""What a student and a teacher see in images, class by class."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..data import Dataset, EvalLoader
from ..types import UserError
from .networks import Networks

FEATURES = 128
"""Most numbers of a feature: longer ones are projected onto as many random directions, which keeps distances within
about a tenth (Johnson-Lindenstrauss). A region takes 2 x 128 + 13 bytes, a million images of eight classes 2.2 GB."""
LEAST_CELLS = 1.0
"""Cells of the logits that a class must have the probability of in an image to count as seen there."""
BATCH_PX, MOST_PX = 2**21, 8 * 2**20
"""Pixels at training resolution of one batch, and of one image: larger ones are shrunk to that."""
CAREFUL = 64
"""Images that are read one by one after a damaged one was met among them."""


@dataclass(frozen=True)
class Regions:
    """A row for each class of each image, sorted by image."""

    image: NDArray[np.int32]
    """int32 [R] place of the image."""
    kind: NDArray[np.uint8]
    """uint8 [R] class id."""
    area: NDArray[np.float32]
    """float32 [R] share of the image's pixels: the mean probability of the class."""
    uncertainty: NDArray[np.float32]
    """float32 [R] 0..1: entropy of the mean of both networks' probabilities, a share of its largest value. It is high
    where either is unsure, and where they are sure of different things."""
    feature: NDArray[np.float16]
    """float16 [R,D] mean of the teacher's features."""


@dataclass(frozen=True)
class Seen:
    """Some images through both networks."""

    regions: Regions
    disagreement: NDArray[np.float32]
    """float32 [N] share of the cells that student and teacher call by different classes; NaN for damaged images."""
    damaged: tuple[str, ...]
    """A line for each image that could not be read."""


def see(networks: Networks, dataset: Dataset, image_px: int, progress: Callable[[int, int], None]) -> Seen:
    """Look at every image of a data set, whole and at training resolution.

    Args:
        image_px: pixels of a typical image at training resolution; batches are as large as that allows.
        progress: called with (images done, all).

    Raises: UserError where no image can be read.
    """
    count, damaged = len(dataset.samples), list[str]()
    disagreement = np.full(count, np.nan, np.float32)
    parts: list[Regions] = []
    with torch.inference_mode():
        for places, image in _batches(dataset, networks.device, max(1, BATCH_PX // image_px), damaged):
            image = _shrunk(networks.normalize(image)).contiguous(memory_format=torch.channels_last)
            with networks.autocast():
                logits, look = networks.student(image), networks.teacher.look(image)
            found, differs = _regions(logits, look.logits, look.features, places)
            parts.append(found)
            disagreement[places] = differs
            progress(int(places[-1]) + 1, count)
    if not parts:
        raise UserError(f"None of the {count} images can be read. {damaged[0]}")
    return Seen(_stacked(parts, [0] * len(parts)), disagreement, tuple(damaged))


def joined(seen: Sequence[Seen]) -> Seen:
    """Several data sets as one, their images after each other."""
    starts = np.cumsum([0, *(len(part.disagreement) for part in seen[:-1])])
    return Seen(
        _stacked([part.regions for part in seen], starts.tolist()),
        np.concatenate([part.disagreement for part in seen]),
        tuple(line for part in seen for line in part.damaged),
    )


def _stacked(parts: Sequence[Regions], starts: Sequence[int]) -> Regions:
    """Regions after each other, `starts` added to the places of their images."""
    return Regions(
        np.concatenate([part.image + np.int32(start) for part, start in zip(parts, starts, strict=True)]),
        np.concatenate([part.kind for part in parts]),
        np.concatenate([part.area for part in parts]),
        np.concatenate([part.uncertainty for part in parts]),
        np.concatenate([part.feature for part in parts]),
    )


def _batches(
    dataset: Dataset, device: torch.device, batch_size: int, damaged: list[str]
) -> Generator[tuple[NDArray[np.int64], Tensor]]:
    """Places of some images, and the images uint8 [B,H,W,3]; a line is added to `damaged` for each that is not read."""
    start, careful, count = 0, 0, len(dataset.samples)
    while start < count:
        stop = start + 1 if start < careful else count
        part = dataset if stop - start == count else dataset.take(np.arange(start, stop))
        try:
            with EvalLoader(part, device=device, batch_size=batch_size) as batches:
                for batch in batches:
                    yield np.arange(start, start + len(batch.names)), batch.image
                    start += len(batch.names)
        except UserError as error:
            if stop - start == 1:
                damaged.append(str(error))
                start += 1
            else:
                careful = start + CAREFUL


def _shrunk(image: Tensor) -> Tensor:
    height, width = image.shape[2:]
    if height * width <= MOST_PX:
        return image
    scale = (MOST_PX / (height * width)) ** 0.5
    size = (int(height * scale), int(width * scale))
    return F.interpolate(image, size, mode="bilinear", antialias=True)


def _regions(
    student: Tensor, teacher: Tensor, features: Tensor, places: NDArray[np.int64]
) -> tuple[Regions, NDArray[np.float32]]:
    """Of logits [B,K,h,w] and features [B,C,h,w], and the share of cells in which the networks differ."""
    if features.shape[2:] != teacher.shape[2:]:  # HRDA's logits have twice the cells
        features = F.interpolate(features, teacher.shape[2:], mode="bilinear")
    mean = (student.float().softmax(1) + teacher.float().softmax(1)) / 2
    classes, cells = mean.shape[1], mean.shape[2] * mean.shape[3]
    entropy = -(mean * mean.clamp_min(1e-12).log()).sum(1, keepdim=True) / float(np.log(classes))
    mass = mean.flatten(2)
    total = mass.sum(2)
    uncertainty = (mass * entropy.flatten(2)).sum(2) / total.clamp_min(1e-6)
    feature = _projected(features.float()).flatten(2)
    average = torch.einsum("bkn,bdn->bkd", mass, feature) / total.clamp_min(1e-6)[..., None]
    row, kind = (total >= LEAST_CELLS).nonzero(as_tuple=True)
    differs = (student.argmax(1) != teacher.argmax(1)).flatten(1).float().mean(1)
    regions = Regions(
        places[row.cpu().numpy()].astype(np.int32),
        kind.cpu().numpy().astype(np.uint8),
        (total / cells)[row, kind].cpu().numpy(),
        uncertainty[row, kind].cpu().numpy(),
        average[row, kind].half().cpu().numpy(),
    )
    return regions, differs.cpu().numpy()


def _projected(features: Tensor) -> Tensor:
    """[B,C,h,w] -> [B,D,h,w] of about the same distances; the same directions in every call."""
    channels = features.shape[1]
    if channels <= FEATURES:
        return features
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(FEATURES, channels, generator=generator) / FEATURES**0.5
    return F.conv2d(features, directions.to(features.device)[:, :, None, None])
