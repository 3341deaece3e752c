"""A CUDA graph for the CPU: a call's operations are recorded, and replayed on the tensors they were recorded with.

What a CUDA graph freezes, this freezes: Python numbers, shapes, what was decided on the host. What it does not, lives
in tensors or in a generator. So a step that replays here as it runs without a graph has nothing left on the host that
changes with a step. It says nothing about what a GPU's kernels, streams and allocator do.
"""

from __future__ import annotations

from typing import Any

import torch
from small_steps import Watch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from iidm.method import TrainStep
from iidm.method.graph import StepGraph


class Tape(TorchDispatchMode):
    """In place of torch.cuda.CUDAGraph. Recording runs the operations, which a capture does not: so the first replay,
    which StepGraph asks for right behind the capture, does nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, list[Tensor]]] = []
        self.generators: list[torch.Generator] = []
        self.replays = 0

    def register_generator_state(self, generator: torch.Generator) -> None:
        self.generators.append(generator)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket.__name__ in Watch.WAITS:
            raise RuntimeError("operation not permitted when stream is capturing")
        if kwargs.get("generator") is not None:  # another Python object at each call: told by its state
            state = kwargs["generator"].get_state()
            assert any(torch.equal(state, known.get_state()) for known in self.generators), "draws unknown to the graph"
        read = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        out = func(*args, **kwargs)
        made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        if func._schema.is_mutable or any(leaf.untyped_storage()._cdata not in read for leaf in made):
            self.calls.append((func, args, kwargs, made))
        return out

    def replay(self) -> None:
        self.replays += 1
        if self.replays > 1:
            self._run()

    @torch.no_grad()
    def _run(self) -> None:
        for func, args, kwargs, recorded in self.calls:
            made = [leaf for leaf in tree_leaves(func(*args, **kwargs)) if isinstance(leaf, Tensor)]
            for kept, new in zip(recorded, made, strict=True):
                if kept.untyped_storage()._cdata != new.untyped_storage()._cdata:
                    kept.copy_(new)


def as_on_a_gpu(step: TrainStep, *, graph: bool) -> TrainStep:
    """A step on the CPU with what one on a GPU has: learning rates in tensors, and a graph if asked for."""
    for group in step.optimizer.param_groups:
        group["lr"] = torch.tensor(group["lr"])
    if graph:
        step._graph = StepGraph(step._train, step.generators)
    return step
