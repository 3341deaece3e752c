"""A study of tiny runs, as a user calls it: in this process, or as one that can be killed."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import small_runs
from small_runs import STEPS, Said, is_running

import iidm.study

GRID = """
title = "A tiny grid"
preset = "folder"
budgets = [2]

[[row]]
name = "L_s + L_t"
method = "source_target"
paper = { "100" = 48.5 }

[[row]]
name = "IIDM"
method = "iidm"

[[row]]
name = "twin"
method = "iidm"
options = ["--loss.inter-weight", "1"]
"""
SEEDS = 2
OWN = ("--preset", "--run-dir", "--data.labeled-count", "--max-steps", "--log.checkpoint-every")
Records = dict[str, dict[str, Any]]


def data_options(data: Path) -> list[str]:
    """What the tests of iidm.train give it, without what a study gives."""
    words = small_runs.options(data, Path("unused"))
    return [word for before, word in zip(["", *words], words, strict=False) if not {before, word} & set(OWN)]


def study_words(data: Path, root: Path, *more: str, grid: str = GRID, seeds: int = SEEDS) -> list[str]:
    """Words for iidm.study: two jobs on tiny data, in root/out."""
    file = root / "grid.toml"
    file.write_text(grid)
    words = [str(file), "--out", str(root / "out"), "--seeds", str(seeds), "--steps", str(STEPS), "--jobs", "2"]
    return [*words, *more, "--", *data_options(data), "--log.checkpoint-every", "1"]


def study(words: list[str]) -> Said:
    """iidm.study in this process."""
    return small_runs.call(iidm.study.main, words)


def records(root: Path) -> Records:
    lines = (root / "out" / "runs.jsonl").read_text().splitlines()
    found = {record["key"]: record for record in map(json.loads, lines)}
    assert len(found) == len(lines)  # none twice
    return found


def wait_for_steps(process: Any, root: Path, steps: int) -> None:
    """Until any run has logged so many steps."""
    end = time.monotonic() + 600
    while not any(f.read_text().count("\n") >= steps for f in root.glob("out/runs/*/metrics.jsonl")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def training(root: Path) -> list[int]:
    """The processes of the study's runs, whoever started them."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = file.read_bytes()
            if b"iidm.studies.worker" in words and bytes(root) in words and is_running(int(file.parent.name)):
                found.append(int(file.parent.name))
    return found


def wait_for_training(process: Any, root: Path) -> int:
    """The process of the study's run, as soon as there is one."""
    end = time.monotonic() + 600
    while not (found := training(root)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)
    return found[0]
