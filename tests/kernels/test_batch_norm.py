from __future__ import annotations

import itertools
from typing import NamedTuple

import pytest
import torch
from bodies import run_with
from torch import Tensor

from iidm.kernels.batch_norm import batch_norm

pytestmark = run_with("reference", "fused", "interpreted")

ACTIVATIONS = ("none", "relu", "relu6")
SHAPES = [(1, 1, 1, 2), (3, 24, 41, 33), (2, 3, 5, 7), (3, 65, 4, 6), (4, 16, 9, 33), (2, 130, 11, 13)]
GROUPS = {1: (1,), 2: (1, 1), 3: (1, 2), 4: (1, 1, 2)}
TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 1e-2}


class Inputs(NamedTuple):
    x: Tensor
    residual: Tensor | None
    weight: Tensor
    bias: Tensor
    mean: Tensor
    var: Tensor
    grad: Tensor


class Results(NamedTuple):
    y: Tensor
    to_x: Tensor
    to_residual: Tensor | None
    to_weight: Tensor
    to_bias: Tensor
    mean: Tensor
    var: Tensor


def inputs(shape: tuple[int, ...], dtype: torch.dtype, residual: bool, seed: int = 0) -> Inputs:
    torch.manual_seed(seed)
    channels = shape[1]

    def image(scale: float = 1.0, shift: float = 0.0) -> Tensor:
        return (torch.randn(shape) * scale + shift).to(dtype).contiguous(memory_format=torch.channels_last)

    extra = image() if residual else None
    weight, bias, mean = torch.randn(channels), torch.randn(channels) + 1, torch.randn(channels)
    return Inputs(image(3.0, 2.0), extra, weight, bias, mean, torch.rand(channels), image())


def run(data: Inputs, groups: tuple[int, ...], activation: str) -> Results:
    x, weight, bias = (t.clone().requires_grad_() for t in (data.x, data.weight, data.bias))
    residual = None if data.residual is None else data.residual.clone().requires_grad_()
    mean, var = data.mean.clone(), data.var.clone()
    y = batch_norm(
        x, weight, bias, mean, var, residual=residual, activation=activation, groups=groups, momentum=0.3, eps=1e-3
    )  # type: ignore[arg-type]
    y.backward(data.grad)
    assert x.grad is not None and weight.grad is not None and bias.grad is not None
    to_residual = None if residual is None else residual.grad
    return Results(y.detach(), x.grad, to_residual, weight.grad, bias.grad, mean, var)


def truth(data: Inputs, groups: tuple[int, ...], activation: str, y_of_ours: Tensor) -> Results:
    """Float64 from the definition, each group on its own, gradients by autograd.

    Where rounding moves a value over a bend of the activation, its gradient is another one: the side is that of ours.
    """
    x, weight, bias = (t.double().requires_grad_() for t in (data.x, data.weight, data.bias))
    residual = None if data.residual is None else data.residual.double().requires_grad_()
    mean, var = data.mean.double(), data.var.double()
    parts = []
    for part in x.split(groups):
        own_mean, own_var = part.mean((0, 2, 3)), part.var((0, 2, 3), unbiased=False)
        count = part.numel() // part.shape[1]
        mean = 0.7 * mean + 0.3 * own_mean.detach()
        var = 0.7 * var + 0.3 * own_var.detach() * count / (count - 1)
        normalized = (part - own_mean.view(1, -1, 1, 1)) / (own_var.view(1, -1, 1, 1) + 1e-3).sqrt()
        parts.append(normalized * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1))
    z = torch.cat(parts) if residual is None else torch.cat(parts) + residual
    y = {"none": z, "relu": z.relu(), "relu6": z.clamp(0, 6)}[activation]
    side = {"none": torch.ones_like(z), "relu": y_of_ours > 0, "relu6": (y_of_ours > 0) & (y_of_ours < 6)}[activation]
    z.backward(data.grad.double() * side)
    assert x.grad is not None and weight.grad is not None and bias.grad is not None
    to_residual = None if residual is None else residual.grad
    return Results(y.detach(), x.grad, to_residual, weight.grad, bias.grad, mean, var)


