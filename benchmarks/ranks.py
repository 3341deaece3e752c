"""What it costs that processes train together: a step with and without the sum over them, beside one process.

    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 -m benchmarks.ranks [--model resnet18] [--steps 10]
    OMP_NUM_THREADS=2 python -m benchmarks.ranks

The first process prints one JSON line: milliseconds of a step (median), of one whose gradients are not summed, what is
summed, and images a second of all processes. Steps of both kinds are taken in turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from contextlib import nullcontext

import torch

from iidm.engine.runtime import keep_freed_memory, machine_info
from iidm.method import TrainStep
from iidm.ranks import Ranks

from .conftest import commit
from .steps import Case, iidm_step


def milliseconds(step: TrainStep, case: Case, ranks: Ranks, run: object, summed: bool) -> float:
    """One step on the clock; all ranks begin together."""
    assert callable(run)
    together = step._together
    ranks.wait()
    start = time.perf_counter()
    with nullcontext() if summed or together is None else together.adds_up(now=False):
        run()
    if step.device.type == "cuda":
        torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--steps", type=int, default=10)
    arguments = parser.parse_args()
    ranks = Ranks.of_environment()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    case = Case(arguments.model, (512, 512) if device == "cuda" else (240, 320), 2)
    keep_freed_memory(torch.device(device))
    with ranks.joined(torch.device(device)):
        step, run = iidm_step(case, device, ranks=ranks)
        for _ in range(3):
            run()
        pairs = [
            [milliseconds(step, case, ranks, run, summed) for summed in (True, False)] for _ in range(arguments.steps)
        ]
        summed, alone = (statistics.median(times) for times in zip(*pairs, strict=True))
    if ranks.is_first:
        gradients = sum(p.numel() * 4 for p in step.student.parameters())
        images = 3 * case.batch * ranks.size
        facts = {"case": str(case), "processes": ranks.size, "threads": torch.get_num_threads(), "ms": round(summed, 1)}
        facts |= {"ms without the sum": round(alone, 1), "MB summed": round(gradients / 1e6, 1)}
        facts |= {"images/s": round(1e3 * images / summed, 2), "machine": machine_info(), "commit": commit()}
        print(json.dumps(facts))


if __name__ == "__main__":
    main()
