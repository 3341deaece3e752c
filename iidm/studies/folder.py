"""The folder of a study: what is kept of each run, in which files, and who may work in it.

runs.jsonl                 one line a finished run, to be kept in git: a run in it is never run again
runs/<run>/                the run's own folder, runs/<run>.json what it was started with, runs/<run>.log what it said
predictions/<key>/         labels that the run's student gave to the chosen validation images, as train ids
predictions/images-<id>/   those images and their truth
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from iidm.cli import config_as_dict
from iidm.config import Config
from iidm.locks import locked
from iidm.text import write_text
from iidm.types import UserError

from .plan import config_from_dict, run_key

Record = dict[str, Any]
"""A line of runs.jsonl."""


class StudyFolder:
    """Where the runs of one or more studies are kept."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runs = root / "runs"
        self.records_file = root / "runs.jsonl"
        self.predictions = root / "predictions"

    def create(self) -> None:
        """Make the folder. Raises UserError where that cannot be."""
        try:
            self.runs.mkdir(parents=True, exist_ok=True)
            write_text(self.root / ".gitignore", "/runs/\n/.lock\n")
        except OSError as error:
            raise UserError(f"--out {self.root} cannot be written ({error.strerror}). Give another folder.") from None

    def lock(self) -> AbstractContextManager[bool]:
        """Keep other studies out of the folder, those of other machines too: its runs may be on several."""
        return locked(self.root / ".lock", f"Another study works in {self.root}", "Wait for it, or give another --out.")

    def records(self) -> dict[str, Record]:
        """Every finished run by its key.

        Keys are computed again from the stored configurations: a field that came later has its default there, so that
        earlier runs stay known. Raises UserError for a line that is no JSON, but for a last one that a kill cut off.
        """
        found: dict[str, Record] = {}
        for number, (line, whole) in enumerate(self._lines(), start=1):
            try:
                record = json.loads(line)
                _require_record(record)
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
                if not whole:
                    break
                raise UserError(
                    f"{self.records_file}, line {number} is no record of a run. Mend or remove that line."
                ) from None
            found.setdefault(_current_key(record), record)
        return found

    def append(self, record: Record) -> None:
        """Add a finished run: its line is there whole or not at all."""
        lines = self._lines()
        if lines and not lines[-1][1]:  # a line that a kill cut off, or one that an editor left without its end
            kept = [line for line, _ in lines if _is_json(line)]
            write_text(self.records_file, "".join(f"{line.rstrip()}\n" for line in kept))
        with self.records_file.open("ab", buffering=0) as file:
            file.write(json.dumps(record).encode() + b"\n")
            os.fsync(file.fileno())

    def remove_halves(self) -> None:
        """Remove what runs that were killed have left among the predictions; none may be at work."""
        for half in self.predictions.rglob(".*"):
            if half.is_file():
                half.unlink(missing_ok=True)

    def pictures_of(self, config: Config) -> Path:
        """Where the validation images of runs like this one and their truth are kept."""
        data = config_as_dict(config)["data"]
        text = json.dumps([data["target"], data["val_list"]], sort_keys=True)
        return self.predictions / f"images-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    def _lines(self) -> list[tuple[str, bool]]:
        """Each line of the file, and whether it has its end."""
        try:
            text = self.records_file.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):  # the second is told when the folder is made
            return []
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{self.records_file} cannot be read: {error}.") from None
        return [(line, line.endswith("\n")) for line in text.splitlines(keepends=True) if line.strip()]


def _require_record(record: Any) -> None:
    """Raise ValueError, LookupError, TypeError or AttributeError for what is none that a report can show."""
    record["student"]["miou"], record["config"].items()
    numbers = [record[name] for name in ("images", "seconds", "steps")]
    for network in ("student", "teacher"):
        scores = record.get(network, {})
        numbers += [scores.get("miou"), scores.get("pixel_accuracy"), *scores.get("iou", {}).values()]
    machine = record["machine"]
    texts = [record["key"], record["date"], record["iidm"], machine["cpu"], machine["python"], machine["torch"]]
    numbers += [machine["cores"], machine["threads"]]
    is_right = all(n is None or type(n) in (int, float) for n in numbers) and all(isinstance(t, str) for t in texts)
    if not is_right:
        raise ValueError("a number or a text is none")


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _current_key(record: Record) -> str:
    try:
        return run_key(config_from_dict(record["config"]))
    except Exception:  # cattrs has several, and a configuration of before may be one that is refused today
        return str(record["key"])
