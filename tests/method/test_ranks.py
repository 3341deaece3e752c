"""Two ranks compute what one process computes with two batches a step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from two_ranks import CASES

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, Any]]:
    """Case -> what two_ranks.py said of it."""
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(FOLDER / "two_ranks.py")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(FOLDER))), "OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    lines = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    return {line["case"]: line for line in lines}


@pytest.mark.parametrize("case", CASES)
def test_losses_and_weights_are_those_of_one_process(case: str, found: dict[str, dict[str, Any]]) -> None:
    line = found[case]
    assert line["ranks agree"]
    if CASES[case][2]["branches"] == "merged":
        assert line["differ"] == 0, line  # one backward a batch: the sums have the same order
    else:
        assert line["most"] < 1e-5, line
