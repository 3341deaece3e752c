"""DiGA: views of the source teach each other, and a pseudo-label counts where classifier and centroids agree on it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from iidm.config import Config
from iidm.kernels.blur import blur
from iidm.kernels.jitter import jitter
from iidm.types import IGNORE_INDEX, MEAN_RGB, STD_RGB, PseudoLabel, UserError

from ..augment import draw_strong
from ..base import Method, Scene, normalized
from ..cells import Prototypes, nearest_cells, on_the_grid_of
from ..losses import Branch, Objective, Output
from ..teacher import Teacher

WARM_UP = 1 / 3
"""The share of the run before pseudo-labels count: its code's one stage of warm-up and two of self-training are of
80,000 steps each."""
WARM_UP_FACTOR = 2.0
"""Distillation weighs 0.5 in the warm-up and 0.25 afterwards (lambda_distil)."""
BACKWARDS = 0.5
"""Factor of the distillation from the changed view to the plain one."""
MEMORY = 0.04
"""Updates that a centroid remembers, as a share of the run's steps, each of which has two: 0.9999 per image, six images
a step, 80,000 steps."""


class DiGA(Method):
    """L_s, symmetric distillation on the source, and DACS' mix with pseudo-labels that need no threshold.

    Known from its code. Distillation: the EMA teacher's probabilities of the plain source teach the student on a
    changed view by cross-entropy, those of the changed view the student on the plain one at half the weight.
    Self-training: a pixel's pseudo-label counts, in full, where the classifier's class is that of the nearest feature
    centroid, and not at all elsewhere; no confidence is compared with anything. Centroids follow the teacher's features
    of both domains where both (on the source, label and classifier) say the same. Half of the source classes, rounded
    down, are pasted; losses are means over all pixels; EMA 0.999 with ramp.

    Chosen: both stages are one run, the first third of which is the warm-up: there the mix teaches its pasted source
    pixels alone, and centroids see the source alone. The classifier's labels are those of the teacher of the moment,
    where the code keeps those of the stage before. The changed view is the strong augmentation of this engine;
    distillation is computed on cells, centroids are of the backbone's features.
    Missing: CrDoMix, whose changed view has half of its pixels from a translation into the target's style by a network
    trained beforehand; the multi-scale labels; two image scales in a batch.
    """

    def __init__(self, config: Config, student: nn.Module, classes: tuple[str, ...] = ()) -> None:
        super().__init__(config, student, classes)
        if config.teacher.labels_by == "student":
            raise UserError("diga distils the EMA teacher into the student: leave --teacher.labels-by at teacher.")
        channels: int = student.head.channels  # type: ignore[assignment,union-attr]
        momentum = 1.0 - 1.0 / max(MEMORY * config.max_steps, 1.0)
        self.centroids = Prototypes(len(classes), channels, momentum, self.progress.device)

    @torch.no_grad()
    def pseudo_label(self, teacher: Teacher, unlabeled: Tensor) -> PseudoLabel:
        """The classifier's label; its weight is 1 where the nearest centroid agrees, else 0. The quality is their share
        of agreement."""
        size, corners = (unlabeled.shape[1], unlabeled.shape[2]), self.config.model.align_corners
        out = teacher.look(normalized(unlabeled), features=True)
        assert out.features is not None
        with torch.autocast(unlabeled.device.type, enabled=False):
            nearness = -self.centroids.distances(out.features)
            adapts = self.progress >= WARM_UP
            cells = on_the_grid_of(out.features, out.logits).argmax(1)
            trusted = (cells == nearness.argmax(1)) & adapts
            self.centroids.update(out.features, torch.where(trusted, cells, IGNORE_INDEX))
        label = teacher.read(self.with_prior(out.logits), size, align_corners=corners).label
        agrees = (label == teacher.read(nearness, size, align_corners=corners).label).float()
        return PseudoLabel(label, agrees.mean((1, 2)), agrees * adapts)

    def branches(self, scene: Scene) -> list[Branch]:
        """DACS', the source's with the distillation, and the source's changed view."""
        found = super().branches(scene)
        weight, source = self.config.loss.auxiliary_weight, scene.batch.source
        if weight == 0 or source is None or found[0].name != "source":
            return found
        strong = draw_strong(len(source.image), self.config.augment, scene.generator)
        jittered = jitter(source.image, strong.jitter, mean=MEAN_RGB, std=STD_RGB)
        plain, changed = found[0].image, blur(jittered, strong.sigma, strong.blurred)
        of_plain, of_changed = self._taught(scene.teacher, plain, changed, source.label)
        backwards, onwards = self._distillation(of_changed, BACKWARDS), self._distillation(of_plain, 1.0)
        found[0] = found[0]._replace(objective=backwards, objective_weight=weight)
        found.append(Branch("auxiliary", changed, None, None, 0.0, "pixels", onwards, weight))
        return found

    @torch.no_grad()
    def _taught(self, teacher: Teacher, plain: Tensor, changed: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher's probabilities of both views, of one batch as in its code; centroids follow the second."""
        out = teacher.look(torch.cat([plain, changed]), features=True)
        assert out.features is not None
        with torch.autocast(plain.device.type, enabled=False):
            of_plain, of_changed = torch.softmax(out.logits.float(), 1).split(len(plain))
            seen = on_the_grid_of(out.features, out.logits)[len(plain) :].argmax(1)
            cells = nearest_cells(label, (seen.shape[1], seen.shape[2]))
            self.centroids.update(out.features[len(plain) :], torch.where(cells == seen, cells, IGNORE_INDEX))
        return of_plain, of_changed

    def _distillation(self, taught: Tensor, factor: float) -> Objective:
        by_phase = torch.where(self.progress < WARM_UP, WARM_UP_FACTOR * factor, factor)

        def distillation(out: Output) -> Tensor:
            return -by_phase * (taught * torch.log_softmax(out.logits, 1)).sum(1).mean()

        return distillation
