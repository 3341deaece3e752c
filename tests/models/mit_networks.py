"""Small Mix Transformers for tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from iidm.models.mit import Size

SMALL = Size((12, 24, 60, 96), (2, 1, 2, 1))


def channels_last(x: Any) -> Any:
    """A tensor or a network."""
    if isinstance(x, Tensor):
        return x.contiguous(memory_format=torch.channels_last)
    return x.to(memory_format=torch.channels_last)
