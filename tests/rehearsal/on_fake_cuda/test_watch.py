"""The rehearsal finds what it is there for: faults that are planted in a step, and in what it launches."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import torch
from device_watch import DeviceWatch
from fake_steps import not_meant, read, step_of
from small_steps import K
from stand_ins import DEVICE, CUDAGraph, Stream, stream_context
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

from iidm.kernels.jitter import normalize
from iidm.method import TrainStep
from iidm.method import step as module_of_step
from iidm.types import MEAN_RGB, STD_RGB

NO_VALUES = (DataDependentOutputException, DynamicOutputShapeException)
"""What torch says of a fake tensor whose values are asked for."""
Fault = Callable[[Tensor], Any]


def mask(x: Tensor) -> Tensor:
    return x.detach()[x.detach() > 0]


def without_autocast(x: Tensor) -> Tensor:
    with torch.autocast("cuda", enabled=False):
        return torch.conv2d(x.float(), torch.ones(3, x.shape[1], 1, 1, device=x.device))


IN_A_LOSS: dict[str, tuple[str, Fault]] = {
    "a constant on the CPU": ("cpu: mul gets a tensor on the CPU", lambda x: x * torch.tensor(2.0)),
    "a new tensor on the CPU": ("cpu: zeros makes a tensor on the CPU", lambda x: torch.zeros(3)),
    "a number read": ("wait: _local_scalar_dense reads", lambda x: x.detach().mean().item()),
    "a comparison": ("wait: equal reads", lambda x: torch.equal(x.detach(), x.detach())),
    "a mask": ("wait: index by a mask reads", mask),
    "places": ("wait: nonzero reads", lambda x: x.detach().nonzero()),
    "a copy from the host": ("copy: _to_copy from cpu to cuda", lambda x: x * torch.tensor(2.0, device=x.device)),
    "a copy to the host": ("copy: _to_copy from cuda to cpu", lambda x: x.detach().cpu()),
    "float64": ("float64: _to_copy makes float64", lambda x: x.double()),
    "float32 in autocast": ("precision: convolution in torch.float32", without_autocast),
    "draws of nobody": ("random: rand draws from no generator", lambda x: torch.rand(3, device=x.device)),
    "draws of the CPU": (
        "random: rand draws from cpu",
        lambda x: torch.rand(3, device=x.device, generator=torch.Generator()),
    ),
    "another layout": (
        "layout: clone makes of channels-last images",
        lambda x: torch.relu(x.detach().tile(1, 2, 1, 1).contiguous(memory_format=torch.channels_last)).contiguous(),
    ),
}
"""What is done to the logits of each branch, and what is found."""


@pytest.mark.parametrize("name", IN_A_LOSS)
def test_a_fault_in_a_loss_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, fault = IN_A_LOSS[name]
    terms = module_of_step.branch_terms

    def with_fault(out: Any, *args: Any, **kwargs: Any) -> Any:
        fault(out.logits)
        return terms(out, *args, **kwargs)

    monkeypatch.setattr(module_of_step, "branch_terms", with_fault)
    step = step_of("iidm", "bfloat16")
    batches = [read(step.config)]
    with DeviceWatch(torch.bfloat16, classes=K) as watch, suppress(*NO_VALUES):
        step(batches, 0)
    assert any(found.startswith(expected) for found in not_meant(watch)), watch.findings
    assert all("iidm/method/step.py" in found for found in map(str, watch.findings))


def test_a_layout_lost_between_layers_is_found() -> None:
    step = step_of("iidm", "bfloat16")
    step.student.backbone.norm1.register_forward_hook(  # type: ignore[union-attr,operator]
        lambda module, given, out: out.contiguous(memory_format=torch.contiguous_format)
    )
    batches = [read(step.config)]
    with DeviceWatch(torch.bfloat16, classes=K) as watch:
        step(batches, 0)
    assert any(found.startswith("layout: clone") for found in not_meant(watch)), watch.findings


def other_strides(step: TrainStep) -> None:
    for values in step.optimizer.state.values():
        if values["exp_avg"].dim() == 4:
            values["exp_avg"] = values["exp_avg"].contiguous()


def another_dtype(step: TrainStep) -> None:
    for values in step.optimizer.state.values():
        values["exp_avg_sq"] = values["exp_avg_sq"].bfloat16()


def on_the_cpu(step: TrainStep) -> None:
    for values in step.optimizer.state.values():
        values["exp_avg_sq"] = values["exp_avg_sq"].cpu()


@pytest.mark.parametrize("fault", [other_strides, another_dtype, on_the_cpu])
def test_moments_unlike_their_parameter_are_found(fault: Callable[[TrainStep], None]) -> None:
    step = step_of("iidm", "bfloat16")
    batches = [read(step.config)]
    with DeviceWatch(torch.bfloat16, classes=K):
        step(batches, 0)
    fault(step)
    with DeviceWatch(torch.bfloat16, classes=K) as watch:
        step(batches, 1)
    assert {finding.kind for finding in watch.findings} == {"optimizer"}


def test_a_parameter_in_bfloat16_is_found() -> None:
    step = step_of("iidm", "bfloat16")
    weight = step.student.backbone.conv1.weight  # type: ignore[union-attr]
    step.student.backbone.conv1.weight = nn.Parameter(weight.bfloat16())  # type: ignore[union-attr,operator]
    group = step.optimizer.param_groups[0]
    group["params"] = [step.student.backbone.conv1.weight if p is weight else p for p in group["params"]]  # type: ignore[union-attr]
    batches = [read(step.config)]
    with DeviceWatch(torch.bfloat16, classes=K) as watch, suppress(RuntimeError):  # the teacher does not follow
        step(batches, 0)
    assert any(finding.kind == "optimizer" and "bfloat16" in finding.what for finding in watch.findings)


def uint8(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.uint8, device=DEVICE)


def normalized(image: Tensor) -> Tensor:
    with DeviceWatch(bodies=True):
        return normalize(image, mean=MEAN_RGB, std=STD_RGB)


def test_what_the_extension_must_not_get_is_found() -> None:
    pytest.importorskip("triton", reason="Triton is not installed")
    from launches import launches

    from iidm.kernels import jitter

    out = torch.empty(2, 3, 8, 8, device=DEVICE).to(memory_format=torch.channels_last)
    arguments = ([0] * 6, [1.0] * 3, [1.0] * 3, (2, 8, 8))
    with launches() as launched:
        normalized(uint8(2, 8, 8, 3))
        assert launched.extension.calls.total() == 1
        call, image = jitter.extension.jitter, uint8(2, 8, 8, 3)  # type: ignore[union-attr]
        call(image.data_ptr(), *arguments, out.data_ptr(), 0, 0, 0)
        with pytest.raises(AssertionError, match="image is the address of no tensor, or of one that was freed"):
            call(uint8(2, 8, 8, 3).data_ptr(), *arguments, out.data_ptr(), 0, 0, 0)
        with pytest.raises(AssertionError, match="out is torch.float32 on cuda:0"):
            call(image.data_ptr(), *arguments, out.data_ptr(), 1, 0, 0)
        with pytest.raises(AssertionError, match=r"image is \(2, 8, 8, 3\) to the kernel, not \(2, 8, 9, 3\)"):
            call((wider := uint8(2, 8, 9, 3)).data_ptr(), *arguments, out.data_ptr(), 0, 0, 0), wider
        with pytest.raises(AssertionError, match="is not dense"):
            call((part := uint8(2, 8, 9, 3)[:, :, :8]).data_ptr(), *arguments, out.data_ptr(), 0, 0, 0), part
        with stream_context(Stream()), pytest.raises(AssertionError, match="'stream': 0"):
            call(image.data_ptr(), *arguments, out.data_ptr(), 0, 0, 0)


def test_a_kernel_that_a_capture_meets_first_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", reason="Triton is not installed")
    from launches import launches

    from iidm.kernels.cross_entropy import cross_entropy

    logits, labels = torch.empty(1, K, 4, 4, device=DEVICE), uint8(2, 31, 31)
    with launches((90,)) as launched, DeviceWatch(bodies=True):
        cross_entropy(logits, labels[:1])
        monkeypatch.setattr(CUDAGraph, "capturing", True)
        cross_entropy(logits, labels[:1])
        assert launched.in_capture == {}
        cross_entropy(logits, labels[1:])  # begins at byte 961, which no 16 divides
        assert launched.in_capture == {"cross_entropy_kernel": 1}
        with pytest.raises(RuntimeError, match="Upsampling 5 to 31 is new"):
            cross_entropy(torch.empty(1, K, 5, 4, device=DEVICE), labels[:1])


def test_a_kernel_that_spills_is_told_by_its_cubin() -> None:
    triton = pytest.importorskip("triton", reason="Triton is not installed")
    from launches import launches
    from spilling_kernel import spilling_kernel

    from iidm.kernels._dispatch import TRITON_OPTIONS

    x = torch.empty(1 << 14, device=DEVICE)
    with launches((90,)) as launched:
        with pytest.raises(AssertionError, match="launched without TRITON_OPTIONS"):
            spilling_kernel[(1,)](x, SIZE=1 << 13, num_warps=1)
        spilling_kernel[(1,)](x, SIZE=1 << 13, num_warps=1, **TRITON_OPTIONS)
    (used,) = launched.used().values()
    assert used["stack"] + used["local"] > 0
    assert triton is not None
