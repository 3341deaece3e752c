"""A long run: does it hold its pace and its memory?

    python -m benchmarks.long_run FOLDER [--preset gta5-cityscapes-100] [--steps 2000] [--work DIR] [--any-pace]
        [OPTION of iidm.train...]
    python -m benchmarks.long_run FOLDER --small --steps 10000          the main job, small enough for one CPU core
    OMP_NUM_THREADS=1 python -m benchmarks.long_run FOLDER --small --steps 10000 --beside        on a machine of others

Trains with `iidm.train`, watches it from outside, and writes FOLDER/long-run.json and FOLDER/long-run.png; the run and
what it said lie in DIR, where those of an earlier call are removed. The data are prepared data in the layout of GTA5
and Cityscapes; with --small they are the built-in scenes, and all that happens in the main job happens: of 10,000 steps
it evaluates every 250, and saves a checkpoint and draws previews every 1000. What fills until each image was seen
(decoded labels, 256 MiB a stream at most) is to be full after the first tenth: of the source 100 images are taken.

Exit status 1 unless in every tenth after the first the median step time is within 3 % of their mean, and the memory of
the process, of its workers and of the GPU within 1 %, and the last of them is above the first of them by no more than
that; without --small steps must also wait for data for less than 1 % of their time. With --any-pace it is 0 if the run
ends. Memory of a GPU or of workers that is there and cannot be seen is an error.

Where other programs or other people's machines slow the processor by more than that for minutes, --beside tells what
the training itself does: young trainings of the same kind, of 1000 steps, run one after the other on another core all
the time, and what must be even is the ratio of the step times of the old and the young at the same time.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from statistics import fmean, median
from typing import Any

from matplotlib.figure import Figure

from iidm.engine.runtime import machine_info

from . import street_data
from .beside import Pace, in_each_part, young_runs
from .conftest import commit
from .watching import Point, find_gpu, require_seen, watch

TENTHS = 10
YOUNG_STEPS = 1000
BINS = 100
"""So many points has a curve of the figure."""
ALLOWED_SPREAD, ALLOWED_GROWTH, ALLOWED_WAIT = 0.03, 0.01, 0.01
MEMORY = ("rss_mb", "workers_mb", "gpu_mb")
SMALL = [
    *"--preset scenes --model.backbone mobilenet_v2 --model.output-stride 16 --data.crop-size 64 128".split(),
    *"--data.source-batch 1 --data.target-batch 1 --data.unlabeled-batch 1".split(),
    *"--data.source-subset 0.2 --data.workers 1".split(),
]
"""The main job with a smaller network, smaller crops and one image a stream."""


def series(points: Sequence[Point]) -> dict[str, list[float]]:
    """At each log point but the first: time of a step since the point before, by the clock and of the processors, and
    memory."""
    pairs = list(zip(points, points[1:], strict=False))
    return {
        "step": [b.step for _, b in pairs],
        "step_ms": [1e3 * (b.seconds - a.seconds) / (b.step - a.step) for a, b in pairs],
        "cpu_ms": [1e3 * (b.cpu_s - a.cpu_s) / (b.step - a.step) for a, b in pairs],
        **{name: [getattr(b, name) for _, b in pairs] for name in MEMORY},
    }


def medians(found: dict[str, list[float]], steps: int, parts: int) -> dict[str, list[float]]:
    """The median of each value in each of so many equal parts of the run."""
    rooms: list[list[int]] = [[] for _ in range(parts)]
    for place, step in enumerate(found["step"]):
        rooms[min(int((step - 1) * parts / steps), parts - 1)].append(place)
    return {name: [median(values[i] for i in room) for room in rooms if room] for name, values in found.items()}


def spread(values: list[float]) -> float:
    """How far the farthest of values lies from their mean, as a share of it; 0 where all are 0."""
    mean = fmean(values)
    return max(abs(value / mean - 1) for value in values) if mean else 0.0


def growth(values: list[float]) -> float:
    """By how much the last of values lies above the first, as a share of it; 0 where all are 0. What grows steadily is
    half of that away from its mean."""
    return values[-1] / values[0] - 1 if values[0] else 0.0


def summary(
    points: list[Point],
    steps: int,
    eval_every: int = 0,
    *,
    judge_waiting: bool = True,
    gpu: str = "",
    beside: Sequence[Pace] | None = None,
) -> dict[str, Any]:
    """Medians of each tenth, their spread and growth without the first tenth, in which kernels compile, graphs are
    captured and caches fill, and whether that is little enough. With `beside` steps are judged by their ratio to those
    of the young trainings."""
    found = series(points)
    tenths = medians(found, steps, TENTHS)
    if beside is not None:
        tenths["young_ms"] = in_each_part(beside, points, steps, TENTHS)
        tenths["ratio"] = [old / young for old, young in zip(tenths["step_ms"], tenths["young_ms"], strict=True)]
    names = tuple(name for name in tenths if name != "step")
    spreads, growths = ({name: of(tenths[name][1:]) for name in names} for of in (spread, growth))
    later = [p for p in points if p.step > steps / TENTHS]
    waiting = fmean(p.wait_ms for p in later) / fmean(tenths["step_ms"][1:])
    usual = median(found["step_ms"])
    every = points[1].step - points[0].step
    evaluations = [
        round((ms - usual) * every / 1e3, 3)
        for step, ms in zip(found["step"], found["step_ms"], strict=True)
        if eval_every and (step - every) % eval_every == 0 and step > every
    ]
    pace = "step_ms" if beside is None else "ratio"
    allowed = {pace: ALLOWED_SPREAD, **dict.fromkeys(MEMORY, ALLOWED_GROWTH)}
    flat = all(max(spreads[name], growths[name]) <= most for name, most in allowed.items())
    return {
        "steps": steps,
        "steps_per_s": (points[-1].step - points[0].step) / (points[-1].seconds - points[0].seconds),
        "tenths": tenths,
        "spread": spreads,
        "growth": growths,
        "gpu": gpu,
        "evaluation_s": evaluations,
        "wait_share": waiting,
        "holds": flat and (waiting < ALLOWED_WAIT or not judge_waiting),
    }


def describe(result: dict[str, Any]) -> str:
    """The result in a few lines."""
    tenths, far, more = (result[name] for name in ("tenths", "spread", "growth"))
    pace, is_beside = f" ({100 * ALLOWED_SPREAD:.0f} % are allowed)", "ratio" in tenths
    rows = [
        ("step", "step_ms", "ms", "" if is_beside else pace),
        *([("young ones", "young_ms", "ms", ""), ("ratio", "ratio", "", pace)] if is_beside else []),
        ("processors", "cpu_ms", "ms a step", ""),
        ("memory", "rss_mb", "MB", f" ({100 * ALLOWED_GROWTH:.0f} % is allowed)"),
        ("its workers", "workers_mb", "MB", ""),
        *([("GPU", "gpu_mb", "MB", f"; {result['gpu']}")] if result["gpu"] else []),
    ]
    lines = [f"{result['steps']} steps, {result['steps_per_s']:.2f} a second; medians of tenths, without the first:"]
    for what, name, unit, note in rows:
        ends = f"within {100 * far[name]:.2f} % of their mean, {100 * more[name]:+.2f} % from first to last"
        value = f"{tenths[name][-1]:8.3f}" if name == "ratio" else f"{tenths[name][-1]:8.1f} {unit}"
        lines.append(f"{what:11} {value}, {ends}{note}")
    lines.append(f"waiting for data {100 * result['wait_share']:.2f} % of the time")
    if result["evaluation_s"]:
        times = result["evaluation_s"]
        lines.append(f"{len(times)} evaluations, {median(times):.2f} s each ({min(times):.2f} to {max(times):.2f})")
    return "\n".join([*lines, "flat" if result["holds"] else "NOT flat"])


def draw(points: Sequence[Point], steps: int, path: Path, beside: Sequence[Pace] = ()) -> None:
    """Step time and memory over the steps, as a PNG."""
    curve = medians(series(points), steps, BINS)
    figure = Figure(figsize=(8, 3), layout="constrained")
    time_axes, memory_axes = figure.subplots(1, 2)
    time_axes.plot(curve["step"], curve["step_ms"], label="by the clock")
    time_axes.plot(curve["step"], curve["cpu_ms"], label="of the processors")
    if beside:
        middles = [(part + 0.5) * steps / BINS for part in range(BINS)]
        time_axes.plot(middles, in_each_part(beside, points, steps, BINS), label="of young trainings, by the clock")
    time_axes.set_title("time of a step (ms)")
    memory_axes.plot(curve["step"], curve["rss_mb"], label="process")
    for name, label in (("workers_mb", "workers"), ("gpu_mb", "GPU")):
        if any(curve[name]):
            memory_axes.plot(curve["step"], curve[name], label=label)
    memory_axes.set_title("memory (MB)")
    for axes in (time_axes, memory_axes):
        axes.axvspan(0, steps / TENTHS, color="0.9", label="warm-up")
        axes.set_xlabel("step")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=100)


def eval_every(steps: int) -> int:
    """Steps between two evaluations of a run of the main job; a short one is not made of them alone."""
    return max(steps // 40, 5)


def training_words(arguments: argparse.Namespace, options: list[str]) -> list[str]:
    """The command of the run."""
    own = ["--max-steps", str(arguments.steps), "--run-dir", str(run_dir(arguments))]
    return [*base_words(arguments, options), *own]


def base_words(arguments: argparse.Namespace, options: list[str]) -> list[str]:
    """The command of a run but for its length and its folder."""
    words = [sys.executable, "-m", "iidm.train", "--amp", "--model.weights", "none"]
    if arguments.small:
        every, words = max(arguments.steps // 1000, 1), [*words, *SMALL]
        words += ["--log.eval-every", str(eval_every(arguments.steps))]
        for name in ("preview", "checkpoint"):
            words += [f"--log.{name}-every", str(max(arguments.steps // TENTHS, 1))]
    else:
        every, roots = max(arguments.steps // 100, 1), street_data.prepared("raw")
        words += ["--preset", arguments.preset, "--data.labeled-count", "6"]
        words += ["--source-root", str(roots.gta5), "--target-root", str(roots.cityscapes)]
        words += ["--log.preview-every", "0", "--log.checkpoint-every", "0"]
    return [*words, "--log.every", str(every), *options]


def run_dir(arguments: argparse.Namespace) -> Path:
    """Where the run lies."""
    place: Path = arguments.work or arguments.folder
    return place / "run"


def forget(run: Path) -> None:
    """Remove the run of an earlier call, which may have been cut off: this one is measured from its first step on."""
    if (run / "config.json").exists():  # a folder of something else stays
        shutil.rmtree(run)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--small", action="store_true", help="the main job at a size for one CPU core")
    parser.add_argument("--preset", default="gta5-cityscapes-100")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--work", type=Path, metavar="DIR", help="where the run and what it said lie [FOLDER]")
    parser.add_argument("--beside", action="store_true", help="with --small: young trainings beside it all the time")
    parser.add_argument("--any-pace", action="store_true", help="exit status 0 if the run ends, whatever its pace")
    arguments, options = parser.parse_known_args()
    folder, work = arguments.folder, arguments.work or arguments.folder
    for place in (folder, work):
        place.mkdir(parents=True, exist_ok=True)
    words, run = training_words(arguments, options), run_dir(arguments)
    forget(run)
    gpu = None if "--device cpu" in " ".join(options).replace("=", " ") else find_gpu()
    if arguments.beside and (gpu or not arguments.small):
        parser.error("--beside is for --small on a CPU: on a GPU the young trainings would take part of it")
    young = young_runs(base_words(arguments, options), work, YOUNG_STEPS) if arguments.beside else nullcontext()
    with young as beside:
        points = watch(words, work / "long-run.txt", gpu)
    require_seen(points, gpu, json.loads((run / "config.json").read_text())["data"]["workers"])
    evaluated = eval_every(arguments.steps) if arguments.small else 0
    result = summary(
        points,
        arguments.steps,
        evaluated,
        judge_waiting=not arguments.small,
        gpu=gpu.name if gpu else "",
        beside=beside,
    )
    facts = {"command": " ".join(words[1:]), "machine": machine_info(), "commit": commit(), "uuid": gpu and gpu.uuid}
    (folder / "long-run.json").write_text(json.dumps({**facts, **result}, indent=1) + "\n")
    draw(points, arguments.steps, folder / "long-run.png", beside or ())
    print(describe(result))
    sys.exit(0 if result["holds"] or arguments.any_pace else 1)


if __name__ == "__main__":
    main()
