"""What a network says about images whose truth is known, at the size that it sees."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from iidm.config import Config, sliding_window
from iidm.data import Dataset, EvalLoader
from iidm.models import Network
from iidm.types import Sample

from .looking import predict


class Compared(NamedTuple):
    """An image with its truth and what a network says."""

    sample: Sample
    image: NDArray[np.uint8]
    """uint8 [h,w,3] RGB at the size that the network sees."""
    truth: NDArray[np.uint8]
    """uint8 [H,W] train ids at the label's own size."""
    predicted: NDArray[np.uint8]
    """uint8 [h,w] train ids."""


def compare(network: Network, dataset: Dataset, config: Config, amp_dtype: torch.dtype | None) -> Iterator[Compared]:
    """Label every image of a data set, in windows where the run does.

    Raises: UserError for an image or a label that cannot be read.
    """
    with EvalLoader(dataset, device=torch.device("cpu")) as batches:
        for sample, batch in zip(dataset.samples, batches, strict=True):
            image = batch.image[0].numpy()
            label = predict(
                network,
                image,
                (image.shape[0], image.shape[1]),
                amp_dtype,
                align_corners=config.model.align_corners,
                windows=sliding_window(config),
            )
            yield Compared(sample, image, batch.label[0].numpy(), label)
