"""What runs and studies keep: configuration, checkpoints, logs, records."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from iidm.cli import config_as_dict, read_config, write_config
from iidm.config import Config, DataConfig, DatasetConfig, LogConfig, LossConfig, ModelConfig
from iidm.data import Domains, changes_since, open_domains, target_classes
from iidm.engine.log import RunLog
from iidm.method import TrainStep
from iidm.reports.folder import open_folders
from iidm.reports.scoring import read_kept
from iidm.runs import build_step, description_notes, load_network, load_state, open_run, prepare_run_dir, save_state
from iidm.studies.folder import StudyFolder
from iidm.studies.grid import parse_study
from iidm.studies.plan import Plan, Wishes, make_plan
from iidm.studies.report import Report
from iidm.study import describe_runs, moved_data_notes
from iidm.warm_start import start_network

from .base import CLASSES, Kind, every, write_pictures

CPU = torch.device("cpu")


def _config(data: Path) -> Config:
    folder = DatasetConfig(images="{split}/images", labels="{split}/labels", class_names=CLASSES)
    return Config(
        data=DataConfig(source=folder, target=folder, labeled_count=2, crop_size=(32, 32), check=False),
        source_root=data,
        target_root=data,
        model=ModelConfig(backbone="mobilenet_v2", output_stride=16, weights="none"),
        loss=LossConfig(),
        log=LogConfig(tensorboard=False),
        max_steps=4,
        preset="folder",
    )


@cache
def _step(data: Path) -> tuple[Config, Domains, TrainStep]:
    """A training step with moments in its optimiser; made once, before processes are forked."""
    config = _config(data)
    domains = open_domains(config)
    step = build_step(config, domains, CPU)[0]
    for group in step.optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    step.optimizer.step()
    return config, domains, step


def _pictures(folder: Path) -> Path:
    """The images of all runs here lie in one place, for their configurations to be true wherever a folder is copied."""
    data = folder.parent / "pictures"
    if not data.exists():
        for split in ("train", "val"):
            write_pictures(data / split)
    return data


def write_config_file(folder: Path) -> None:
    """RUN/config.json of a run that never began."""
    write_config(_config(_pictures(folder)), folder / "config.json")


def use_config_file(folder: Path, path: Path) -> None:
    """It is read, the data is opened, and a network is planned."""
    config = read_config(path)
    target_classes(config)
    open_domains(config)


def write_run(folder: Path) -> None:
    """A run with one checkpoint, as after its first steps."""
    config, domains, step = _step(_pictures(folder))
    run = folder / "run"
    prepare_run_dir(replace(config, run_dir=run), domains, None)
    save_state(step, 2, run, domains, 1.5, {})
    with RunLog(run, total_steps=4, start_step=0, quiet=True, tensorboard=False) as log:
        for number in range(2):
            log.log(number, {"loss/total": 1.0, "lr": 0.1})
    scores = {"miou": 0.5, "pixel_accuracy": 0.6, "iou": dict.fromkeys(CLASSES, 0.5)}
    (run / "results.json").write_text(json.dumps({"steps": 4, "student": scores, "teacher": scores}))
    (run / "report.json").write_text(json.dumps({"pixels": {"labeled": [1, 2, 3, 4]}, "evaluation": {"key": "x"}}))


def use_run(folder: Path, path: Path) -> None:
    """predict, --resume, --model.weights RUN and a report."""
    run = folder / "run"
    config, domains, step = _step(_pictures(Path(os.environ[VALID])))

    def predicts() -> None:
        own, checkpoint = open_run(run)
        description_notes(run)
        load_network(own, checkpoint, "student", len(target_classes(own)), CPU)

    def resumes() -> None:
        _, checkpoint = open_run(run)
        load_state(checkpoint, step)
        changes_since(domains, run)
        with RunLog(run, total_steps=4, start_step=2, quiet=True, tensorboard=False):
            pass

    def starts() -> None:
        begun = replace(config, model=replace(config.model, weights=str(run)))
        start_network(step.student, begun, CLASSES)

    def reports() -> None:
        (found,) = open_folders([run])
        found.steps, found.is_finished  # noqa: B018
        read_kept(run)

    every(predicts, resumes, starts, reports)


VALID = "IIDM_FUZZ_VALID"
"""Names the folder of valid files in the environment of forked processes."""

GRID = 'title = "T"\npreset = "folder"\nbudgets = [2]\n[[row]]\nname = "L_t"\nmethod = "target_only"\n'


def _words(folder: Path) -> list[str]:
    data = _pictures(folder)
    words = [
        f"--{d}-root {data} --data.{d}.images {{split}}/images --data.{d}.labels {{split}}/labels"
        for d in ("source", "target")
    ]
    words += [f"--data.{d}.class-names {' '.join(CLASSES)}" for d in ("source", "target")]
    return " ".join(words).split()


@cache
def _plan(folder: Path) -> Plan:
    return make_plan(parse_study(GRID, "grid", "grid.toml"), Wishes(seeds=2, steps=4, options=tuple(_words(folder))))


def write_records(folder: Path) -> None:
    """The folder of a study whose runs are done."""
    (folder / "out").mkdir()
    lines = []
    for number, run in enumerate(_plan(folder).runs):
        score = {"miou": 0.5 + number / 10, "pixel_accuracy": 0.6, "iou": {"road": 0.4, "car": None, "sky": 0.7}}
        record: dict[str, Any] = {"key": run.key, "method": run.config.method, "labeled": run.labeled, "student": score}
        record |= {"teacher": score, "images": 4, "seconds": 3.5, "steps": 4, "commit": "abc", "iidm": "0.1.0"}
        record["machine"] = {"cpu": "Abacus", "cores": 2, "threads": 2, "python": "3.11.0", "torch": "2.10.0"}
        record |= {"date": "2020-02-02T02:02:02+00:00", "config": config_as_dict(run.config)}
        lines.append(json.dumps(record))
    (folder / "out" / "runs.jsonl").write_text("\n".join(lines) + "\n")


def use_records(folder: Path, path: Path) -> None:
    """What iidm.study does with them but drawing, which takes a second."""
    plan, out = _plan(Path(os.environ[VALID])), StudyFolder(folder / "out")
    records = out.records()
    describe_runs(plan, records)
    moved_data_notes(plan, records)
    report = Report(plan, out, "iidm study")
    report.write(records)
    report.table(records)
    report.told(records)


RUNS = (
    Kind("config", write_config_file, ("config.json",), use_config_file),
    Kind("run", write_run, ("run/*.*", "run/splits/*", "run/checkpoints/*/*"), use_run, share=0.25),
    Kind("records", write_records, ("out/runs.jsonl",), use_records),
)
