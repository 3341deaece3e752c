"""Dynamic self-training with a class-balanced curriculum (DST-CBC): the surest pixels of each class come first."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from iidm.config import Config
from iidm.kernels.cross_entropy import cross_entropy
from iidm.kernels.pseudo_label import pseudo_label
from iidm.types import IGNORE_INDEX, Mixed, PseudoLabel, TrainBatch, UserError

from ..base import Method, Mixes, Scene, normalized
from ..losses import Branch, Objective, Output
from ..mixing import mix_unlabeled
from ..teacher import Teacher

PHASES = 5
"""In phase i of five equal ones the surest i/5 of each class's pixels are labeled (its code: 20 %, 40 %, ... 100 %)."""
GAMMA = 9.0
"""Power of the student's probability in the weight of a pixel (its scripts, on PASCAL VOC; its successor DMT: 5
there, 3 on Cityscapes)."""
EVERY = 4
"""Rows and columns between the pixels that are counted: one of 16, as in its code."""
MEMORY, MIN_MEMORY = 1 / 400, 10
"""What the counts remember: an 80th of a phase, 100 of 40,000 steps, but 10 steps or more. Confidence grows, so with a
longer memory thresholds lag behind and far more than the phase's share is kept; a shorter one knows fewer images."""
BINS_PER_HALVING, HALVINGS = 64, 24
"""Bins of a histogram: 64 for each halving of 1 - confidence, down to 2^-24, float32's step below 1. Bins of equal
width would hold most of a sure class in the last one."""
BINS = BINS_PER_HALVING * HALVINGS


class DynamicSelfTraining(Method):
    """L_t, and on unlabeled images the mean over pseudo-labeled pixels of p^gamma * cross-entropy, p being the
    student's own probability of the pseudo-label.

    Known, from its code: a network trained on the labeled images labels the unlabeled ones, of each class the pixels
    above that class's own quantile of confidence; the rest is ignored. The network goes on from there on labeled and
    pseudo-labeled images, without a gradient through p^gamma, and is the next round's labeler: five rounds of 6
    epochs. Thresholds, shares, gamma and the last round, in which all pixels are labeled, are kept.

    Here the rounds are phases of one run: the EMA teacher labels in every step, and thresholds are quantiles of a
    running histogram of its confidence. Their first, supervised training is left to p^gamma, which is next to nothing
    until the student is sure. p is the student's confidence where its own class is the pseudo-label, and 0 elsewhere:
    there p <= 1/2, so a weight of at most 2^-9 is lost. So label and weight come from the fused ops, at full size, and
    the weight from the very forward of the loss: a step costs no further forward, but one pass over its logits.

    Missing: restarts of learning rate and optimiser, the choice of a round's best network on validation images, random
    scales (here jitter and blur), 7 pseudo-labeled images to each labeled one under one common mean, SGD.
    """

    histogram: Tensor

    adjusts_logits = False

    def __init__(self, config: Config, student: nn.Module, classes: tuple[str, ...] = ()) -> None:
        super().__init__(config, student, classes)
        loss = config.loss
        if loss.inter_weight > 0 or loss.intra_weight > 0 or loss.mixed_normalizer == "sum":
            raise UserError(
                "The term of dst_cbc on unlabeled images is a mean, weighted by --loss.auxiliary-weight: leave"
                " --loss.inter-weight and --loss.intra-weight at 0, and --loss.mixed-normalizer at valid or pixels."
            )
        self.decay = 1.0 - 1.0 / max(config.max_steps * MEMORY, MIN_MEMORY)
        self.register_buffer("histogram", torch.zeros(len(classes), BINS, device=self.progress.device))

    @property
    def labels_images(self) -> bool:
        """The dynamic loss alone needs pseudo-labels."""
        return self.config.loss.auxiliary_weight > 0

    def pseudo_label(self, teacher: Teacher, unlabeled: Tensor) -> PseudoLabel:
        """The surest pixels of each class; the others are ignored. The quality is the share of pixels that are kept."""
        logits = self.with_prior(teacher.look(normalized(unlabeled)).logits)
        size = (unlabeled.shape[1], unlabeled.shape[2])
        corners = self.config.model.align_corners
        label, _, confidence = pseudo_label(logits, size, 0.0, align_corners=corners, with_confidence=True)
        assert confidence is not None
        kept = self.surest(label, confidence)
        weight = kept.float()
        return PseudoLabel(torch.where(kept, label, IGNORE_INDEX), weight.mean((1, 2)), weight)

    def phase(self) -> Tensor:
        """float32 scalar, 1 to 5."""
        return (self.progress * PHASES).floor().clamp(max=PHASES - 1) + 1

    @torch.no_grad()
    def surest(self, label: Tensor, confidence: Tensor) -> Tensor:
        """Count these pixels in; bool [B,H,W]: whether each is among the phase's share of its class."""
        halvings = -torch.log2((1.0 - confidence).clamp(min=2.0**-HALVINGS))
        # Of a broken network NaN, which is any number as an integer: a place beyond the histogram would end a GPU's
        # process before the run says what broke.
        place = (halvings * BINS_PER_HALVING).long().clamp(0, BINS - 1)
        counted = (label.long() * BINS + place)[:, ::EVERY, ::EVERY].reshape(-1)
        counts = torch.zeros_like(self.histogram).view(-1)
        counts.scatter_add_(0, counted, torch.ones_like(counted, dtype=torch.float32))
        self.histogram.mul_(self.decay).add_(counts.view_as(self.histogram))
        return place >= self.lowest_bins()[label.long()]

    def lowest_bins(self) -> Tensor:
        """int64 [K]: the highest bin at or above which the phase's share of a class lies; 0 in the last phase."""
        phase = self.phase()
        at_least = self.histogram.flip(1).cumsum(1).flip(1)
        # Without a division, so that whole counts are compared exactly.
        bins = (at_least * PHASES >= at_least[:, :1] * phase).sum(1) - 1
        return torch.where(phase < PHASES, bins, 0)

    def mixes(self, batch: TrainBatch, pseudo: PseudoLabel | None, generator: torch.Generator) -> Mixes:
        """The unlabeled images with their pseudo-labels, strongly augmented."""
        if pseudo is None or batch.unlabeled is None:
            return Mixes(None, ())
        views = range(self.config.mixing.intra_views)
        return Mixes(None, tuple(mix_unlabeled(batch.unlabeled, pseudo, self.config, generator) for _ in views))

    def branches(self, scene: Scene) -> list[Branch]:
        """The labeled target images, and each view of the unlabeled ones."""
        found, views = super().branches(scene._replace(mixes=Mixes(None, ()))), scene.mixes.intra
        for view in views:
            term = self.dynamic_loss(view, 1.0 / len(views)), self.config.loss.auxiliary_weight
            found.append(Branch("auxiliary", view.image, None, None, 0.0, "pixels", *term))
        return found

    def dynamic_loss(self, view: Mixed, share: float) -> Objective:
        """p^gamma * cross-entropy, a mean over pseudo-labeled pixels, times a view's share of the term."""
        corners, normalizer = self.config.model.align_corners, self.config.loss.mixed_normalizer
        size = (view.label.shape[1], view.label.shape[2])

        def loss(out: Output) -> Tensor:
            own = pseudo_label(out.logits, size, 0.0, align_corners=corners, with_confidence=True)
            assert own.confidence is not None
            p = torch.where(own.label == view.label, own.confidence, 0.0)
            weight = view.weight * p**GAMMA
            return share * cross_entropy(out.logits, view.label, weight, normalizer=normalizer, align_corners=corners)

        return loss
