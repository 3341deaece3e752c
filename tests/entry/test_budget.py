"""python -m iidm.study budget: label counts and validation images from the data. A whole one runs in test_docs.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_runs import BACKBONE
from small_studies import data_options, study

from iidm.types import UserError


def words(data: Path, root: Path, *more: str, options: tuple[str, ...] = ()) -> list[str]:
    own = [*data_options(data), *options]
    return ["budget", "--out", str(root / "out"), "--preset", "folder", "--steps", "2", *more, "--", *own]


def test_counts_seeds_and_method_come_from_data_and_words(data: Path, tmp_path: Path) -> None:
    said = study(words(data, tmp_path, "--seeds", "2", "--dry-run")).out
    commands = [line.strip() for line in said.splitlines() if "iidm.train" in line]
    assert [int(line.split("--data.labeled-count ")[1].split()[0]) for line in commands] == [2, 3, 5, 6] * 2
    assert [line.split("--data.split-seed ")[1] for line in commands] == ["0"] * 4 + ["1"] * 4
    assert all("--method iidm" in line for line in commands)
    said = study(words(data, tmp_path, "--dry-run", options=("--method", "source_target"))).out
    assert "--method source_target" in said and "--method iidm" not in said
    assert not (tmp_path / "out").exists()


def alone(data: Path, root: Path, *more: str, options: tuple[str, ...] = ()) -> list[str]:
    """Words for a target without source and without a validation split."""
    own = ["--target-root", str(data / "target"), "--data.target.images", "images/train"]
    own += ["--data.target.labels", "labels/train", "--data.target.class-names", "ground", "wall", "sky"]
    own += f"--model.backbone {BACKBONE} --model.output-stride 16 --model.weights none --data.crop-size 48 64".split()
    own += "--data.val-count 2 --eval.statistics-crops 8 --log.checkpoint-every 0".split()
    return ["budget", "--out", str(root / "out"), "--seeds", "1", "--steps", "2", *more, "--", *own, *options]


def test_without_a_source_the_method_is_one_that_needs_none(data: Path, tmp_path: Path) -> None:
    said = study(alone(data, tmp_path, "--dry-run")).out
    assert "--preset folder" in said and "--method target_intra" in said


def test_images_that_validate_are_the_same_for_all_draws(data: Path, tmp_path: Path) -> None:
    said = study(alone(data, tmp_path, "--dry-run")).out
    assert said.count(f"--data.val-list {tmp_path}/out/val.txt") == said.count("iidm.train") == 3
    assert not (tmp_path / "out").exists()
    with_split = study(words(data, tmp_path, "--dry-run", options=("--data.val-count", "2"))).out
    assert f"--data.val-count 2 --data.val-list {tmp_path}/out/val.txt" in with_split


def test_what_it_draws_itself_cannot_be_given(data: Path, tmp_path: Path) -> None:
    listed = tmp_path / "labeled.txt"
    listed.write_text("t0\n")
    with pytest.raises(UserError, match="cannot set --data.split-seed, .*Give --seeds before the --"):
        study(words(data, tmp_path, "--dry-run", options=("--data.split-seed", "7")))
    with pytest.raises(UserError, match="this study draws them"):
        study(words(data, tmp_path, options=("--data.labeled-list", str(listed))))
