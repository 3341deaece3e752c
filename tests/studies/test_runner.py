"""Which processes get which cores and GPUs, and what a run's process does with what an earlier one left."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import made_up
import pytest

import iidm.studies.local
import iidm.studies.worker
from iidm.cli import write_config
from iidm.config import Config
from iidm.presets import preset_config
from iidm.studies.local import make_slots, source_commit, visible_gpus
from iidm.studies.worker import read_results, train
from iidm.types import UserError

CONFIG = preset_config("scenes")


def with_gpus(monkeypatch: pytest.MonkeyPatch, names: list[str]) -> None:
    monkeypatch.setattr(iidm.studies.local, "visible_gpus", lambda: names)


def test_jobs_on_a_cpu_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpus(monkeypatch, [])
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    assert make_slots(1, CONFIG, runs_per_gpu=1) == [{}]  # as without a study
    assert make_slots(3, CONFIG, runs_per_gpu=1) == [{"OMP_NUM_THREADS": "2"}] * 3
    assert make_slots(20, CONFIG, runs_per_gpu=1) == [{"OMP_NUM_THREADS": "1"}] * 20
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert make_slots(3, CONFIG, runs_per_gpu=1) == [{}] * 3  # the user's own wish


def test_each_job_has_a_gpu_of_its_own_unless_they_are_to_be_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpus(monkeypatch, ["3", "5"])
    gpus = [slot["CUDA_VISIBLE_DEVICES"] for slot in make_slots(2, CONFIG, runs_per_gpu=1)]
    assert gpus == ["3", "5"]
    with pytest.raises(UserError, match="--jobs 3 needs 3 GPUs, and there are 2. Give --jobs 2, or --runs-per-gpu 2"):
        make_slots(3, CONFIG, runs_per_gpu=1)
    shared = [slot["CUDA_VISIBLE_DEVICES"] for slot in make_slots(3, CONFIG, runs_per_gpu=2)]
    assert shared == ["3", "5", "3"]
    on_cpu = make_slots(3, Config(device="cpu"), runs_per_gpu=1)
    assert all("CUDA_VISIBLE_DEVICES" not in slot for slot in on_cpu)


def test_gpus_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, 7")
    assert visible_gpus() == ["4", "7"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert visible_gpus() == ["0", "1"]


def test_the_commit_is_that_of_iidms_own_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("IIDM_COMMIT", "abc")
    assert source_commit() == "abc"
    monkeypatch.delenv("IIDM_COMMIT")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.setattr(iidm, "__file__", str(tmp_path / "venv" / "site-packages" / "iidm" / "__init__.py"))
    assert source_commit() == ""  # installed into someone's own repository


def test_a_process_ends_with_the_study_that_started_it(tmp_path: Path) -> None:
    code = f"""
import os, subprocess, sys, time
child = "import time, iidm.processes as p; p.end_with({{}}); print('alive', flush=True); time.sleep(60)"
process = subprocess.Popen([sys.executable, "-c", child.format(os.getpid())], stdout=subprocess.PIPE, text=True)
process.stdout.readline()
open({str(tmp_path / "pid")!r}, "w").write(str(process.pid))
os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", code])
    pid = int((tmp_path / "pid").read_text())
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        if state in "ZX":
            return
        subprocess.run(["sleep", "0.05"])
    raise AssertionError("the process outlived its study")


class Trained(list[Any]):
    """The runs that a worker has started: (run_dir existed, what it resumes)."""

    def run(self, config: Config, resume: Path | None = None) -> None:
        assert config.run_dir is not None
        self.append((config.run_dir.exists(), resume))


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Trained:
    found = Trained()
    monkeypatch.setattr(iidm.studies.worker, "run", found.run)
    return found


def test_a_worker_does_only_what_is_missing(trained: Trained, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    config = Config(run_dir=run_dir)
    train(config, run_dir)
    run_dir.mkdir()
    train(config, run_dir)  # killed before it had a configuration
    run_dir.mkdir(exist_ok=True)
    (run_dir / "config.json").write_text('{"seed"')
    train(config, run_dir)  # killed while it was written
    run_dir.mkdir(exist_ok=True)
    write_config(Config(), run_dir / "config.json")
    train(config, run_dir)  # killed before its first checkpoint
    assert trained == [(False, None)] * 4
    trained.clear()
    made_up.write(run_dir / "checkpoints" / "step-00000003" / "metadata.json", "{}")
    train(config, run_dir)
    (run_dir / "results.json").write_text('{"stu')
    train(config, run_dir)  # killed while it was written: its scores are computed again
    assert trained == [(True, run_dir)] * 2
    (run_dir / "results.json").write_text('{"student": {}}')
    train(config, run_dir)
    assert len(trained) == 2
    assert read_results(run_dir) == {"student": {}}
