"""The two networks of a run and how they compute."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iidm.kernels.pseudo_label import pseudo_label

from ..config import Config, sliding_window
from ..engine.windows import image_logits
from ..models import Network


@dataclass(frozen=True)
class Networks:
    """Student and teacher of a run, in evaluation mode on one device."""

    config: Config
    student: Network
    teacher: Network
    amp_dtype: torch.dtype | None
    """Of autocast; None: float32."""
    normalize: Callable[[Tensor], Tensor]
    """uint8 [B,H,W,3] -> float [B,3,H,W]."""
    title: str
    """For people."""

    @property
    def device(self) -> torch.device:
        """Where they lie."""
        return next(self.teacher.parameters()).device

    def autocast(self) -> AbstractContextManager[None]:
        """The precision that they compute in."""
        context: AbstractContextManager[None] = torch.autocast(
            self.device.type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None
        )
        return context

    def label_of(self, image: Tensor, size: tuple[int, int]) -> NDArray[np.uint8]:
        """The teacher's label uint8 [H,W] of `size`. The image, uint8 [1,h,w,3] at training resolution, is seen as in
        the run's evaluation."""
        align_corners = self.config.model.align_corners
        with torch.inference_mode():
            with self.autocast():
                seen, windows = self.normalize(image), sliding_window(self.config)
                logits = image_logits(self.teacher, seen, windows, align_corners=align_corners)
            label = pseudo_label(logits, size, 0.0, align_corners=align_corners).label
        found: NDArray[np.uint8] = label[0].cpu().numpy()
        return found
