"""python -m iidm.study --on ray: runs whose process or machine dies half-way; the cluster is a few processes here."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import small_runs
from small_runs import STEPS, kill_group
from small_studies import GRID, Records, records, study, study_words, training, wait_for_steps, wait_for_training

pytest.importorskip("ray", reason="Ray is not installed: pip install 'iidm[cluster]'")

pytestmark = [
    pytest.mark.slow,
    # Ray's own
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),
]
ONE_RUN = GRID.replace('"source_target"', '"iidm"')  # all rows are twins


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without cores and a machine with one, each as Ray's processes here."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("OMP_NUM_THREADS", "1")
        found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        patch.setenv("RAY_ADDRESS", found.address)
        found.add_node(num_cpus=1)
        yield found
        found.shutdown()


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Records:
    """The same run without Ray, uninterrupted."""
    root = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        study(study_words(data, root, grid=ONE_RUN, seeds=1))
    return records(root)


def start(words: list[str]) -> Any:
    at = words.index("--jobs")
    return small_runs.start("study", [*words[:at], "--on", "ray", *words[at + 2 :]])


def test_a_run_outlives_its_process_and_its_machine(cluster: Any, data: Path, alone: Records, tmp_path: Path) -> None:
    process = start(study_words(data, tmp_path, grid=ONE_RUN, seeds=1))
    try:
        wait_for_steps(process, tmp_path, 2)
        (first,) = training(tmp_path)
        os.kill(first, signal.SIGKILL)
        wait_for_steps(process, tmp_path, 4)
        cluster.add_node(num_cpus=1)
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        out, err = process.communicate(timeout=600)
    finally:
        kill_group(process)
    assert process.returncode == 0, err
    again = [line for line in err.splitlines() if "it goes on from its last checkpoint" in line]
    assert "killed by SIGKILL" in again[0]
    assert "is gone" in again[-1] or len(again) == 1  # else the run was faster than the machine's end
    ((key, record),) = records(tmp_path).items()
    expected = alone[key]
    for network in ("student", "teacher"):
        assert record[network] == expected[network]
    assert record["commit"] == expected["commit"] and record["steps"] == STEPS
    (metrics,) = tmp_path.glob("out/runs/*/metrics.jsonl")
    assert metrics.read_text().count("\n") == STEPS
    assert training(tmp_path) == []


def test_a_stop_saves_on_the_machines_and_a_killed_study_leaves_no_run(
    cluster: Any, data: Path, tmp_path: Path
) -> None:
    words = study_words(data, tmp_path, grid=ONE_RUN, seeds=1)
    words[words.index("--steps") + 1] = "500"
    words[-1] = "400"  # steps between checkpoints: there is one only where the stop saves
    process = start(words)
    try:
        wait_for_steps(process, tmp_path, 1)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=600)
    finally:
        kill_group(process)
    assert process.returncode == 2, err
    assert err.splitlines()[-1].startswith("iidm: Stopped; 1 run is not finished, and keep what they saved.")
    assert len(list(tmp_path.glob("out/runs/*/checkpoints/step-*"))) == 1
    assert training(tmp_path) == []
    process = start(words)
    try:
        wait_for_training(process, tmp_path)
    finally:
        kill_group(process)
    end = time.monotonic() + 600
    while training(tmp_path) and time.monotonic() < end:
        time.sleep(0.05)
    assert training(tmp_path) == []