def assert_near_the_truth(ours: Results, data: Inputs, groups: tuple[int, ...], activation: str, limit: float) -> None:
    expected = truth(data, groups, activation, ours.y)
    for name, got, want in zip(Results._fields, ours, expected, strict=True):
        if want is None:
            assert got is None
            continue
        assert got is not None
        off = float((got.double() - want).abs().max())
        assert off <= limit * (1 + float(want.abs().max())), (name, off)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_against_the_definition_in_float64(shape: tuple[int, ...], residual: bool, activation: str, body: str) -> None:
    groups = GROUPS[shape[0]] if shape[2] * shape[3] > 1 else (shape[0],)
    data = inputs(shape, torch.float32, residual)
    assert_near_the_truth(run(data, groups, activation), data, groups, activation, 2e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounding_away(dtype: torch.dtype, activation: str, body: str) -> None:
    if body == "interpreted" and dtype is torch.bfloat16:
        pytest.skip("Triton's interpreter truncates what it writes as bfloat16")
    data = inputs((4, 33, 7, 9), dtype, True)
    ours = run(data, (1, 3), activation)
    assert ours.y.dtype is ours.to_x.dtype is dtype and ours.to_weight.dtype is torch.float32
    # The reference rounds the normalized value before it adds the residual.
    assert_near_the_truth(ours, data, (1, 3), activation, 2 * TOLERANCE[dtype])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_groups_are_separate_calls(activation: str, body: str) -> None:
    data = inputs((5, 24, 6, 10), torch.float32, True)
    merged = run(data, (2, 1, 2), activation)
    mean, var, parts = data.mean, data.var, []
    assert data.residual is not None
    for x, extra, grad in zip(*(t.split((2, 1, 2)) for t in (data.x, data.residual, data.grad)), strict=True):
        part = run(Inputs(x, extra, data.weight, data.bias, mean, var, grad), (len(x),), activation)
        mean, var = part.mean, part.var
        parts.append(part)
    # Blocks are counted from a group's first row, so even the order of the sums is the same. Sums over groups are not.
    exact = body in ("fused", "reference")
    close = {"rtol": 0.0, "atol": 0.0} if exact else {"rtol": 1e-5, "atol": 1e-5}
    for name in ("y", "to_x", "to_residual"):
        torch.testing.assert_close(getattr(merged, name), torch.cat([getattr(p, name) for p in parts]), **close)
    for name in ("to_weight", "to_bias"):
        torch.testing.assert_close(getattr(merged, name), torch.stack([getattr(p, name) for p in parts]).sum(0))
    torch.testing.assert_close(merged.mean, mean, **close)
    torch.testing.assert_close(merged.var, var, **close)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_it_is_what_pytorch_computes(activation: str) -> None:
    data = inputs((2, 20, 8, 9), torch.float32, False)
    mean, var = data.mean.clone(), data.var.clone()
    y = torch.nn.functional.batch_norm(data.x, mean, var, data.weight, data.bias, True, 0.3, 1e-3)
    y = {"none": y, "relu": y.relu(), "relu6": y.clamp(0, 6)}[activation]
    ours = run(data, (2,), activation)
    torch.testing.assert_close(ours.y, y, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.mean, mean)
    torch.testing.assert_close(ours.var, var)


def test_a_mean_far_from_zero_costs_no_digits(body: str) -> None:
    """Sums of squares in float32 would lose the variance of 1 beside a mean of 4096."""
    torch.manual_seed(0)
    x = torch.randn(2, 8, 16, 16) + 4096
    data = inputs((2, 8, 16, 16), torch.float32, False)._replace(x=x)
    ours = run(data, (1, 1), "none")
    expected = truth(data, (1, 1), "none", ours.y)
    # x scale + shift in float32: an ulp of 4096 is 5e-4.
    assert float((ours.y.double() - expected.y).abs().max()) < 5e-3
    torch.testing.assert_close(ours.var.double(), expected.var, rtol=1e-3, atol=1e-4)


def test_constant_channels_have_a_finite_result(body: str) -> None:
    data = inputs((2, 4, 3, 3), torch.float32, False)._replace(x=torch.full((2, 4, 3, 3), 7.0))
    ours = run(data, (2,), "none")
    torch.testing.assert_close(ours.y, data.bias.view(1, -1, 1, 1).expand(2, 4, 3, 3), rtol=1e-4, atol=1e-4)
    assert bool(ours.to_x.isfinite().all())


def test_nan_stays_nan(body: str) -> None:
    data = inputs((1, 2, 4, 4), torch.float32, False)
    data.x[0, 0, 1, 1] = torch.nan
    for activation in ("relu", "relu6"):
        y = run(data, (1,), activation).y
        assert bool(y[0, 0].isnan().all()) and not bool(y[0, 1].isnan().any())


def test_any_memory_format_comes_out_channels_last() -> None:
    data = inputs((2, 6, 5, 4), torch.float32, True)
    plain = data._replace(x=data.x.contiguous(), grad=data.grad.contiguous())
    ours, same = run(plain, (1, 1), "relu"), run(data, (1, 1), "relu")
    assert same.y.is_contiguous(memory_format=torch.channels_last)
    for a, b in itertools.islice(zip(ours, same, strict=True), 5):
        assert a is not None and b is not None
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_weight_and_bias_may_be_strided() -> None:
    data = inputs((2, 6, 5, 4), torch.float32, False)
    dense = run(data, (2,), "relu")
    columns = torch.stack([data.weight, data.bias], 1).requires_grad_()
    x, mean, var = data.x.clone().requires_grad_(), data.mean.clone(), data.var.clone()
    y = batch_norm(x, columns[:, 0], columns[:, 1], mean, var, activation="relu", momentum=0.3, eps=1e-3)
    y.backward(data.grad)
    assert columns.grad is not None and x.grad is not None
    assert torch.equal(y, dense.y) and torch.equal(x.grad, dense.to_x)
    assert torch.equal(columns.grad, torch.stack([dense.to_weight, dense.to_bias], 1))


def test_no_running_statistics_and_no_gradient() -> None:
    data = inputs((2, 6, 5, 4), torch.float32, False)
    with torch.no_grad():
        y = batch_norm(data.x, data.weight, data.bias)
    torch.testing.assert_close(y, torch.nn.functional.batch_norm(data.x, None, None, data.weight, data.bias, True))


def test_gradients_of_frozen_parameters() -> None:
    data = inputs((2, 6, 5, 4), torch.float32, False)
    x = data.x.clone().requires_grad_()
    batch_norm(x, data.weight, data.bias, activation="relu").sum().backward()
    assert x.grad is not None
    weight = data.weight.clone().requires_grad_()
    batch_norm(data.x, weight, data.bias, activation="relu").sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("residual", [False, True])
def test_the_dispatchers_own_check(residual: bool, activation: str, body: str) -> None:
    if body == "interpreted":
        pytest.skip("the interpreter calls numpy, which the check cannot follow")
    data = inputs((3, 4, 5, 6), torch.float32, residual)
    forward = (data.x, data.residual, data.weight, data.bias, data.mean, data.var, 0.1, 1e-5, [1, 2], activation)
    torch.library.opcheck(torch.ops.iidm.batch_norm.default, forward)
    y, mean, rstd = torch.ops.iidm.batch_norm(*forward)
    backward = (data.grad, data.x, y, mean, rstd, data.weight, [1, 2], activation, residual)
    torch.library.opcheck(torch.ops.iidm.batch_norm_backward.default, backward)


def test_gradcheck_in_float64(body: str) -> None:
    if body != "reference":
        pytest.skip("float64 runs as plain PyTorch")
    torch.manual_seed(0)
    x, extra = (torch.randn(3, 2, 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    weight, bias = (torch.randn(2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(
        lambda *a: batch_norm(a[0], a[1], a[2], residual=a[3], activation="relu", groups=(1, 2)),
        (x, weight, bias, extra),
    )


def test_wrong_arguments_are_refused() -> None:
    data = inputs((2, 4, 3, 3), torch.float32, False)
    good = (data.x, data.weight, data.bias)
    with pytest.raises(ValueError, match=r"groups must be .* sum up to the batch of 2, not \[1\]"):
        batch_norm(*good, groups=(1,))
    with pytest.raises(ValueError, match="groups must be"):
        batch_norm(*good, groups=(0, 2))
    with pytest.raises(ValueError, match="activation must be one of none, relu, relu6, not 'gelu'"):
        batch_norm(*good, activation="gelu")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="has no variance"):
        batch_norm(torch.zeros(2, 4, 1, 1), data.weight, data.bias, groups=(1, 1))
    with pytest.raises(TypeError, match="weight must be float32, not bfloat16"):
        batch_norm(data.x, data.weight.bfloat16(), data.bias)
    with pytest.raises(ValueError, match="residual must have the shape"):
        batch_norm(*good, residual=torch.zeros(1, 4, 3, 3))
    with pytest.raises(ValueError, match="go together"):
        batch_norm(*good, data.mean)
    with pytest.raises(ValueError, match="running_var must be dense, not of stride 2"):
        batch_norm(*good, data.mean, torch.ones(8)[::2])
