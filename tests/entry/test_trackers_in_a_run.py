"""What a run gives to Weights & Biases, here a stand-in: tests/engine/test_trackers.py has the true one."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_runs import CLASSES, STEPS, Finished, train

from iidm.cli import read_config
from iidm.engine.log import NoLog
from iidm.ranks import Ranks
from iidm.train import open_log, wanted_trackers
from iidm.types import UserError


class Wandb:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.id, self.scalars, self.exit_codes = "w1", [], []  # type: ignore[var-annotated]
        self.begun: dict[str, Any] = {}
        self.final: dict[str, float] = {}
        self.summary = SimpleNamespace(update=self.final.update)

    def init(self, **given: Any) -> Wandb:
        self.begun = given
        return self

    def log(self, values: dict[str, float], step: int) -> None:
        self.scalars.append((step, values))

    def finish(self, exit_code: int) -> None:
        self.exit_codes.append(exit_code)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Wandb:
    stand_in = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", stand_in)  # type: ignore[arg-type]
    return stand_in


def test_a_run_gives_its_steps_configuration_and_final_scores(finished: Finished, tmp_path: Path, wandb: Wandb) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(finished.run_dir, run_dir, ignore=shutil.ignore_patterns("tensorboard", "previews"))
    said = train(["--resume", run_dir, "--max-steps", STEPS + 1, "--log.wandb", "--log.no-tensorboard"])
    assert wandb.begun["config"]["max_steps"] == STEPS + 1 and wandb.begun["dir"] == str(run_dir)
    assert [step for step, _ in wandb.scalars] == [STEPS + 1] and "loss/total" in wandb.scalars[0][1]
    scores = json.loads((run_dir / "results.json").read_text())
    for network in ("student", "teacher"):
        assert wandb.final[f"final/{network}/miou"] == scores[network]["miou"]
        for name in CLASSES:
            assert wandb.final[f"final/{network}/iou/{name}"] == scores[network]["iou"][name]
    assert wandb.exit_codes == [0]
    assert f"\n  iidm report {run_dir} " in said.out


def test_the_first_process_alone_logs(finished: Finished, tmp_path: Path, wandb: Wandb) -> None:
    config = read_config(finished.run_dir / "config.json")
    config = replace(config, log=replace(config.log, wandb=True))
    log = open_log(config, tmp_path, 0, Ranks(rank=1, size=2), wanted_trackers(config.log))
    assert type(log) is NoLog and wandb.begun == {}
    log.results({})


def test_one_that_is_not_installed_is_told_before_anything_is_read_or_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    words = ["--preset", "folder", "--log.mlflow", "--run-dir", tmp_path / "run", "--target-root", tmp_path / "gone"]
    with pytest.raises(UserError, match="iidm\\[mlflow\\]"):
        train(words)
    assert list(tmp_path.iterdir()) == []
