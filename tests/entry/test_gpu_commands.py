"""The commands on a GPU: each runs, and says what it says on the CPU of the same weights, up to rounding.

What holds in detail is tested on a CPU, where equal runs are equal bit for bit.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import html_reports
import numpy as np
import pytest
import small_runs
import torch
from PIL import Image
from small_runs import STEPS, Finished, call, half_done, kill_group, metrics, options, train

import iidm.export
import iidm.select

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
MIOU_ERROR = 0.03
"""Of images with 6,000 pixels each, of a network that has hardly learned and is undecided in many of them."""


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run of STEPS steps; its source's images are JPEG and its target's PNG."""
    run_dir = tmp_path_factory.mktemp("on a gpu") / "run"
    words = options(data, run_dir, "--device", "cuda", "--amp", "--log.preview-every", "3", "--log.eval-every", "3")
    return Finished(run_dir, train(words, painted=True))


def losses(run_dir: Path) -> list[float]:
    """The total of each step."""
    return [json.loads(line)["loss_total"] for line in metrics(run_dir).splitlines() if "loss_total" in line]


def on_cpu(module: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """A command where no GPU can be seen."""
    command = [sys.executable, "-m", f"iidm.{module}", *map(str, words)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)


def test_a_run_writes_what_a_run_writes(run: Finished) -> None:
    assert len(losses(run.run_dir)) == STEPS and np.isfinite(losses(run.run_dir)).all()
    assert " · cuda · " in (run.run_dir / "notes.txt").read_text()
    results = json.loads((run.run_dir / "results.json").read_text())
    assert 0 < results["student"]["miou"] <= 1 and 0 < results["teacher"]["miou"] <= 1
    assert list((run.run_dir / "previews").glob("*.png"))


def test_a_run_goes_on_from_its_checkpoint(run: Finished, tmp_path: Path) -> None:
    resumed = half_done(run.run_dir, tmp_path / "resumed")
    train(["--resume", resumed, "--quiet"])
    assert losses(resumed) == pytest.approx(losses(run.run_dir), rel=0.05)


def test_ctrl_c_saves_and_the_run_goes_on_to_its_end(data: Path, tmp_path: Path) -> None:
    run_dir, steps = tmp_path / "run", 200
    words = options(data, run_dir, "--device", "cuda", "--amp", "--quiet", "--log.checkpoint-every", "0")
    process = small_runs.start("train", [*words, "--max-steps", str(steps), "--data.workers", "1"])
    try:
        small_runs.wait_for_steps(process, run_dir, 4)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=600)
    finally:
        kill_group(process)
    assert process.returncode == 2 and err.startswith("iidm: Stopped after step "), err
    train(["--resume", run_dir, "--quiet"])
    assert len(losses(run_dir)) == steps and np.isfinite(losses(run_dir)).all()


def test_scores_are_those_of_the_cpu(run: Finished) -> None:
    words = (run.run_dir, "--json", "--precision", "float32")
    found, wanted = json.loads(small_runs.evaluate(words).out), json.loads(on_cpu("evaluate", *words).stdout)
    for network in ("student", "teacher"):
        assert found[network]["miou"] == pytest.approx(wanted[network]["miou"], abs=MIOU_ERROR)
        assert found[network]["pixel_accuracy"] == pytest.approx(wanted[network]["pixel_accuracy"], abs=MIOU_ERROR)


def test_labels_are_those_of_the_cpu(run: Finished, data: Path, tmp_path: Path) -> None:
    words = [run.run_dir, *(data / name / "images" / "train" for name in ("source", "target")), "--precision"]
    small_runs.predict([*words, "float32", "--out", tmp_path / "gpu"])
    small_runs.predict([*words, "amp", "--out", tmp_path / "half"])
    on_cpu("predict", *words, "float32", "--out", tmp_path / "cpu")
    found, wanted, half = (labels(tmp_path / name) for name in ("gpu", "cpu", "half"))
    assert found.shape == wanted.shape and (found == wanted).mean() > 0.98
    assert (half == wanted).mean() > 0.9


def labels(folder: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """All that predict wrote, as [N,H,W]."""
    paths = sorted(folder.rglob("*.ids.png"))
    assert len(paths) == 2 * small_runs.TRAIN_IMAGES
    return np.stack([np.asarray(Image.open(path)) for path in paths])


def test_its_network_is_exported(run: Finished, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    said = call(iidm.export.main, [run.run_dir, "--out", tmp_path / "camera.onnx"])  # checks the file that it wrote
    assert (tmp_path / "camera.onnx").stat().st_size > 1e6, said


def test_a_report_is_written_and_images_are_chosen(run: Finished, tmp_path: Path) -> None:
    copy = html_reports.copied(run.run_dir, tmp_path)
    html_reports.report(copy)
    assert (copy / "report.html").stat().st_size > 10_000
    said = call(iidm.select.main, [copy, "--count", "2", "--out", tmp_path / "next"])
    assert len((tmp_path / "next" / "scores.csv").read_text().splitlines()) > 2, said
