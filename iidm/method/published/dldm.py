"""Dual-level domain mixing (DLDM): two teachers of mixed domains, and a student of the target that they teach."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iidm.config import Config
from iidm.types import IGNORE_INDEX, LabeledImages, PseudoLabel, TrainBatch, UserError

from ..base import Method, Mixes, Scene, normalized
from ..losses import Branch, Objective, Output
from ..mixing import mix

FIRST_ROUND = 0.25
"""The share of the run that stands for the first of the paper's four rounds (three on SYNTHIA)."""
PSEUDO_SHARE = 0.5
"""Share of the teachers' target images that are pseudo-labeled ones after the first round. The paper draws from labeled
and pseudo-labeled images alike, so nearly all of them are."""


class DualLevelMixing(Method):
    """Three networks: the region-level teacher, the sample-level teacher and the student, which is what is evaluated.

    The paper, in rounds: (1) the region-level teacher learns from target images that hold a box of a source image at
    the same place, with the true labels of both (eqs. 1-2); the sample-level one from source and labeled target images
    as they are (eq. 3). (2) With both fixed, the student minimises 0.5 KL(mean of the teachers' outputs || its own) on
    the unlabeled images and 1.0 cross-entropy on the labeled target ones (eq. 4); it sees no source image. (3) Its
    pseudo-labels, of each class the surer half and all above 0.9, make unlabeled images labeled target ones of the
    teachers' next round.

    Here the rounds are one run in which all three networks learn in every step. The KL is scaled from 0 to its weight
    over the first round, as the teachers know nothing at the start; from then on each target image of a teacher is,
    with probability 0.5, an unlabeled one with the EMA student's pseudo-labels above 0.9. Chosen where the paper is
    silent: the box is half of the image (CutMix of French et al., whom it follows); outputs are probabilities, and the
    KL is a mean over cells of the output stride; the sample-level teacher's batch (and its BatchNorm statistics) is of
    both domains, its mean stands for the sum of their losses (AdamW knows no scale); teachers teach in evaluation mode.
    Missing: source images in the target's LAB statistics, the surer half by class, SGD.

    `source_weight` is the factor of the sample-level teacher's loss, `inter_weight` of the region-level one's, logged
    as such; `target_weight` and `auxiliary_weight` are the student's. Parameters, gradients and optimiser states are
    three times IIDM's; a step costs 5 B crops of forward and backward and 3 B of forward alone, to IIDM's 4 B and B.
    """

    adjusts_logits = False

    def __init__(self, config: Config, student: nn.Module, classes: tuple[str, ...] = ()) -> None:
        super().__init__(config, student, classes)
        loss, data = config.loss, config.data
        if min(loss.source_weight, loss.target_weight, loss.inter_weight) == 0:
            raise UserError("dldm trains a network by each of --loss.{source,target,inter}-weight: none may be 0.")
        sizes = data.source_batch, data.target_batch, data.unlabeled_batch
        if len(set(sizes)) > 1 or config.mixing.strategy == "two-xu-two-streams":
            raise UserError(
                "dldm pairs each source crop with a target crop, labeled or not: give --data.{source,target,unlabeled}"
                f"-batch one number, not {sizes}, and leave --mixing.strategy at one-xu-two-streams."
            )
        if loss.intra_weight > 0:
            raise UserError("dldm has no intra-domain mix: leave --loss.intra-weight at 0.")
        self.region, self.sample = copy.deepcopy(student), copy.deepcopy(student)

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Both teachers."""
        return {"region-level": self.region, "sample-level": self.sample}

    def mixes(self, batch: TrainBatch, pseudo: PseudoLabel | None, generator: torch.Generator) -> Mixes:
        """A box of each source image on a target image (eq. 1), as the inter-domain mix."""
        assert batch.source is not None and pseudo is not None
        target = self.target_images(batch, pseudo, generator)
        true = PseudoLabel(target.label, torch.ones_like(pseudo.quality))
        return Mixes(mix(batch.source, target.image, true, self.config, generator), ())

    def target_images(self, batch: TrainBatch, pseudo: PseudoLabel, generator: torch.Generator) -> LabeledImages:
        """The target images of a teacher: the labeled ones, and after the first round pseudo-labeled ones too."""
        assert batch.target is not None and batch.unlabeled is not None
        share = PSEUDO_SHARE * (self.progress >= FIRST_ROUND)
        drawn = torch.rand(len(batch.unlabeled), 1, 1, generator=generator, device=generator.device) < share
        label = pseudo.label if pseudo.weight is None else torch.where(pseudo.weight > 0, pseudo.label, IGNORE_INDEX)
        image = torch.where(drawn[..., None], batch.unlabeled, batch.target.image)
        return LabeledImages(image, torch.where(drawn, label, batch.target.label))

    def branches(self, scene: Scene) -> list[Branch]:
        """One of each teacher, and the student's two."""
        loss, batch, mixed = self.config.loss, scene.batch, scene.mixes.inter
        assert batch.source is not None and batch.target is not None and batch.unlabeled is not None
        assert scene.pseudo is not None and mixed is not None
        pairs = zip(batch.source, self.target_images(batch, scene.pseudo, scene.generator), strict=True)
        both, label = (torch.cat(pair) for pair in pairs)
        mean = loss.supervised_normalizer
        region = *mixed, loss.inter_weight, loss.mixed_normalizer
        found = [
            Branch("source", normalized(both), label, None, loss.source_weight, mean, network=self.sample),
            Branch("inter", *region, network=self.region),
            Branch("target", normalized(batch.target.image), batch.target.label, None, loss.target_weight, mean),
        ]
        if loss.auxiliary_weight > 0:
            image = normalized(batch.unlabeled)
            distilled = self.distillation(image), loss.auxiliary_weight
            found.append(Branch("auxiliary", image, None, None, 0.0, "pixels", *distilled))
        return found

    def distillation(self, image: Tensor) -> Objective:
        """KL(mean of the teachers' probabilities || the student's), a mean over cells, times the share of the first
        round that is done."""
        taught = self.ensemble(image)
        ramp = (self.progress / FIRST_ROUND).clamp(max=1.0)

        def divergence(out: Output) -> Tensor:
            return ramp * F.kl_div(torch.log_softmax(out.logits, 1), taught, reduction="none").sum(1).mean()

        return divergence

    @torch.no_grad()
    def ensemble(self, image: Tensor) -> Tensor:
        """Mean of both teachers' probabilities, float32 [B,K,h,w].

        Weights that autocast casts here must not stay in its cache: without a gradient as they are, the teachers' own
        branches would take them from there (PyTorch issue 112583, not yet mended in 2.9).
        """
        on = image.device.type
        dtype, enabled = torch.get_autocast_dtype(on), torch.is_autocast_enabled(on)
        self.eval()
        with torch.autocast(on, dtype=dtype, enabled=enabled, cache_enabled=False):
            logits = [teacher(image) for teacher in (self.region, self.sample)]
        self.train()
        return torch.stack([torch.softmax(one.float(), 1) for one in logits]).mean(0)
