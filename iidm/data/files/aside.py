"""What was left aside of a folder, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .walking import FRAMES_FOLDER, SHEET

RESULTS = "result of iidm.predict"
"""Kind of what `iidm.predict` wrote."""
LABEL = "label"
"""Kind of what is a label, and so no image: no loss."""
_KINDS = {
    LABEL: "labels",
    "hidden file": "hidden files",
    "hidden folder": "hidden folders",
    RESULTS: "results of iidm.predict",
    SHEET: "contact sheets of iidm.inspect",
    "folder of a run": "folders of runs",
    "choice of iidm.select": "choices of iidm.select",
    FRAMES_FOLDER: "folders of frames of iidm.predict",
    "prepared folder": "prepared folders",
    "link to what is listed already": "links to what is listed already",
    "file that is none (a pipe, a device)": "files that are none (pipes, devices)",
    "folder that cannot be read": "folders that cannot be read",
    "name in two Unicode forms": "names in two Unicode forms",
    "file without ending": "files without ending",
}


@dataclass(frozen=True)
class Aside:
    """What a listing left aside."""

    folder: Path
    counts: Mapping[str, int]
    """Kind (`.heic`, `hidden file`, ...) -> how many."""

    @property
    def total(self) -> int:
        """Files and folders, labels among them."""
        return sum(self.counts.values())

    def words(self) -> str:
        """`3 .heic, 2 hidden files`; empty where nothing is worth a word: labels are no loss."""
        told = sorted((kind for kind in self.counts if kind != LABEL), key=lambda kind: (-self.counts[kind], kind))
        return ", ".join(f"{self.counts[k]} {k if self.counts[k] == 1 else _KINDS.get(k, k)}" for k in told)

    def __str__(self) -> str:
        """One line, or an empty one."""
        words = self.words()
        return f"{self.folder}: {words} left aside" if words else ""
