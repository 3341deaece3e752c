"""What runs CUDA kernels on the CPU: it computes what CUDA says, and refuses what CUDA leaves undefined."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import on_cpu  # noqa: E402

pytestmark = pytest.mark.skipif(bool(on_cpu.why_not()), reason=on_cpu.why_not())
RULES = Path(__file__).parent / "rules.cu"
INVALID_VALUE, INVALID_CONFIGURATION, MISALIGNED, FAILURE = 1, 9, 716, 719


@pytest.fixture(scope="session")
def plain() -> Path:
    return on_cpu.Build().program("plain", RULES)


@pytest.fixture(scope="session")
def thread() -> Path:
    return on_cpu.Build().program("thread", RULES)


def results(program: Path, *cases: str, order: int = 0) -> list[tuple[int, str, list[int]]]:
    """(error, its text, what was computed) of each case."""
    run = on_cpu.run_program(program, *cases, order=order)
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    return [
        (int(lines[i].split()[1]), lines[i + 1], list(map(int, lines[i + 2].split()))) for i in range(0, len(lines), 3)
    ]


@pytest.mark.parametrize(
    ("case", "error", "text"),
    [
        ("different_barriers", FAILURE, "wait at different barriers (csrc/rules.cu:"),
        ("ended_threads", FAILURE, "threads have ended while others wait at a barrier"),
        ("half_a_warp", FAILURE, "a lane waits in vain for others of its mask"),
        ("outside_of_the_mask", FAILURE, "a lane is not in the mask that it gives"),
        ("misaligned", MISALIGNED, "no multiple of what its type needs (csrc/rules.cu:"),
        ("misaligned_in_shared_memory", MISALIGNED, "no multiple of what its type needs"),
        ("outside_of_an_array", FAILURE, "an index lies outside of its array"),
        ("large_array", INVALID_VALUE, "more shared memory than it was granted"),
        ("shared_memory_without_leave", INVALID_VALUE, "more shared memory than was granted"),
        ("too_many_threads", INVALID_CONFIGURATION, "no GPU has such a grid"),
        ("too_many_pictures", INVALID_CONFIGURATION, "no GPU has such a grid"),
        ("no_blocks", INVALID_CONFIGURATION, "no GPU has such a grid"),
    ],
)
def test_what_a_gpu_refuses_or_leaves_undefined_is_an_error(plain: Path, case: str, error: int, text: str) -> None:
    broken, after = results(plain, case, "sums")
    assert broken[0] == error and text in broken[1]
    assert after[0] == 0 and after[2][0] == 64 * 63 // 2  # and the next launch runs


@pytest.mark.parametrize("order", range(4))
def test_warps_blocks_and_atomics_compute_what_cuda_says(plain: Path, order: int) -> None:
    (sums, parts, places, garbage, halves, shared) = results(
        plain, "sums", "warp_in_parts", "places", "garbage", "halves", "shared_memory_with_leave", order=order
    )
    assert all(error == 0 for error, _, _ in (sums, parts, places, garbage, halves, shared))
    assert sums[2][:5] == [64 * 63 // 2, 0, 0, 0, 0] and sums[2][6] == 63
    assert sums[2][5] == 0x42000000  # 32.0
    assert parts[2][:2] == [7, 39]
    assert places[2][: 12 * 24] == [1] * (12 * 24)
    assert garbage[2][0] == 1 and halves[2][:2] == [1, 1] and shared[2][0] == 1


def test_the_order_of_threads_is_another_one_with_each_number(plain: Path) -> None:
    """Without its barrier a thread reads garbage where the other has not been: which ones differs."""
    seen = [results(plain, "threads_race", order=order)[0][2][:64] for order in range(4)]
    assert all(set(words) == {-1, 1} for words in seen)
    assert len(set(map(tuple, seen))) == 4


@pytest.mark.parametrize("case", ["blocks_race", "threads_race", "lanes_race"])
def test_the_thread_sanitizer_sees_races_between_blocks_threads_and_lanes(thread: Path, case: str) -> None:
    run = on_cpu.run_program(thread, case)
    assert run.returncode != 0 and "data race" in run.stderr and "csrc/rules.cu" in run.stderr


def test_the_thread_sanitizer_knows_what_barriers_and_warps_order(thread: Path) -> None:
    assert [error for error, _, _ in results(thread, "a_barrier_orders", "a_warp_orders", "sums")] == [0, 0, 0]


def test_what_the_conversion_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match="one shared variable a declaration"):
        on_cpu.converted("__global__ void f() {\n  __shared__ int a[2], b[3];\n}", "csrc/f.cu")
    source = "// k<<<1, 2>>>(x)\nns::k<A<3>, 4><<<dim3(1, 2), 3,\n 0, q>>>(f(x),\n y);"
    launch = "cuda_on_cpu::launch(cuda_on_cpu::config(dim3(1, 2), 3,\n 0, q), ns::k<A<3>, 4>, f(x),\n y);"
    expected = f"\n// k<<<1, 2>>>(x)\n{launch}"
    assert on_cpu.converted(source, "csrc/f.cu") == '#line 1 "csrc/f.cu"' + expected


def test_a_source_that_does_not_compile_says_so(tmp_path: Path) -> None:
    (tmp_path / "wrong_cuda.cu").write_text("__global__ void f( {}")
    with pytest.raises(RuntimeError, match="csrc/wrong_cuda.cu:1"):
        on_cpu.Build(tmp_path).kernels([])
