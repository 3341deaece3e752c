"""Whole training steps to time: iidm's and the reference's, from the same weights on the same batches."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from iidm.config import Config, DataConfig
from iidm.engine.optim import build_optimizer
from iidm.engine.runtime import pick_amp_dtype
from iidm.method import TrainStep
from iidm.method.teacher import Teacher
from iidm.models import Network, build_network, parameter_groups, set_recompute
from iidm.models.hrda import HRDANetwork
from iidm.ranks import ALONE, Ranks
from iidm.recipes import with_values
from iidm.types import LabeledImages, TrainBatch

from .reference_hrda import ReferenceHRDAStep
from .reference_step import ReferenceStep

CLASSES = 19
Step = Callable[[], Tensor]
"""Trains one step; returns its total loss, on the device."""


class Case(NamedTuple):
    """What is trained."""

    model: str
    crop: tuple[int, int]
    batch: int
    """Images of each stream: source, labeled target, unlabeled target."""
    output_stride: int = 8
    head: str = "deeplabv2"
    hrda: bool = False

    @property
    def network(self) -> str:
        """Its name, for tables: the backbone, and the head where it is not DeepLabV2's."""
        head = "" if self.head == "deeplabv2" else f"-{self.head}"
        return f"{self.model}{head}{'-hrda' * self.hrda}"

    def __str__(self) -> str:
        return f"{self.network}-{self.crop[0]}x{self.crop[1]}-{self.batch}"


def config_of(case: Case, options: dict[str, Any] | None = None) -> Config:
    """The paper's recipe; `options` are of StepConfig."""
    sizes = dict.fromkeys(("source_batch", "target_batch", "unlabeled_batch"), case.batch)
    config = replace(Config(), data=replace(DataConfig(), crop_size=case.crop, **sizes))
    return with_values(config, {"step": options or {}, "model": {"hrda": case.hrda}})


def network_of(case: Case) -> Network:
    """The network at its start, the same in every call."""
    torch.manual_seed(0)
    return build_network(
        case.model,
        CLASSES,
        output_stride=case.output_stride,
        head=case.head,
        drop_path=0.0 if case.model.startswith("mit") else None,  # the reference draws none
        crop_size=case.crop,
        hrda=case.hrda,
    )


def random_batch(case: Case, device: str, seed: int = 0) -> TrainBatch:
    """Labels in blocks of 16 pixels of a few classes, a tenth of them ignored; images that follow them, with noise."""
    generator = torch.Generator().manual_seed(seed)
    height, width = case.crop

    def labeled() -> LabeledImages:
        shape = (case.batch, -(-height // 16), -(-width // 16))
        blocks = torch.randint(0, CLASSES, shape, generator=generator, dtype=torch.uint8)
        blocks[torch.rand(shape, generator=generator) < 0.1] = 255
        label = blocks.repeat_interleave(16, 1).repeat_interleave(16, 2)[:, :height, :width].contiguous()
        noise = torch.randint(0, 64, (*label.shape, 3), generator=generator, dtype=torch.uint8)
        shades = torch.stack([label * 10, 190 - label % 20 * 9, label * 37 % 191], -1)
        return LabeledImages((shades % 192 + noise).to(device), label.to(device))

    return TrainBatch(labeled(), labeled(), labeled().image)


def iidm_step(
    case: Case, device: str, options: dict[str, Any] | None = None, ranks: Ranks = ALONE
) -> tuple[TrainStep, Step]:
    """The product's step on a batch that stays."""
    config = config_of(case, options)
    student = network_of(case).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    set_recompute(student, config.step.recompute)
    teacher = Teacher(copy.deepcopy(student), config.teacher, labels_images=True)
    where = torch.device(device)
    groups = parameter_groups(student, config.optim.lr, config.optim.head_lr_mult, config.optim.weight_decay)
    optimizer = build_optimizer(groups, config.optim, where)
    generator = torch.Generator(device).manual_seed(0)
    amp_dtype = pick_amp_dtype(where, amp=True)
    step = TrainStep(student, teacher, optimizer, config, [generator], amp_dtype, ranks=ranks)
    batches = [random_batch(case, device)] * config.step.accumulate
    return step, lambda: step(batches, 0).losses.total


def reference_step(case: Case, device: str, *, best: bool) -> tuple[ReferenceStep, Step]:
    """The reference's, on the same batch."""
    generator = torch.Generator(device).manual_seed(0)
    amp_dtype = pick_amp_dtype(torch.device(device), amp=True)
    kind = ReferenceHRDAStep if case.hrda else ReferenceStep
    step = kind(network_of(case).to(device), config_of(case), generator, best=best, amp_dtype=amp_dtype)
    batch = random_batch(case, device)
    return step, lambda: step(batch)


def flops(case: Case) -> int:
    """Multiplications and additions of a step's convolutions and matrix products: a forward of the teacher over `batch`
    images, forward and backward (three forwards) of the student over four times as many."""
    network = network_of(case).to("meta")
    image = torch.empty(1, 3, *case.crop, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(image)
    of_teacher = of_student = counter.get_total_flops()
    if isinstance(network, HRDANetwork):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network.look(image, [torch.empty(2, dtype=torch.int64, device="meta")])
        of_student = counter.get_total_flops()
    return case.batch * (of_teacher + 4 * 3 * of_student)
