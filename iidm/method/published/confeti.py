"""CONFETI: source images in the target's colours, and features of both domains drawn to common prototypes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iidm.config import Config
from iidm.types import IGNORE_INDEX, LabeledImages, PseudoLabel, TrainBatch

from ..base import Method, Mixes, Scene
from ..cells import Prototypes, nearest_cells
from ..losses import Branch, Objective, Output

CHANNELS = 512
"""Of the projection (proto_dims)."""
TEMPERATURE = 0.1
"""tau."""
MEMORY = 1000 / 80_000
"""Steps that a prototype remembers, as a share of the run: momentum 0.999, 80,000 steps."""
PASTED_ALONE = 3000 / 80_000
"""The share of the run in which prototypes follow pixels with true labels alone."""


class Confeti(Method):
    """DAFormer's recipe (the code is built on it) on a source in the target's style, and 0.5 times the contrast.

    Known from its code: the contrast is the cross-entropy of softmax(v . prototype / tau) with the pixel's label, v a
    1x1 projection of the backbone's features to 512 channels, of unit length, tau 0.1, on the source and on the mixed
    image, which holds both domains; prototypes are running means over the mixed images, at first of their pasted pixels
    alone; source images are translated before all else; EMA 0.999, margins, rare class sampling.

    Chosen: the translation gives each colour of the source the target's mean and deviation, both over all images so
    far. A pixel of the mix counts as in the cross-entropy, in full where pasted, else by the share of confident pixels,
    so that the contrast need not wait (3,000 steps in the code). All cells count, where the code draws 4,096 pixels;
    prototypes are of the student's features, the code's of its EMA's.
    Missing: the translating network (CUT), a GAN with a discriminator, optimisers and a stage of training of its own,
    and with it the consistency of prototype similarities; the class activation maps that pick the 32 pixels of a
    prototype; the regulariser of the mean feature; DAFormer's feature distance.
    """

    moments: Tensor
    """float32 [2,2,3]: of source and target the mean of each colour and of its square."""
    batches: Tensor
    """float32 scalar: how many the moments are of."""

    def __init__(self, config: Config, student: nn.Module, classes: tuple[str, ...] = ()) -> None:
        super().__init__(config, student, classes)
        channels: int = student.head.channels  # type: ignore[assignment,union-attr]
        self.project = nn.Conv2d(channels, CHANNELS, 1, bias=False)
        nn.init.normal_(self.project.weight, 0.0, 0.01)
        momentum = 1.0 - 1.0 / max(MEMORY * config.max_steps, 1.0)
        self.prototypes = Prototypes(len(classes), CHANNELS, momentum, self.progress.device)
        self.register_buffer("moments", torch.zeros(2, 2, 3))
        self.register_buffer("batches", torch.zeros(()))
        self.to(self.progress.device)

    def mixes(self, batch: TrainBatch, pseudo: PseudoLabel | None, generator: torch.Generator) -> Mixes:
        """DACS', of the recoloured source."""
        if batch.source is not None and batch.unlabeled is not None:
            self._observe(batch.source.image, batch.unlabeled)
        return super().mixes(self._recoloured(batch), pseudo, generator)

    def branches(self, scene: Scene) -> list[Branch]:
        """DACS', of the recoloured source, both with the contrast."""
        found = super().branches(scene._replace(batch=self._recoloured(scene.batch)))
        weight = self.config.loss.auxiliary_weight
        if weight == 0:
            return found
        # New tensors: the mix's own term moves the prototypes.
        prototypes, known = F.normalize(self.prototypes.mean, dim=1), self.prototypes.updates > 0
        return [b._replace(objective=self._contrast(b, prototypes, known), objective_weight=weight) for b in found]

    @torch.no_grad()
    def _observe(self, source: Tensor, target: Tensor) -> None:
        pixels = [image.float().reshape(-1, 3) for image in (source, target)]
        seen = torch.stack([torch.stack([p.mean(0), p.square().mean(0)]) for p in pixels])
        self.batches += 1
        self.moments += (seen - self.moments) / self.batches

    @torch.no_grad()
    def _recoloured(self, batch: TrainBatch) -> TrainBatch:
        """The batch, its source uint8 [B,H,W,3] with the target's mean and deviation of each colour."""
        if batch.source is None or batch.unlabeled is None:
            return batch
        mean, square = self.moments.unbind(1)
        deviation = (square - mean.square()).clamp(min=1.0).sqrt()
        image = (batch.source.image - mean[0]) * (deviation[1] / deviation[0]) + mean[1]
        image = image.round().clamp(0, 255).to(torch.uint8)
        return batch._replace(source=LabeledImages(image, batch.source.label))

    def _contrast(self, branch: Branch, prototypes: Tensor, known: Tensor) -> Objective:
        label, weight = branch.label, branch.weight
        assert label is not None
        trusts = self.progress >= PASTED_ALONE

        def contrast(out: Output) -> Tensor:
            assert out.features is not None
            unit = F.normalize(self.project(out.features), dim=1)
            size = (unit.shape[2], unit.shape[3])
            cells, count = nearest_cells(label, size), torch.ones((), device=unit.device)
            if weight is not None:
                count = F.interpolate(weight[:, None], size=size, mode="nearest-exact")[:, 0]
                self.prototypes.update(unit, torch.where(trusts | (count == 1), cells, IGNORE_INDEX))
            return info_nce(unit, cells, count, prototypes, known)

        return contrast


def info_nce(unit: Tensor, cells: Tensor, weight: Tensor, prototypes: Tensor, known: Tensor) -> Tensor:
    """-w log softmax(unit . prototype / tau)[class], a mean over the cells whose class has a prototype.

    unit [B,C,h,w] and prototypes [K,C] have length 1; cells int64 [B,h,w], 255 ignored; weight [B,h,w] or a scalar;
    known bool [K]: which classes have a prototype.
    """
    similarity = torch.einsum("bchw,kc->bkhw", unit, prototypes) / TEMPERATURE
    similarity = similarity.masked_fill(~known[None, :, None, None], -1e4)
    counts = (cells != IGNORE_INDEX) & known[cells.clamp(max=len(known) - 1)]
    target = torch.where(counts, cells, IGNORE_INDEX)
    loss = F.cross_entropy(similarity, target, ignore_index=IGNORE_INDEX, reduction="none")
    return (weight * loss).sum() / counts.sum().clamp(min=1)
