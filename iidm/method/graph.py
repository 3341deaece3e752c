"""Replaying a training step that was captured in a CUDA graph: the host launches one thing instead of thousands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

Inputs = TypeVar("Inputs")
Frozen = TypeVar("Frozen")
Outputs = TypeVar("Outputs")


class CaptureError(RuntimeError):
    """A step cannot be captured; it has not run, and can be run without a graph."""


class StepGraph(Generic[Inputs, Frozen, Outputs]):
    """Runs a function of tensors as it is for WARMUP calls, then captures it, and replays it from then on.

    What the function reads besides its tensors is frozen into the graph: Python numbers, shapes, modes. Those that may
    change are its second argument; with another one, or tensors of another shape, it starts again. Randomness goes on
    in replays, since the generator is registered with the graph; a learning rate does if it lies in a tensor.

    The results lie in memory that the next call overwrites: read them before it, or copy them.
    """

    WARMUP = 3
    """Calls before the capture: they make the optimiser's state, compile kernels and let libraries choose theirs."""

    def __init__(self, function: Callable[[Inputs, Frozen], Outputs], generators: list[torch.Generator]) -> None:
        """Args:
        function: the step; it must not wait for the device.
        generators: of the device, whose numbers the function draws.
        """
        self._function, self._generators = function, generators
        self._side = torch.cuda.Stream()
        self._key: object = None
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: Inputs
        self._outputs: Outputs

    @property
    def captured(self) -> bool:
        """Whether the next call is a replay, if it is like the last one."""
        return self._graph is not None

    def __call__(self, inputs: Inputs, frozen: Frozen) -> Outputs:
        """Run the function on `inputs`, a nest of tensors, and on a plain value.

        Raises:
            CaptureError: what the device said when it was to capture the function.
        """
        key = (frozen, tuple((leaf.shape, leaf.dtype) for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)))
        if key != self._key:
            self._key, self._calls, self._graph = key, 0, None
        self._calls += 1
        if self._calls <= self.WARMUP:
            return self._on_the_side(inputs, frozen)
        if self._graph is None:
            self._capture(inputs, frozen)
            assert self._graph is not None
        else:
            for kept, given in zip(tree_leaves(self._inputs), tree_leaves(inputs), strict=True):
                if isinstance(kept, Tensor):
                    kept.copy_(given)
        self._graph.replay()
        return self._outputs

    def _on_the_side(self, inputs: Inputs, frozen: Frozen) -> Outputs:
        """Not on the stream of the capture's rest, as gradients remember the stream on which they were first made."""
        self._side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._side):
            outputs = self._function(inputs, frozen)
        torch.cuda.current_stream().wait_stream(self._side)
        return outputs

    def _capture(self, inputs: Inputs, frozen: Frozen) -> None:
        self._inputs = tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, inputs)
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        try:
            with torch.cuda.graph(graph, stream=self._side):
                self._outputs = self._function(self._inputs, frozen)
        except RuntimeError as error:
            raise CaptureError(str(error)) from error
        self._graph = graph
