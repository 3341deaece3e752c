"""A long run on generated data in the layout of GTA5 and Cityscapes: does it hold its pace and its memory?

    python -m benchmarks.long_run FOLDER [--preset gta5-cityscapes-100] [--steps 2000] [--any-pace]
        [OPTION of iidm.train...]

Trains the preset from prepared data with `iidm.train`, watches it from outside, and writes FOLDER/long-run.json. Exit
status 1 unless, after the first tenth, the pace of every tenth is within 3 % of their mean, memory grows by less than
3 %, and steps wait for data for less than 1 % of their time; with --any-pace it is 0 if the run ends.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from iidm.engine.runtime import machine_info

from . import street_data
from .conftest import commit

LINE = re.compile(r"^step (\d+)/\d+ .*wait_ms ([\d.]+)")
TENTHS = 10
ALLOWED_SPREAD, ALLOWED_GROWTH, ALLOWED_WAIT = 0.03, 0.03, 0.01


class Point(NamedTuple):
    """What was seen at a log point."""

    seconds: float
    step: int
    wait_ms: float
    """Mean time that a step waited for its batch since the point before."""
    rss_mb: float
    gpu_mb: float


def summary(points: list[Point], steps: int) -> dict[str, Any]:
    """Pace of each tenth in steps a second, its spread around the mean, growth of memory, share of waiting.

    The first tenth, in which kernels compile and graphs are captured, is in none of the last three.
    """
    ends = [
        max((p for p in points if p.step <= steps * i / TENTHS), key=lambda p: p.step) for i in range(1, TENTHS + 1)
    ]
    paces = [(b.step - a.step) / (b.seconds - a.seconds) for a, b in zip(ends, ends[1:], strict=False)]
    mean = (ends[-1].step - ends[0].step) / (ends[-1].seconds - ends[0].seconds)
    later = [p for p in points if p.step > ends[0].step]
    waits = sum(p.wait_ms for p in later) / len(later)
    spread = max(abs(pace / mean - 1) for pace in paces)
    rss, gpu = (getattr(ends[-1], name) / max(getattr(ends[0], name), 1) - 1 for name in ("rss_mb", "gpu_mb"))
    wait_share = waits * 1e-3 * mean
    return {
        "steps_per_s": mean,
        "paces": paces,
        "spread": spread,
        "rss_mb": [p.rss_mb for p in ends],
        "gpu_mb": [p.gpu_mb for p in ends],
        "memory_growth": max(rss, gpu if ends[0].gpu_mb else 0.0),
        "wait_share": wait_share,
        "holds": spread <= ALLOWED_SPREAD and max(rss, gpu) <= ALLOWED_GROWTH and wait_share < ALLOWED_WAIT,
    }


def rss_mb(pid: int) -> float:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", status)
    return int(found.group(1)) / 1024 if found else 0.0


def gpu_mb() -> float:
    """Memory in use on the first GPU; 0 without one."""
    if shutil.which("nvidia-smi") is None:
        return 0.0
    words = ["nvidia-smi", "--id=0", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    run = subprocess.run(words, capture_output=True, text=True)
    return float(run.stdout.strip()) if run.returncode == 0 else 0.0


def watch(words: list[str], log: Path) -> list[Point]:
    """Run a training in a process of its own; its output goes to `log`. Raises RuntimeError if it fails."""
    points = []
    start = time.perf_counter()
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        with log.open("w") as file:
            for line in process.stdout:
                file.write(line)
                if found := LINE.match(line):
                    seen = (time.perf_counter() - start, int(found.group(1)), float(found.group(2)))
                    points.append(Point(*seen, rss_mb(process.pid), gpu_mb()))
    if process.returncode != 0:
        raise RuntimeError(f"The run failed with status {process.returncode}; what it said is in {log}.")
    return points


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--preset", default="gta5-cityscapes-100")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--any-pace", action="store_true", help="exit status 0 if the run ends, whatever its pace")
    arguments, options = parser.parse_known_args()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    roots = street_data.prepared("raw")
    words = [sys.executable, "-m", "iidm.train", "--preset", arguments.preset, "--amp", "--model.weights", "none"]
    words += ["--source-root", str(roots.gta5), "--target-root", str(roots.cityscapes), "--data.labeled-count", "6"]
    words += ["--max-steps", str(arguments.steps), "--run-dir", str(folder / "run")]
    words += ["--log.every", str(max(arguments.steps // 100, 1)), "--log.preview-every", "0"]
    words += ["--log.checkpoint-every", "0", *options]
    points = watch(words, folder / "long-run.txt")
    result = summary(points, arguments.steps)
    facts = {"command": " ".join(words[1:]), "machine": machine_info(), "commit": commit()}
    (folder / "long-run.json").write_text(json.dumps({**facts, **result}, indent=2) + "\n")
    print(
        f"{result['steps_per_s']:.2f} steps/s, each tenth within {100 * result['spread']:.1f} %; memory grew by"
        f" {100 * result['memory_growth']:.1f} %; waiting for data {100 * result['wait_share']:.2f} % of the time"
    )
    sys.exit(0 if result["holds"] or arguments.any_pace else 1)


if __name__ == "__main__":
    main()
