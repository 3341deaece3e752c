"""The list of the GPU's stages (benchmarks/gpu/stages.py), and what their results are results of."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks.gpu.records import Record, Records, digest
from benchmarks.gpu.stages import PROCESSES, SANITIZER, STAGES

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", ["kernel.cu", "common.cuh", "op.cpp", "op.h", "presets.toml", "run.sh", "step.py"])
def test_what_a_stage_depends_on_is_of_the_sources(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.gpu.records.ROOT", tmp_path)
    (tmp_path / "csrc").mkdir()
    before = digest()
    (tmp_path / "csrc" / name).write_text("x")
    first = digest()
    (tmp_path / "csrc" / name).write_text("y")
    assert len({before, first, digest()}) == 3


def test_results_of_other_sources_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Records(tmp_path, dry=False).put("tests", Record("passed", 1.0, "3 passed"))
    assert Records(tmp_path, dry=False).ended("tests") == "passed"
    monkeypatch.setattr("benchmarks.gpu.records.digest", lambda: "other")
    assert Records(tmp_path, dry=False).ended("tests") is None


def test_the_first_stages_fit_into_ten_minutes_and_each_may_be_begun() -> None:
    assert [each.name for each in STAGES[:4]] == ["build", "kernel-tests", "step-tests", "sanitize"]
    assert sum(each.seconds for each in STAGES[:4]) < 9 * 60
    assert all(0 < each.least <= each.seconds for each in STAGES)


def test_the_page_names_the_stages_in_their_order() -> None:
    page = (ROOT / "docs" / "gpu.md").read_text()
    assert re.sub(r"\s+", " ", page).count(", ".join(f"`{each.name}`" for each in STAGES) + ".") == 1


def test_the_loaders_stage_times_no_loader_on_a_cpu(tmp_path: Path) -> None:
    (stage,) = (each for each in STAGES if each.name == "loader")
    words = [word.replace("FOLDER", str(tmp_path)) for word in stage.words]
    run = subprocess.run([sys.executable, *words, "--collect-only"], cwd=ROOT, capture_output=True, text=True)
    cases = [line.rpartition("::")[2] for line in run.stdout.splitlines() if "::" in line]
    assert len([case for case in cases if case.startswith("bench_loader[cuda-")]) == 7, run.stdout
    assert {case.partition("[")[0] for case in cases} == {"bench_loader", "bench_index", "bench_start", "bench_prepare"}
    assert not [case for case in cases if "[cpu-" in case]


def test_the_races_that_are_meant_are_not_looked_for() -> None:
    (races,) = (each for each in STAGES if each.name == "races")
    assert races.under[: len(SANITIZER)] == SANITIZER
    name = races.under[races.under.index("--kernel-name-exclude") + 1].removeprefix("kernel_substring=")
    text = (ROOT / "csrc" / "draw_classes_cuda.cu").read_text()
    assert f" {name}(" in text and "const_cast<volatile" in text  # else the exception is of no use


def test_a_fault_in_one_kernel_costs_no_test_of_another() -> None:
    """It leaves the GPU of its process in an error, for every later test in it."""
    for each in STAGES:
        if each.name in ("kernel-tests", "step-tests"):
            assert each.words[-len(PROCESSES) :] == PROCESSES and "benchmarks.gpu.lost_device" in PROCESSES


def test_every_test_that_needs_a_gpu_is_in_a_stage() -> None:
    words = [word for each in STAGES for word in each.words if word.startswith("tests/")]
    ours = (re.compile(r"mark\.gpu\b"), re.compile(r"run_with\("))
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        if path.name != Path(__file__).name and any(found.search(path.read_text()) for found in ours):
            name = str(path.relative_to(ROOT))
            assert any(name == word or name.startswith(f"{word}/") for word in words), name
    assert all((ROOT / word).exists() for word in words)


@pytest.mark.parametrize("marked", [False, True])
def test_no_other_test_sees_the_gpu(marked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    found = runpy.run_path(str(ROOT / "tests" / "conftest.py"))
    hook = found["pytest_runtest_protocol"]
    monkeypatch.setitem(hook.__globals__, "has_gpu", lambda: True)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    around = hook(SimpleNamespace(get_closest_marker={"gpu": marked or None}.get))
    next(around)
    assert torch.cuda.is_available() == marked
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ("3" if marked else "")
    with pytest.raises(StopIteration):
        around.send(None)
    assert torch.cuda.is_available() and os.environ["CUDA_VISIBLE_DEVICES"] == "3"


def test_what_is_not_of_the_data_path_runs_without_its_packages() -> None:
    """A bare machine has torch and pytest, and neither DALI nor what reads a command line."""
    absent = "cattr cattrs tyro nvidia.dali pycocotools shapely".split()
    code = (
        f"import sys\nfor name in {absent!r}: sys.modules[name] = None\n"
        "import benchmarks.gpu.__main__, benchmarks.full_size, benchmarks.bench_step, benchmarks.bench_kernels"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    tests = [word for each in STAGES if "tyro" not in each.needs for word in each.words if word.startswith("tests/")]
    code = (
        f"import sys\nfor name in {absent!r}: sys.modules[name] = None\nimport pytest\n"
        f"sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', '--collect-only', '-m', 'gpu', *{tests!r}]))"
    )
    collected = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert collected.returncode == 0, collected.stdout[-2000:]
    whole = [each.name for each in STAGES if "tyro" not in each.needs]
    assert whole == [each.name for each in STAGES if each.name not in ("loader-tests", "commands", "loader", "long")]
