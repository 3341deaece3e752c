"""MIC and HRDA, alone and with IIDM's mixes: the rows of the paper's Table 3."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iidm.catalog.hrda import DISTANCE_WEIGHT
from iidm.config import Config
from iidm.types import LabeledImages

from ..base import Scene
from ..losses import Branch
from ..mixing import mix
from .daformer import DAFormer, FeatureDistance
from .diga import DiGA

CROP, BLOCK = 1024, 64
"""MIC hides blocks of 64 pixels of a crop of 1024 (32 of one of 512)."""


class MIC(DAFormer):
    """Masked image consistency: blocks of the unlabeled images are hidden, and what the teacher says of the whole image
    is learned from the rest, hidden pixels included.

    Known and kept: blocks of a sixteenth of the crop, 70 % of them hidden, behind ImageNet's mean colour; jitter and
    blur drawn anew, before the blocks are hidden; label and weight of the mixes; the feature distance of DAFormer.
    """

    def branches(self, scene: Scene) -> list[Branch]:
        """DAFormer's, and the masked images."""
        found = super().branches(scene)
        loss, pseudo, image = self.config.loss, scene.pseudo, scene.batch.unlabeled
        if loss.mask_weight == 0 or pseudo is None or image is None:
            return found
        nothing_pasted = replace(self.config, mixing=replace(self.config.mixing, mask="none"))
        view = mix(LabeledImages(image, pseudo.label), image, pseudo, nothing_pasted, scene.generator)
        block = self.config.mixing.hidden_block_px or max(min(image.shape[1:3]) * BLOCK // CROP, 1)
        hidden = hide_blocks(view.image, block, self.config.mixing.hidden_share, scene.generator)
        return [*found, Branch("mask", hidden, view.label, view.weight, loss.mask_weight, loss.mixed_normalizer)]


def hide_blocks(image: Tensor, block: int, share: float, generator: torch.Generator) -> Tensor:
    """Normalized images [B,3,H,W] of which square blocks are 0, the mean colour.

    Args:
        block: side in pixels; the grid has round(H / block) x round(W / block) of them, stretched to the image.
        share: chance that a block is hidden.
    """
    size = [max(round(side / block), 1) for side in image.shape[2:]]
    draws = torch.rand(len(image), 1, *size, generator=generator, device=image.device)
    kept = F.interpolate((draws > share).to(image.dtype), size=image.shape[2:], mode="nearest")
    return image * kept


class DiGAHRDA(DiGA):
    """DiGA's distillation and consensus on HRDA: features are those of the context, and the source has DAFormer's
    feature distance beside the distillation. The published combination has no code; this is how its parts fit
    together."""

    keeps_start = True

    def __init__(self, config: Config, student: nn.Module, classes: tuple[str, ...] = ()) -> None:
        super().__init__(config, student, classes)
        found = config.loss.auxiliary_weight > 0
        self._distance = FeatureDistance(config, student, classes, otherwise="") if found else None

    def branches(self, scene: Scene) -> list[Branch]:
        """DiGA's, the source's with the feature distance too."""
        found = super().branches(scene)
        source, first = scene.batch.source, found[0]
        if self._distance is None or source is None or first.objective is None:
            return found
        distance, distillation = self._distance.to(source, first.image, scene.student), first.objective
        share = DISTANCE_WEIGHT / first.objective_weight
        found[0] = first._replace(objective=lambda out: distillation(out) + share * distance(out))
        return found
