"""Dual-domain adaptation in two steps (ComplexMix): mix the domains first, then the unlabeled target with itself."""

from __future__ import annotations

import torch
from torch import nn

from iidm.config import Config
from iidm.recipes import with_values
from iidm.types import PseudoLabel, TrainBatch, UserError

from ..base import Method, Mixes
from ..mixing import mix, mix_unlabeled

FIRST_STEP = 0.25
"""The share of the run in which the domains are mixed alone."""


class ComplexMix(Method):
    """L_s + L_t + L_inter throughout, and L_intra in the second step.

    Known is what the abstract says: two steps; the first adapts across domains by mixing source and target images at
    image level; in the second a separate student and teacher mix unlabeled target images at category level, in a way
    that respects the borders of predicted objects. Chosen, as no more could be read:
     - image level is CutMix: a box of half of the image, of the source on the labeled target, true labels of both;
     - category level is ClassMix of each unlabeled image onto the next by the teacher's pseudo-labels, with the values
       of ClassMix's own code (arXiv 2007.07936: EMA 0.99 with ramp, half of n classes is floor(n / 2), the share
       of pixels >= 0.968 is the weight);
     - the second step's student is the first one's, which goes on, and its teacher is that student's EMA. Its loss has
       weight 0 in the first quarter of the run; the first step's losses stay, so that no domain is forgotten;
     - all four weights are 1; both mixes are augmented as IIDM's are.
    Missing: the authors' own mask (ComplexMix, arXiv 2101.10156), which joins ClassMix and CutMix and after which
    IIDM's paper calls the method.
    """

    def __init__(self, config: Config, student: nn.Module, classes: tuple[str, ...] = ()) -> None:
        super().__init__(config, student, classes)
        data = config.data
        if config.loss.inter_weight > 0 and data.source_batch != data.target_batch:
            raise UserError(
                "complexmix pastes each source crop onto a labeled target crop: --data.source-batch is"
                f" {data.source_batch}, --data.target-batch is {data.target_batch}; give both the same number."
            )
        if config.mixing.intra_from != "unlabeled":
            raise UserError(
                "complexmix mixes unlabeled images with each other: leave --mixing.intra-from at unlabeled."
            )
        # True labels count up to the border.
        borders = {"ignore_top_px": 0, "ignore_bottom_px": 0}
        self.across = with_values(config, {"mixing": {"mask": "cutmix"}, "teacher": borders})

    @property
    def labels_images(self) -> bool:
        """The second step alone needs pseudo-labels."""
        return self.config.loss.intra_weight > 0

    def true_in_mixes(self) -> tuple[float, float]:
        """All of the first mix has true labels, none of the second."""
        return 1.0, 0.0

    def mixes(self, batch: TrainBatch, pseudo: PseudoLabel | None, generator: torch.Generator) -> Mixes:
        """Source on labeled target by a box, and unlabeled on unlabeled by class, whose weight the first step takes."""
        inter, intra = None, []
        if self.config.loss.inter_weight > 0:
            assert batch.source is not None and batch.target is not None
            label = batch.target.label
            true = PseudoLabel(label, torch.ones(len(label), device=label.device))
            inter = mix(batch.source, batch.target.image, true, self.across, generator)
        if pseudo is not None and batch.unlabeled is not None:
            second = (self.progress >= FIRST_STEP).float()
            for _ in range(self.config.mixing.intra_views):
                view = mix_unlabeled(batch.unlabeled, pseudo, self.config, generator)
                intra.append(view._replace(weight=view.weight * second))
        return Mixes(inter, tuple(intra))
