"""Logit adjustment: the network learns what an image shows apart from how common each class is (Menon et al., arXiv
2007.07314).

A few labeled images hold few pixels of thin and rare things, and cross-entropy learns that rarity: a network that was
trained on twenty street images finds less than half of the pedestrians' pixels. Its pseudo-labels lack the others, and
the mixes teach that on. With strength * log(share of the class) added to the logits in the loss alone, the rarity lies
in what is added, and the network's own logits, which label images, are free of it. Each branch has shares of its own,
so that a source with other shares than the target, or a class that is sampled often, leaves no trace either.

In a mix the pasted half has true labels, to which all of this holds. The other half was labeled by logits that are
adjusted already: a student that learned them with the whole bias would be adjusted twice, and more with every
round. A mix has one bias for all of its pixels, so it has half of it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from iidm.types import IGNORE_INDEX

from .losses import Branch

BRANCHES = ("source", "target", "inter", "intra")
STRENGTHS = (1.0, 1.0, 0.5, 0.5)
"""Of the branches: a mix is adjusted by half, see above. On StreetScenes with 5 labels IIDM has 63.7 so, 61.3 with the
whole bias in the mixes and 62.4 with none (benchmarks/NOTES.md)."""
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

    A batch is adjusted by what was counted in the steps before and in itself. What the batches of a step have counted
    comes together in `settle`, as a mean: they may lie on several devices, where none sees the others.

    Args:
        strength: 0 is none; 1 teaches the network as if all classes were equally common.
        device: of the labels.
    """

    counts: Tensor
    """float32 [len(BRANCHES), 256]: weighted pixels of each label value."""
    strengths: Tensor
    """float32 [len(BRANCHES), 1]."""

    def __init__(self, strength: float, device: torch.device) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(len(BRANCHES), 256, device=device))
        strengths = strength * torch.tensor(STRENGTHS, device=device)[:, None]
        self.register_buffer("strengths", strengths, persistent=False)
        self._seen: list[Tensor] = []

    @torch.no_grad()
    def forward(self, branches: list[Branch]) -> list[Branch]:
        """The branches with their `logit_bias`; those without a label or with another network stay as they are."""
        ours = [b for b in branches if b.label is not None and b.name in BRANCHES and b.network is None]
        seen = torch.zeros_like(self.counts)
        for branch in ours:
            seen[BRANCHES.index(branch.name)] += self._count(branch)
        self._seen.append(seen)
        counts = self.counts * DECAY + seen
        shares = counts / counts.sum(1, keepdim=True).clamp(min=1e-12)
        biases = self.strengths * shares.clamp(min=LEAST_SHARE).log()
        known = {id(b) for b in ours}
        return [b._replace(logit_bias=biases[BRANCHES.index(b.name)]) if id(b) in known else b for b in branches]

    @torch.no_grad()
    def settle(self) -> None:
        """End a step: what its batches have counted belongs to the steps before from now on."""
        if self._seen:
            self.counts.mul_(DECAY).add_(torch.stack(self._seen).mean(0))
            self._seen = []

    def forget_batches(self) -> None:
        """What a step has counted that was given up half-way: its tensors may hold nothing."""
        self._seen = []

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
