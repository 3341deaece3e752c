"""A state dict on its way through timm, which translates its names and resizes its position embeddings.

timm takes of a state dict what fits and says nothing of the rest: a ResNet's file leaves a ViT at its random start.
Here is checked what it has made of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from .fitting import is_head

Check = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], None]
"""Called with the tensors that a backbone needs and with what there is of them, both by timm's names; raises."""


def flat(name: str) -> str:
    """A parameter's name with _ for each dot: in a model that is cut up into levels, some dots have become that."""
    return name.replace(".", "_")


@contextmanager
def checked(kept: Collection[str], check: Check) -> Iterator[list[str]]:
    """Inside, a model that timm builds with weights loads those that the backbone keeps, after `check`.

    It is built and filled in one function of timm's, by a translation that has no name of its own; so its
    `load_state_dict` is watched.

    Args:
        kept: names of the tensors that are a part of the backbone, as timm's whole model has them.
        check: see `Check`.

    Yields: a list, filled with the names in timm's translation that the backbone has not.
    Raises: what `check` raises; RuntimeError where nothing was loaded.
    """
    left: list[str] = []
    loaded = False
    original = nn.Module.load_state_dict

    def watched(module: nn.Module, state: Mapping[str, Any], *args: Any, **options: Any) -> Any:
        nonlocal loaded
        if not hasattr(module, "pretrained_cfg"):  # which timm's models have before they are filled
            return original(module, state, *args, **options)
        # Some models keep a norm layer of their head, which no level has gone through.
        own = {
            key: value
            for key, value in module.state_dict().items()
            if key in kept and (key in state or not is_head(key.partition(".")[0]))
        }
        given = {key: state[key] for key in own if key in state}
        check(own, given)
        left.extend(key for key in state if key not in own and not key.endswith("num_batches_tracked"))
        loaded = True
        return original(module, given, strict=False)

    nn.Module.load_state_dict = watched  # type: ignore[assignment, method-assign]
    try:
        yield left
    finally:
        nn.Module.load_state_dict = original  # type: ignore[method-assign]
    if not loaded:
        raise RuntimeError("timm loaded nothing")


def in_one_line(error: Exception) -> str:
    """An exception's kind and text; torch says what does not fit below a first line that ends with a colon."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[:2] if lines and lines[0].endswith(":") else lines[:1])
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
