"""Checkpoints: bit-exact, whole or absent, and clear about what is wrong with a file."""

from __future__ import annotations

import errno
import json
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from iidm.engine import checkpoint as checkpoint_module
from iidm.engine.checkpoint import find_checkpoint, load_checkpoint, load_weights, read_metadata, save_checkpoint
from iidm.types import UserError

METADATA = {"backbone": "tiny", "classes": ["road", "car", "sky"], "seconds": 1.5}
CPU = torch.device("cpu")


class Training(NamedTuple):
    """All that a step depends on."""

    student: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    generator: torch.Generator

    def state(self) -> dict[str, Any]:
        """The arguments that saving and loading share."""
        return {
            "modules": {"student": self.student},
            "optimizer": self.optimizer,
            "scaler": self.scaler,
            "generators": {"step": self.generator},
        }


def training(seed: int, *, width: int = 4, scaler: bool = False) -> Training:
    """A convolution, BatchNorm and dropout in channels-last memory under AdamW, all drawn from `seed`."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout2d(0.5), nn.Conv2d(width, 3, 1)
    ).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    groups = [
        {"name": "backbone", "params": list(net[:2].parameters()), "lr": 1e-2, "base_lr": 1e-2},
        {"name": "head", "params": list(net[4].parameters()), "lr": 1e-1, "base_lr": 1e-1},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.8, 0.95), weight_decay=0.02, foreach=True)
    generator = torch.Generator().manual_seed(seed + 1)
    return Training(net, optimizer, torch.amp.GradScaler("cpu", enabled=scaler), generator)


def train(run: Training, steps: int) -> list[Tensor]:
    """Losses of steps on images from the run's generator; a global draw and a changing rate are part of a step."""
    losses = []
    for _ in range(steps):
        image = torch.randn(4, 3, 8, 8, generator=run.generator).contiguous(memory_format=torch.channels_last)
        label = torch.randint(3, (4, 8, 8), generator=run.generator)
        loss = nn.functional.cross_entropy(run.student(image), label) * (1 + torch.rand(()))
        run.optimizer.zero_grad()
        loss.backward()
        run.optimizer.step()
        for group in run.optimizer.param_groups:
            group["lr"] *= 0.9
        losses.append(loss.detach())
    return losses


def save(run: Training, run_dir: Path, step: int, keep: int = 2) -> Path:
    return save_checkpoint(run_dir, step, **run.state(), metadata=METADATA, keep=keep)


def load(run: Training, checkpoint: Path) -> dict[str, Any]:
    return load_checkpoint(checkpoint, **run.state(), device=CPU)


