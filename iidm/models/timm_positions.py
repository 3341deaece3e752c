"""Tables of positions that a backbone of timm makes on the CPU, made once for each size of images."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

ON_THE_CPU = ("RotaryEmbeddingDinoV3",)
"""Classes of timm's layers (DINOv3's rotary embedding) that do so in every forward."""
MOST_SIZES = 8
"""Tables that a layer keeps, those of training first. A captured graph keeps their addresses: none is ever given up."""


def keep_positions(model: nn.Module) -> None:
    """Let such layers keep their tables, if nothing in them is drawn.

    A GPU would wait for the copy in every forward, and a step with such a copy cannot be captured in a CUDA graph.
    """
    for module in model.modules():
        kind: Any = type(module)
        if kind.__name__ in ON_THE_CPU and not getattr(module, "aug_active", True):
            module.__class__ = _keeping(kind)


@cache
def _keeping(kind: Any) -> Any:
    class Keeping(kind):
        def get_embed(self, shape: Any = None, *args: Any, **options: Any) -> Tensor:
            if shape is None or torch.compiler.is_compiling():
                found: Tensor = super().get_embed(shape, *args, **options)
                return found
            kept: dict[Any, Tensor] = self.__dict__.setdefault("_kept", {})
            key = tuple(shape), self.periods.device, self.periods.dtype, args, tuple(options.items())
            if key in kept:
                return kept[key]
            with torch.inference_mode(False), torch.no_grad():  # a backward takes no tensor of that mode
                found = super().get_embed(shape, *args, **options)
            if len(kept) < MOST_SIZES:
                kept[key] = found
            return found

    Keeping.__name__, Keeping.__qualname__ = kind.__name__, kind.__qualname__
    return Keeping
