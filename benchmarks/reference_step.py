"""The training step in plain PyTorch, as the public code of the field writes it: what `bench_step` compares with.

`ReferenceStep(best=False)` follows DACS and DAFormer: float32 in NCHW, a forward and a backward for each branch,
`torch.unique` to find the classes, masks class by class, logits and softmax at full size, losses read with `.item()` in
every step, an optimiser and an EMA that go through the parameters one by one. `best=True` is the same mathematics with
what PyTorch offers: autocast, channels-last, fused optimiser, foreach EMA, nothing read back.

Both take their random draws as iidm does, in the same order, so that a step is the same step: same batch, same weights,
same losses within rounding (tests/method/test_reference_step.py). The paper's recipe, mixes onto one unlabeled image in
two streams.
"""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iidm.config import Config
from iidm.kernels.blur.reference import blur
from iidm.kernels.jitter.reference import JitterParams, jitter
from iidm.method.augment import draw_strong
from iidm.models import parameter_groups
from iidm.models.deeplab import DeepLabV2Head
from iidm.models.depthwise import DepthwiseConv2d
from iidm.models.norm import BatchNorm2d
from iidm.models.pointwise import PointwiseConv2d
from iidm.types import MEAN_RGB, STD_RGB, LabeledImages, TrainBatch

IGNORED = 255
BLUR_RADIUS = 5


class PlainNorm(nn.BatchNorm2d):
    """PyTorch's BatchNorm with its counter, followed by the addition and the activation that iidm's layer fuses."""

    def __init__(self, like: BatchNorm2d) -> None:
        super().__init__(like.num_features, like.eps, like.momentum)
        self.activation = like.activation
        counter = {"num_batches_tracked": torch.zeros((), dtype=torch.long)}
        self.load_state_dict({**like.state_dict(), **counter})

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """As iidm.models.norm.BatchNorm2d, in three steps."""
        x = super().forward(x)
        if residual is not None:
            x = x + residual
        if self.activation == "none":
            return x
        return F.relu(x, inplace=True) if self.activation == "relu" else F.relu6(x, inplace=True)


def plain_network(network: nn.Module) -> nn.Module:
    """A copy of a network of iidm.models whose norm layers and convolutions, the head's too, are PyTorch's."""
    plain = copy.deepcopy(network)
    for module in list(plain.modules()):
        if isinstance(module, DepthwiseConv2d | PointwiseConv2d):
            module.__class__ = nn.Conv2d  # type: ignore[assignment]
        if isinstance(module, DeepLabV2Head):
            module.wide_to_few = False
        for name, child in module.named_children():
            if isinstance(child, BatchNorm2d):
                setattr(module, name, PlainNorm(child).to(next(child.parameters()).device))
    return plain


class MixedImages(NamedTuple):
    """One stream's mixes."""

    image: Tensor
    label: Tensor
    weight: Tensor


