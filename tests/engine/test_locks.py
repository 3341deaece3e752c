"""Two processes do not train in one folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from iidm.engine.locks import alone_in
from iidm.types import UserError

HOLD = """
import sys
from pathlib import Path
from iidm.engine.locks import alone_in
with alone_in(Path(sys.argv[1])):
    print("mine", flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_one_process_s_until_that_ends_however_it_does(tmp_path: Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None and other.stdout.readline() == "mine\n"
        with pytest.raises(UserError, match="Another process trains in"), alone_in(tmp_path):
            pass
        with alone_in(None), alone_in(tmp_path / "none"):
            pass
    finally:
        other.kill()
        other.communicate()
    for _ in range(2):
        with alone_in(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []
