"""What a worker process of the loader imports: there are many of them, and each pays for it."""

from __future__ import annotations

import multiprocessing
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.spawn import get_preparation_data
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from iidm import command
from iidm.data.loading.shared_arrays import SharedArrays

LEAN = {
    "a worker of the loader": "iidm.command, iidm.data.loading.source",
    "a process that prepares images": "iidm.command, iidm.prepare, iidm.data.preparation.plan",
    "inspect": "iidm.inspect, iidm.data.loading.decoding",
}
"""Who imports what: a process begins with the main module's stand-in."""


@pytest.mark.parametrize("who", LEAN)
def test_what_needs_no_torch_imports_none(who: str) -> None:
    """It takes 1.7 s and 300 MB."""
    code = f"import {LEAN[who]}, sys; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_workers_of_a_command_do_not_import_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    main = ModuleType("__main__")
    main.__spec__ = sys.modules["iidm.data"].__spec__
    told: list[Any] = []
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(command, "_quit_on_signals", lambda: None)
    monkeypatch.setattr("iidm.cli.run_main", lambda *_: told.append(get_preparation_data("worker")))
    with pytest.raises(SystemExit):
        command.run_command("inspect", [])
    assert told[-1]["init_main_from_name"] == "iidm.command"


def test_a_worker_is_sent_little_and_maps_the_arrays() -> None:
    value = {"rows": np.arange(1_000_000), "columns": np.ones((3, 5), order="F"), "none": np.zeros(0), "name": "a"}
    shared = SharedArrays(value)
    sent = pickle.dumps(shared)
    assert len(sent) < 2000
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(total_after_a_change, sent).result() == 999_999 * 500_000 + 15 + 7
    found = pickle.loads(sent)
    assert found["name"] == "a" and found["none"].shape == (0,)
    np.testing.assert_array_equal(found["rows"], value["rows"])
    np.testing.assert_array_equal(found["columns"], value["columns"])


def total_after_a_change(sent: bytes) -> int:
    value = pickle.loads(sent)
    value["rows"][0] += 7  # its own copy
    return int(value["rows"].sum() + value["columns"].sum())
