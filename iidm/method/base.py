"""What a method computes in a step. `Method` is IIDM itself; the others (catalog/) change the part that differs.

A method is a module: what it learns (discriminators) is trained with the student's optimiser, what it remembers
(prototypes, thresholds) lies in buffers, and both are in the checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from iidm.config import Config, OptimConfig
from iidm.kernels.jitter import normalize
from iidm.types import MEAN_RGB, STD_RGB, LabeledImages, Mixed, PseudoLabel, TrainBatch, UserError

from .balance import ClassBalance
from .losses import Branch
from .mixing import mix, mix_onto_one, mix_unlabeled, with_mask_for
from .teacher import Teacher


class Mixes(NamedTuple):
    """The mixed images of a step."""

    inter: Mixed | None
    """Source onto unlabeled; with `one-xu-one-stream` the one image of both mixes."""
    intra: tuple[Mixed, ...]
    """Target onto unlabeled, one for each of `mixing.intra_views`."""


class Scene(NamedTuple):
    """What a method's branches are made of."""

    batch: TrainBatch
    pseudo: PseudoLabel | None
    mixes: Mixes
    student: nn.Module
    teacher: Teacher
    generator: torch.Generator


def normalized(image: Tensor) -> Tensor:
    """uint8 [B,H,W,3] -> float [B,3,H,W], as the networks read it, without augmentation."""
    return normalize(image, mean=MEAN_RGB, std=STD_RGB)


