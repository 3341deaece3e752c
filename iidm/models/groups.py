"""AdamW's parameter groups: backbone and head at two rates, weight decay and layers' rates where the network asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..config import OptimConfig
from .norm import Stage

NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm)
"""Norm layers by class. What has Norm in its class's name is one too: RMSNorm, timm's RmsNorm, GlobalResponseNorm."""


def optimizer_groups(networks: Mapping[str, nn.Module], optim: OptimConfig) -> list[dict[str, Any]]:
    """`parameter_groups` of all networks that a run trains; each group's name begins with that of its network."""
    groups = []
    for who, network in networks.items():
        own = parameter_groups(network, optim.lr, optim.head_lr_mult, optim.weight_decay, optim.layer_decay)
        groups += [{**group, "name": f"{who} {group['name']}".strip()} for group in own]
    return groups


def parameter_groups(
    network: nn.Module, lr: float, head_lr_mult: float, weight_decay: float, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """AdamW's groups, each trained parameter in one of them.

    The weight decay holds for all, biases too. A backbone whose `decays_norms` is False has none on its norm layers, as
    the published recipes of Transformers, and none on what its `undecayed` names.

    Args:
        network: what is trained; its `backbone`, and all else as the head.
        lr: learning rate of the backbone's last layer.
        head_lr_mult: the head's is `lr * head_lr_mult`.
        weight_decay: of both.
        layer_decay: factor of the learning rate from each layer of the backbone to the one before it (BEiT, arXiv
            2106.08254); 1: all have the same.
    """
    backbone = cast(nn.Module, network.backbone)
    layers_of = cast("Callable[[], list[list[str]]] | None", getattr(backbone, "layers", None))
    names = [name for name, _ in backbone.named_parameters()]
    layers = [names] if layer_decay == 1 else (layers_of() if layers_of else layers_by_blocks(backbone))
    undecayed = _undecayed(backbone)
    groups = []
    for depth, layer in enumerate(layers):
        rate = lr * layer_decay ** (len(layers) - 1 - depth)
        for kind, decay in (("", weight_decay), (" undecayed", 0.0)):
            params = [backbone.get_parameter(name) for name in layer if (name in undecayed) == bool(kind)]
            params = [parameter for parameter in params if parameter.requires_grad]
            if params:
                title = "backbone" if len(layers) == 1 else f"backbone {depth}"
                groups.append({"name": title + kind, "params": params, "lr": rate, "weight_decay": decay})
    params = [parameter for name, parameter in network.named_parameters() if not name.startswith("backbone.")]
    groups.append({"name": "head", "params": params, "lr": lr * head_lr_mult, "weight_decay": weight_decay})
    return groups


def layers_by_blocks(backbone: nn.Module) -> list[list[str]]:
    """Names of the parameters by layer, from the image on: what comes before the first block, then a layer for each
    block of each `Stage`. What stands between two blocks counts with the second, what follows the last with it."""
    blocks = [
        f"{name}.{child}."
        for name, module in backbone.named_modules()
        if isinstance(module, Stage)
        for child, _ in module.named_children()
    ]
    layers: list[list[str]] = [[]]
    waiting: list[str] = []
    current = None
    for name, _ in backbone.named_parameters():
        block = next((block for block in blocks if name.startswith(block)), None)
        if block is None:
            (layers[0] if current is None else waiting).append(name)
            continue
        if block != current:
            layers.append(waiting)
            waiting, current = [], block
        layers[-1].append(name)
    layers[-1] += waiting
    return [layer for layer in layers if layer]


def _undecayed(backbone: nn.Module) -> set[str]:
    if getattr(backbone, "decays_norms", True):
        return set()
    found = {
        f"{name}.{own}"
        for name, module in backbone.named_modules()
        if isinstance(module, NORMS) or "Norm" in type(module).__name__
        for own, _ in module.named_parameters(recurse=False)  # a block may be named for the norm layer in it
    }
    return found | set(cast("Sequence[str]", getattr(backbone, "undecayed", ())))
