"""A Transformer seen by HRDA, with everything that draws random numbers in it, from training to prediction."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from small_runs import SIZE, STEPS, evaluate, half_done, metrics, options, predict, refusal, train, weights

NETWORK = "--model.backbone mit_b0 --model.dropout 0.1 --model.drop-path 0.3 --data.crop-size 64 96".split()
METHOD = ["--method", "iidm_mic_hrda", "--loss.auxiliary-weight", "0"]


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("hrda") / "run"
    # The method comes first: options override what it sets.
    train([*METHOD, *options(data, run_dir, *NETWORK, "--eval.mode", "slide", "--quiet")])
    return run_dir


def test_it_learns_from_every_branch(run: Path) -> None:
    last = json.loads(metrics(run).splitlines()[-1])
    for name in ("source", "target", "mask"):
        assert last[f"loss_{name}"] >= 0
    assert last["loss_source"] > 0 and last["loss_target"] > 0


def test_it_goes_on_bit_by_bit(run: Path, tmp_path: Path) -> None:
    """Stochastic depth, dropout, boxes and hidden blocks are drawn as if nothing had happened."""
    copied = half_done(run, tmp_path / "run")
    train(["--resume", copied, "--quiet"])
    assert metrics(copied) == metrics(run)
    assert weights(copied, STEPS) == weights(run, STEPS)


def test_it_is_scored_and_labels_images(run: Path, data: Path, tmp_path: Path) -> None:
    scores = json.loads(evaluate([run, "--json"]).out)
    assert scores["student"]["miou"] == json.loads((run / "results.json").read_text())["student"]["miou"]
    predict([run, data / "target" / "images" / "val", "--out", tmp_path])
    label = Image.open(tmp_path / "v0.ids.png")
    assert (label.height, label.width) == SIZE


def test_crops_that_hrda_cannot_divide_are_refused_before_a_run_begins(data: Path, tmp_path: Path) -> None:
    words = options(data, tmp_path / "run", *NETWORK, "--model.hrda", "--data.crop-size", "60", "96")
    assert "multiples of 16, not 60 96: give --data.crop-size 64 96" in refusal("train", words)
    assert not (tmp_path / "run" / "checkpoints").exists()
