"""What a network says about images of any size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from iidm.config import SlidingWindow
from iidm.engine.rows import resized_rows, resized_strips
from iidm.engine.windows import Rows, slide_strips
from iidm.evaluation import normalize_image
from iidm.kernels.pseudo_label import pseudo_label
from iidm.models import Network

from .flow import Stop


class Prediction(NamedTuple):
    """What a network says about an image."""

    label: NDArray[np.uint8]
    """uint8 [H,W] train ids."""
    confidence: NDArray[np.uint8] | None = None
    """uint8 [H,W], the probability of that class, 255 for 1."""
    probabilities: NDArray[np.float16] | None = None
    """float16 [K,H,W], softmax."""


@dataclass(frozen=True)
class Look:
    """A network and how it sees images."""

    network: Network
    amp_dtype: torch.dtype | None
    align_corners: bool = False
    with_confidence: bool = False
    with_probabilities: bool = False
    stop: Stop = field(default_factory=Stop)
    """Asked between the strips of a large image."""

    @property
    def device(self) -> torch.device:
        """Of the network."""
        return next(self.network.parameters()).device

    def __call__(
        self, images: Sequence[NDArray[np.uint8]], size: tuple[int, int], windows: SlidingWindow | None = None
    ) -> list[Prediction]:
        """Label images of one size, uint8 [H,W,3] RGB, the network seeing them resized to `size` (h, w).

        With `windows` there is one image, and rows are labeled as soon as no further window covers them: the largest
        float tensor is float32 [K, window height, w], the sum of one row of windows; none holds the whole image.
        """
        device, shape = self.device, (images[0].shape[0], images[0].shape[1])
        rows = [self._stoppable(resized_rows(np.ascontiguousarray(i), size, normalize_image, device)) for i in images]
        amp = self.amp_dtype
        with torch.inference_mode(), torch.autocast(device.type, dtype=amp, enabled=amp is not None):
            if windows is not None:
                (one,) = rows
                strips = slide_strips(self.network, one, size, windows, self.align_corners)
                return [self._by_strips(strips, size[0], shape)]
            seen = torch.cat([one(0, size[0]) for one in rows]) if len(rows) > 1 else rows[0](0, size[0])
            return self._whole(self.network(seen.contiguous(memory_format=torch.channels_last)), shape)

    def _stoppable(self, rows: Rows) -> Rows:
        def checked(top: int, bottom: int) -> torch.Tensor:
            self.stop.check()
            return rows(top, bottom)

        return checked

    def _whole(self, logits: torch.Tensor, shape: tuple[int, int]) -> list[Prediction]:
        label, confidence = self._label(logits, shape)
        found = [Prediction(label[b], None if confidence is None else confidence[b]) for b in range(len(label))]
        if not self.with_probabilities:
            return found
        height = logits.shape[2]
        pairs = zip(found, logits, strict=True)
        return [one._replace(probabilities=self._probabilities([low[None]], height, shape)) for one, low in pairs]

    def _by_strips(self, strips: Iterator[torch.Tensor], height: int, shape: tuple[int, int]) -> Prediction:
        label = np.empty(shape, np.uint8)
        confidence = np.empty(shape, np.uint8) if self.with_confidence else None
        probabilities: NDArray[np.float16] | None = None
        top = 0
        for strip in resized_strips(strips, height, shape[0], align_corners=self.align_corners):
            self.stop.check()
            bottom = top + strip.shape[2]
            labels, confidences = self._label(strip, (bottom - top, shape[1]))
            label[top:bottom] = labels[0]
            if confidence is not None and confidences is not None:
                confidence[top:bottom] = confidences[0]
            if self.with_probabilities:
                if probabilities is None:
                    probabilities = np.empty((strip.shape[1], *shape), np.float16)
                probabilities[:, top:bottom] = self._softmax(strip, shape[1])
            top = bottom
        return Prediction(label, confidence, probabilities)

    def _label(
        self, logits: torch.Tensor, shape: tuple[int, int]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        """uint8 [B,H,W] of logits [B,K,h,w] upsampled to `shape`, without full-size logits; and the confidence."""
        said = pseudo_label(logits, shape, 0.0, align_corners=self.align_corners, with_confidence=self.with_confidence)
        confidence = None if said.confidence is None else (said.confidence * 255).round_().byte().cpu().numpy()
        return said.label.cpu().numpy(), confidence

    def _probabilities(
        self, strips: Sequence[torch.Tensor], height: int, shape: tuple[int, int]
    ) -> NDArray[np.float16]:
        found = np.empty((strips[0].shape[1], *shape), np.float16)
        top = 0
        for strip in resized_strips(strips, height, shape[0], align_corners=self.align_corners):
            found[:, top : top + strip.shape[2]] = self._softmax(strip, shape[1])
            top += strip.shape[2]
        return found

    def _softmax(self, strip: torch.Tensor, width: int) -> NDArray[np.float16]:
        """float16 [K,n,width] of logits [1,K,n,w]."""
        full = F.interpolate(
            strip.float(), size=(strip.shape[2], width), mode="bilinear", align_corners=self.align_corners
        )
        found: NDArray[np.float16] = full.softmax(1)[0].half().cpu().numpy()
        return found


def predict(
    network: Network,
    image: NDArray[np.uint8],
    size: tuple[int, int],
    amp_dtype: torch.dtype | None,
    *,
    align_corners: bool = False,
    windows: SlidingWindow | None = None,
) -> NDArray[np.uint8]:
    """Label one image: uint8 [H,W,3] RGB -> uint8 [H,W] train ids, as `Look` does."""
    return Look(network, amp_dtype, align_corners)([image], size, windows)[0].label