def drawn_class_by_class(label: Tensor, keys: Tensor) -> Tensor:
    """Where the half of each image's classes lies whose keys are the least: label [B,H,W], keys [B,256] -> [B,H,W].

    As DACS has it: how many classes there are is read on the host.
    """
    masks = []
    for own, key in zip(label, keys, strict=True):
        classes = torch.unique(own)
        classes = classes[classes != IGNORED]
        chosen = classes[key[classes].argsort()[: (len(classes) + 1) // 2]]
        masks.append((own.unsqueeze(0) == chosen.view(-1, 1, 1)).sum(0).bool())
    return torch.stack(masks)


def drawn_on_the_device(label: Tensor, keys: Tensor) -> Tensor:
    """The same of all images at once, with nothing read."""
    values = label.flatten(1)
    present = torch.zeros_like(keys, dtype=torch.bool).scatter_(1, values, True)
    present[:, IGNORED] = False
    rank = keys.masked_fill(~present, torch.inf).argsort(1).argsort(1)
    chosen = present & (rank < (present.sum(1, keepdim=True) + 1) // 2)
    return chosen.gather(1, values).view_as(label)


class ReferenceStep:
    """Trains a copy of a network; calling it trains one step and returns its total loss.

    Args:
        network: of iidm.models, copied twice: student and teacher.
        config: the paper's recipe.
        generator: of the device.
        best: as the head of this file says.
        amp_dtype: autocast's, used where `best`.
    """

    def __init__(
        self,
        network: nn.Module,
        config: Config,
        generator: torch.Generator,
        *,
        best: bool,
        amp_dtype: torch.dtype | None = None,
    ) -> None:
        layout = torch.channels_last if best else torch.contiguous_format
        self.config, self.generator, self.best, self.layout = config, generator, best, layout
        self.student = plain_network(network).to(memory_format=layout)  # type: ignore[call-overload]
        self._adopt(self.student)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.amp_dtype = amp_dtype if best else None
        optim = config.optim
        groups = [
            {"params": group["params"], "lr": group["lr"], "weight_decay": group["weight_decay"]}
            for group in parameter_groups(self.student, optim.lr, optim.head_lr_mult, optim.weight_decay)
        ]
        self.optimizer = torch.optim.AdamW(groups, betas=optim.betas, foreach=False, fused=best)
        self.logged: dict[str, float] = {}

    def __call__(self, batch: TrainBatch) -> Tensor:
        """Train one step."""
        assert batch.source is not None and batch.target is not None and batch.unlabeled is not None
        self.student.train()
        self.teacher.train()
        label, quality = self._pseudo_label(batch.unlabeled)
        inter = self._mix(batch.source, batch.unlabeled, label, quality)
        intra = self._mix(batch.target, batch.unlabeled, label, quality)
        loss = self.config.loss
        branches = {
            "source": (self._normalized(batch.source.image), batch.source.label, None, loss.source_weight),
            "target": (self._normalized(batch.target.image), batch.target.label, None, loss.target_weight),
            "inter": (*inter, loss.inter_weight),
            "intra": (*intra, loss.intra_weight),
        }
        self.optimizer.zero_grad(set_to_none=self.best)
        total = torch.zeros((), device=label.device)
        for name, (image, truth, weight, factor) in branches.items():
            value = factor * self._loss(image, truth, weight)
            value.backward()
            total = total + value.detach() / truth.numel()
            if not self.best:
                self.logged[name] = value.item() / truth.numel()
        self.optimizer.step()
        self._follow(self.config.teacher.ema_decay)
        return total

    def _adopt(self, network: nn.Module) -> None:
        """Further layers to be put in place of iidm's."""

    def _blurred(self, image: Tensor, sigma: Tensor, enabled: Tensor) -> Tensor:
        return blur(image, sigma, enabled, BLUR_RADIUS)

    def _autocast(self) -> AbstractContextManager[None]:
        kind = self.generator.device.type
        context: AbstractContextManager[None] = torch.autocast(
            kind, dtype=self.amp_dtype, enabled=self.amp_dtype is not None
        )
        return context

    def _normalized(self, image: Tensor, params: JitterParams | None = None) -> Tensor:
        shape = (len(image), 3, *image.shape[1:3])
        out = torch.empty(shape, device=image.device).contiguous(memory_format=self.layout)
        jitter(image, params, MEAN_RGB, STD_RGB, out)
        return out

    @torch.no_grad()
    def _pseudo_label(self, unlabeled: Tensor) -> tuple[Tensor, Tensor]:
        with self._autocast():
            logits = self.teacher(self._normalized(unlabeled))
        full = F.interpolate(logits.float(), size=unlabeled.shape[1:3], mode="bilinear", align_corners=False)
        probability, label = torch.softmax(full, dim=1).max(dim=1)
        confident = probability > self.config.teacher.confidence_threshold
        return label, confident.float().mean((1, 2))

    @torch.no_grad()
    def _mix(self, labeled: LabeledImages, unlabeled: Tensor, pseudo: Tensor, quality: Tensor) -> MixedImages:
        keys = torch.rand(len(pseudo), 256, generator=self.generator, device=pseudo.device)
        strong = draw_strong(len(pseudo), self.config.augment, self.generator)
        mask = (drawn_on_the_device if self.best else drawn_class_by_class)(labeled.label.long(), keys)
        image = torch.where(mask.unsqueeze(-1), labeled.image, unlabeled)
        label = torch.where(mask, labeled.label.long(), pseudo)
        weight = quality.view(-1, 1, 1).expand(label.shape)
        image = self._normalized(image, strong.jitter)
        image = self._blurred(image, strong.sigma, strong.blurred).contiguous(memory_format=self.layout)
        return MixedImages(image, label, weight)

    def _loss(self, image: Tensor, label: Tensor, weight: Tensor | None) -> Tensor:
        with self._autocast():
            logits = self.student(image)
        full = F.interpolate(logits.float(), size=label.shape[1:], mode="bilinear", align_corners=False)
        pixels = F.cross_entropy(full, label.long(), ignore_index=IGNORED, reduction="none")
        return (pixels if weight is None else pixels * weight).sum()

    @torch.no_grad()
    def _follow(self, alpha: float) -> None:
        ours, theirs = list(self.teacher.parameters()), list(self.student.parameters())
        if self.best:
            torch._foreach_lerp_(ours, theirs, 1 - alpha)
            return
        for average, value in zip(ours, theirs, strict=True):
            average.data = alpha * average.data + (1 - alpha) * value.data
