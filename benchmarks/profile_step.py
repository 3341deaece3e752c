"""What the time of a step goes to on a GPU, kernel by kernel.

    python -m benchmarks.profile_step FOLDER [--preset gta5-cityscapes-100] [--small]

Replays the preset's captured step on images that are made (as full_size.py does) under torch's profiler. Writes
FOLDER/profile.txt: each kernel with its milliseconds and launches in a step, the longest first, and prints its head. On
a CPU, which has no kernels to list, it times the step alone.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from iidm.engine.runtime import machine_info, pick_device
from iidm.kernels import set_implementation
from iidm.method import TrainStep
from iidm.types import TrainBatch

from .conftest import commit
from .full_size import config_of, made, step_of
from .ops import synchronize

WARM_UP, TIMED, PROFILED = 6, 20, 4
"""Steps."""
PRINTED = 15


def step_ms(step: TrainStep, batches: list[TrainBatch], timed: int) -> float:
    """Milliseconds of a step by the clock, the median of several."""
    seconds = []
    for number in range(WARM_UP + timed):
        synchronize()
        start = time.perf_counter()
        step([batches[number % len(batches)]], number)
        synchronize()
        seconds.append(time.perf_counter() - start)
    return 1e3 * median(seconds[WARM_UP:])


def kernels_of(step: TrainStep, batches: list[TrainBatch]) -> list[tuple[str, float, float]]:
    """(name, milliseconds in a step, launches in a step), the longest first."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        for number in range(PROFILED):
            step([batches[number % len(batches)]], number)
        synchronize()
    times: dict[str, list[float]] = defaultdict(list)
    for event in found.events() or []:
        if event.device_type == DeviceType.CUDA:
            times[event.name].append(event.time_range.elapsed_us())
    rows = [(name, sum(us) / 1e3 / PROFILED, len(us) / PROFILED) for name, us in times.items()]
    return sorted(rows, key=lambda row: -row[1])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--preset", default="gta5-cityscapes-100")
    parser.add_argument("--small", action="store_true", help="a small network on small crops, for a CPU")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    device = pick_device("auto")
    set_implementation("auto", device)
    config = config_of(arguments.preset, 1000, arguments.small)
    step, batches = step_of(config, device), [made(config, device, seed) for seed in range(PROFILED)]
    ms = step_ms(step, batches, TIMED if device.type == "cuda" else 2)
    lines = [f"{config.preset}, {config.model.backbone}, {step.amp_dtype}; {machine_info()}; commit {commit()}"]
    lines.append(f"{ms:.2f} ms a step by the clock")
    if device.type == "cuda":
        rows = kernels_of(step, batches)
        lines[-1] += f", {sum(row[1] for row in rows):.2f} ms in kernels"
        lines += [f"{row[1]:9.3f} ms {row[2]:7.1f}  {row[0]}" for row in rows]
    (arguments.folder / "profile.txt").write_text("\n".join(lines) + "\n")
    print("\n".join(line[:120] for line in lines[: PRINTED + 2]))


if __name__ == "__main__":
    main()
