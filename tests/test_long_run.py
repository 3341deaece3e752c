"""How benchmarks/long_run.py judges a run by what it saw of it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import long_run, watching
from benchmarks.beside import Pace, young_runs
from benchmarks.long_run import describe, draw, summary
from benchmarks.watching import Gpu, Point, cpu_s, descendants, gpu_mb, require_seen, rss_mb, watch

GPU = Gpu("GPU-12", "NVIDIA X1")


def points(
    seconds_of: dict[int, float], memory: float = 0.0, wait_ms: float = 0.05, workers: float = 0.0
) -> list[Point]:
    """A log point every ten steps of a thousand; 0.1 s a step unless `seconds_of` says else for its tenth. Memory grows
    by so much a tenth."""
    found, now = [], 5.0
    for number in range(100):
        tenth = number // 10
        now += 10 * seconds_of.get(tenth, 0.1)
        held = 1000 + memory * tenth, 300 + workers * tenth
        found.append(Point(now, 10 * (number + 1), wait_ms, *held, 2 * now, 0.0))
    return found


def test_an_even_run_holds() -> None:
    result = summary(points({0: 3.0}), 1000)  # a slow start is none of it
    assert result["holds"] and describe(result).endswith("\nflat")
    assert result["tenths"]["step_ms"] == pytest.approx([3000, *[100] * 9])
    assert result["tenths"]["cpu_ms"][1:] == pytest.approx([200] * 9)
    assert result["tenths"]["workers_mb"] == [300] * 10
    assert result["wait_share"] == pytest.approx(0.0005)


@pytest.mark.parametrize(
    "run",
    [
        points({7: 0.11}),
        points({tenth: 0.1 + 0.0005 * tenth for tenth in range(10)}),
        points({}, memory=3.0),
        points({}, memory=2.0),
        points({}, workers=1.0),
        points({}, wait_ms=2.0),
    ],
    ids=["pace", "steady slowing", "memory", "steady growth", "workers", "waiting"],
)
def test_a_run_that_slows_down_grows_or_waits_does_not(run: list[Point]) -> None:
    result = summary(run, 1000)
    assert not result["holds"] and describe(result).endswith("\nNOT flat")


def test_evaluations_are_timed_and_are_no_steps() -> None:
    run = points({})
    later = [p._replace(seconds=p.seconds + 4.0 * ((p.step - 1) // 250)) for p in run]
    result = summary(later, 1000, eval_every=250)
    assert result["evaluation_s"] == pytest.approx([4.0, 4.0, 4.0])
    assert result["holds"] and result["spread"]["step_ms"] == pytest.approx(0)


def test_waiting_is_not_judged_where_reading_shares_the_core() -> None:
    assert summary(points({}, wait_ms=2.0), 1000, judge_waiting=False)["holds"]


def test_beside_young_trainings_their_ratio_is_judged() -> None:
    """A tenth in which the machine is slow is slow for both."""
    noisy = points({tenth: 0.15 for tenth in (3, 4)})
    young = [Pace(point.seconds - 0.1, 150.0 if 300 < point.step <= 500 else 100.0) for point in noisy]
    assert not summary(noisy, 1000)["holds"]
    result = summary(noisy, 1000, beside=young)
    assert result["tenths"]["young_ms"] == pytest.approx([100, 100, 100, 150, 150, 100, 100, 100, 100, 100])
    assert result["holds"] and result["spread"]["ratio"] == pytest.approx(0) and "ratio" in describe(result)
    slowing = points({tenth: 0.1 + 0.0005 * tenth for tenth in range(10)})
    assert not summary(slowing, 1000, beside=[Pace(point.seconds - 0.1, 100.0) for point in slowing])["holds"]
    assert not summary(noisy, 1000, beside=young[:50])["holds"]  # the others are not known


def test_young_trainings_begin_anew_and_end_with_the_long_one(tmp_path: Path) -> None:
    code = (
        "import os, sys, time\n"
        "os.makedirs(sys.argv[sys.argv.index('--run-dir') + 1])\n"  # fails where the run before still is
        "for i in range(1, 11):\n"
        "    print(f'step {i}/10  total 1.0 wait_ms 0.1', flush=True); time.sleep(0.02)\n"
    )
    others = set(descendants(os.getpid()))
    with young_runs([sys.executable, "-c", code], tmp_path, 10, begin_s=0.0) as seen:
        for _ in range(10_000):
            time.sleep(0.01)
            if len(seen) >= 20:  # of three runs at least: each tells 7 or 8
                break
    count = len(seen)
    assert count >= 20 and all(pace.step_ms > 0 for pace in seen) and not (tmp_path / "young").exists()
    assert set(descendants(os.getpid())) <= others
    time.sleep(0.1)
    assert len(seen) == count
    with (
        pytest.raises(RuntimeError, match="failed with status 3"),
        young_runs([sys.executable, "-c", "raise SystemExit(3)"], tmp_path, 10),
    ):
        time.sleep(0.1)


def test_the_figure_is_drawn(tmp_path: Path) -> None:
    draw(points({}), 1000, tmp_path / "long-run.png", [Pace(60.0, 100.0)])
    assert (tmp_path / "long-run.png").read_bytes()[:4] == b"\x89PNG"


def test_it_reads_what_a_run_prints(tmp_path: Path) -> None:
    code = "for i in (2, 4): print(f'step {i}/4  total 1.0 wait_ms 0.{i}  9.1 steps/s  0 s left', flush=True)"
    found = watch([sys.executable, "-c", f"{code}\nimport time; time.sleep(0.5)"], tmp_path / "log.txt")
    assert [(p.step, p.wait_ms) for p in found] == [(2, 0.2), (4, 0.4)]
    assert all(p.rss_mb > 1 for p in found)
    assert "step 4/4" in (tmp_path / "log.txt").read_text()
    with pytest.raises(RuntimeError, match="failed with status 3"):
        watch([sys.executable, "-c", "raise SystemExit(3)"], tmp_path / "log.txt")


def test_memory_and_processor_time_of_what_a_process_started_are_counted() -> None:
    code = (
        "import subprocess, sys\n"
        "with subprocess.Popen([sys.executable, '-c', \"print('up', flush=True); input()\"]) as other: other.wait()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdin is not None
        assert child.stdout.readline() == b"up\n"
        inner = descendants(child.pid)
        assert len(inner) == 1 and set(inner) | {child.pid} <= set(descendants(os.getpid()))
        assert rss_mb(inner[0]) > 1 and cpu_s(child.pid) > 0
        child.stdin.close()
    assert rss_mb(child.pid) == 0 and cpu_s(child.pid) == 0


def test_a_second_call_measures_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was cut off, or that has ended, would be refused by the training."""
    left: list[bool] = []

    def train(words: list[str], *_: object) -> list[Point]:
        run = Path(words[words.index("--run-dir") + 1])
        left.append(run.exists())
        run.mkdir()
        (run / "config.json").write_text('{"data": {"workers": 0}}')
        return points({})

    monkeypatch.setattr(long_run, "watch", train)
    monkeypatch.setattr(long_run, "find_gpu", lambda: None)
    monkeypatch.setattr(sys, "argv", ["long_run", str(tmp_path), "--small", "--steps", "1000"])
    for _ in range(2):
        with pytest.raises(SystemExit) as end:
            long_run.main()
        assert end.value.code == 0
    assert left == [False, False]


