"""The stages: what each runs, on a GPU and in a dry run, and what it needs."""

from __future__ import annotations

import importlib.util
import os
import shlex
from dataclasses import dataclass, field

OWN_KERNELS = (
    "regex=iidm|cross_entropy_kernel|pseudo_label_kernel|finish_|add_planes_kernel|sums_kernel|normalize_kernel"
    "|gradient_kernel"
)
# Of the process itself alone: Triton's compilers, which it starts, would each be waited for. The first call to CUDA of
# one process, which comes when torch and the tests are imported, is waited for 10 seconds only, unless told otherwise:
# then they run unwatched.
SANITIZER = tuple(
    "compute-sanitizer --target-processes application-only --launch-timeout 0 --report-api-errors no"
    " --error-exitcode 9".split()
)
SANITIZER += ("--kernel-name", OWN_KERNELS)
# That one looks, by a volatile read, whether a bit is set before it sets it by atomicOr. Whoever sees the old word sets
# the bit once more: a race that racecheck may report, and that changes nothing.
RACECHECK = (*SANITIZER, "--tool", "racecheck", "--kernel-name-exclude", "kernel_substring=presence_kernel")
TESTS = ("pytest", "hypothesis")
TRAINING = ("cattr", "tyro", "safetensors", "PIL", "tqdm", "nvidia.dali")
"""What a whole training imports."""
COUNT = str(min(max((os.cpu_count() or 1) - 4, 2), 12))
PROCESSES = ("-n", COUNT, "--dist", "load", "-p", "benchmarks.gpu.lost_device")
if importlib.util.find_spec("pytest_timeout"):
    PROCESSES += ("--timeout", "60", "--timeout-method", "thread")  # a signal ends no wait for a GPU that hangs
PROCESSES = PROCESSES if importlib.util.find_spec("xdist") else ()
"""Most of the time of these tests is Triton's, which compiles on one core; and what ends a process, hangs, or leaves
the GPU in an error is named and costs no other test. pytest-xdist gives up when four times as many are lost: the more
there are, the more of a faulty kernel's tests are outlasted."""
STEP_TESTS = (
    "tests/method/test_graph.py tests/method/test_catalog.py tests/method/test_failed_capture.py"
    " tests/engine/test_windows.py"
)
"""By name, as a file that needs a package which is not there would end the collection."""
DRY_STEP = "benchmarks/bench_step.py -m 'not gpu' -k 'bench_step and cpu-mobilenet_v2-240x320-2-iidm'"
HEADLINE = "bench_step and cuda-resnet101-v1c-512x512-2 and not options"
OTHER_STEPS = f"benchmarks/bench_step.py -m gpu --long -k 'not ({HEADLINE}) and not compile'"
COMPILED_STEPS = "benchmarks/bench_step.py -m gpu --long -k 'bench_step_options and compile'"


@dataclass(frozen=True)
class Stage:
    """One command and what it shows."""

    name: str
    shows: str
    seconds: int
    """Its limit; then it gets SIGINT, after which pytest still writes what it has."""
    least: int
    """It is not begun where less is left: it would show nothing."""
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
    report = ("--junitxml", f"FOLDER/gpu-{name}.xml", "--continue-on-collection-errors")
    return ("-m", "pytest", "-q", "-p", "no:cacheprovider", *shlex.split(words), *report)


def _tests(
    name: str,
    shows: str,
    limits: tuple[int, int],
    words: str,
    needs: tuple[str, ...] = TESTS,
    processes: tuple[str, ...] = (),
) -> Stage:
    words_of_both = _pytest(name, f"{words} -m gpu")
    # Threads of several processes that wait for each other on one core take most of its time.
    environment = {"OMP_NUM_THREADS": "1"} if processes else {}
    return Stage(name, shows, *limits, (*words_of_both, *processes), words_of_both, needs, environment=environment)


def _benchmarks(
    name: str, shows: str, limits: tuple[int, int], words: str, dry: str, needs: tuple[str, ...] = TESTS
) -> Stage:
    json = f"--benchmark-json FOLDER/gpu-{name}.json"
    one_round = "--benchmark-min-rounds 1 --benchmark-max-time 0 --benchmark-warmup off"
    given = _pytest(name, f"{words} {json}"), _pytest(name, f"{dry} {one_round} {json}")
    return Stage(name, shows, *limits, *given, ("pytest_benchmark", *needs))


