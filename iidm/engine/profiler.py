"""Where the time of a step goes: a trace for chrome://tracing or Perfetto, and a table for the eye."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from ..config import PROFILE_WARMUP
from ..types import UserError

PART = "iidm: "
"""How the ranges of a step's parts begin (`record_function`)."""
ROWS = 25


@contextmanager
def profiled(steps: int, folder: Path, note: Callable[[str], None], *, steps_left: int) -> Iterator[Callable[[], None]]:
    """Record `steps` training steps; 0 records nothing.

    Args:
        steps: how many are recorded, after PROFILE_WARMUP.
        folder: gets trace.json and table.txt once the last of them is done.
        note: is told where they lie.
        steps_left: how many the run has before it.

    Yields: what has to be called after each step.
    Raises: UserError if the run ends before they are recorded.
    """
    if steps == 0:
        yield lambda: None
        return
    if PROFILE_WARMUP + steps > steps_left:
        raise UserError(
            f"--profile {steps} needs {PROFILE_WARMUP + steps} steps, the first {PROFILE_WARMUP} to warm up, but this"
            f" run has {steps_left} left. Give a larger --max-steps."
        )

    def save(record: profile) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        record.export_chrome_trace(str(folder / "trace.json"))
        (folder / "table.txt").write_text(table(record, steps))
        note(f"profile of {steps} steps: {folder / 'table.txt'}, {folder / 'trace.json'}")

    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    plan = schedule(skip_first=PROFILE_WARMUP - 1, wait=0, warmup=1, active=steps, repeat=1)
    with profile(activities=activities, schedule=plan, on_trace_ready=save) as record:
        yield record.step


def table(record: profile, steps: int) -> str:
    """Parts of the step, then the operations that take most: milliseconds a step, and their share of it.

    A part's time is the host's where there is no GPU; on a GPU it is what its kernels take, as far as they are not in a
    CUDA graph, whose replay knows no parts (`--step.graph off` shows them).
    """
    averages = record.key_averages()
    on_gpu = any(event.device_time_total > 0 for event in averages)
    whole = sum(e.cpu_time_total for e in averages if e.key.startswith("ProfilerStep")) / steps / 1e3

    def line(name: str, calls: float, ms: float) -> str:
        return f"{name[:60]:60s} {calls:8.1f} {ms:10.2f} {100 * ms / whole if whole else 0:7.1f}"

    head = f"{'':60s} {'calls':>8s} {'ms':>10s} {'%':>7s}"
    parts = [e for e in averages if e.key.startswith(PART) and e.cpu_time_total > 0]
    lines = [f"a step takes {whole:.2f} ms with the profiler running; calls and times of one step", "", head]
    for event in sorted(parts, key=lambda e: -e.cpu_time_total):
        ms = (event.device_time_total if on_gpu else event.cpu_time_total) / steps / 1e3
        lines.append(line(event.key.removeprefix(PART), event.count / steps, ms))
    lines += ["", f"operations by the time that is their own, on the {'GPU' if on_gpu else 'CPU'}", head]

    def own(event: object) -> float:
        us: float = event.self_device_time_total if on_gpu else event.self_cpu_time_total  # type: ignore[attr-defined]
        return us / steps / 1e3

    rest = [e for e in averages if not e.key.startswith((PART, "ProfilerStep"))]
    for event in sorted(rest, key=own, reverse=True)[:ROWS]:
        lines.append(line(event.key, event.count / steps, own(event)))
    return "\n".join(lines) + "\n"
