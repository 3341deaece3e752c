"""Networks: a backbone by name, the DeepLabV2 head, and where pretrained weights come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from difflib import get_close_matches
from functools import partial
from typing import Any, cast

from torch import Tensor, nn

from ..types import UserError
from . import norm
from .cosine import CosineHead
from .deeplab import DeepLabV2Head
from .mobilenet import MobileNetV2
from .norm import set_recompute
from .resnet import resnet18, resnet50, resnet101
from .weights import load_pretrained

__all__ = ["BACKBONES", "HEADS", "Network", "build_network", "load_pretrained", "parameter_groups", "set_recompute"]

BACKBONES: dict[str, Callable[[int], nn.Module]] = {
    "resnet18": partial(resnet18, deep_stem=False),
    "resnet50": partial(resnet50, deep_stem=False),
    "resnet101": partial(resnet101, deep_stem=False),
    "resnet18-v1c": partial(resnet18, deep_stem=True),
    "resnet50-v1c": partial(resnet50, deep_stem=True),
    "resnet101-v1c": partial(resnet101, deep_stem=True),
    "mobilenet_v2": lambda output_stride: MobileNetV2(output_stride=output_stride),
}
"""Backbone name -> builder, called with the output stride; what it builds says its `channels`."""

HEADS: dict[str, Callable[[int, int, tuple[int, ...], float], nn.Module]] = {
    "deeplabv2": DeepLabV2Head,
    "cosine": CosineHead,
}
"""Head name -> builder, called with channels, classes, dilations and dropout."""


class Network(nn.Module):
    """A backbone and a head. `output_stride` image pixels stand behind each cell of the logits."""

    def __init__(self, backbone: nn.Module, head: nn.Module, output_stride: int) -> None:
        super().__init__()
        self.backbone, self.head, self.output_stride = backbone, head, output_stride

    def branches(self, sizes: Sequence[int]) -> AbstractContextManager[None]:
        """A context whose training forwards see a batch of several branches of so many images each, every one of them
        normalized by its own statistics (see iidm.models.norm.branches)."""
        return norm.branches(self, sizes)

    def forward(self, image: Tensor) -> Tensor:
        """float [B,3,H,W] normalized -> logits [B,K,h,w], h = ceil(H / output_stride)."""
        return cast(Tensor, self.head(self.features(image)))

    def features(self, image: Tensor) -> Tensor:
        """float [B,3,H,W] normalized -> [B,C,h,w], what the head reads."""
        return cast(Tensor, self.backbone(image))


def build_network(
    backbone: str,
    num_classes: int,
    *,
    output_stride: int = 8,
    head: str = "deeplabv2",
    dilations: tuple[int, ...] = (6, 12),
    dropout: float = 0.0,
) -> Network:
    """A segmentation network with a random start.

    Args:
        backbone: a name of BACKBONES.
        num_classes: K, 2 to 255.
        output_stride: image pixels per cell of the logits: 8, 16 or 32.
        head: a name of HEADS.
        dilations: of the DeepLabV2 head, in cells of its input.
        dropout: chance that the head drops a channel, 0 <= dropout < 1.

    Raises:
        UserError: a backbone or head that does not exist (with the nearest name), an output stride that the
            backbone does not have, a number of classes, dilations or a dropout out of range.
    """
    _check_known("backbone", backbone, BACKBONES)
    _check_known("head", head, HEADS)
    if not 2 <= num_classes <= 255:
        raise UserError(f"A network needs 2 to 255 classes, not {num_classes}.")
    if not dilations or min(dilations) < 1:
        raise UserError(f"The head needs one dilation or more, each >= 1, not {dilations} (--model.dilations).")
    if not 0 <= dropout < 1:
        raise UserError(f"The head's dropout must be >= 0 and < 1, not {dropout} (--model.dropout).")
    body = BACKBONES[backbone](output_stride)
    return Network(body, HEADS[head](cast(int, body.channels), num_classes, dilations, dropout), output_stride)


def parameter_groups(network: Network, lr: float, head_lr_mult: float, weight_decay: float) -> list[dict[str, Any]]:
    """AdamW's groups, each parameter in one of them: backbone and head, at two learning rates.

    The weight decay holds for all, norm layers and biases too: the inherited recipe exempts them for
    Transformers only.

    Args:
        network: what is trained.
        lr: learning rate of the backbone.
        head_lr_mult: the head's is `lr * head_lr_mult`.
        weight_decay: of both.
    """
    parts = (("backbone", network.backbone, lr), ("head", network.head, lr * head_lr_mult))
    return [
        {"name": name, "params": list(part.parameters()), "lr": rate, "weight_decay": weight_decay}
        for name, part, rate in parts
    ]


def _check_known(kind: str, name: str, known: Iterable[str]) -> None:
    names = list(known)
    if name not in names:
        near = get_close_matches(name.lower(), names, n=1, cutoff=0.3)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UserError(f"There is no {kind} {name!r}.{hint} Known: {', '.join(names)}.")
