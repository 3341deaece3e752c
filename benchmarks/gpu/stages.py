"""The stages: what each runs, on a GPU and in a dry run, and what it needs."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, field

OWN_KERNELS = (
    "regex=iidm|cross_entropy_kernel|pseudo_label_kernel|finish_|add_planes_kernel|sums_kernel|normalize_kernel"
    "|gradient_kernel"
)
SANITIZER = ("compute-sanitizer", "--report-api-errors", "no", "--error-exitcode", "9", "--kernel-name", OWN_KERNELS)
TESTS = ("pytest", "cattr", "tyro")
TRAINING = ("cattr", "tyro", "safetensors", "PIL", "pycocotools", "tqdm", "nvidia.dali")
"""What a whole training imports."""


@dataclass(frozen=True)
class Stage:
    """One command and what it shows."""

    name: str
    shows: str
    seconds: int
    """Its limit; then it gets SIGINT, after which pytest still writes what it has."""
    words: tuple[str, ...]
    """Arguments of Python; FOLDER stands for the folder of the results."""
    dry: tuple[str, ...]
    """The same in a dry run."""
    needs: tuple[str, ...] = ()
    """Modules that must be there."""
    under: tuple[str, ...] = ()
    """A program that runs Python, and its options; none in a dry run."""
    environment: dict[str, str] = field(default_factory=dict)


def _pytest(name: str, words: str) -> tuple[str, ...]:
    report = ("--junitxml", f"FOLDER/gpu-{name}.xml")
    return ("-m", "pytest", "-q", "-p", "no:cacheprovider", *shlex.split(words), *report)


def _tests(name: str, shows: str, seconds: int, words: str, needs: tuple[str, ...] = TESTS) -> Stage:
    words_of_both = _pytest(name, f"{words} -m gpu")
    return Stage(name, shows, seconds, words_of_both, words_of_both, needs)


def _benchmarks(name: str, shows: str, seconds: int, words: str, dry: str, needs: tuple[str, ...] = ()) -> Stage:
    json = f"--benchmark-json FOLDER/gpu-{name}.json"
    one_round = "--benchmark-min-rounds 1 --benchmark-max-time 0 --benchmark-warmup off"
    given = _pytest(name, f"{words} {json}"), _pytest(name, f"{dry} {one_round} {json}")
    return Stage(name, shows, seconds, *given, ("pytest_benchmark", *(needs or TESTS)))


SANITIZED = _pytest("sanitize", "tests/kernels/test_determinism.py -m gpu -k 'written and size1'")
LONG = ("-m", "benchmarks.long_run", "FOLDER", "--steps")
SMALL = ("10", "--any-pace", "--model.backbone", "mobilenet_v2", "--data.crop-size", "64", "128")
STAGES = (
    Stage(
        "build",
        "the extension compiles for this GPU and loads",
        150,
        ("-m", "benchmarks.gpu.build"),
        ("-m", "benchmarks.gpu.build", "--dry-run"),
        ("pybind11", "setuptools", "triton"),
    ),
    _tests("tests", "kernels and steps of training are right", 200, "tests/kernels tests/method tests/models"),
    # Without torch's cache of memory, in which an overrun would stay inside an allocation; the project's kernels alone.
    Stage(
        "sanitize",
        "no kernel leaves its memory (compute-sanitizer)",
        120,
        SANITIZED,
        SANITIZED,
        TESTS,
        SANITIZER,
        {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
    ),
    _benchmarks(
        "kernels",
        "time of each kernel against plain PyTorch",
        150,
        "benchmarks/bench_kernels.py -m gpu -k 'fused or eager'",
        "benchmarks/bench_kernels.py -m 'not gpu' -k 'cpu-2-jitter-forward-float32 and not compile'",
    ),
    _benchmarks(
        "step",
        "time of a step of training against plain PyTorch",
        400,
        "benchmarks/bench_step.py -m gpu --long",
        "benchmarks/bench_step.py -m 'not gpu' -k 'bench_step and cpu-mobilenet_v2-240x320-2-iidm'",
    ),
    _tests("loader-tests", "the data path is right", 60, "tests/data", TRAINING),
    _benchmarks(
        "loader",
        "images a second from files to the GPU",
        240,
        "benchmarks/bench_loader.py benchmarks/bench_prepare.py -k 'cuda or index or start or prepare'",
        "benchmarks/bench_loader.py -k cpu-iidm-prepared",
        TRAINING,
    ),
    Stage(
        "long",
        "2,000 steps of gta5-cityscapes-100 on generated data hold their pace and memory",
        500,
        (*LONG, os.environ.get("IIDM_STEPS", "2000"), "--step.graph", "on"),
        (*LONG, *SMALL),
        TRAINING,
    ),
    _benchmarks(
        "compile",
        "time of torch.compile for the same ops",
        240,
        "benchmarks/bench_kernels.py -m gpu -k compile",
        "benchmarks/bench_kernels.py -m 'not gpu' -k cpu-2-jitter-forward-float32-eager",
    ),
)
"""In their order: what is right comes before what is fast. The first three take less than eight minutes."""
