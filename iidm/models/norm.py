"""BatchNorm without the batch counter."""

from __future__ import annotations

from typing import Any

from torch import nn


class BatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` with a fixed momentum and no `num_batches_tracked`.

    The counter matters only for cumulative averages (momentum None); its increments are one launch per layer
    and forward, 104 in a ResNet-101. Checkpoints that hold it load as they are. Every backbone takes its norm
    layers from here, so statistics per branch of a merged batch have this one place to be added.

    Args:
        channels: C of the input [B,C,h,w], of any float dtype; parameters and statistics are float32 also
            under autocast.
        eps: added to the variance; PyTorch's, torchvision's and OpenMMLab's value.
        momentum: weight of the newest batch in the running statistics; the same origin.
    """

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__(channels, eps=eps, momentum=momentum)
        self.register_buffer("num_batches_tracked", None)

    def reset_running_stats(self) -> None:
        """Mean 0 and variance 1 again; the parent's own would also reset the counter."""
        if self.running_mean is not None and self.running_var is not None:
            self.running_mean.zero_()
            self.running_var.fill_(1)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        state_dict.pop(prefix + "num_batches_tracked", None)
        # Past the parent's own, which would demand the counter of files that lack it.
        nn.Module._load_from_state_dict(self, state_dict, prefix, *args)
