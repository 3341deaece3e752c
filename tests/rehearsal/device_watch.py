"""What a step on fake CUDA tensors must not do, by operations: wait, copy, mix devices, lose a layout or a dtype."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
from small_steps import Watch, is_image, is_last
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ON_CUDA = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
ROOT = Path(__file__).parents[2]
READS = Watch.WAITS | {"item", "bincount", "_linalg_check_errors", "unique_consecutive", "_unique"}
"""Operations whose result, or its shape, depends on values that the host has to wait for."""
PASSED_ON = {"detach", "alias", "lift_fresh", "view", "_unsafe_view"}
"""They make nothing: what is wrong with their tensor has been told where it was made."""
COPIES = {"to", "_to_copy", "copy_", "_foreach_copy_"}
VIEWS = {"permute", "transpose", "t", "view", "_unsafe_view", "reshape", "expand", "as_strided", "unfold"}
"""Images seen as something else."""
MATRICES = {"conv2d", "convolution", "mm", "addmm", "bmm", "baddbmm", "matmul", "linear"}
"""What autocast gives to the tensor cores."""
DRAWS = set("rand randn randint randperm bernoulli bernoulli_ uniform_ normal_ random_ multinomial".split())


class Finding(NamedTuple):
    """What was done, and the line of the product that did it."""

    kind: str
    """wait, copy, cpu, random, layout, precision, float64 or optimizer."""
    op: str
    what: str
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.kind}: {self.op} {self.what} ({self.file}:{self.line})"


class DeviceWatch(TorchDispatchMode):
    """Notes in `findings` what a GPU would wait for, refuse, or compute in another layout or precision than asked for.

    Args:
        amp_dtype: of autocast; None: all is float32.
        classes: images of as many channels are logits, which are small and of any layout; 0: none are.
        bodies: run what the ops of iidm.kernels do on CUDA, in place of their fake implementations.
    """

    def __init__(self, amp_dtype: torch.dtype | None = None, *, classes: int = 0, bodies: bool = False) -> None:
        super().__init__()
        self.amp_dtype, self.classes, self.bodies = amp_dtype, classes, bodies
        self.findings: Counter[Finding] = Counter()
        self.calls: Counter[str] = Counter()

    def note(self, kind: str, op: str, what: str) -> None:
        self.findings[Finding(kind, op, what, *_line_of_product())] += 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name: str = func.overloadpacket.__name__
        self.calls[name] += 1
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        self._before(name, args, kwargs, given)
        if name in ("_local_scalar_dense", "item"):
            return 0.0 if args[0].is_floating_point() else 0  # some value, so that the step goes on
        if name == "_fused_adamw_":
            return self._check_adamw(*args[:4])
        if self.bodies and func.namespace == "iidm":
            with self:
                return func.redispatch(ON_CUDA, *args, **kwargs)
        out = func(*args, **kwargs)
        if name == "convolution_backward":
            out = _as_cudnn(out, *args[1:3])
        self._after(name, args, given, [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)])
        return out

    def _before(self, name: str, args: Any, kwargs: Any, given: list[Tensor]) -> None:
        if name in READS or (name == "repeat_interleave" and kwargs.get("output_size") is None):
            self.note("wait", name, "reads values on the host")
        if name in ("index", "index_put", "index_put_"):
            if any(isinstance(index, Tensor) and index.dtype is torch.bool for index in args[1]):
                self.note("wait", name, "by a mask reads on the host how many are chosen")
        if name in MATRICES:
            for dtype in {t.dtype for t in given if t.is_floating_point()} - {self.amp_dtype or torch.float32}:
                self.note("precision", name, f"in {dtype}")
        device = given[0].device if given else torch.device(kwargs.get("device") or "cpu")
        if name in DRAWS and device.type == "cuda":
            generator = kwargs.get("generator")
            if generator is None or generator.device.type != "cuda":
                self.note("random", name, f"draws from {'no generator' if generator is None else generator.device}")

    def _after(self, name: str, args: Any, given: list[Tensor], made: list[Tensor]) -> None:
        kinds, made_on = {t.device.type for t in given}, {t.device.type for t in made}
        if name in COPIES and len(kinds | made_on) > 1:
            source = (args[1] if name == "copy_" else args[0]).device.type
            self.note("copy", name, f"from {source} to {'cpu' if source == 'cuda' else 'cuda'}")
        elif "cpu" in kinds and "cuda" in kinds | made_on and not _is_fill(name, given):
            self.note("cpu", name, "gets a tensor on the CPU")
        elif "cpu" in made_on and name not in PASSED_ON:
            self.note("cpu", name, "makes a tensor on the CPU")
        if any(t.dtype is torch.float64 for t in made):
            self.note("float64", name, "makes float64")
        if any(is_image(t) and is_last(t) for t in given) and name not in VIEWS:
            for image in made:
                if is_image(image) and not is_last(image) and image.shape[1] != self.classes:
                    self.note("layout", name, f"makes of channels-last images {tuple(image.shape)} of another layout")

    def _check_adamw(self, params: Any, grads: Any, means: Any, squares: Any) -> None:
        """What torch's fused kernel asks for (ATen/native/ForeachUtils.h, check_fast_path_restrictions)."""
        for tensors in zip(params, grads, means, squares, strict=True):
            told = {
                (str(t.device), t.dtype, tuple(s for s, n in zip(t.stride(), t.shape, strict=True) if n > 1))
                for t in tensors
            }
            if len(told) > 1 or tensors[0].dtype is not torch.float32 or not tensors[0].is_cuda:
                self.note("optimizer", "_fused_adamw_", f"gets a parameter, its gradient and moments: {told}")


def _is_fill(name: str, given: list[Tensor]) -> bool:
    """Whether this is how `x[...] = 0.0` comes: the number is read from a tensor that torch itself has made of it."""
    return name == "fill_" and given[-1].dim() == 0


def _as_cudnn(grads: Any, image: Tensor, weight: Tensor) -> Any:
    """The gradients of a convolution in the layout that cuDNN gives them (ATen/native/ConvUtils.h,
    cudnn_conv_suggest_memory_format: channels-last as soon as the image or the weight is); torch's fake implementation
    says contiguous whatever came."""
    if not any(t.dim() == 4 and t.is_contiguous(memory_format=torch.channels_last) for t in (image, weight)):
        return grads
    last = [g if g is None or g.dim() != 4 else torch.empty_like(g, memory_format=torch.channels_last) for g in grads]
    return (*last[:2], grads[2])


def _line_of_product() -> tuple[str, int]:
    """File and line of the innermost frame in iidm/ or kernels/."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        path = Path(frame.f_code.co_filename).resolve()
        if path.is_relative_to(ROOT / "iidm") or path.is_relative_to(ROOT / "kernels"):
            return str(path.relative_to(ROOT)), frame.f_lineno
        frame = frame.f_back
    return "no line of the product", 0
