"""--model.weights RUN: a network that was trained here goes on in another run, with its head where the classes are the
same."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_runs import BACKBONE, CLASSES, STEPS, Finished, metrics, options, refusal, train
from torch import nn

from iidm.cli import config_as_dict, read_config, write_config
from iidm.config import Config, ModelConfig
from iidm.engine.checkpoint import save_checkpoint
from iidm.models import Network, random_network
from iidm.recipes import with_values
from iidm.types import UserError
from iidm.warm_start import START, start_network

SMALL = with_values(Config(model=ModelConfig("mobilenet_v2", output_stride=16)), {"data": {"crop_size": (64, 64)}})


def trained(folder: Path, config: Config, classes: tuple[str, ...] = CLASSES) -> dict[str, Network]:
    """A run's folder with two checkpoints of random networks; returns those of the newest."""
    networks: dict[str, Network] = {}
    for step in (2, 4):
        for seed, name in enumerate(("student", "teacher")):
            torch.manual_seed(10 * step + seed)
            networks[name] = random_network(config, len(classes))
        save_checkpoint(
            folder,
            step,
            modules=networks,
            optimizer=torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0),
            scaler=None,
            generators={},
            metadata={"backbone": config.model.backbone, "classes": list(classes), "config": config_as_dict(config)},
            keep=2,
        )
    write_config(config, folder / "config.json")
    return networks


def started(config: Config, weights: Path, classes: tuple[str, ...] = CLASSES, **model: Any) -> tuple[Network, str]:
    torch.manual_seed(0)
    config = with_values(config, {"model": {"weights": str(weights), **model}})
    network = random_network(config, len(classes))
    return network, start_network(network, config, classes)


def assert_equal(one: nn.Module, other: nn.Module) -> None:
    assert one.state_dict().keys() == other.state_dict().keys()
    for key, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("", "teacher"),
        ("checkpoints/step-00000004", "teacher"),
        ("checkpoints/step-00000004/teacher.safetensors", "teacher"),
        ("checkpoints/step-00000004/student.safetensors", "student"),
    ],
)
def test_a_run_a_checkpoint_and_its_files_give_their_network_with_its_head(
    place: str, name: str, tmp_path: Path
) -> None:
    theirs = trained(tmp_path, SMALL)
    network, line = started(SMALL, tmp_path / place)
    assert_equal(network, theirs[name])
    checkpoint = tmp_path / "checkpoints" / "step-00000004"
    assert line == f"start: the {name} of {checkpoint}, with its head for the same 3 classes"


@pytest.mark.parametrize("classes", [("ground", "sky"), ("wall", "ground", "sky"), ("ground", "wall", "water")])
def test_other_classes_take_the_backbone_alone_and_the_head_starts_anew(
    classes: tuple[str, ...], tmp_path: Path
) -> None:
    theirs = trained(tmp_path, SMALL)["teacher"]
    network, line = started(SMALL, tmp_path, classes)
    torch.manual_seed(0)
    fresh = random_network(SMALL, len(classes))
    assert_equal(network.backbone, theirs.backbone)
    assert_equal(network.head, fresh.head)
    assert line.endswith("without its head, which starts anew: its classes are others (ground, wall, sky)")


HRDA = with_values(SMALL, {"model": {"hrda": True}, "data": {"crop_size": (128, 128)}})


def test_both_parts_of_an_hrda_network_are_taken(tmp_path: Path) -> None:
    theirs = trained(tmp_path, HRDA)["teacher"]
    assert any(key.startswith("attention.") for key in theirs.state_dict())
    assert_equal(started(HRDA, tmp_path)[0], theirs)
    with_other_classes, _ = started(HRDA, tmp_path, ("a", "b"))
    assert_equal(with_other_classes.backbone, theirs.backbone)


@pytest.mark.parametrize(
    ("theirs", "ours", "options"),
    [
        (SMALL, {"backbone": "resnet18"}, "--model.backbone mobilenet_v2"),
        (SMALL, {"head": "segformer"}, "--model.head deeplabv2"),
        (SMALL, {"dilations": (6, 12, 18, 24)}, "--model.dilations 6 12"),
        (SMALL, {"dilations": (3, 6)}, "--model.dilations 6 12"),
        (SMALL, {"hrda": True}, "--model.no-hrda"),
        (HRDA, {"hrda": False}, "--model.hrda"),
        (HRDA, {"hrda": False, "backbone": "resnet18"}, "--model.backbone mobilenet_v2 --model.hrda"),
    ],
)
def test_a_network_of_another_kind_is_refused_with_the_options_that_make_it(
    theirs: Config, ours: dict[str, Any], options: str, tmp_path: Path
) -> None:
    trained(tmp_path, theirs)
    crops = replace(SMALL, data=HRDA.data)
    with pytest.raises(UserError, match=rf"the teacher of {tmp_path}.* of another kind .*: give {options}\.$"):
        started(crops, tmp_path, **ours)


