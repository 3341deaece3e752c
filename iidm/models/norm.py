"""BatchNorm that knows branches, with the addition and the activation that follow it, and without the batch counter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from iidm.kernels.batch_norm import Activation, batch_norm


class BatchNorm2d(nn.BatchNorm2d):
    """activation(BatchNorm(x) + residual) in one op; no `num_batches_tracked`.

    The counter matters only for cumulative averages (momentum None); its increments are one launch per layer
    and forward, 104 in a ResNet-101. Checkpoints that hold it load as they are.

    Args:
        channels: C of the input [B,C,h,w], of any float dtype; parameters and statistics are float32 also
            under autocast.
        activation: what follows: `none`, `relu` or `relu6`.
        eps: added to the variance; PyTorch's, torchvision's and OpenMMLab's value.
        momentum: weight of the newest batch in the running statistics; the same origin.
    """

    def __init__(
        self, channels: int, activation: Activation = "none", *, eps: float = 1e-5, momentum: float = 0.1
    ) -> None:
        super().__init__(channels, eps=eps, momentum=momentum)
        self.activation: Activation = activation
        self.branch_sizes: tuple[int, ...] | None = None
        self.updates_running = True
        self.register_buffer("num_batches_tracked", None)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """[B,C,h,w] -> the same; in training with the statistics of each branch (see `branches`)."""
        if self.training:
            running = (self.running_mean, self.running_var) if self.updates_running else (None, None)
            return batch_norm(
                x,
                self.weight,
                self.bias,
                *running,
                residual=residual,
                activation=self.activation,
                groups=self.branch_sizes,
                momentum=self.momentum or 0.0,
                eps=self.eps,
            )
        y = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        y = y if residual is None else y + residual
        if self.activation == "none":
            return y
        return F.relu(y) if self.activation == "relu" else F.relu6(y)

    def reset_running_stats(self) -> None:
        """Mean 0 and variance 1 again; the parent's own would also reset the counter."""
        if self.running_mean is not None and self.running_var is not None:
            self.running_mean.zero_()
            self.running_var.fill_(1)

    def extra_repr(self) -> str:
        """As the parent's, with the activation."""
        return f"{super().extra_repr()}, activation={self.activation}"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        state_dict.pop(prefix + "num_batches_tracked", None)
        # Past the parent's own, which would demand the counter of files that lack it.
        nn.Module._load_from_state_dict(self, state_dict, prefix, *args)


def norms_of(network: nn.Module) -> list[BatchNorm2d]:
    """Every norm layer of a network."""
    return [module for module in network.modules() if isinstance(module, BatchNorm2d)]


@contextmanager
def branches(network: nn.Module, sizes: Sequence[int]) -> Iterator[None]:
    """Inside, a training forward of `network` sees a batch of several branches: each is normalized by its own
    statistics, and the running ones are updated branch by branch, as if each had been a forward of its own.

    Args:
        network: its BatchNorm layers must be those of this module; others would mix the statistics.
        sizes: images of each branch, in order.

    Raises:
        TypeError: a norm layer of another class.
    """
    norms = norms_of(network)
    others = [m for m in network.modules() if isinstance(m, _BatchNorm) and not isinstance(m, BatchNorm2d)]
    if others:
        raise TypeError(
            "Branches are merged through the norm layers of iidm.models.norm; this network has"
            f" {len(others)} of {type(others[0]).__module__}. Use --step.branches sequential."
        )
    for norm in norms:
        norm.branch_sizes = tuple(sizes)
    try:
        yield
    finally:
        for norm in norms:
            norm.branch_sizes = None


class Stage(nn.Sequential):
    """Blocks in a row; with `recompute` the backward computes each block's inner activations a second time instead of
    keeping them: about a third more arithmetic, and what is kept is one tensor a block. Blocks must draw no random
    numbers; what is drawn is given to them (stochastic.py)."""

    recompute = False

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,h,w] through every block."""
        for block in self:
            x = self.through(block, x)
        return x

    def outputs(self, x: Tensor) -> Iterator[Tensor]:
        """What each block makes of [B,C,h,w], one after the other."""
        for block in self:
            x = self.through(block, x)
            yield x

    def through(self, block: nn.Module, x: Tensor, *given: Any) -> Tensor:
        """block(x, *given), to be recomputed where that is asked for."""
        if self.recompute and torch.is_grad_enabled():
            return _recomputed(block, x, *given)
        y: Tensor = block(x, *given)
        return y


def set_recompute(network: nn.Module, recompute: bool) -> None:
    """Whether the stages of a network keep the inner activations of their blocks or compute them again."""
    for module in network.modules():
        if isinstance(module, Stage):
            module.recompute = recompute
        elif hasattr(module, "set_recompute"):  # of a backbone from elsewhere
            module.set_recompute(recompute)  # type: ignore[operator]


def _recomputed(block: nn.Module, x: Tensor, *given: Any) -> Tensor:
    """block(x) whose inner activations are computed again in the backward, where `branches` has ended: the second time
    happens with the branches of the first, and leaves the running statistics, which the first has updated."""
    norms = norms_of(block)
    sizes = [norm.branch_sizes for norm in norms]

    @contextmanager
    def again() -> Iterator[None]:
        for norm, own in zip(norms, sizes, strict=True):
            norm.branch_sizes, norm.updates_running = own, False
        try:
            yield
        finally:
            for norm in norms:
                norm.branch_sizes, norm.updates_running = None, True

    contexts = (nullcontext(), again())
    y: Tensor = checkpoint(block, x, *given, use_reentrant=False, preserve_rng_state=False, context_fn=lambda: contexts)
    return y
