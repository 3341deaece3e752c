"""A step is a list of branches; each is one forward of a network and the loss of what comes out (paper eqs. 7-11)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from iidm.config import Normalizer
from iidm.kernels.cross_entropy import cross_entropy


class Output(NamedTuple):
    """What a network says about a branch's images, on the grid of its output stride."""

    logits: Tensor
    """[B,K,h,w]."""
    features: Tensor | None = None
    """[B,C,h,w], what the head classified; None where no term asks for it."""
    deepest: Tensor | None = None
    """[B,C',h',w'], the backbone's deepest level; with a head that reads that alone, `features`."""
    detail: Tensor | None = None
    """Logits [B,K,h'',w''] of the branch's window (HRDA); None for other networks."""

    def split(self, sizes: list[int]) -> list[Output]:
        """Those of so many images each."""
        parts = ([None] * len(sizes) if part is None else _split(part, sizes) for part in self)
        return [Output._make(own) for own in zip(*parts, strict=True)]


def _split(x: Tensor, sizes: list[int]) -> Sequence[Tensor]:
    """x.split(sizes) of [B,C,h,w]. Its backward fills what no loss has read with zeros that are not channels-last, and
    the sum would not be either: so channels-last ones are split as [B,h,w,C]."""
    if not x.is_contiguous(memory_format=torch.channels_last):
        return x.split(sizes)
    return [part.permute(0, 3, 1, 2) for part in x.permute(0, 2, 3, 1).split(sizes)]


Objective = Callable[[Output], Tensor]
"""A further term: a branch's output, float32 with features -> float32 scalar, a mean over what it counts."""


class Branch(NamedTuple):
    """One forward, one term of the loss or two."""

    name: str
    """The field of `Losses` that its cross-entropy fills: source, target, inter or intra."""
    image: Tensor
    """float [B,3,H,W] normalized, channels-last."""
    label: Tensor | None
    """uint8 [B,H,W]; None: no cross-entropy, the objective alone."""
    weight: Tensor | None
    """float32 [B,H,W], or None for 1."""
    loss_weight: float
    normalizer: Normalizer
    objective: Objective | None = None
    """A further term; it is logged as `Losses.auxiliary`."""
    objective_weight: float = 0.0
    network: nn.Module | None = None
    """Who sees the images, in place of the student."""
    box: Tensor | None = None
    """int64 [2], top and left of the window that an HRDA network sees at full resolution."""
    logit_bias: Tensor | None = None
    """float32 [K or more], added to the logits of each class in the cross-entropy alone (balance.py)."""
    class_weight: Tensor | None = None
    """float32 [K], what a pixel of each class weighs in the cross-entropy, beside `weight` (class_weights.py)."""


class Terms(NamedTuple):
    """The loss of a branch, not yet weighted: float32 scalars, None where there is no such term."""

    cross_entropy: Tensor | None
    auxiliary: Tensor | None

    def weighted(self, branch: Branch, share: float) -> Tensor:
        """What is minimised; `share` is the batch's part of the step, for terms that are means and not sums."""
        total = None
        if self.cross_entropy is not None:
            total = branch.loss_weight * (1.0 if branch.normalizer == "sum" else share) * self.cross_entropy
        if self.auxiliary is not None:
            term = branch.objective_weight * share * self.auxiliary
            total = term if total is None else total + term
        assert total is not None, "a branch has a label or an objective"
        return total

    def detach(self) -> Terms:
        """The values alone."""
        return Terms(*(None if term is None else term.detach() for term in self))


def branch_terms(
    out: Output,
    branch: Branch,
    *,
    align_corners: bool = False,
    detail: Branch | None = None,
    detail_weight: float = 0.0,
) -> Terms:
    """-sum w v[label] log softmax(upsampled logits)[label] over its normaliser, and the objective. w are the weights of
    pixels, v those of classes; the normaliser counts pixels, whatever they weigh.

    Args:
        detail: the branch within its box, for `out.detail`.
        detail_weight: its share of the cross-entropy; the whole image has the rest.
    """
    supervised = auxiliary = None
    if branch.label is not None:
        supervised = _cross_entropy(out.logits, branch, align_corners)
        if out.detail is not None and detail is not None and detail.label is not None:
            of_detail = _cross_entropy(out.detail, detail, align_corners)
            if branch.normalizer == "sum":  # of as many pixels as the whole has
                of_detail = of_detail * (branch.label.numel() / detail.label.numel())
            supervised = (1 - detail_weight) * supervised + detail_weight * of_detail
    if branch.objective is not None:
        with torch.autocast(out.logits.device.type, enabled=False):
            auxiliary = branch.objective(Output(*(None if part is None else part.float() for part in out)))  # type: ignore[arg-type]
    return Terms(supervised, auxiliary)


def _cross_entropy(logits: Tensor, branch: Branch, align_corners: bool) -> Tensor:
    assert branch.label is not None
    if branch.logit_bias is not None:  # before the upsampling, which leaves what is the same everywhere as it is
        logits = logits + branch.logit_bias[: logits.shape[1], None, None].to(logits.dtype)
    return cross_entropy(
        logits,
        branch.label,
        branch.weight,
        class_weight=branch.class_weight,
        normalizer=branch.normalizer,
        align_corners=align_corners,
    )


def per_pixel(loss: Tensor, branch: Branch) -> Tensor:
    """The loss as it is logged: a `sum` is divided by its pixels, so that the numbers of all recipes read alike."""
    assert branch.label is not None
    return loss / branch.label.numel() if branch.normalizer == "sum" else loss


def zero(device: torch.device) -> Tensor:
    """The value of a loss that is switched off."""
    return torch.zeros((), device=device)
