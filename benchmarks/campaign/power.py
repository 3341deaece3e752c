"""A power cut: what a process did to files and did not sync is taken back.

Of a file there stays what it held when it was last synced, or when the process began; nothing of one that was opened to
be written anew. A file or folder that was renamed or removed has its old name again and what it replaced is back, where
nothing was synced afterwards: ext4 and XFS write names in the order in which they were changed. Strictly its own folder
must have been synced, which is all that POSIX promises. Names of new files and folders stay. Processes that are started
anew (those of a pool) are not seen: of files that they write nothing stays.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any


class Recorder:
    """Notes what a process does to files, in a folder of its own on the same disk.

    `log` has a line for each change and sync. `contents`/INODE is what the disk has of a file, `names`/NUMBER a second
    name of one that was removed or replaced; it also keeps the inode from being given out again.
    """

    def __init__(self, kept: Path) -> None:
        self.log, self.contents, self.names = kept / "log", kept / "contents", kept / "names"
        self._numbers = count()

    def begin(self, folder: Path) -> None:
        """What is in a folder when the process begins is on the disk."""
        shutil.rmtree(self.log.parent, ignore_errors=True)
        for place in (self.contents, self.names):
            place.mkdir(parents=True)
        for path in folder.rglob("*") if folder.exists() else ():
            if path.is_file() and not path.is_symlink():
                shutil.copyfile(path, self.contents / str(path.stat().st_ino))

    def synced(self, handle: int) -> None:
        """A file or folder was synced."""
        inode = os.fstat(handle).st_ino
        path = f"/proc/self/fd/{handle}"
        if not os.path.isdir(path):
            shutil.copyfile(path, self.contents / str(inode))
        self._note(does="sync", inode=inode)

    def cut_off(self, path: str) -> None:
        """A file is about to be opened and to lose what it holds."""
        with suppress(OSError):
            self._note(does="cut off", inode=os.stat(path).st_ino)

    def renamed(self, path: str, to: str) -> None:
        """A file or folder is about to be renamed."""
        with suppress(OSError):
            facts, folder = os.lstat(path), os.stat(os.path.dirname(to)).st_ino
            self._note(does="rename", path=path, to=to, inode=facts.st_ino, folder=folder, kept=self._keep(to))

    def removed(self, path: str) -> None:
        """A file or folder is about to be removed."""
        with suppress(OSError):
            facts, folder = os.lstat(path), os.stat(os.path.dirname(path)).st_ino
            does = "remove folder" if stat.S_ISDIR(facts.st_mode) else "remove"
            self._note(does=does, path=path, inode=facts.st_ino, folder=folder, kept=self._keep(path))

    def _keep(self, path: str) -> str:
        """Give a file a second name; '' where there is none, or a folder."""
        name = str(self.names / f"{os.getpid()}-{next(self._numbers)}")
        try:
            os.link(path, name, follow_symlinks=False)
        except OSError:
            return ""
        return name

    def _note(self, **what: Any) -> None:
        line = (json.dumps(what) + "\n").encode()
        handle = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)  # forks of a study write to it too
        os.write(handle, line)
        os.close(handle)


def cut_the_power(folder: Path, kept: Path, *, strict: bool = False) -> list[str]:
    """Take back what a killed process has done to `folder` and did not sync. Returns a word for each change."""
    recorder = Recorder(kept)
    lines = recorder.log.read_text().splitlines() if recorder.log.exists() else []
    pending: list[dict[str, Any]] = []
    cut_off: set[int] = set()
    for one in map(json.loads, lines):
        if one["does"] == "sync":
            pending = [change for change in pending if strict and change["folder"] != one["inode"]]
            cut_off.discard(one["inode"])
        elif one["does"] == "cut off":
            cut_off.add(one["inode"])
        else:
            if one["does"] == "remove folder":  # what was removed from it goes with it; another one may get its inode
                pending = [{**p, "folder": one["folder"]} if p["folder"] == one["inode"] else p for p in pending]
            pending.append(one)
    lost = _take_back(pending)
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        inode = path.stat().st_ino
        on_disk = recorder.contents / str(inode)
        stays = on_disk.read_bytes() if on_disk.exists() else b""
        if path.read_bytes() != stays:
            with path.open("r+b") as file:
                file.truncate(0)
                file.write(b"" if inode in cut_off else stays)
            lost.append(path.name)
    return lost


def _take_back(pending: list[dict[str, Any]]) -> list[str]:
    """Undo changes of names, the last one first. One that the kill came before, or whose folder is gone, is none."""
    done: list[str] = []
    made_again: dict[int, int] = {}
    for one in reversed(pending):
        path, inode = Path(one["path"]), one["inode"]
        with suppress(OSError):
            if one["does"] == "rename":
                to = Path(one["to"])
                if to.lstat().st_ino not in (inode, made_again.get(inode)) or path.exists():
                    continue
                os.replace(to, path)
                if one["kept"]:
                    os.link(one["kept"], to)
                done.append(f"{path.name} -> {to.name}")
            elif not path.exists() and path.parent.is_dir():
                if one["does"] == "remove":
                    os.link(one["kept"], path)
                else:
                    path.mkdir()
                    made_again[inode] = path.stat().st_ino
                done.append(f"{path.name} removed")
    return done