WRITTEN = "tests/kernels/test_determinism.py -m gpu -k 'written and size1'"
SANITIZED, RACED = _pytest("sanitize", WRITTEN), _pytest("races", WRITTEN)
FULL = ("-m", "benchmarks.full_size", "FOLDER", "--steps")
LONG = ("-m", "benchmarks.long_run", "FOLDER", "--steps")
SMALL = ("10", "--any-pace", "--model.backbone", "mobilenet_v2", "--data.crop-size", "64", "128")
STAGES = (
    Stage(
        "build",
        "the extension compiles for this GPU and loads",
        120,
        60,
        ("-m", "benchmarks.gpu.build"),
        ("-m", "benchmarks.gpu.build", "--dry-run"),
        ("pybind11", "setuptools", "triton"),
    ),
    _tests("kernel-tests", "kernels are right", (180, 60), "tests/kernels", TESTS, PROCESSES),
    _tests("step-tests", "steps of training are right, captured in a graph", (120, 60), STEP_TESTS, TESTS, PROCESSES),
    # Without torch's cache of memory, in which an overrun would stay inside an allocation; the project's kernels alone.
    Stage(
        "sanitize",
        "no kernel leaves its memory (compute-sanitizer)",
        100,
        40,
        SANITIZED,
        SANITIZED,
        TESTS,
        SANITIZER,
        {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
    ),
    _benchmarks(
        "step",
        "time of a step of ResNet-101 against plain PyTorch",
        (120, 50),
        f"benchmarks/bench_step.py -m gpu -k '{HEADLINE}'",
        DRY_STEP,
    ),
    Stage(
        "full-size",
        "gta5-cityscapes-100 trains: losses fall, memory stays, labels are right (images are made, none are read)",
        150,
        60,
        (*FULL, "400"),
        (*FULL, "12", "--small", "--any-result"),
        ("pytest", "safetensors"),
    ),
    Stage(
        "profile",
        "what the time of that step goes to, kernel by kernel",
        60,
        30,
        ("-m", "benchmarks.profile_step", "FOLDER"),
        ("-m", "benchmarks.profile_step", "FOLDER", "--small"),
        ("pytest", "safetensors"),
    ),
    _benchmarks(
        "kernels",
        "time of each kernel against plain PyTorch",
        (150, 60),
        "benchmarks/bench_kernels.py -m gpu -k 'fused or eager'",
        "benchmarks/bench_kernels.py -m 'not gpu' -k 'cpu-2-jitter-forward-float32 and not compile'",
    ),
    Stage(
        "races",
        "threads of a block do not race for its shared memory (compute-sanitizer)",
        100,
        40,
        RACED,
        RACED,
        TESTS,
        RACECHECK,
    ),
    _tests(
        "loader-tests",
        "the data path is right",
        (120, 60),
        "tests/data/test_gpu_loader.py",
        (*TESTS, *TRAINING),
        PROCESSES,
    ),
    _tests(
        "commands",
        "training, resuming, scores, labels, export and reports are those of the CPU",
        (400, 120),
        "tests/entry/test_gpu_commands.py",
        (*TESTS, *TRAINING),
    ),
    _benchmarks(
        "loader",
        "images a second from files to the GPU",
        (240, 120),
        "benchmarks/bench_loader.py benchmarks/bench_prepare.py -k 'cuda or index or start or bench_prepare'",
        "benchmarks/bench_loader.py -k cpu-iidm-prepared",
        (*TESTS, *TRAINING),
    ),
    Stage(
        "long",
        "2,000 steps of gta5-cityscapes-100 on generated data hold their pace and memory",
        300,
        150,
        (*LONG, os.environ.get("IIDM_STEPS", "2000"), "--step.graph", "on"),
        (*LONG, *SMALL),
        TRAINING,
    ),
    _benchmarks(
        "steps",
        "time of steps of other networks and batches, of options, and on 8 GB",
        (400, 60),
        OTHER_STEPS,
        f"{OTHER_STEPS} --collect-only",
    ),
    _tests(
        "compile-tests",
        "compiled steps are right",
        (240, 90),
        "tests/method/test_graph.py --long -k two_learning_rates",
    ),
    _benchmarks(
        "compile",
        "time of torch.compile for the same ops",
        (240, 60),
        "benchmarks/bench_kernels.py -m gpu -k compile",
        "benchmarks/bench_kernels.py -m 'not gpu' -k cpu-2-jitter-forward-float32-eager",
    ),
    _benchmarks(
        "compile-step",
        "time of a step through torch.compile",
        (240, 120),
        COMPILED_STEPS,
        f"{COMPILED_STEPS} --collect-only",
    ),
)
"""In their order: what is right comes before what is fast, and what needs the least before what needs more."""
