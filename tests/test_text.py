"""Text files are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from stat import S_ISDIR

import pytest
from full_disk import files_of_at_most

from iidm.text import write_text


def test_a_text_is_written_and_nothing_else_is_there(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    for text in ("one\n", "zwei é\n"):
        write_text(path, text)
        assert path.read_text(encoding="utf-8") == text and os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("place", ["fsync", "replace"])
def test_a_kill_leaves_the_file_of_before_and_the_next_write_clears_the_half(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.json"
    write_text(path, "before")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, place, killed)
        with pytest.raises(KeyboardInterrupt):
            write_text(path, "after")
    assert path.read_text() == "before" and len(os.listdir(tmp_path)) == 2
    write_text(path, "after")
    assert path.read_text() == "after" and os.listdir(tmp_path) == [path.name]


def test_a_full_disk_leaves_the_file_of_before_and_no_half(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_text(path, "before")
    with files_of_at_most(500), pytest.raises(OSError, match="too large"):
        write_text(path, "after" * 500)
    assert path.read_text() == "before" and os.listdir(tmp_path) == [path.name]


def test_what_is_written_is_synced_before_it_takes_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file, then its name: a power cut may take back a rename that its folder does not hold yet."""
    done: list[str] = []
    sync, replace = os.fsync, os.replace

    def told(handle: int) -> None:
        status = os.fstat(handle)
        done.append("folder" if S_ISDIR(status.st_mode) else f"{status.st_size} bytes")
        sync(handle)

    def renamed(old: Path, new: Path) -> None:
        done.append("rename")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", told)
    monkeypatch.setattr(os, "replace", renamed)
    write_text(tmp_path / "x", "four")
    assert (tmp_path / "x").read_text() == "four" and done == ["4 bytes", "rename", "folder"]
