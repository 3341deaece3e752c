"""Builds the extension with sanitizers and calls its kernels in a process of its own; see the package's docstring."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "cuda_on_cpu"))

import on_cpu  # noqa: E402  (it compiles and keeps objects; the CUDA kernels go through the same)

SANITIZERS = ["-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all"]
OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=1:allocator_may_return_null=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}
PRELOADED = ("libasan.so", "libstdc++.so")
"""The second one so that the first finds what throws C++ exceptions, of which torch makes use."""
SHOWN_LINES = 30
"""Of a sanitizer's report."""


class Finding(NamedTuple):
    """What a sanitizer said."""

    case: str
    """The number of the case and the name of its op."""
    report: str


def build(csrc: Path | None = None) -> Path:
    """The extension under the sanitizers, out of `csrc` (default: the project's); objects of before are kept."""
    import pybind11

    made = on_cpu.Build(csrc)
    python = [f"-I{sysconfig.get_path('include')}", f"-I{pybind11.get_include()}"]
    flags = ["-O1", "-fopenmp", "-fno-trapping-math", "-fno-math-errno", *SANITIZERS]
    sources = [made.csrc / "bindings.cpp", *sorted(made.csrc.glob("*_cpu.cpp"))]
    objects = [made.object(source, [*flags, *python]) for source in sources]
    return made.linked(str(sysconfig.get_config_var("EXT_SUFFIX")), objects, ["-shared", "-fopenmp", *SANITIZERS])


def run(extension: Path, first: int, count: int) -> tuple[str, Finding | None]:
    """Call the kernels with `count` cases from number `first` on.

    Returns: what they came to, and the first finding; None: there is none.
    """
    environment = {**os.environ, **OPTIONS, "LD_PRELOAD": " ".join(map(_library, PRELOADED))}
    environment.setdefault("OMP_NUM_THREADS", "2")
    words = [sys.executable, "-m", "benchmarks.sanitize.cases", str(extension), str(first), str(count)]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    lines = done.stdout.splitlines() or ["before the first case"]
    if done.returncode == 0:
        return lines[-1], None
    report = done.stderr[max(done.stderr.find("ERROR: AddressSanitizer"), 0) :].splitlines()
    return lines[-1], Finding(lines[-1], "\n".join(report[:SHOWN_LINES]))


def _library(name: str) -> str:
    words = [*os.environ.get("CXX", "g++").split(), f"-print-file-name={name}"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 1 for a finding, 2 where it cannot be built."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sanitize", description=__doc__)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--count", type=int, default=8000, help="how many cases")
    wanted = parser.parse_args(argv)
    if why := on_cpu.why_not():
        print(why, file=sys.stderr)
        return 2
    start = time.perf_counter()
    extension = build()
    print(f"built in {time.perf_counter() - start:.0f} s: {extension}", flush=True)
    start = time.perf_counter()
    told, finding = run(extension, wanted.first, wanted.count)
    if finding is None:
        print(f"{told}; no finding in {time.perf_counter() - start:.0f} s")
        return 0
    number = finding.case.partition(" ")[0]
    print(f"found in case {finding.case}:\n{finding.report}")
    print(f"again: python -m benchmarks.sanitize --first {number} --count 1")
    return 1


if __name__ == "__main__":
    sys.exit(main())
