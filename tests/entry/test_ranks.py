"""Several processes train one network: as one process does, over a resume with another number, a kill and a stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_runs import STEPS, half_done, metrics, options, refusal, train, write_data

ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def start(words: list[str], *torchrun: str) -> subprocess.Popen[str]:
    """iidm.train in two processes."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [*TORCHRUN, *torchrun, "-m", "iidm.train", *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def weights(run_dir: Path) -> dict[str, bytes]:
    """The parameters of the last checkpoint; BatchNorm's statistics are the target's, from the same weights."""
    tensors = {}
    for name in ("student", "teacher"):
        path = run_dir / "checkpoints" / f"step-{STEPS:08d}" / f"{name}.safetensors"
        tensors |= {f"{name}.{key}": value.numpy().tobytes() for key, value in load_file(path).items()}
    return tensors


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As each of the processes has: equal numbers need equal threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process with two batches a step."""
    run_dir = tmp_path_factory.mktemp("alone") / "run"
    train(options(data, run_dir, "--step.branches", "merged", "--step.accumulate", "2"))
    return run_dir


@pytest.fixture(scope="module")
def together(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Two processes with one batch each, and what they said."""
    run_dir = tmp_path_factory.mktemp("together") / "run"
    out, err = (process := start(options(data, run_dir, "--step.branches", "merged"))).communicate()
    assert process.returncode == 0, err[-3000:]
    return run_dir, out + err


def test_two_processes_are_one_with_two_batches(alone: Path, together: tuple[Path, str]) -> None:
    run_dir, _ = together
    assert metrics(run_dir) == metrics(alone)
    assert weights(run_dir) == weights(alone)
    results = [json.loads((run / "results.json").read_text()) for run in (run_dir, alone)]
    assert results[0]["student"] == results[1]["student"] and results[0]["teacher"] == results[1]["teacher"]
    assert results[0]["processes"] == 2 and results[0]["images"] == results[1]["images"]


def test_it_is_all_said_once(together: tuple[Path, str]) -> None:
    _, said = together
    assert said.count("class, % of pixels") == 1 and said.count(f"step {STEPS}/{STEPS}") == 1
    assert said.count("pixel accuracy") == 1
    assert "a step is of 2 batches of 2+2+2 images, 1 of each of 2 processes" in said
    assert "Warning" not in said


def test_one_process_goes_on_where_two_stopped(alone: Path, together: tuple[Path, str], tmp_path: Path) -> None:
    run_dir = half_done(together[0], tmp_path / "run")
    said = train(["--resume", str(run_dir), "--step.branches", "merged"])
    assert "a step is of 2 batches of 2+2+2 images" in said.err
    assert metrics(run_dir) == metrics(alone)
    assert weights(run_dir) == weights(alone)


def test_a_killed_process_ends_all_and_torchrun_goes_on(data: Path, alone: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    words = options(data, run_dir, "--step.branches", "merged", "--log.checkpoint-every", "1")
    process = start(words, "--max-restarts", "1")
    first = run_dir / "checkpoints" / "step-00000001"
    while not first.exists() and process.poll() is None:
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[1]), signal.SIGKILL)
    out, err = process.communicate()
    assert process.returncode == 0, err[-3000:]
    assert "resumed" in err and out.count("pixel accuracy") == 1
    assert metrics(run_dir) == metrics(alone)
    assert weights(run_dir) == weights(alone)


def test_sigterm_saves_and_sigusr1_saves_and_goes_on(data: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    words = options(data, run_dir, "--max-steps", "10000", "--log.checkpoint-every", "0", "--log.keep-checkpoints", "9")
    process = start(words)
    lines = run_dir / "metrics.jsonl"
    while not (lines.exists() and lines.read_text()) and process.poll() is None:
        time.sleep(0.02)
    child = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[1]
    os.kill(int(child), signal.SIGUSR1)  # one is told, all save
    saved = run_dir / "checkpoints"
    while not list(saved.glob("step-*")) and process.poll() is None:
        time.sleep(0.02)
    (first,) = saved.glob("step-*")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert "saved after step" in err
    assert err.count("everything is saved") == 1, err[-3000:]
    assert len(list(saved.glob("step-*"))) == 2 and first.exists()
    assert not subprocess.run(["pgrep", "-f", str(run_dir)], capture_output=True, text=True).stdout


def test_what_cannot_be_shared_is_said(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"RANK": "0", "WORLD_SIZE": "2"}
    monkeypatch.setattr(os, "environ", {**os.environ, **environment})
    assert "not all of torchrun's variables" in refusal("train", options(data, tmp_path / "run"))
    environment |= {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_MAX_RESTARTS": "3"}
    monkeypatch.setattr(os, "environ", {**os.environ, **environment})
    words = [w for w in options(data, tmp_path / "run") if w not in ("--run-dir", str(tmp_path / "run"))]
    assert "--max-restarts needs --run-dir" in refusal("train", words)
