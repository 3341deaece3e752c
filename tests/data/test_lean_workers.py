"""What a worker process of the loader imports: there are many of them, and each pays for it."""

from __future__ import annotations

import subprocess
import sys
from multiprocessing.spawn import get_preparation_data
from types import ModuleType
from typing import Any

import pytest

from iidm import command

BEGINS_WITH = "import iidm.command, iidm.data.loading.source, sys; print('torch' in sys.modules)"
"""What a worker imports: the main module's stand-in, and the source of the samples."""


def test_a_worker_imports_no_torch() -> None:
    found = subprocess.run([sys.executable, "-c", BEGINS_WITH], capture_output=True, text=True, check=True)
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