class Method(nn.Module):
    """IIDM's step (paper eqs. 1-11), and whatever a configuration alone makes of it.

    Args:
        config: the whole run's.
        student: the network at its start, on its device; a method copies what it needs of it.
        classes: names of the classes.
    """

    keeps_start = False
    """Whether its further term keeps the weights of the start, which no checkpoint holds: they lie beside them."""
    adjusts_logits = True
    """Whether its losses can have logits adjusted (`loss.class_balance`)."""
    progress: Tensor
    """float32 scalar: the share of the run that is done, set before each step. It lies on the device, so that phases
    work in a captured graph too."""
    class_weight: Tensor | None
    """float32 [K], what a pixel of each class weighs in the cross-entropies (class_weights.py); None: no such weights.
    It is in the checkpoint, so that a resumed run keeps it."""

    def __init__(self, config: Config, student: nn.Module, classes: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.config, self.classes = with_mask_for(config, len(classes)), classes
        device = next(student.parameters()).device
        self.register_buffer("progress", torch.zeros((), device=device), persistent=False)
        strength = config.loss.class_balance
        if strength > 0 and not self.adjusts_logits:
            raise UserError(
                f"{config.method} compares probabilities that the network says itself with adjusted ones: give"
                " --loss.class-balance 0."
            )
        self.balance = ClassBalance(strength, device, self.true_in_mixes()) if strength > 0 else None
        self.register_buffer("class_weight", None)

    def weigh_classes(self, weights: Sequence[float] | None) -> None:
        """Set `class_weight`; None: none."""
        own = None if weights is None else torch.tensor(weights, device=self.progress.device)
        self.register_buffer("class_weight", own)

    def true_in_mixes(self) -> tuple[float, float]:
        """Which share of the labels of the inter- and of the intra-domain mix is not the teacher's, about."""
        mixing, loss = self.config.mixing, self.config.loss
        if mixing.mask == "none":
            return 0.0, 0.0
        pasted = 0.5
        if mixing.mask != "classmix":
            area = sum(mixing.cut_area) / 2 if mixing.mask == "cutmix" else 0.5
            pasted = area * mixing.mask_probability
        if mixing.strategy == "one-xu-one-stream" and loss.inter_weight > 0 and loss.intra_weight > 0:
            return 0.75, 0.5  # half is pasted, and half of the rest
        return pasted, pasted if mixing.intra_from == "labeled" else 0.0

    @property
    def labels_images(self) -> bool:
        """Whether pseudo-labels are needed."""
        loss = self.config.loss
        return loss.inter_weight > 0 or loss.intra_weight > 0 or loss.mask_weight > 0

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Networks of the student's kind that it trains too, by name; their parameters have the student's groups."""
        return {}

    def parameter_groups(self, optim: OptimConfig) -> list[dict[str, Any]]:
        """AdamW's groups of what the method learns beside the student and `networks`, at the rate of the head."""
        others = {parameter for network in self.networks.values() for parameter in network.parameters()}
        params = [p for p in self.parameters() if p.requires_grad and p not in others]
        lr = optim.lr * optim.head_lr_mult
        return [{"name": "method", "params": params, "lr": lr, "weight_decay": optim.weight_decay}] if params else []

    def pseudo_label(self, teacher: Teacher, unlabeled: Tensor) -> PseudoLabel:
        """What the teacher says of unlabeled images uint8 [B,H,W,3], plain (eq. 6)."""
        logits = self.with_prior(teacher.look(normalized(unlabeled)).logits)
        size = (unlabeled.shape[1], unlabeled.shape[2])
        return teacher.read(logits, size, align_corners=self.config.model.align_corners)

    def with_prior(self, logits: Tensor) -> Tensor:
        """Logits [B,K,h,w] of which labels are drawn: with the rarity of classes that `balance` keeps out of them."""
        return logits if self.balance is None else self.balance.prior(logits)

    def mixes(self, batch: TrainBatch, pseudo: PseudoLabel | None, generator: torch.Generator) -> Mixes:
        """Both mixes of the step (eqs. 1-4)."""
        config, strategy = self.config, self.config.mixing.strategy
        if pseudo is None or batch.unlabeled is None:
            return Mixes(None, ())
        image = batch.unlabeled
        with_inter, with_intra = config.loss.inter_weight > 0, config.loss.intra_weight > 0
        if strategy == "one-xu-one-stream" and with_inter and with_intra:
            assert batch.source is not None and batch.target is not None
            return Mixes(mix_onto_one(batch.source, batch.target, image, pseudo, config, generator), ())
        first = second = slice(None)
        if strategy == "two-xu-two-streams":
            first, second = slice(0, len(image) // 2), slice(len(image) // 2, None)
        inter = None
        if with_inter:
            pasted = self._pasted(batch.source, image[first])
            inter = mix(pasted, image[first], _rows(pseudo, first), config, generator)
        intra: list[Mixed] = []
        for _ in range(config.mixing.intra_views if with_intra else 0):
            base, own = image[second], _rows(pseudo, second)
            if config.mixing.intra_from == "unlabeled":
                intra.append(mix_unlabeled(base, own, config, generator))
            else:
                intra.append(mix(self._pasted(batch.target, base), base, own, config, generator))
        return Mixes(inter, tuple(intra))

    def _pasted(self, labeled: LabeledImages | None, base: Tensor) -> LabeledImages:
        """What is pasted; where nothing is (`mixing.mask none`) the images themselves stand in, for the shapes."""
        if self.config.mixing.mask == "none" or labeled is None:
            return LabeledImages(base, base[..., 0])
        return labeled

    def branches(self, scene: Scene) -> list[Branch]:
        """Every term of the loss whose weight is not 0 (eq. 11)."""
        loss, batch, mixes = self.config.loss, scene.batch, scene.mixes
        found: list[Branch] = []
        supervised = (
            ("source", batch.source, loss.source_weight),
            ("target", batch.target, loss.target_weight),
        )
        for name, labeled, weight in supervised:
            if labeled is not None and weight > 0:
                image = normalized(labeled.image)
                found.append(Branch(name, image, labeled.label, None, weight, loss.supervised_normalizer))
        one_stream = mixes.inter is not None and self.config.mixing.strategy == "one-xu-one-stream"
        inter_weight = loss.inter_weight + (loss.intra_weight if one_stream and not mixes.intra else 0.0)
        mixed = [("inter", mixes.inter, inter_weight)] if mixes.inter is not None else []
        mixed += [("intra", view, loss.intra_weight / len(mixes.intra)) for view in mixes.intra]
        for name, view, weight in mixed:
            found.append(Branch(name, view.image, view.label, view.weight, weight, loss.mixed_normalizer))
        return found


def _rows(pseudo: PseudoLabel, rows: slice) -> PseudoLabel:
    return PseudoLabel(*(None if part is None else part[rows] for part in pseudo))  # type: ignore[arg-type]