def test_another_head_is_no_obstacle_where_it_would_start_anew_anyhow(tmp_path: Path) -> None:
    theirs = trained(tmp_path, SMALL)["teacher"]
    assert_equal(started(SMALL, tmp_path, ("a", "b"), head="segformer")[0].backbone, theirs.backbone)


def test_a_run_of_before_an_option_existed_is_taken_with_its_default(tmp_path: Path) -> None:
    trained(tmp_path, SMALL)
    path = tmp_path / "checkpoints" / "step-00000004" / "metadata.json"
    metadata = json.loads(path.read_text())
    del metadata["config"]["model"]["hrda"], metadata["config"]["model"]["drop_path"]
    metadata["config"]["model"]["of_another_version"] = 1
    path.write_text(json.dumps(metadata))
    assert "with its head" in started(SMALL, tmp_path)[1]


def test_folders_and_files_that_are_no_network_are_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: the folder is neither a run nor a checkpoint"):
        started(SMALL, tmp_path / "empty")
    write_config(SMALL, tmp_path / "empty" / "config.json")
    with pytest.raises(UserError, match="empty: the folder has no checkpoint yet"):
        started(SMALL, tmp_path / "empty")
    trained(tmp_path / "run", SMALL)
    training = tmp_path / "run" / "checkpoints" / "step-00000004" / "training.safetensors"
    with pytest.raises(UserError, match=r"no network of its checkpoint. Give teacher.safetensors or student"):
        started(SMALL, training)
    with pytest.raises(UserError, match="no weights file"):
        started(SMALL, tmp_path / "run" / "checkpoints" / "step-00000004" / "other.safetensors")


def test_a_run_trains_on_from_another_and_says_so(finished: Finished, data: Path, tmp_path: Path) -> None:
    more = ("--model.weights", str(finished.run_dir), "--max-steps", "1", "--amp")
    said = train(options(data, tmp_path / "on", *more))
    checkpoint = finished.run_dir / "checkpoints" / f"step-{STEPS:08d}"
    assert f"start: the teacher of {checkpoint}, with its head for the same 3 classes" in said.err
    first, others = (json.loads(metrics(run).splitlines()[0]) for run in (tmp_path / "on", finished.run_dir))
    assert first["loss_target"] != others["loss_target"], "not the random start"
    assert read_config(tmp_path / "on" / "config.json").model.weights == str(finished.run_dir)
    message = refusal("train", options(data, tmp_path / "no", *more, "--model.backbone", "resnet18"))
    assert f"give --model.backbone {BACKBONE}." in message and not (tmp_path / "no").exists()


def test_a_method_that_compares_with_the_start_has_it_after_a_resume(
    finished: Finished, data: Path, tmp_path: Path
) -> None:
    """The run that it started from has gone on meanwhile, or is gone."""
    shutil.copytree(finished.run_dir, tmp_path / "first")
    more = ("--method", "daformer", "--loss.auxiliary-weight", "1", "--model.weights", str(tmp_path / "first"))
    for name in ("whole", "stopped"):
        train(options(data, tmp_path / name, *more, "--max-steps", "4", "--log.checkpoint-every", "2"))
    shutil.rmtree(tmp_path / "stopped" / "checkpoints" / "step-00000004")
    shutil.rmtree(tmp_path / "first")
    train(["--resume", tmp_path / "stopped"])
    ends = [load_file(tmp_path / n / "checkpoints/step-00000004/student.safetensors") for n in ("whole", "stopped")]
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])
    (tmp_path / "stopped" / START).write_bytes(b"damaged")
    assert "cannot be read" in refusal("train", ["--resume", tmp_path / "stopped"])


def test_a_run_is_resumed_without_what_it_started_from(finished: Finished, data: Path, tmp_path: Path) -> None:
    shutil.copytree(finished.run_dir, tmp_path / "first")
    more = ("--model.weights", str(tmp_path / "first"), "--max-steps", "1")
    train(options(data, tmp_path / "on", *more))
    shutil.rmtree(tmp_path / "first")
    said = train(["--resume", tmp_path / "on", "--max-steps", "2"])
    assert "resumed" in said.err and "start: the teacher" not in said.err