def test_a_folder_that_is_no_run_stays(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    long_run.forget(tmp_path)
    assert (tmp_path / "notes.txt").exists()


def smi(folder: Path, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program nvidia-smi that knows GPU-12 alone."""
    program = folder / "nvidia-smi"
    program.write_text(f'#!/bin/sh\n[ "$1" = --id=GPU-12 ] && echo "{says}" || echo "No devices were found"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


def test_the_gpu_is_asked_for_by_its_own_number_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi(tmp_path, " 1234", monkeypatch)
    assert gpu_mb(GPU) == 1234 and gpu_mb(None) == 0
    with pytest.raises(RuntimeError, match="No devices were found"):
        gpu_mb(Gpu("GPU-34", "another"))
    seen = [point._replace(gpu_mb=gpu_mb(GPU)) for point in points({})]
    said = describe(summary(seen, 1000, gpu=GPU.name))
    assert "GPU           1234.0 MB, within 0.00 %" in said and said.count("NVIDIA X1") == 1 and said.endswith("\nflat")
    grown = [point._replace(gpu_mb=1000 + point.step / 50) for point in seen]
    assert not summary(grown, 1000, gpu=GPU.name)["holds"]
    assert "GPU" not in describe(summary(points({}), 1000))


def test_memory_that_cannot_be_seen_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_seen(points({}), None, 1)
    with pytest.raises(RuntimeError, match=r"0 MB were in use on NVIDIA X1 \(GPU-12\)"):
        require_seen(points({}), GPU, 1)
    with pytest.raises(RuntimeError, match="of the 2 processes that read ahead"):
        require_seen([point._replace(workers_mb=0.0) for point in points({})], None, 2)
    monkeypatch.setattr(watching.shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match="there is no program nvidia-smi"):
        watch([sys.executable, "-c", f"open({str(tmp_path / 'began')!r}, 'w')"], tmp_path / "log.txt", GPU)
    assert not (tmp_path / "began").exists()


def test_a_training_whose_gpu_is_seen_no_more_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Gpu | None] = []

    def gone(gpu: Gpu | None) -> float:
        asked.append(gpu)
        if len(asked) > 1:
            raise RuntimeError("gone")
        return 1.0

    monkeypatch.setattr(watching, "gpu_mb", gone)
    code = "print('step 2/4  total 1.0 wait_ms 0.1', flush=True)\nimport time; time.sleep(3600)"
    with pytest.raises(RuntimeError, match="gone"):
        watch([sys.executable, "-c", code], tmp_path / "log.txt", GPU)


def test_which_gpu_it_is_is_asked_in_another_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert watching.find_gpu() is None
    (tmp_path / "torch.py").write_text(
        "from types import SimpleNamespace as of\n"
        "cuda = of(is_available=lambda: True, get_device_properties=lambda i: of(uuid='12', name='NVIDIA X1'))"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert watching.find_gpu() == GPU
