"""Networks: a backbone by name, a head by name, and where pretrained weights come from."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from functools import partial
from typing import cast

from torch import nn

from ..config import Config
from ..types import UserError
from .cosine import CosineHead
from .daformer import DAFormerHead
from .deeplab import DeepLabV2Head
from .depthwise import adopt_dilated
from .groups import optimizer_groups, parameter_groups
from .head import Head, Level
from .hrda import HRDANetwork
from .mit import SIZES, mix_transformer
from .mobilenet import MobileNetV2
from .network import Network
from .norm import set_recompute
from .resnet import STAGES, resnet18, resnet50, resnet101
from .segformer import SegFormerHead
from .timm_backbone import TimmBackbone
from .weights import load_pretrained

__all__ = [
    "BACKBONES",
    "HEADS",
    "Network",
    "build_network",
    "load_pretrained",
    "optimizer_groups",
    "parameter_groups",
    "random_network",
    "set_recompute",
]

BACKBONES: dict[str, Callable[[int], nn.Module]] = {
    "resnet18": partial(resnet18, deep_stem=False),
    "resnet50": partial(resnet50, deep_stem=False),
    "resnet101": partial(resnet101, deep_stem=False),
    "resnet18-v1c": partial(resnet18, deep_stem=True),
    "resnet50-v1c": partial(resnet50, deep_stem=True),
    "resnet101-v1c": partial(resnet101, deep_stem=True),
    "mobilenet_v2": lambda output_stride: MobileNetV2(output_stride=output_stride),
    **{name: partial(mix_transformer, name) for name in SIZES},
}
"""Backbone name -> builder, called with the output stride; what it builds says its `levels`, and returns a map for
each, from fine to coarse."""

HEADS: dict[str, Callable[[Sequence[Level], int, tuple[int, ...], float], Head]] = {
    "deeplabv2": lambda levels, classes, dilations, dropout: DeepLabV2Head(*levels[-1], classes, dilations, dropout),
    "cosine": lambda levels, classes, dilations, dropout: CosineHead(*levels[-1], classes, dropout),
    "daformer": lambda levels, classes, dilations, dropout: DAFormerHead(levels, classes, dropout),
    "segformer": lambda levels, classes, dilations, dropout: SegFormerHead(levels, classes, dropout),
}
"""Head name -> builder, called with the backbone's levels, the classes, the dilations of `deeplabv2` and dropout."""


def build_network(
    backbone: str,
    num_classes: int,
    *,
    output_stride: int = 8,
    head: str = "deeplabv2",
    dilations: tuple[int, ...] = (6, 12),
    dropout: float = 0.0,
    drop_path: float | None = None,
    crop_size: tuple[int, int] | None = None,
    hrda: bool = False,
) -> Network:
    """A segmentation network with a random start.

    Args:
        backbone: a name of BACKBONES, or `timm:` and a name of timm's.
        num_classes: K, 2 to 255.
        output_stride: image pixels per cell of the backbone's deepest level, for those that can choose it: 8, 16 or 32.
        head: a name of HEADS, or `auto`: `segformer` where all levels have one stride (a plain ViT), else `daformer`.
        dilations: of the DeepLabV2 head, in cells of its input.
        dropout: chance that the head drops a channel, 0 <= dropout < 1.
        drop_path: stochastic depth of the backbone's deepest block; None: what is usual for the backbone.
        crop_size: (H, W) of the training crops; an HRDA network needs it, backbones of timm are checked to see it, and
            other sizes.
        hrda: build an HRDA network (hrda.py).

    Raises:
        UserError: a backbone or head that does not exist (with the nearest name), an output stride that no
            backbone has, a number of classes, dilations or a dropout out of range, crops that a backbone of timm
            does not see.
    """
    if not backbone.startswith("timm:"):
        _check_known("backbone", backbone, BACKBONES)
    if head != "auto":
        _check_known("head", head, HEADS)
    if not 2 <= num_classes <= 255:
        raise UserError(f"A network needs 2 to 255 classes, not {num_classes}.")
    if not dilations or min(dilations) < 1:
        raise UserError(f"The head needs one dilation or more, each >= 1, not {dilations} (--model.dilations).")
    if not 0 <= dropout < 1:
        raise UserError(f"The head's dropout must be >= 0 and < 1, not {dropout} (--model.dropout).")
    # Backbones that cannot choose it, and timm, say nothing of it.
    if output_stride not in STAGES:
        raise UserError(f"A network has output stride 8, 16 or 32, not {output_stride} (--model.output-stride).")
    body = _build_backbone(backbone, output_stride, drop_path)
    if crop_size is not None and isinstance(body, TimmBackbone):
        near = body.fitting(crop_size)
        if near != crop_size:
            raise UserError(
                f"Crops of {crop_size[0]}x{crop_size[1]} do not divide into the cells of {backbone}: give"
                f" --data.crop-size {near[0]} {near[1]}."
            )
        # HRDA's backbone sees halves of crops, and crops at half their resolution.
        seen = (crop_size[0] // 2, crop_size[1] // 2) if hrda else crop_size
        body.require_sizes(seen, whole_cells=hrda)
    levels = cast("tuple[Level, ...]", body.levels)
    if head == "auto":
        head = "segformer" if len({level.stride for level in levels}) == 1 else "daformer"
    top = HEADS[head](levels, num_classes, dilations, dropout)
    for part in (body, top):
        adopt_dilated(part)
    if not hrda:
        return Network(body, top)
    assert crop_size is not None, "HRDA is built for one size of crops"
    read = levels if top.stride == levels[0].stride else levels[-1:]
    return HRDANetwork(body, top, SegFormerHead(read, num_classes, dropout), crop_size)


def random_network(config: Config, num_classes: int) -> Network:
    """The configured network before any weights are loaded."""
    model = config.model
    return build_network(
        model.backbone,
        num_classes,
        output_stride=model.output_stride,
        head=model.head_by_name,
        dilations=model.dilations,
        dropout=model.dropout,
        drop_path=model.drop_path,
        crop_size=config.data.crop_size,
        hrda=model.hrda,
    )


def _build_backbone(name: str, output_stride: int, drop_path: float | None) -> nn.Module:
    if name.startswith("timm:"):
        return TimmBackbone(name.removeprefix("timm:"), output_stride, drop_path or 0.0)
    build = BACKBONES[name]
    if "drop_path" in inspect.signature(build).parameters:
        return build(output_stride, **({} if drop_path is None else {"drop_path": drop_path}))
    if drop_path:
        raise UserError(f"{name} has no stochastic depth; leave --model.drop-path out.")
    return build(output_stride)


def _check_known(kind: str, name: str, known: Iterable[str]) -> None:
    names = list(known)
    if name not in names:
        near = get_close_matches(name.lower(), names, n=1, cutoff=0.3)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UserError(f"There is no {kind} {name!r}.{hint} Known: {', '.join(names)}.")
