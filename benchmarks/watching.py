"""A training watched from outside: how fast it is, and how much memory it and its workers hold."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

LINE = re.compile(r"^step (\d+)/\d+ .*wait_ms ([\d.]+)")


class Point(NamedTuple):
    """What was seen at a log point."""

    seconds: float
    """Of `time.perf_counter`."""
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


class Gpu(NamedTuple):
    """A GPU, whatever its number is to whom."""

    uuid: str
    """As nvidia-smi has it: GPU-..."""
    name: str


def find_gpu() -> Gpu | None:
    """The GPU that a training from here computes on: the first that CUDA_VISIBLE_DEVICES leaves. None without one.

    A process of its own asks: what CUDA takes of a GPU for a process ends with it.
    """
    code = "import torch\nif torch.cuda.is_available(): p = torch.cuda.get_device_properties(0); print(p.uuid, p.name)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    uuid, _, name = told.partition(" ")
    return Gpu(f"GPU-{uuid.removeprefix('GPU-')}", name) if told else None


def watch(words: list[str], log: Path, gpu: Gpu | None = None) -> list[Point]:
    """Run a training in a process of its own, which computes on `gpu`; its output goes to `log`.

    Raises RuntimeError if it fails, or where the memory of the GPU cannot be seen.
    """
    return list(watched(words, log, gpu))


def watched(words: list[str], log: Path, gpu: Gpu | None = None) -> Iterator[Point]:
    """`watch`, each point as it is seen; the training is killed if this is closed before its end."""
    gpu_mb(gpu)  # before it begins
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            with log.open("w", buffering=1) as file:  # a line is there when it is said
                for line in process.stdout:
                    file.write(line)
                    if found := LINE.match(line):
                        seen = (time.perf_counter(), int(found.group(1)), float(found.group(2)))
                        workers = descendants(process.pid)
                        memory = rss_mb(process.pid), sum(map(rss_mb, workers))
                        used_s = sum(map(cpu_s, [process.pid, *workers]))
                        yield Point(*seen, *memory, used_s, gpu_mb(gpu))
        except BaseException:  # it would be waited for
            process.kill()
            raise
    if process.returncode != 0:
        raise RuntimeError(f"The run failed with status {process.returncode}; what it said is in {log}.")


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


def gpu_mb(gpu: Gpu | None) -> float:
    """Memory in use on a GPU; 0 without one. Raises RuntimeError where that cannot be told."""
    if gpu is None:
        return 0.0
    if shutil.which("nvidia-smi") is None:
        raise RuntimeError(f"The memory of {gpu.name} cannot be watched: there is no program nvidia-smi.")
    words = ["nvidia-smi", f"--id={gpu.uuid}", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    run = subprocess.run(words, capture_output=True, text=True)
    try:
        return float(run.stdout)
    except ValueError:
        said = (run.stdout + run.stderr).strip()
        raise RuntimeError(f"nvidia-smi does not tell the memory of {gpu.name} ({gpu.uuid}): {said}") from None


def require_seen(points: Sequence[Point], gpu: Gpu | None, workers: int) -> None:
    """Raise RuntimeError where memory that a training must have held was not seen: none would count as steady."""
    if gpu is not None and max(point.gpu_mb for point in points) == 0:
        raise RuntimeError(f"0 MB were in use on {gpu.name} ({gpu.uuid}) while it trained: another one was looked at.")
    if workers and max(point.workers_mb for point in points) == 0:
        raise RuntimeError(f"Nothing was seen of the {workers} processes that read ahead.")
