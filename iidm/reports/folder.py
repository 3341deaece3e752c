"""What the folder of a run tells by itself, without a network or an image."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iidm.cli import read_config
from iidm.config import Config
from iidm.data.datasets.splits import read_list
from iidm.data.datasets.summary import TITLES
from iidm.engine.checkpoint import read_metadata
from iidm.engine.log import NOTES, read_metrics
from iidm.engine.whole_checkpoint import find_whole_checkpoint
from iidm.text import read_text
from iidm.types import UserError


@dataclass(frozen=True)
class RunFolder:
    """A run, as its folder holds it. What is not there is empty."""

    path: Path
    name: str
    """The folder's name; with its parents where another run has that name too."""
    config: Config
    checkpoint: Path | None
    metadata: dict[str, Any]
    """Of the checkpoint."""
    results: dict[str, Any]
    """results.json."""
    metrics: list[dict[str, Any]]
    notes: str
    images: dict[str, int]
    """Title of each set of images -> how many it holds, from splits/."""
    missing: list[str]
    """Sentences on what is not there, and why."""

    @property
    def steps(self) -> int:
        """Training steps that are done, as far as checkpoint and metrics tell."""
        logged = max((int(line["step"]) + 1 for line in self.metrics), default=0)
        return max(logged, int(self.metadata.get("step", 0)))

    @property
    def scored_steps(self) -> int:
        """Training steps of the networks that are scored and shown: those of the checkpoint, where one is there."""
        return int(self.metadata.get("step", self.steps))

    @property
    def is_finished(self) -> bool:
        """Whether the run has ended with its results."""
        return bool(self.results) and self.results.get("steps", self.steps) == self.config.max_steps


def open_folders(paths: Sequence[Path]) -> list[RunFolder]:
    """Read the folders of runs. Raises UserError for one that is no run, and for one that is named twice."""
    whole = [path.resolve() for path in paths]
    for number, path in enumerate(whole):
        if path in whole[:number]:
            raise UserError(f"{paths[number]} is named twice; name each run once.")
    names = [path.name for path in whole]
    named = [name if names.count(name) == 1 else "/".join(p.parts[-2:]) for name, p in zip(names, whole, strict=True)]
    if len(set(named)) < len(named):
        named = [str(path) for path in whole]
    return [_open(path, name) for path, name in zip(paths, named, strict=True)]


def _open(path: Path, name: str) -> RunFolder:
    if not (path / "config.json").is_file():
        raise UserError(f"{path} is no run: it has no config.json. Give the folder that iidm.train printed at its end.")
    config = read_config(path / "config.json")
    missing: list[str] = []
    checkpoint, metadata = _checkpoint(path, missing)
    folder = RunFolder(
        path,
        name,
        config,
        checkpoint,
        metadata,
        _results(path, missing),
        read_metrics(path),
        _notes(path, missing),
        _count_images(path, missing),
        missing,
    )
    if not folder.is_finished:
        done, wanted = folder.steps, config.max_steps
        state = f"{done} of {wanted} steps are done" if done < wanted else "all steps are done, but it has no results"
        missing.insert(0, f"The run is not finished: {state}. iidm train --resume {path} goes on with it.")
    if not folder.metrics:
        missing.append("No curves: metrics.jsonl is not there or holds no line.")
    return folder


def _checkpoint(path: Path, missing: list[str]) -> tuple[Path | None, dict[str, Any]]:
    try:
        checkpoint, _, notes = find_whole_checkpoint(path)
    except UserError as error:
        missing.append(str(error))
        return None, {}
    missing += notes
    if checkpoint is None:
        missing.append("No checkpoint: none was written yet, or it was removed; nothing can be evaluated again.")
        return None, {}
    try:
        return checkpoint, read_metadata(checkpoint)
    except (UserError, OSError, ValueError) as error:
        missing.append(f"The newest checkpoint cannot be read: {error}")
        return None, {}


def _results(path: Path, missing: list[str]) -> dict[str, Any]:
    file = path / "results.json"
    if not file.is_file():
        return {}
    try:
        found = json.loads(read_text(file, "The results file"))
    except (UserError, OSError, ValueError, RecursionError) as error:
        missing.append(f"results.json cannot be read: {error}")
        return {}
    if isinstance(found, dict):
        return found
    missing.append("results.json cannot be read: it holds no JSON object.")
    return {}


def _notes(path: Path, missing: list[str]) -> str:
    try:
        return (path / NOTES).read_text(encoding="utf-8", errors="replace")
    except OSError:
        missing.append(f"No notes: {NOTES} is not there. Runs of older versions wrote none.")
        return ""


def _count_images(path: Path, missing: list[str]) -> dict[str, int]:
    found = {}
    for stream, title in TITLES.items():
        file = path / "splits" / f"{stream}.txt"
        if file.is_file():
            found[title] = len(read_list(file))
    if not found:
        missing.append("How many images there were is not known: splits/ is empty or was removed.")
    return found


def list_previews(path: Path, kind: str) -> list[tuple[int, Path]]:
    """(steps done, file) of the preview pictures of one kind (`batch`, `validation`, `unlabeled`), in order."""
    found = []
    for file in (path / "previews").glob(f"step-*-{kind}.png"):
        match = re.fullmatch(rf"step-(\d+)-{kind}\.png", file.name)
        if match:
            found.append((int(match[1]), file))
    return sorted(found)
