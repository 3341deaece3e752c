"""Small training steps that tests share: a configuration, a step of any method, a batch, and what a step did."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from iidm.catalog import with_method
from iidm.config import Config, streams_of
from iidm.engine.optim import build_optimizer
from iidm.method import TrainStep
from iidm.method.published import build_method
from iidm.method.teacher import Teacher
from iidm.models import HEADS, Network, build_network, optimizer_groups, set_recompute
from iidm.models.head import Level
from iidm.models.hrda import HRDANetwork
from iidm.models.norm import BatchNorm2d
from iidm.models.segformer import SegFormerHead
from iidm.recipes import with_recipe, with_values
from iidm.types import LabeledImages, StepOutput, TrainBatch

B, H, W, K = 2, 32, 48, 5
CHANNELS = 12
CLASSES = ("road", "sky", "car", "person", "wall")


def config_of(method: str = "iidm", recipe: str = "paper", **step: object) -> Config:
    base = with_values(Config(), {"data": {"crop_size": (H, W)}, "teacher": {"confidence_threshold": 0.21}})
    return with_values(with_method(with_recipe(base, recipe), method), {"step": step})  # type: ignore[arg-type]


class Tiny(nn.Module):
    """A backbone of two layers: what a method computes does not depend on the depth."""

    def __init__(self, stride: int = 8) -> None:
        super().__init__()
        self.levels = (Level(CHANNELS, stride),)
        self.conv1, self.norm1 = nn.Conv2d(3, 8, stride, stride=stride, bias=False), BatchNorm2d(8, "relu")
        self.conv2, self.norm2 = nn.Conv2d(8, CHANNELS, 3, padding=1, bias=False), BatchNorm2d(CHANNELS, "relu")

    def forward(self, x: Tensor) -> tuple[Tensor]:
        found: Tensor = self.norm2(self.conv2(self.norm1(self.conv1(x))))
        return (found,)


def tiny_network(config: Config) -> Network:
    backbone = Tiny(4 if config.model.hrda else 8)  # HRDA's crops here are of 16x24
    head = HEADS[config.model.head_by_name](backbone.levels, K, (1, 2), 0.0)
    if not config.model.hrda:
        return Network(backbone, head)
    return HRDANetwork(backbone, head, SegFormerHead(backbone.levels, K, 0.0), (H, W))


def make_step(config: Config, backbone: str = "resnet18", device: str = "cpu", **options: Any) -> TrainStep:
    torch.manual_seed(0)
    if backbone == "tiny":
        network = tiny_network(config)
    else:
        network = build_network(backbone, K, output_stride=8, head=config.model.head_by_name)
    student = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    set_recompute(student, config.step.recompute)
    method = build_method(config, student, CLASSES)
    teacher = Teacher(copy.deepcopy(student), config.teacher, labels_images=method.labels_images, student=student)
    optim = replace(config.optim, lr=1e-4)
    groups = optimizer_groups({"": student, **method.networks}, optim) + method.parameter_groups(optim)
    optimizer = build_optimizer(groups, optim, torch.device(device))
    generators = [torch.Generator(device).manual_seed(1 + n) for n in range(config.step.accumulate)]
    return TrainStep(student, teacher, optimizer, config, generators, method=method, **options)


def batch(seed: int = 0, device: str = "cpu") -> TrainBatch:
    generator = torch.Generator().manual_seed(seed)

    def image() -> Tensor:
        return torch.randint(0, 256, (B, H, W, 3), generator=generator, dtype=torch.uint8).to(device)

    def labeled() -> LabeledImages:
        label = torch.randint(0, K, (B, H // 8, W // 8), generator=generator, dtype=torch.uint8)
        label[:, 0] = 255
        return LabeledImages(image(), label.repeat_interleave(8, 1).repeat_interleave(8, 2).contiguous().to(device))

    beyond = torch.zeros((B, H, W), dtype=torch.uint8, device=device)  # no image has ended
    return TrainBatch(labeled(), labeled(), image(), beyond)


def with_streams(whole: TrainBatch, config: Config) -> TrainBatch:
    """A batch with the streams alone that the losses read."""
    source, target, unlabeled = streams_of(config)
    return TrainBatch(
        whole.source if source else None,
        whole.target if target else None,
        whole.unlabeled if unlabeled else None,
        whole.beyond if unlabeled else None,
    )


def trained(step: TrainStep, batches: list[TrainBatch], number: int = 0) -> tuple[dict[str, Tensor], StepOutput]:
    """Trains one step; the gradients of the student and of what the method learns, and what the step returned."""
    found: dict[str, Tensor] = {}
    real = step.optimizer.step

    def keep(*_: Any, **__: Any) -> Any:
        for module in (step.student, step.method):
            found.update({n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None})
        return real()

    step.optimizer.step = keep  # type: ignore[method-assign]
    output = step(batches, number)
    step.optimizer.step = real  # type: ignore[method-assign]
    return found, output


def gradients(step: TrainStep, batches: list[TrainBatch]) -> tuple[dict[str, Tensor], dict[str, Tensor], list[float]]:
    """Of one step, with the student's buffers behind it and the losses."""
    found, output = trained(step, batches)
    return found, dict(step.student.named_buffers()), [float(value) for value in output.losses]


def distance(mine: list[Tensor], other: list[Tensor]) -> float:
    """Of two movements of the same weights, as a share of the other one's length."""
    one, two = (torch.cat([moved.flatten() for moved in each]) for each in (mine, other))
    return float((one - two).norm() / two.norm())


def assert_close(first: Any, second: Any, tolerance: float) -> None:
    for mine, other in zip(first[:2], second[:2], strict=True):
        assert mine.keys() == other.keys()
        for name in mine:
            scale = 1e-3 + float(other[name].abs().max())
            torch.testing.assert_close(mine[name], other[name], rtol=0, atol=tolerance * scale, msg=name)
    assert first[2] == pytest.approx(second[2], rel=tolerance)


class Watch(TorchDispatchMode):
    """Every operation of a step: those that bring a value to the host, and those that change a memory layout."""

    WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "is_nonzero", "equal"}
    COPIES = {"clone", "_to_copy", "copy_", "contiguous"}
    IMAGES = {"convolution", "convolution_backward", "batch_norm", "batch_norm_backward", "cat", "add"}

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.copies: list[str] = []
        self.images = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in self.WAITS:
            self.waits.append(name)
        if name in self.COPIES and isinstance(args[0], Tensor):
            pair = (out, args[1]) if name == "copy_" else (args[0], out)
            if is_image(pair[0]) and is_last(pair[0]) != is_last(pair[1]):
                self.copies.append(f"{name} {tuple(out.shape)}")
        given = args[0] if name == "cat" else []
        if given and not any(is_image(part) and is_last(part) for part in given):
            return out  # of [B,h,w,C], as logits of merged branches are split: nothing changes its layout
        if name in self.IMAGES:
            for made in out if isinstance(out, (tuple, list)) else (out,):
                if isinstance(made, Tensor) and is_image(made):
                    self.images += 1
                    if not is_last(made):
                        self.copies.append(f"{name} made {tuple(made.shape)}")
        return out


def is_image(tensor: Tensor) -> bool:
    return tensor.dim() == 4 and tensor.is_floating_point() and tensor.shape[1] > 1 and tensor.shape[2:].numel() > 1


def is_last(tensor: Tensor) -> bool:
    """Whether the channels of a pixel lie side by side, in a part of a channels-last image too."""
    return tensor.stride(1) == 1
