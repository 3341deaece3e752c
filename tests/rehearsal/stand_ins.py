"""What torch.cuda does in Python, for a device that is fake: streams, graphs, where it is. Nothing runs on it."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.cuda.amp.common
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

DEVICE = torch.device("cuda:0")


class Stream:
    """A stream that remembers what it was told to wait for, and what was lent to it."""

    _numbers = itertools.count(1)

    def __init__(self, device: object = None, priority: int = 0) -> None:
        self.cuda_stream, self.device_index = next(self._numbers) * 0x1000, 0
        self.waited_for: list[Stream] = []
        self.synchronized = 0
        self.lent: list[Tensor] = []

    def wait_stream(self, other: Stream) -> None:
        self.waited_for.append(other)

    def synchronize(self) -> None:
        assert not CUDAGraph.capturing, "a stream is synchronized while a graph is captured"
        self.synchronized += 1


class _Current(threading.local):
    """Each thread's current stream."""

    def __init__(self) -> None:
        self.stream = DEFAULT


DEFAULT = Stream()
DEFAULT.cuda_stream = 0
_current = _Current()


def current_stream(device: object = None) -> Stream:
    return _current.stream


@contextmanager
def stream_context(stream: Stream | None) -> Iterator[None]:
    before = _current.stream
    _current.stream = stream or before
    try:
        yield
    finally:
        _current.stream = before


class CUDAGraph:
    """A graph that replays nothing; while it is captured, `capturing` is true."""

    capturing = False

    def __init__(self) -> None:
        self.generators: list[torch.Generator] = []
        self.replays = 0

    def register_generator_state(self, generator: torch.Generator) -> None:
        assert generator.device.type == "cuda", f"a graph draws from a generator on {generator.device}"
        self.generators.append(generator)

    def capture_begin(self, *_: object, **__: object) -> None:
        assert current_stream() is not DEFAULT, "the default stream cannot be captured"
        CUDAGraph.capturing = True

    def capture_end(self) -> None:
        CUDAGraph.capturing = False

    def replay(self) -> None:
        self.replays += 1


class FakeCuda(FakeTensorMode):
    """Fake tensors that may lie on CUDA. An operation whose results torch cannot tell is an error."""

    avoid_device_init = True  # type: ignore[assignment]  # of the parent a property, which asks torch.cuda

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True, allow_fallback_kernels=False)


_mode = FakeCuda()


@contextmanager
def fake_cuda() -> Iterator[None]:
    """Inside, every new tensor is fake; those on `DEVICE` are as if they lay on a GPU."""
    # Modes are a thread's own, and autograd's threads have none.
    with _mode, torch.autograd.set_multithreading_enabled(False):
        yield


def install() -> None:
    """Put the stand-ins in the place of torch.cuda's functions, for the rest of the process."""
    cuda: Any = torch.cuda
    cuda.is_available = cuda.is_initialized = lambda: True
    cuda.is_bf16_supported = lambda including_emulation=True: True
    cuda.device_count = lambda: 1
    cuda.current_device = cuda._exchange_device = cuda._maybe_exchange_device = lambda device=None: 0
    cuda.get_device_name = lambda device=None: "no GPU"
    cuda.get_device_capability = lambda device=None: (9, 0)
    cuda.synchronize = cuda.empty_cache = cuda.manual_seed_all = cuda.set_rng_state = lambda *_: None
    cuda.get_rng_state = lambda device=None: torch.Generator(DEVICE).get_state()
    cuda.Stream, cuda.stream, cuda.current_stream = Stream, stream_context, current_stream
    cuda.CUDAGraph, cuda.graph_pool_handle = CUDAGraph, lambda: (0, 1)
    cuda.default_generators = (torch.Generator(DEVICE),)
    cuda.is_current_stream_capturing = lambda: CUDAGraph.capturing
    torch._C._host_emptyCache = lambda: None  # type: ignore[attr-defined]
    torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    FakeTensor.record_stream = lambda tensor, stream: stream.lent.append(tensor)  # type: ignore[method-assign,assignment]
    FakeTensor.numpy = lambda tensor: np.zeros(tensor.shape, np.uint8)  # type: ignore[method-assign,assignment]
    nn.init.trunc_normal_ = lambda tensor, *_, **__: tensor  # it draws until all values are in range
    FakeTensor.__deepcopy__ = _copied  # type: ignore[method-assign,assignment]
    nn.Module._apply = _replace_parameters  # type: ignore[method-assign,assignment]


def _replace_parameters(module: nn.Module, function: Any, recurse: bool = True) -> nn.Module:
    """nn.Module._apply, which swaps fake parameters in place and cannot, as they are known elsewhere: new ones here."""
    for child in module.children() if recurse else ():
        child._apply(function)
    for name, parameter in module._parameters.items():
        if parameter is not None:
            with torch.no_grad():
                module._parameters[name] = nn.Parameter(function(parameter), parameter.requires_grad)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = function(buffer)
    return module


def _copied(tensor: Tensor, memo: dict[int, Any]) -> Tensor:
    """copy.deepcopy of a fake tensor, which would copy its FakeTensorMode with it."""
    if id(tensor) not in memo:
        copy = tensor.detach().clone()
        is_parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(copy, tensor.requires_grad) if is_parameter else copy
    found: Tensor = memo[id(tensor)]
    return found
