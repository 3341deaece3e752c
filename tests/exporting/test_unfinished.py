"""What is left of files that were not finished."""

from __future__ import annotations

import os
from pathlib import Path

from iidm.exporting.unfinished import unfinished


def test_what_a_kill_left_goes_with_the_next_call(tmp_path: Path) -> None:
    paths = {"fp32": tmp_path / "teacher.onnx", "int8": tmp_path / "teacher-int8.onnx"}
    child = os.fork()
    if child == 0:
        with unfinished(paths) as parts:
            for part in parts.values():
                part.write_text("half")
            os._exit(9)
    os.waitpid(child, 0)
    assert len(list(tmp_path.iterdir())) == 2
    with unfinished(paths) as parts:
        parts["fp32"].write_text("whole")
        parts["fp32"].replace(paths["fp32"])
    assert [path.name for path in tmp_path.iterdir()] == ["teacher.onnx"]
