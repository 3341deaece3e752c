"""BatchNorm statistics of the images that a network is for.

In training BatchNorm normalizes each branch by its own batch, and its running statistics, which evaluation uses, become
a mixture of all branches in which the last one counts most. Where the branches are different domains, no image looks
like the mixture. So they are estimated anew, on plain images of the one domain that matters (AdaBN, Li et al., arXiv
1603.04779; "precise" statistics, Wu and Johnson, arXiv 2105.07576).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Buffers = dict[str, dict[str, Tensor]]
"""By network, tensors by their names in its state dict."""


class NormStatistics:
    """Puts the BatchNorm statistics of given images into networks, for a while or for good.

    Args:
        batches: images uint8 [B,H,W,3], all of one size, plain. Empty: nothing is ever changed.
        normalize: uint8 [B,H,W,3] -> float [B,3,H,W].
        amp_dtype: of autocast; None: float32.
    """

    def __init__(
        self, batches: Sequence[Tensor], normalize: Callable[[Tensor], Tensor], amp_dtype: torch.dtype | None
    ) -> None:
        self.batches, self.normalize, self.amp_dtype = batches, normalize, amp_dtype

    @contextmanager
    def applied(self, networks: Mapping[str, nn.Module], *, keep: bool = False) -> Iterator[Buffers]:
        """Inside, the running statistics of the networks are those of the images.

        Those of before are put back in place afterwards, bit for bit, so that nothing which reads them in training (a
        captured graph, a teacher with running statistics) sees the difference.

        Args:
            keep: leave those of the images in the networks, of which no step follows.

        Yields: what was there before, as copies; empty where nothing is changed.
        """
        before: Buffers = {}
        if self.batches:
            for name, network in networks.items():
                if copies := {key: value.clone() for key, value in running_statistics(network).items()}:
                    before[name] = copies
        try:
            for name in before:
                self._estimate(networks[name])
            yield before
        finally:
            if not keep:
                for name, copies in before.items():
                    for key, value in running_statistics(networks[name]).items():
                        value.copy_(copies[key])

    @torch.no_grad()
    def _estimate(self, network: nn.Module) -> None:
        """Mean and variance over all batches that a layer sees: a batch's own variance, and that of the batches' means.

        A network may see an image batch as several (HRDA's two scales): as many, and as often, as in training, where
        each had its own statistics.
        """
        look: Callable[[Tensor, torch.Generator], object] | None = getattr(network, "look_as_in_training", None)
        generator = torch.Generator(self.batches[0].device).manual_seed(0)
        norms = _norms(network)
        modes = [(module, module.training) for module in network.modules()]
        momenta = [norm.momentum for norm in norms]
        network.eval()  # dropout stays off
        for norm in norms:
            norm.train()
            norm.momentum = 1.0  # what is kept is the newest batch's
        found: dict[nn.Module, list[tuple[Tensor, ...]]] = {norm: [] for norm in norms}

        def keep(norm: nn.Module, *_: object) -> None:
            assert isinstance(norm, _BatchNorm)
            found[norm].append(tuple(value.clone() for value in _running(norm)))

        hooks = [norm.register_forward_hook(keep) for norm in norms]
        try:
            for batch in self.batches:
                image = self.normalize(batch)
                with torch.autocast(image.device.type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None):
                    network(image) if look is None else look(image, generator)
        finally:
            for hook in hooks:
                hook.remove()
            for module, training in modes:
                module.training = training
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
        for norm in norms:
            means, variances = (torch.stack(values) for values in zip(*found[norm], strict=True))
            running_mean, running_var = _running(norm)
            running_mean.copy_(means.mean(0))
            running_var.copy_(variances.mean(0) + means.var(0, correction=0))


def running_statistics(network: nn.Module) -> dict[str, Tensor]:
    """The buffers of every BatchNorm layer that keeps running statistics, by their names in the state dict."""
    layers = {id(norm) for norm in _norms(network)}
    return {
        f"{prefix}.{name}" if prefix else name: buffer
        for prefix, module in network.named_modules()
        if id(module) in layers
        for name, buffer in module.named_buffers(recurse=False)
    }


def _norms(network: nn.Module) -> list[_BatchNorm]:
    return [m for m in network.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]


def _running(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Running mean and variance [C] of a layer that keeps them."""
    assert norm.running_mean is not None and norm.running_var is not None
    return norm.running_mean, norm.running_var
