"""The network with all that stands around it: from the pixels of an image to the ids of its classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iidm.config import SlidingWindow
from iidm.engine.windows import window_offsets
from iidm.models.cosine import CosineHead
from iidm.models.hrda import HRDANetwork
from iidm.models.network import Network
from iidm.types import MEAN_RGB, STD_RGB, UserError


@dataclass(frozen=True)
class Form:
    """What a file takes, how the network sees it, and what the file gives."""

    size: tuple[int, int] | None
    """(H, W) of the images; None: any."""
    seen: tuple[int, int] | None
    """(H, W) of a fixed size's images at training resolution; None where `size` is."""
    box: tuple[int, int] | None
    """(H, W) that images of any size are made to fit into, aspect ratio kept, before the network sees them; None: it
    sees them at their own size."""
    windows: SlidingWindow | None = None
    """In which the network sees an image; None: whole."""
    align_corners: bool = False
    """Convention of the upsampling of logits."""
    ids: tuple[int, ...] | None = None
    """Id of each class; None: its train id, which is its place."""
    confidence: bool = False
    """A second output: float32 [B,H,W], the largest class probability of each pixel."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return ("label", "confidence") if self.confidence else ("label",)


class Deployed(nn.Module):
    """uint8 [B,H,W,3] RGB -> uint8 [B,H,W] ids, and on wish float32 [B,H,W] confidence; what `iidm predict` does.

    Normalization, the resize to training resolution (bilinear, antialiased, in float32 and not rounded), the network,
    the upsampling of its logits to the image and argmax. Full-size logits are in memory: 4 bytes x classes x pixels.

    Args:
        network: becomes a part of this module, in evaluation mode and without gradients; half where `half` says so.
        half: the network computes in float16, what stands around it in float32.

    Raises:
        UserError: HRDA or windows for images of any size, as their number would depend on the image.
    """

    mean: Tensor
    std: Tensor
    ids: Tensor | None

    def __init__(self, network: Network, form: Form, *, half: bool = False) -> None:
        super().__init__()
        if form.size is None and (form.windows is not None or isinstance(network, HRDANetwork)):
            what = "An HRDA network sees an image" if form.windows is None else "The network sees an image"
            other = "" if form.windows is None or isinstance(network, HRDANetwork) else ", or whole ones: --mode whole"
            raise UserError(
                f"{what} in windows, whose number depends on the image's size, and a file has one number of them: give"
                f" the size of your images, as in --size 1080 1920 (H W){other}."
            )
        self.form, self.half_network = form, half
        # Plain memory order: a graph has no strides, and each change of order would become an operation in it.
        self.network = network.to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
        if half:
            self.network.half()
            if isinstance(network.head, CosineHead):  # it computes in float32 by itself
                network.head.float()
        for name, values in (("mean", MEAN_RGB), ("std", STD_RGB)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1))
        self.register_buffer("ids", None if form.ids is None else torch.tensor(form.ids, dtype=torch.uint8))
        self.requires_grad_(False)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """uint8 [B,H,W,3] -> (label uint8 [B,H,W],), or with float32 [B,H,W] confidence."""
        logits = self.logits(image)
        label = logits.argmax(1)
        found = label.to(torch.uint8) if self.ids is None else self.ids[label]
        if not self.form.confidence:
            return (found,)
        # The largest softmax value is exp(0) over the sum of exponentials shifted by the largest logit.
        return found, (logits - logits.amax(1, keepdim=True)).exp().sum(1).reciprocal()

    def logits(self, image: Tensor) -> Tensor:
        """uint8 [B,H,W,3] -> float32 [B,K,H,W]."""
        size = image.shape[1:3]
        x = (image.permute(0, 3, 1, 2).float() - self.mean) / self.std
        seen = self._seen(size)
        if seen is not None:
            x = F.interpolate(x, size=seen, mode="bilinear", antialias=True)
        x = x.half() if self.half_network else x
        low = self.network(x).float() if self.form.windows is None else self._in_windows(x, self.form.windows)
        return self._resized(low, size)

    def _seen(self, size: Sequence[int]) -> tuple[int, int] | None:
        """The size that the network sees; None: the image's own."""
        form = self.form
        if form.size is None:
            return None if form.box is None else fitting_size(form.box, size[0], size[1])
        return None if form.seen == form.size else form.seen

    def _in_windows(self, x: Tensor, windows: SlidingWindow) -> Tensor:
        """float32 [B,K,h,w] of images of a fixed size: engine/windows.py's, all windows in one call of the network."""
        size = [int(side) for side in x.shape[2:]]
        window = [min(pair) for pair in zip(size, windows.size, strict=True)]
        tops, lefts = (window_offsets(*axis) for axis in zip(size, window, windows.stride, strict=True))
        corners = [(top, left) for top in tops for left in lefts]
        crops = torch.cat([x[:, :, y : y + window[0], x0 : x0 + window[1]] for y, x0 in corners])
        parts = self._resized(self.network(crops).float(), window).unflatten(0, (len(corners), x.shape[0])).unbind(0)
        total, count = torch.zeros(()), torch.zeros(*size)
        for part, (y, x0) in zip(parts, corners, strict=True):
            below, right = size[0] - y - window[0], size[1] - x0 - window[1]
            total = total + F.pad(part, (x0, right, y, below))
            count[y : y + window[0], x0 : x0 + window[1]] += 1
        return total / count

    def _resized(self, logits: Tensor, size: Sequence[int]) -> Tensor:
        return F.interpolate(logits, tuple(size), mode="bilinear", align_corners=self.form.align_corners)


def fitting_size(box: tuple[int, int], height: int, width: int) -> tuple[int, int]:
    """(H, W) of an image that is made to fit into `box`: `fit_into` of the data room in whole numbers.

    A graph has no Python floats: what is rounded there is divided here, and the smaller of two scales is the smaller of
    two rounded sizes. Sizes may be symbols of a graph that is being traced.
    """
    longest, shortest = torch.sym_max(height, width), torch.sym_min(height, width)

    def fitted(side: int) -> int:
        by_long = (2 * side * max(box) + longest) // (2 * longest)
        by_short = (2 * side * min(box) + shortest) // (2 * shortest)
        size: int = torch.sym_max(1, torch.sym_min(by_long, by_short))
        return size

    return fitted(height), fitted(width)
