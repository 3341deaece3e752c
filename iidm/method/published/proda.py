"""ProDA: pseudo-labels that the prototypes of the target's classes correct, and two views that agree on prototypes."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iidm.config import Config
from iidm.types import PseudoLabel, UserError

from ..base import Method, Scene, normalized
from ..cells import Prototypes, on_the_grid_of
from ..losses import Branch, Objective, Output
from ..teacher import Teacher

REVERSE = 1.0
"""Factor of -sum p log y in the symmetric cross-entropy of a pseudo-label y (rce_beta); that of -log p(y) is the intra
weight."""
STRUCTURE, REGULARIZER = 10.0, 0.1
"""gamma_1 and gamma_2 (proto_consistW, regular_w)."""
LOG_ZERO = math.log(1e-4)
"""Logarithm of what a pseudo-label gives to the other classes, in the reverse term."""
WARM_UP = 1 / 3
"""The share of the run that teaches the source alone, before anything of the target counts."""
MEMORY = 0.04
"""Steps that a prototype remembers, as a share of the run: 0.9999 per image, 4 images a step, 62,400 steps."""


class Plain(NamedTuple):
    """What the teacher sees in the plain images: denoised label int64 [B,h,w], log of the assignment to prototypes
    [B,K,h,w], and the unit of distances."""

    label: Tensor
    log_assignment: Tensor
    unit: Tensor


class ProDA(Method):
    """L_s; on the target 0.1 CE + 1 reverse CE by denoised pseudo-labels, 10 structure, 0.1 regulariser.

    Known from its code, first stage: the pseudo-label is argmax omega p, omega = softmax(-|f - prototype| / T), T = 1,
    without a threshold; the structure term is KL(teacher's omega of the plain view || student's of the strong one), the
    regulariser -log p, both means over cells and classes. Prototypes are means of the EMA network's target features by
    its own argmax. EMA 0.999.

    Chosen: distances are in units of the mean distance of a cell to its nearest prototype. The code takes them raw, on
    the 256 channels of its own head; a backbone's grow with its width, and omega would tend to one-hot. The student has
    one view of the target, the strong one (no pixel moves: cells correspond), where the code has another, weak one for
    the pseudo-labels. All terms but the cross-entropy are computed on cells.

    The paper starts from a model of adversarial warm-up, fixes p once as soft labels of that model, and then distils
    twice into a self-supervised start. Here it is one run: its first third teaches the source alone, while prototypes
    begin, as plain means (without it the large classes took everything: benchmarks/NOTES.md); p is the EMA teacher's of
    the moment (with a ramp), and a pseudo-label weighs what any of this engine's does, the share of confident pixels.
    The regulariser weighs the same: alone on the target it would keep confidence below the threshold (beside a source
    of the same features at 1 / 1.1). Missing: the adversarial part of the warm-up, stages 2, 3.
    """

    adjusts_logits = False

    def __init__(self, config: Config, student: nn.Module, classes: tuple[str, ...] = ()) -> None:
        super().__init__(config, student, classes)
        if config.mixing.mask != "none":
            raise UserError(
                "proda compares two views of an image cell by cell, so nothing may be pasted: --mixing.mask must be"
                f" none, not {config.mixing.mask}."
            )
        if config.mixing.strategy == "two-xu-two-streams":
            raise UserError(
                "proda compares each unlabeled image with its strong view: leave --mixing.strategy at"
                " one-xu-two-streams."
            )
        channels: int = student.head.channels  # type: ignore[assignment,union-attr]
        momentum = 1.0 - 1.0 / max(MEMORY * config.max_steps, 1.0)
        self.prototypes = Prototypes(len(classes), channels, momentum, self.progress.device)
        self._plain: Plain | None = None

    @torch.no_grad()
    def pseudo_label(self, teacher: Teacher, unlabeled: Tensor) -> PseudoLabel:
        """The teacher's, each class weighed by how near its prototype is; prototypes move first. In the warm-up the
        quality is 0."""
        out = teacher.look(normalized(unlabeled), features=True)
        assert out.features is not None
        with torch.autocast(unlabeled.device.type, enabled=False):
            logits, features = on_the_grid_of(out.features, out.logits).float(), out.features.float()
            self.prototypes.update(features, logits.argmax(1))
            distance = self.prototypes.distances(features)
            unit = distance.amin(1).mean().clamp(min=1e-6)
            log_omega = torch.log_softmax(-distance / unit, 1)
        denoised = logits + log_omega  # log(omega p), but for a number that all classes share
        self._plain = Plain(denoised.argmax(1), log_omega, unit)
        size = (unlabeled.shape[1], unlabeled.shape[2])
        found = teacher.read(self.with_prior(denoised), size, align_corners=self.config.model.align_corners)
        return found._replace(quality=found.quality * self._adapts())

    def _adapts(self) -> Tensor:
        """0 in the warm-up, 1 afterwards."""
        return (self.progress >= WARM_UP).float()

    def branches(self, scene: Scene) -> list[Branch]:
        """IIDM's, the strong view with the further terms."""
        found = super().branches(scene)
        weight = self.config.loss.auxiliary_weight / self.config.mixing.intra_views
        for i, branch in enumerate(found):
            if branch.name == "intra" and weight > 0:
                found[i] = branch._replace(objective=self._terms(branch), objective_weight=weight)
        return found

    def _terms(self, branch: Branch) -> Objective:
        plain = self._plain
        assert plain is not None and branch.weight is not None
        weight = F.interpolate(branch.weight[:, None], size=plain.label.shape[1:], mode="nearest-exact")[:, 0]

        def terms(out: Output) -> Tensor:
            assert out.features is not None
            log_own = torch.log_softmax(-self.prototypes.distances(out.features) / plain.unit, 1)
            structure = F.kl_div(log_own, plain.log_assignment, reduction="none", log_target=True).mean()
            log_p = torch.log_softmax(on_the_grid_of(out.features, out.logits), 1)
            others = 1.0 - log_p.gather(1, plain.label[:, None])[:, 0].exp()
            reverse = -LOG_ZERO * (weight * others).mean()
            regularizer = -(weight * log_p.mean(1)).mean()
            return STRUCTURE * self._adapts() * structure + REVERSE * reverse + REGULARIZER * regularizer

        return terms
