"""Replaying a training step that was captured in a CUDA graph: the host launches one thing instead of thousands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

Inputs = TypeVar("Inputs")
Frozen = TypeVar("Frozen")
Outputs = TypeVar("Outputs")


class CaptureError(RuntimeError):
    """A step cannot be captured; it has not run, and can be run without a graph."""


class StepGraph(Generic[Inputs, Frozen, Outputs]):
    """Runs a function of tensors as it is for WARMUP calls, then captures it, and replays it from then on.

    Every call copies its tensors into the same memory, those of the warm-up too: a kernel may be compiled anew for
    another alignment, which a capture does not allow.

    What the function reads besides its tensors is frozen into the graph: Python numbers, shapes, modes. Those that may
    change are its second argument; with another one, or tensors of another shape, it starts again. Randomness goes on
    in replays, since the generator is registered with the graph; a learning rate does if it lies in a tensor.

    The results lie in memory that the next call overwrites: read them before it, or copy them.
    """

    WARMUP = 3
    """Calls before the capture: they make the optimiser's state, compile kernels and let libraries choose theirs."""

    def __init__(
        self,
        function: Callable[[Inputs, Frozen], Outputs],
        generators: Sequence[torch.Generator],
        device: torch.device | None = None,
    ) -> None:
        """Args:
        function: the step; it must not wait for the device.
        generators: of the device, whose numbers the function draws.
        device: where the function computes; None: the current one.
        """
        self._function, self._generators, self._device = function, generators, device
        self._side = torch.cuda.Stream(device)
        self._key: tuple[object, object, object] | None = None
        self._calls = 0
        self._inputs: list[object] = []
        self._captured: tuple[torch.cuda.CUDAGraph, Outputs] | None = None

    @property
    def captured(self) -> bool:
        """Whether the next call is a replay, if it is like the last one."""
        return self._captured is not None

    def __call__(self, inputs: Inputs, frozen: Frozen) -> Outputs:
        """Run the function on `inputs`, a nest of tensors, and on a plain value.

        Raises:
            CaptureError: what the device said when it was to capture the function.
        """
        leaves, nest = tree_flatten(inputs)
        shapes = [(leaf.shape, leaf.dtype) for leaf in leaves if isinstance(leaf, Tensor)]
        key = frozen, nest, shapes
        if key != self._key:
            if self._key is None or key[1:] != self._key[1:]:
                self._inputs = [torch.empty_like(leaf) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
            self._key, self._calls, self._captured = key, 0, None
        for kept, given in zip(self._inputs, leaves, strict=True):
            if isinstance(kept, Tensor):
                kept.copy_(given)
        own: Inputs = tree_unflatten(self._inputs, nest)
        self._calls += 1
        if self._calls <= self.WARMUP:
            return self._on_the_side(own, frozen)
        if self._captured is None:
            self._captured = self._capture(own, frozen)
        graph, outputs = self._captured
        graph.replay()
        return outputs

    def _on_the_side(self, inputs: Inputs, frozen: Frozen) -> Outputs:
        """Not on the stream of the capture's rest, as gradients remember the stream on which they were first made."""
        self._side.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._side):
            outputs = self._function(inputs, frozen)
        torch.cuda.current_stream(self._device).wait_stream(self._side)
        return outputs

    def _capture(self, inputs: Inputs, frozen: Frozen) -> tuple[torch.cuda.CUDAGraph, Outputs]:
        graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        if torch.__version__ < "2.14":  # later ones register generators themselves
            for generator in self._generators:
                graph.register_generator_state(generator)
        try:
            # The outer context puts the stream back: torch.cuda.graph does not where the capture's end raises. Threads
            # that load images meanwhile may allocate memory, which the mode "global" forbids to all threads.
            with (
                torch.cuda.stream(torch.cuda.current_stream(self._device)),
                torch.cuda.graph(graph, pool, self._side, capture_error_mode="thread_local"),
            ):
                outputs = self._function(inputs, frozen)
        except RuntimeError as error:
            self._leave(pool)
            raise CaptureError(str(error)) from error
        return graph, outputs

    def _leave(self, pool: tuple[int, int]) -> None:
        """End a capture for torch too, which goes on believing in it where the device could not end it: the allocator
        would give no memory back that another stream has read (pytorch #180395), and generators would not draw (before
        torch 2.13, where they know the graphs by name)."""
        device = self._side.device_index
        for generator in (*self._generators, torch.cuda.default_generators[device]):
            generator.graphsafe_set_state(generator.clone_state())
        try:
            torch._C._cuda_endAllocateToPool(device, pool)
        except RuntimeError:  # torch has ended it
            pass
