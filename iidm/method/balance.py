"""Logit adjustment: the network learns what an image shows apart from how common each class is (Menon et al., arXiv
2007.07314).

A few labeled images hold few pixels of thin and rare things, and cross-entropy learns that rarity: a network that was
trained on twenty street images finds less than half of the pedestrians' pixels. Its pseudo-labels lack the others, and
the mixes teach that on. With strength * log(share of the class) added to the logits in the loss alone, the rarity lies
in what is added, and the network's own logits, which label images, are free of it; with a strength below 1 the rest of
it stays. Each branch has shares of its own, so that a source with other shares than the target, or a class that is
sampled often, leaves as little trace.

Pseudo-labels are drawn with a part of the rarity put back (`prior`), the more the less evenly the classes divide the
pixels: all of it where nearly all are of one class, none where all classes are equally common. That part is the chance
that two pixels are of one class. Without it a student that learns labels from adjusted logits is adjusted again, and
more with every round: where cracks are 1.5 % of the pixels, ever more was called a crack. With all of it riders in a
street, which few labels show, are missed again (benchmarks/NOTES.md). A mix has one bias for all of its pixels: the
mean of the whole one, for the true labels of what is pasted, taken as half of the pixels, and of that part, for the
others.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from iidm.types import IGNORE_INDEX

from .losses import Branch

BRANCHES = ("source", "target", "inter", "intra")
"""Those with shares of their own."""
PSEUDO_LABELED = "mask"
"""The branch all of whose labels are the teacher's: its bias is what they were drawn with."""
DECAY = 0.99
"""Of the counts, a step: shares are those of about the last hundred steps."""
LEAST_SHARE = 1e-4
"""Share of a class that a branch has not shown yet."""
STRIDE = 4
"""Every so many pixels in both directions are counted."""
_WEIGHT_UNITS = 256
"""A pixel's loss weight is counted in such parts of 1: sums of integers are the same in any order."""


class ClassBalance(nn.Module):
    """Follows the shares of the classes in the labels of each branch, by their loss weights, and adjusts its logits.

    A batch is adjusted by what was counted in the steps before and in itself.

    Args:
        strength: 0 is none; 1 teaches the network as if all classes were equally common.
        device: of the labels.
        true_in_mixes: which share of the labels of the inter- and of the intra-domain mix is true.
    """

    counts: Tensor
    """float32 [len(BRANCHES), 256]: weighted pixels of each label value."""
    true_labels: Tensor
    """float32 [len(BRANCHES), 1]."""

    def __init__(self, strength: float, device: torch.device, true_in_mixes: tuple[float, float] = (0.5, 0.5)) -> None:
        super().__init__()
        self.strength = strength
        self.register_buffer("counts", torch.zeros(len(BRANCHES), 256, device=device))
        true_labels = torch.tensor((1.0, 1.0, *true_in_mixes), device=device)[:, None]
        self.register_buffer("true_labels", true_labels, persistent=False)

    @torch.no_grad()
    def forward(self, branches: list[Branch]) -> list[Branch]:
        """The branches with their `logit_bias`; those without a label or with another network stay as they are."""
        ours = [b for b in branches if b.label is not None and b.network is None]
        seen = torch.zeros_like(self.counts)
        for branch in ours:
            if branch.name in BRANCHES:
                seen[BRANCHES.index(branch.name)] += self._count(branch)
        pseudo, part = self._bias_of_pseudo_labels(), self._put_back(self._labeled_shares())
        self.counts.mul_(DECAY).add_(seen)
        strengths = self.true_labels + (1.0 - self.true_labels) * part
        biases = dict(zip(BRANCHES, strengths * self._bias(_shares(self.counts)), strict=True))
        biases[PSEUDO_LABELED] = pseudo
        known = {id(b) for b in ours}
        return [b._replace(logit_bias=biases.get(b.name)) if id(b) in known else b for b in branches]

    @torch.no_grad()
    def prior(self, logits: Tensor) -> Tensor:
        """Logits [B,K,h,w] of a network that was trained so, with that part of the rarity put back with which
        pseudo-labels are drawn."""
        return logits + self._bias_of_pseudo_labels()[: logits.shape[1], None, None].to(logits.dtype)

    def _bias_of_pseudo_labels(self) -> Tensor:
        """float32 [256]."""
        shares = self._labeled_shares()
        return self._put_back(shares) * self._bias(shares)

    def _labeled_shares(self) -> Tensor:
        """float32 [256]: of the true labels in the steps before, source and target counting alike."""
        shares = _shares(self.counts[:2])
        known = (shares.sum(1, keepdim=True) > 0).float()
        return (shares * known).sum(0) / known.sum().clamp(min=1.0)

    @staticmethod
    def _put_back(shares: Tensor) -> Tensor:
        """float32 []: the part of the rarity that pseudo-labels have, the chance that two pixels are of one class."""
        return shares.square().sum()

    def _bias(self, shares: Tensor) -> Tensor:
        return self.strength * shares.clamp(min=LEAST_SHARE).log()

    def _count(self, branch: Branch) -> Tensor:
        """float32 [256]: pixels by label value, each by its loss weight; ignored ones are none."""
        assert branch.label is not None
        label = branch.label[:, ::STRIDE, ::STRIDE].reshape(-1).long()
        if branch.weight is None:
            parts = torch.full_like(label, _WEIGHT_UNITS)
        else:
            parts = (branch.weight[:, ::STRIDE, ::STRIDE].reshape(-1) * _WEIGHT_UNITS).long()
        counts = torch.zeros(256, dtype=torch.int64, device=label.device).scatter_add_(0, label, parts)
        counts[IGNORE_INDEX].fill_(0)
        return counts / _WEIGHT_UNITS


def _shares(counts: Tensor) -> Tensor:
    """Of each row; a row of zeros stays one."""
    return counts / counts.sum(1, keepdim=True).clamp(min=1e-12)
