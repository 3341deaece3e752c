"""What a training step on an HRDA network multiplies, by part, from shapes alone: python -m benchmarks.arithmetic"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from iidm.models.hrda import HRDANetwork

from .steps import Case, network_of

CASE = Case("mit_b5", (1024, 1024), 2, head="daformer", hrda=True)
PARTS = ("backbone", "head", "attention")


def by_part(network: HRDANetwork, image: torch.Tensor, *, boxed: bool) -> dict[str, float]:
    """TFLOP of a forward of each part (1 multiplication and 1 addition are 2). `boxed`: as a student in training."""
    boxes = [torch.empty(2, dtype=torch.int64, device="meta")] if boxed else None
    crops: list[torch.Tensor] = []
    seen = network.backbone.register_forward_pre_hook(lambda _, given: crops.append(given[0]))
    whole = tflop(lambda: network.look(image, boxes))
    seen.remove()
    backbone = sum(tflop(lambda crop=crop: network.backbone(crop)) for crop in crops)  # type: ignore[misc]
    levels = network.backbone(network.context_of(image))
    attention = tflop(lambda: network.attention(network.attention.fuse(levels)))
    return {"backbone": backbone, "head": whole - backbone - attention, "attention": attention}


def tflop(forward: Callable[[], object]) -> float:
    """What is multiplied in it."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        forward()
    return counter.get_total_flops() / 1e12


def main() -> None:
    """Print the table."""
    network = network_of(CASE).to("meta")
    assert isinstance(network, HRDANetwork)
    image = torch.empty(CASE.batch, 3, *CASE.crop, device="meta")
    student, teacher = (by_part(network, image, boxed=boxed) for boxed in (True, False))
    print(f"{CASE}, TFLOP a step")
    print(" " * 34 + "".join(f"{part:>12}" for part in (*PARTS, "sum")))
    rows = {
        "teacher, all windows": teacher,
        "a branch, forward and backward": {part: 3 * value for part, value in student.items()},
    }
    rows["IIDM: teacher and four branches"] = {p: teacher[p] + 12 * student[p] for p in PARTS}
    rows["IIDM + MIC: and a fifth"] = {p: teacher[p] + 15 * student[p] for p in PARTS}
    for name, values in rows.items():
        print(f"{name:34}" + "".join(f"{value:12.3f}" for value in (*values.values(), sum(values.values()))))


if __name__ == "__main__":
    main()
