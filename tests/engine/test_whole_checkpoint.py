"""A checkpoint that was damaged after it was written is passed over, and that is told."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from iidm.engine.checkpoint import find_checkpoint, save_checkpoint
from iidm.engine.checksums import SUMS, find_damage
from iidm.engine.whole_checkpoint import find_whole_checkpoint, set_aside
from iidm.types import UserError

FILES = ("student.safetensors", "training.safetensors", "metadata.json", SUMS)


def save(run_dir: Path, step: int, keep: int = 2) -> Path:
    student = nn.Conv2d(3, 4, 3)
    optimizer = torch.optim.AdamW(student.parameters())
    student(torch.randn(1, 3, 8, 8)).sum().backward()
    optimizer.step()
    own = {"student": student}
    return save_checkpoint(
        run_dir, step, modules=own, optimizer=optimizer, scaler=None, generators={}, metadata={}, keep=keep
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints of the steps 3 and 6; tests change a copy."""
    run_dir = tmp_path_factory.mktemp("saved")
    for step in (3, 6):
        save(run_dir, step)
    return run_dir


@pytest.fixture
def run_dir(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved, tmp_path / "run")


def damage(path: Path, how: str) -> None:
    body = bytearray(path.read_bytes())
    if how == "bit":
        body[len(body) * 2 // 3] ^= 1
    path.write_bytes({"bit": bytes(body), "cut": bytes(body[:-1]), "empty": b""}[how])


def step(run_dir: Path, number: int) -> Path:
    return run_dir / "checkpoints" / f"step-{number:08d}"


def test_the_newest_of_whole_ones_is_found_without_a_word(run_dir: Path) -> None:
    assert find_whole_checkpoint(run_dir) == (step(run_dir, 6), (), [])
    assert sorted(path.name for path in step(run_dir, 6).iterdir()) == sorted(FILES)


@pytest.mark.parametrize("how", ["bit", "cut", "empty"])
@pytest.mark.parametrize("name", FILES)
def test_one_that_is_damaged_is_passed_over_and_named(name: str, how: str, run_dir: Path) -> None:
    damage(step(run_dir, 6) / name, how)
    found = find_whole_checkpoint(run_dir)
    assert found.checkpoint == step(run_dir, 3) and found.damaged == (step(run_dir, 6),)
    (note,) = found.notes
    assert str(step(run_dir, 6)) in note and "damaged" in note and "step-00000003 before it" in note
    assert name in note or name == SUMS, "a wrong checksum looks like a wrong file"


def test_a_file_that_is_missing_is_damage(run_dir: Path) -> None:
    (step(run_dir, 6) / "student.safetensors").unlink()
    assert "student.safetensors cannot be read" in find_damage(step(run_dir, 6))
    assert find_whole_checkpoint(run_dir).checkpoint == step(run_dir, 3)


def test_where_none_is_whole_each_is_named_with_what_to_do(run_dir: Path) -> None:
    for number in (3, 6):
        damage(step(run_dir, number) / "training.safetensors", "bit")
    with pytest.raises(UserError, match="No checkpoint in .* is whole .*step-00000006.*step-00000003") as caught:
        find_whole_checkpoint(run_dir)
    assert f"--resume {run_dir}" in str(caught.value) and "\n" not in str(caught.value)


def test_a_run_without_any_has_none(tmp_path: Path) -> None:
    assert find_whole_checkpoint(tmp_path) == (None, (), [])


def test_one_without_checksums_is_used_as_long_as_no_file_is_cut_off(run_dir: Path) -> None:
    (step(run_dir, 6) / SUMS).unlink()
    assert find_whole_checkpoint(run_dir) == (step(run_dir, 6), (), [])
    for name in FILES[:3]:
        again = shutil.copytree(run_dir, run_dir.with_name(name))
        damage(step(again, 6) / name, "cut" if name != "metadata.json" else "empty")
        found = find_whole_checkpoint(again)
        assert found.checkpoint == step(again, 3) and name in found.notes[0]


def test_one_that_is_set_aside_is_not_found_and_goes_with_the_next_that_is_saved(run_dir: Path) -> None:
    set_aside(step(run_dir, 6))
    assert find_checkpoint(run_dir) == step(run_dir, 3)
    save(run_dir, 4, keep=1)
    assert [path.name for path in (run_dir / "checkpoints").iterdir()] == ["step-00000004"]


def test_the_checksums_are_those_of_sha256sum(run_dir: Path) -> None:
    lines = (step(run_dir, 6) / SUMS).read_text().splitlines()
    assert all(re.fullmatch(r"[0-9a-f]{64}  [\w.]+", line) for line in lines)
    assert [line.split()[1] for line in lines] == sorted(FILES[:3])


def test_what_file_managers_leave_beside_it_is_no_damage(run_dir: Path) -> None:
    newest = run_dir / "checkpoints" / "step-00000006"
    for name in (".DS_Store", "._student.safetensors", "Thumbs.db"):
        (newest / name).write_bytes(b"x")
    (newest / "@eaDir").mkdir()
    found = find_whole_checkpoint(run_dir)
    assert found.checkpoint == newest and not found.notes
    (newest / "more.safetensors").write_bytes(b"x")
    assert find_damage(newest) == f"{SUMS} is damaged", "it may have lost a line"
