"""The EMA teacher (paper eq. 5) and its pseudo-labels with their quality (eq. 6)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from iidm.config import TeacherConfig
from iidm.kernels.pseudo_label import pseudo_label
from iidm.types import PseudoLabel

from .losses import Output


class Teacher:
    """The network that labels the unlabeled crops; its parameters follow the student's and never get a gradient.

    BatchNorm: with `batchnorm="batch"` it normalises by the statistics of the crops it labels and keeps running ones of
    its own for evaluation, as the public code does; with "running" it uses running ones that follow the student's.
    """

    def __init__(
        self, network: nn.Module, config: TeacherConfig, *, labels_images: bool, student: nn.Module | None = None
    ) -> None:
        """Args:
        network: a copy of the student at its start.
        config: decay, threshold and the silent points.
        labels_images: whether images will be labeled. Without it the teacher never sees an image, so its
            BatchNorm buffers follow the student's whatever the config says.
        student: labels the images in place of the teacher with `labels_by="student"`; the teacher then only follows.
        """
        self.network = network.requires_grad_(False)
        self.config = config
        by_student = config.labels_by == "student"
        assert student is not None or not by_student, "labels_by=student needs the student"
        self._labeler = student if by_student and student is not None else network
        self._forward: nn.Module = self._labeler
        self.averages_buffers = config.batchnorm == "running" or not labels_images or by_student

    def compile(self) -> None:
        """Label through torch.compile from now on; the network itself stays as it is."""
        self._forward = torch.compile(self._labeler, dynamic=False)  # type: ignore[assignment]

    @torch.no_grad()
    def look(self, image: Tensor, *, features: bool = False) -> Output:
        """What the labeling network says of images float [B,3,H,W], normalized and not augmented; no gradient.

        A student that labels is left in the mode that `batchnorm` asks for.
        """
        self._labeler.train(self.config.batchnorm == "batch")
        for module in self._labeler.modules():
            # timm's layers of the kind are known by their chance.
            if isinstance(module, nn.modules.dropout._DropoutNd) or hasattr(module, "drop_prob"):
                module.eval()
        if not features:
            return Output(self._forward(image))
        return Output(*self._labeler.look(image))  # type: ignore[operator]

    @torch.no_grad()
    def read(self, logits: Tensor, size: tuple[int, int], *, align_corners: bool = False) -> PseudoLabel:
        """Pseudo-labels from logits [B,K,h,w].

        Args:
            size: (H, W) of the label.
            align_corners: convention of the upsampling.

        Returns: label uint8 [B,H,W], quality float32 [B] (one value in all places with quality_per="batch"), and with
            weighting="confident" a weight float32 [B,H,W] of 1 where the confidence exceeds the threshold, else 0, with
            weighting="confidence" the confidence.
        """
        config = self.config
        by_pixel, inclusive = config.weighting != "quality", config.comparison == ">="
        label, quality, confidence = pseudo_label(
            logits,
            size,
            config.confidence_threshold,
            align_corners=align_corners,
            inclusive=inclusive,
            per_batch=config.quality_per == "batch",
            with_confidence=by_pixel,
        )
        weight = confidence
        if config.weighting == "confident" and confidence is not None:
            tau = config.confidence_threshold
            weight = (confidence >= tau if inclusive else confidence > tau).float()
        return PseudoLabel(label, quality, weight)

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
