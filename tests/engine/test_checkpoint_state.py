"""Checkpoints come back bit for bit, are there whole or not at all, and say what is wrong with them."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from iidm.config import OptimConfig
from iidm.engine import checkpoint as room
from iidm.engine.checkpoint import find_checkpoint, load_checkpoint, load_weights, read_metadata, save_checkpoint
from iidm.engine.optim import build_optimizer, set_learning_rate
from iidm.types import UserError

CPU = torch.device("cpu")
FACTS = {"backbone": "tiny", "classes": ["road", "car"], "config": {"seed": 3}}


class State:
    """A student with BatchNorm and dropout in channels-last memory, a teacher, AdamW and a generator of its own."""

    def __init__(self, seed: int, width: int = 6) -> None:
        torch.manual_seed(seed)
        self.modules = {"student": self.network(width), "teacher": self.network(width)}
        body, head = list(self.modules["student"].children())[:-1], self.modules["student"][-1]
        groups: list[dict[str, Any]] = [
            {"name": "body", "params": [p for m in body for p in m.parameters()], "lr": 1e-3},
            {"name": "head", "params": list(head.parameters()), "lr": 1e-2},
        ]
        self.optimizer = build_optimizer(groups, OptimConfig(betas=(0.85, 0.99)), CPU)
        self.generator = torch.Generator().manual_seed(seed)

    @staticmethod
    def network(width: int) -> nn.Sequential:
        layers = (nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Dropout(0.3), nn.Conv2d(width, 2, 2))
        network: nn.Sequential = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network

    def train(self, first: int, last: int) -> list[float]:
        """Losses of steps that depend on the generator (images), the global generator (dropout) and the schedule."""
        student, teacher = self.modules["student"], self.modules["teacher"]
        losses = []
        for step in range(first, last):
            set_learning_rate(self.optimizer, 1 - step / 20)
            loss = student(torch.randn(2, 3, 7, 6, generator=self.generator)).square().mean()
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            with torch.no_grad():
                for ours, theirs in zip(teacher.parameters(), student.parameters(), strict=True):
                    ours.lerp_(theirs, 0.1)
            losses.append(loss.item())
        return losses

    def save(self, run_dir: Path, step: int, keep: int = 5) -> Path:
        return save_checkpoint(
            run_dir,
            step,
            modules=self.modules,
            optimizer=self.optimizer,
            scaler=None,
            generators={"step": self.generator},
            metadata=FACTS,
            keep=keep,
        )

    def load(self, path: Path) -> dict[str, Any]:
        return load_checkpoint(
            path,
            modules=self.modules,
            optimizer=self.optimizer,
            scaler=None,
            generators={"step": self.generator},
            device=CPU,
        )

    def tensors(self) -> dict[str, Tensor]:
        found = {f"{n}.{k}": v for n, m in self.modules.items() for k, v in m.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            found |= {f"{index}.{key}": value for key, value in state.items()}
        return {**found, "generator": self.generator.get_state(), "global": torch.get_rng_state()}


def assert_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype, name
        assert torch.equal(tensor, theirs[name]), name


def names(run_dir: Path) -> list[str]:
    """Everything in the checkpoint folder, temporary folders included."""
    return sorted(p.name for p in (run_dir / "checkpoints").iterdir())


def test_everything_comes_back_bit_for_bit_and_training_goes_on_as_if_never_stopped(tmp_path: Path) -> None:
    state = State(0)
    state.train(0, 5)
    path = state.save(tmp_path, 5)
    assert path == tmp_path / "checkpoints" / "step-00000005"
    saved = {name: tensor.clone() for name, tensor in state.tensors().items()}
    losses = state.train(5, 10)
    after = state.tensors()

    other = State(1)
    metadata = other.load(path)
    assert metadata["step"] == 5
    assert_equal(other.tensors(), saved)
    assert other.optimizer.param_groups[1]["lr"] == 1e-2 * (1 - 4 / 20)
    assert other.optimizer.param_groups[1]["base_lr"] == 1e-2
    assert other.optimizer.param_groups[1]["betas"] == (0.85, 0.99)
    assert other.train(5, 10) == losses
    assert_equal(other.tensors(), after)


def test_the_optimisers_state_comes_back_in_the_memory_layout_of_its_parameters(tmp_path: Path) -> None:
    """A fused kernel would else apply the moments to the wrong weights."""
    state = State(0)
    state.train(0, 2)
    other = State(1)
    other.load(state.save(tmp_path, 2))
    weight = other.modules["student"][0].weight
    assert not weight.is_contiguous()
    assert other.optimizer.state[weight]["exp_avg"].stride() == weight.stride()


def test_loading_needs_no_optimiser(tmp_path: Path) -> None:
    state, other = State(0), State(1)
    path = state.save(tmp_path, 0)
    modules = {"teacher": other.modules["teacher"]}
    load_checkpoint(path, modules=modules, optimizer=None, scaler=None, generators={}, device=CPU)
    load_weights(path, "student", other.modules["student"])
    for name, module in other.modules.items():
        assert_equal(module.state_dict(), state.modules[name].state_dict())


def test_the_scaler_comes_back(tmp_path: Path) -> None:
    state = State(0)
    scalers = [torch.amp.GradScaler("cpu", init_scale=scale) for scale in (8.0, 1024.0)]
    scalers[0].scale(torch.ones(()))  # its tensor is made at the first use
    arguments: dict[str, Any] = {"modules": {}, "optimizer": state.optimizer, "generators": {}}
    path = save_checkpoint(tmp_path, 1, scaler=scalers[0], metadata=FACTS, keep=1, **arguments)
    load_checkpoint(path, scaler=scalers[1], device=CPU, **arguments)
    assert scalers[1].state_dict() == scalers[0].state_dict()
    assert scalers[1].get_scale() == 8.0


def test_metadata_is_indented_json_with_what_a_person_wants_to_know(tmp_path: Path) -> None:
    path = State(0).save(tmp_path, 7)
    text = (path / "metadata.json").read_text()
    assert text.count("\n") > 20
    metadata = json.loads(text)
    assert metadata == read_metadata(path)
    assert FACTS.items() <= metadata.items()
    assert metadata["step"] == 7 and metadata["format"] == 1
    assert metadata["versions"]["torch"] == torch.__version__
    assert [group["name"] for group in metadata["optimizer"]["param_groups"]] == ["body", "head"]


def test_only_the_newest_stay(tmp_path: Path) -> None:
    state = State(0)
    for step in (2, 4, 6, 10):
        state.save(tmp_path, step, keep=2)
    assert names(tmp_path) == ["step-00000006", "step-00000010"]
    newest = find_checkpoint(tmp_path)
    assert newest is not None and newest.name == "step-00000010"
    state.save(tmp_path, 12, keep=1)
    assert names(tmp_path) == ["step-00000012"]


def test_the_same_step_can_be_saved_again(tmp_path: Path) -> None:
    state = State(0)
    state.save(tmp_path, 3, keep=1)
    state.train(0, 1)
    path = state.save(tmp_path, 3, keep=1)
    assert names(tmp_path) == ["step-00000003"]
    other = State(1)
    other.load(path)
    assert_equal(other.modules["student"].state_dict(), state.modules["student"].state_dict())


@pytest.mark.parametrize("broken", ["teacher.safetensors", "training.safetensors", "metadata.json", "rename"])
@pytest.mark.parametrize("again", [False, True], ids=["next step", "same step"])
def test_a_full_disk_is_one_clear_error_and_leaves_earlier_checkpoints_as_they_were(
    broken: str, again: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = State(0)
    path = state.save(tmp_path, 1, keep=1)
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    state.train(0, 1)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    save_file, write_text, replace = room.save_file, Path.write_text, os.replace

    def breaking_save(tensors: dict[str, Tensor], file: Path) -> None:
        if file.name == broken:
            file.write_bytes(b"the first half")
            raise full
        save_file(tensors, file)

    def breaking_write(file: Path, text: str) -> int:
        if file.name == broken:
            raise full
        return write_text(file, text)

    def breaking_replace(old: Path, new: Path) -> None:
        if broken == "rename" and (old / "metadata.json").exists() and old.name.startswith(f".step-0000000{2 - again}"):
            if not old.name.endswith(".replaced"):
                raise full
        replace(old, new)

    monkeypatch.setattr(room, "save_file", breaking_save)
    monkeypatch.setattr(Path, "write_text", breaking_write)
    monkeypatch.setattr(os, "replace", breaking_replace)
    with pytest.raises(UserError, match="could not be written.*No space left.*earlier checkpoints are whole.*--resume"):
        state.save(tmp_path, 1 if again else 2, keep=1)
    assert names(tmp_path) == ["step-00000001"]
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before
    monkeypatch.undo()
    state.save(tmp_path, 2, keep=1)
    assert names(tmp_path) == ["step-00000002"]


def test_a_kill_in_the_middle_leaves_a_folder_that_is_never_found_and_goes_with_the_next_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = State(0)
    state.save(tmp_path, 1)
    half = tmp_path / "checkpoints" / ".step-00000002.4711"
    half.mkdir()
    (half / "metadata.json").write_text("{}")
    found = find_checkpoint(tmp_path)
    assert found is not None and found.name == "step-00000001"
    state.save(tmp_path, 2)
    assert names(tmp_path) == ["step-00000001", "step-00000002"]


def test_a_run_without_checkpoints_has_none(tmp_path: Path) -> None:
    assert find_checkpoint(tmp_path) is None


def test_an_optimiser_over_other_parameters_is_refused(tmp_path: Path) -> None:
    path = State(0).save(tmp_path, 1)
    module = nn.Linear(2, 2)
    optimizer = build_optimizer([{"params": list(module.parameters()), "lr": 1e-3}], OptimConfig(), CPU)
    with pytest.raises(UserError, match=r"groups of \[4, 2\] tensors; this run trains groups of \[2\]"):
        load_checkpoint(path, modules={}, optimizer=optimizer, scaler=None, generators={}, device=CPU)


def test_a_generator_that_was_not_saved_is_refused(tmp_path: Path) -> None:
    path = State(0).save(tmp_path, 1)
    generators = {"other": torch.Generator()}
    with pytest.raises(UserError, match="no state for the random generator 'other' on cpu"):
        load_checkpoint(path, modules={}, optimizer=None, scaler=None, generators=generators, device=CPU)


def test_a_checkpoint_holds_no_pickle(tmp_path: Path) -> None:
    """torch.load could execute code; only safetensors, JSON and checksums are written."""
    files = list(State(0).save(tmp_path, 1).iterdir())
    assert {file.suffix or file.name for file in files} == {".safetensors", ".json", "SHA256SUMS"}
    assert "torch.load" not in Path(room.__file__).read_text()


def test_a_kill_while_an_old_checkpoint_is_removed_leaves_none_that_has_lost_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = State(0)
    for step in (1, 2):
        state.save(tmp_path, step, keep=2)

    def killed(folder: Path, **_: object) -> None:
        if folder.exists() and "00000001" in folder.name:
            (folder / "student.safetensors").unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(room.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            room.remove_old(tmp_path, keep=1)
    assert [path.name for path in room.list_checkpoints(tmp_path)] == ["step-00000002"]
    room.remove_halves(tmp_path)
    assert names(tmp_path) == ["step-00000002"]
