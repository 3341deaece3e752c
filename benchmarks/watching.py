"""A training watched from outside: how fast it is, and how much memory it and its workers hold."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

LINE = re.compile(r"^step (\d+)/\d+ .*wait_ms ([\d.]+)")


class Point(NamedTuple):
    """What was seen at a log point."""

    seconds: float
    step: int
    wait_ms: float
    """Mean time that a step waited for its batch since the point before."""
    rss_mb: float
    """Resident memory of the process."""
    workers_mb: float
    """The same of all processes that it started, added up."""
    cpu_s: float
    """Processor time of the process and of those that it started, since their start."""
    gpu_mb: float


def watch(words: list[str], log: Path) -> list[Point]:
    """Run a training in a process of its own; its output goes to `log`. Raises RuntimeError if it fails."""
    points = []
    start = time.perf_counter()
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        with log.open("w", buffering=1) as file:  # a line is there when it is said
            for line in process.stdout:
                file.write(line)
                if found := LINE.match(line):
                    seen = (time.perf_counter() - start, int(found.group(1)), float(found.group(2)))
                    workers = descendants(process.pid)
                    memory = rss_mb(process.pid), sum(map(rss_mb, workers))
                    points.append(Point(*seen, *memory, sum(map(cpu_s, [process.pid, *workers])), gpu_mb()))
    if process.returncode != 0:
        raise RuntimeError(f"The run failed with status {process.returncode}; what it said is in {log}.")
    return points


def descendants(pid: int) -> list[int]:
    """The processes that a process started, and those that these started."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and (fields := stat_fields(int(folder.name))):
            parents[int(folder.name)] = int(fields[1])
    found = [child for child, parent in parents.items() if parent == pid]
    for child in found:  # grows as it goes
        found += [other for other, parent in parents.items() if parent == child]
    return found


def stat_fields(pid: int) -> list[str]:
    """/proc/PID/stat from the state on, behind the name, which may hold anything; empty if the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def cpu_s(pid: int) -> float:
    """Processor time of a process, in the kernel and outside, with that of its children that have ended."""
    return sum(map(int, stat_fields(pid)[11:15])) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    """Resident memory of a process."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:  # a worker that ended meanwhile
        return 0.0
    found = re.search(r"VmRSS:\s+(\d+)", status)
    return int(found.group(1)) / 1024 if found else 0.0


def gpu_mb() -> float:
    """Memory in use on the first GPU; 0 without one."""
    if shutil.which("nvidia-smi") is None:
        return 0.0
    words = ["nvidia-smi", "--id=0", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    run = subprocess.run(words, capture_output=True, text=True)
    return float(run.stdout.strip()) if run.returncode == 0 else 0.0
