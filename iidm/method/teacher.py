"""The EMA teacher (paper eq. 5) and its pseudo-labels with their quality (eq. 6)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from iidm.config import TeacherConfig
from iidm.kernels.pseudo_label import pseudo_label
from iidm.types import PseudoLabel


class Teacher:
    """The network that labels the unlabeled crops; its parameters follow the student's and never get a gradient.

    BatchNorm: with `batchnorm="batch"` it normalises by the statistics of the crops it labels and keeps running ones of
    its own for evaluation, as the public code does; with "running" it uses running ones that follow the student's.
    """

    def __init__(self, network: nn.Module, config: TeacherConfig, *, labels_images: bool) -> None:
        """Args:
        network: a copy of the student at its start.
        config: decay, threshold and the silent points.
        labels_images: whether `pseudo_label` will be called. Without it the teacher never sees an image, so its
            BatchNorm buffers follow the student's whatever the config says.
        """
        self.network = network.requires_grad_(False)
        self.config = config
        self._forward: nn.Module = network
        self.averages_buffers = config.batchnorm == "running" or not labels_images

    def compile(self) -> None:
        """Label through torch.compile from now on; the network itself stays as it is."""
        self._forward = torch.compile(self.network, dynamic=False)  # type: ignore[assignment]

    @torch.no_grad()
    def pseudo_label(self, image: Tensor, size: tuple[int, int], *, align_corners: bool = False) -> PseudoLabel:
        """Label normalized images.

        Args:
            image: float [B,3,H,W], normalized, not augmented.
            size: (H, W) of the label.
            align_corners: convention of the upsampling.

        Returns: label uint8 [B,H,W] and quality float32 [B] (one value in all places with quality_per="batch").
        """
        self.network.train(self.config.batchnorm == "batch")
        for module in self.network.modules():
            if isinstance(module, nn.modules.dropout._DropoutNd):
                module.eval()
        logits = self._forward(image)
        out = pseudo_label(
            logits,
            size,
            self.config.confidence_threshold,
            align_corners=align_corners,
            inclusive=self.config.comparison == ">=",
            per_batch=self.config.quality_per == "batch",
        )
        return PseudoLabel(out.label, out.quality)

    @torch.no_grad()
    def follow(self, student: nn.Module, alpha: float) -> None:
        """phi <- alpha phi + (1 - alpha) theta, after a step of the optimiser."""
        ours: list[Tensor] = list(self.network.parameters())
        theirs: list[Tensor] = list(student.parameters())
        if self.averages_buffers:
            ours += [b for b in self.network.buffers() if b.is_floating_point()]
            theirs += [b for b in student.buffers() if b.is_floating_point()]
        torch._foreach_lerp_(ours, theirs, 1.0 - alpha)


def ema_decay_at(step: int, config: TeacherConfig) -> float:
    """alpha of the update after step `step`.

    With `ema_ramp` min(1 - 1/(t + 1), alpha) where t counts finished updates, as DACS and DAFormer compute at their
    iteration t = step + 1: 1/2 after the first step, 2/3 after the second, ...
    """
    return min(1.0 - 1.0 / (step + 2), config.ema_decay) if config.ema_ramp else config.ema_decay