def names(run_dir: Path) -> list[str]:
    return sorted(path.name for path in (run_dir / "checkpoints").iterdir())


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint at step 3; tests that damage it damage a copy."""
    run = training(0)
    train(run, 3)
    return save(run, tmp_path_factory.mktemp("saved"), 3)


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved, tmp_path / "checkpoints" / saved.name)


def test_training_goes_on_bit_for_bit_in_fresh_objects(tmp_path: Path) -> None:
    first = training(0)
    train(first, 3)
    checkpoint = save(first, tmp_path, 3)
    expected = train(first, 5)
    second = training(77)
    assert not torch.equal(second.student[0].weight, first.student[0].weight)  # type: ignore[index]
    metadata = load(second, checkpoint)
    assert metadata["step"] == 3
    found = train(second, 5)
    assert torch.equal(torch.stack(found), torch.stack(expected))
    assert len(set(map(float, expected))) == 5
    for key, value in first.student.state_dict().items():
        assert torch.equal(second.student.state_dict()[key], value), key
    ours, theirs = second.optimizer.state_dict(), first.optimizer.state_dict()
    assert ours["param_groups"] == theirs["param_groups"]
    for index, values in theirs["state"].items():
        for key, value in values.items():
            assert torch.equal(ours["state"][index][key], value), (index, key)


def test_rates_in_tensors_stay_where_they_are_and_come_back(tmp_path: Path) -> None:
    """As on a GPU, where a captured step reads them."""

    def with_tensors(seed: int) -> Training:
        run = training(seed)
        groups = [{"params": g["params"], "lr": torch.tensor(g["lr"])} for g in run.optimizer.param_groups]
        return run._replace(optimizer=torch.optim.AdamW(groups, fused=True))

    first = with_tensors(0)
    train(first, 3)
    checkpoint = save(first, tmp_path, 3)
    expected = train(first, 3)
    second = with_tensors(1)
    places = [group["lr"] for group in second.optimizer.param_groups]
    load(second, checkpoint)
    assert all(group["lr"] is place for group, place in zip(second.optimizer.param_groups, places, strict=True))
    assert torch.equal(torch.stack(train(second, 3)), torch.stack(expected))


def test_saving_changes_nothing_in_the_run_that_saves(tmp_path: Path) -> None:
    with_save, without = training(0), training(0)
    torch.manual_seed(5)
    expected = train(without, 3)
    torch.manual_seed(5)
    found = train(with_save, 1)
    save(with_save, tmp_path, 1)
    assert torch.equal(torch.stack(found + train(with_save, 2)), torch.stack(expected))


def test_weights_and_moments_come_back_in_channels_last_memory(saved: Path) -> None:
    run = training(1)
    load(run, saved)
    weight = run.student[0].weight  # type: ignore[index]
    assert isinstance(weight, nn.Parameter)
    kept = [weight, *(run.optimizer.state[weight][key] for key in ("exp_avg", "exp_avg_sq"))]
    for tensor in kept:
        assert tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()


def test_the_loss_scale_comes_back(tmp_path: Path) -> None:
    run = training(0, scaler=True)
    run.scaler.load_state_dict({**run.scaler.state_dict(), "scale": 512.0, "_growth_tracker": 7})
    fresh = training(1, scaler=True)
    load(fresh, save(run, tmp_path, 1))
    assert fresh.scaler.state_dict() == run.scaler.state_dict()
    assert fresh.scaler.state_dict()["scale"] == 512.0


def test_the_metadata_says_what_it_is(saved: Path) -> None:
    metadata = read_metadata(saved)
    assert {key: metadata[key] for key in METADATA} == METADATA
    assert metadata["step"] == 3 and metadata["versions"]["torch"] == torch.__version__
    assert [g["name"] for g in metadata["optimizer"]["param_groups"]] == ["backbone", "head"]


def test_nothing_in_a_checkpoint_is_a_pickle(saved: Path) -> None:
    files = contents(saved)
    assert sorted(files) == ["SHA256SUMS", "metadata.json", "student.safetensors", "training.safetensors"]
    json.loads(files.pop("metadata.json"))
    files.pop("SHA256SUMS").decode("ascii")
    for name, content in files.items():
        # Eight bytes of length, then that many of JSON which describe all the rest.
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
        assert 8 + length + max(ends) == len(content), name


@pytest.mark.parametrize("failing", (1, 2))
@pytest.mark.parametrize("kind", ("OSError", "SafetensorError"))
def test_a_full_disk_is_one_line_and_leaves_the_earlier_checkpoint_whole(
    kind: str, failing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = training(0)
    train(run, 1)
    earlier = save(run, tmp_path, 1, keep=1)
    before = contents(earlier)
    train(run, 1)
    real, calls = checkpoint_module.save_file, []

    def full(tensors: dict[str, Tensor], path: Path) -> None:
        calls.append(path)
        real(tensors, path)
        if len(calls) == failing:
            path.write_bytes(path.read_bytes()[:100])
            error = OSError(errno.ENOSPC, "No space left on device")
            raise error if kind == "OSError" else checkpoint_module.SafetensorError(str(error))

    monkeypatch.setattr(checkpoint_module, "save_file", full)
    with pytest.raises(UserError, match="step 2 could not be written.*No space left.*Free some space") as caught:
        save(run, tmp_path, 2, keep=1)
    assert "\n" not in str(caught.value) and f"--resume {tmp_path}" in str(caught.value)
    assert names(tmp_path) == [earlier.name]
    assert contents(earlier) == before
    monkeypatch.undo()
    load(training(1), earlier)


def test_a_half_written_checkpoint_is_never_found_and_the_next_one_clears_it(tmp_path: Path) -> None:
    run = training(0)
    train(run, 1)
    assert find_checkpoint(tmp_path) is None
    half = tmp_path / "checkpoints" / ".step-00000009.4242"
    half.mkdir(parents=True)
    (half / "metadata.json").write_text("{}")
    (tmp_path / "checkpoints" / "step-00000008").mkdir()  # without metadata, which is written last
    assert find_checkpoint(tmp_path) is None
    checkpoint = save(run, tmp_path, 1)
    assert find_checkpoint(tmp_path) == checkpoint
    assert not half.exists()


def test_only_the_newest_checkpoints_stay(tmp_path: Path) -> None:
    run = training(0)
    for step in (5, 90, 1000, 20):
        save(run, tmp_path, step, keep=4)
    assert find_checkpoint(tmp_path) == tmp_path / "checkpoints" / "step-00001000"
    save(run, tmp_path, 2000, keep=2)
    assert names(tmp_path) == ["step-00001000", "step-00002000"]


def test_a_step_that_is_saved_again_replaces_the_first(tmp_path: Path) -> None:
    run = training(0)
    train(run, 1)
    save(run, tmp_path, 1)
    train(run, 1)
    checkpoint = save(run, tmp_path, 1)
    assert names(tmp_path) == [checkpoint.name]
    fresh = training(1)
    load(fresh, checkpoint)
    assert torch.equal(fresh.student[0].weight, run.student[0].weight)  # type: ignore[index]


def test_another_architecture_is_one_message_with_the_backbone(saved: Path) -> None:
    wider, deeper = training(0, width=5), training(0)
    deeper.student.append(nn.Conv2d(3, 3, 1))  # type: ignore[operator]
    # Another width changes both convolutions but the last bias, and BatchNorm but its counter.
    for run, count in ((wider, "7 of 9 tensors"), (deeper, "2 of 11 tensors")):
        start = {key: value.clone() for key, value in run.student.state_dict().items()}
        with pytest.raises(UserError, match="of another architecture.*backbone tiny and 3 classes") as caught:
            load(run, saved)
        message = str(caught.value)
        assert str(saved / "student.safetensors") in message and count in message and "\n" not in message
        assert all(torch.equal(value, start[key]) for key, value in run.student.state_dict().items())


def test_one_network_can_be_read_alone(saved: Path) -> None:
    run, other = training(0), training(1)
    load(run, saved)
    load_weights(saved, "student", other.student)
    for key, value in run.student.state_dict().items():
        assert torch.equal(other.student.state_dict()[key], value), key


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "absent":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "text": b"not a checkpoint"}[how])


@pytest.mark.parametrize("how", ("absent", "empty", "cut", "text"))
@pytest.mark.parametrize("name", ("student.safetensors", "training.safetensors", "metadata.json"))
def test_a_damaged_file_is_named_with_what_to_do(name: str, how: str, copied: Path) -> None:
    damage(copied / name, how)
    with pytest.raises(UserError, match=f"{re.escape(str(copied / name))} cannot be read") as caught:
        load(training(0), copied)
    assert f"Remove {copied} to use the checkpoint before it" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"), (("[1]", "cannot be read"), ("{}", "format None"), ('{"format": 99}', "format 99.*format 1"))
)
def test_metadata_of_another_kind_is_refused(text: str, words: str, copied: Path) -> None:
    (copied / "metadata.json").write_text(text)
    with pytest.raises(UserError, match=f"{re.escape(str(copied / 'metadata.json'))}.*{words}"):
        read_metadata(copied)
