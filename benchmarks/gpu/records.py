"""What is known of each stage, kept in FOLDER/gpu-stages.json."""

from __future__ import annotations

import hashlib
import json
import xml.etree.ElementTree as ElementTree
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from .stages import Stage

ROOT = Path(__file__).parents[2]
SOURCES = ("iidm", "kernels", "csrc", "benchmarks", "tests", "setup.py", "pyproject.toml")
ENDINGS = (".py", ".cu", ".cuh", ".cpp", ".h", ".toml", ".sh")
End = Literal["passed", "failed", "stopped", "missing", "left"]
"""How a stage ended: `stopped` by its limit or a signal, `missing` what it needs, `left` for want of time."""


def digest() -> str:
    """A short hash of the sources: what a result is a result of, with or without git."""
    total = hashlib.sha256()
    for name in SOURCES:
        path = ROOT / name
        files = [path] if path.is_file() else sorted(path.rglob("*"))
        for file in files:
            if file.suffix in ENDINGS and "results" not in file.parts:
                total.update(str(file.relative_to(ROOT)).encode() + file.read_bytes())
    return total.hexdigest()[:12]


@dataclass(frozen=True)
class Record:
    """How a stage ended."""

    end: End
    seconds: float
    says: str
    """In one line: counts of tests, the first error, what is missing."""
    sources: str = ""
    dry: bool = False
    gpu: str = ""
    """Its name."""

    @classmethod
    def of(cls, folder: Path, stage: Stage, end: End, seconds: float, why: str, dry: bool) -> Record:
        """From the files that the stage has written."""
        report, log = folder / f"gpu-{stage.name}.xml", folder / f"gpu-{stage.name}.txt"
        says = why
        if end in ("passed", "failed", "stopped"):
            counts, error = _read_report(report) if report.exists() else ({}, "")
            if counts and counts["passed"] == 0 and end == "passed" and not dry:
                end, error = "failed", "not one test ran"  # a stage without a test would prove nothing
            if not error and end != "passed":
                error = f"{why}: {_last_line(log)}"
            says = ", ".join(filter(None, [*(f"{n} {kind}" for kind, n in counts.items() if n), error]))
            says = says or _last_line(log)
        return cls(end, round(seconds, 1), says, digest(), dry)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1].strip()[:300] if lines else "it printed nothing"


def _read_report(path: Path) -> tuple[dict[str, int], str]:
    """Counts of a JUnit file, and the first error as `test: message`."""
    try:
        root = ElementTree.parse(path)
    except ElementTree.ParseError:  # cut off while it was written
        return {}, ""
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for suite in root.iter("testsuite"):  # a test that was cut off is among the cases, like one that passed
        failed, skipped = int(suite.get("failures", 0)) + int(suite.get("errors", 0)), int(suite.get("skipped", 0))
        counts["failed"] += failed
        counts["skipped"] += skipped
        counts["passed"] += int(suite.get("tests", 0)) - failed - skipped
    first = ""
    for case in root.iter("testcase"):
        bad = case.find("failure") if case.find("failure") is not None else case.find("error")
        if bad is not None and not first:
            message = (bad.get("message") or bad.text or "").strip().splitlines() or [""]
            first = f"{case.get('classname')}.{case.get('name')}: {message[0][:300]}"
    return counts, first


class Records:
    """Stage -> record, written at every change."""

    def __init__(self, folder: Path, dry: bool, gpu: str = "") -> None:
        """Read what an earlier call has left. A dry run and a run on a GPU do not count for each other.

        Args: gpu: name of the one that is here, for what is put.
        """
        self._path = folder / "gpu-stages.json"
        self._sources, self._dry = digest(), dry
        kept: dict[str, Any] = json.loads(self._path.read_text()) if self._path.exists() else {}
        records = {name: Record(**fields) for name, fields in kept.items()}
        self._records = {name: record for name, record in records.items() if record.dry == dry}
        self.dry, self.gpu = dry, gpu

    def put(self, name: str, record: Record) -> None:
        """Keep a record and write the file."""
        self._records[name] = replace(record, sources=self._sources, dry=self._dry, gpu=self.gpu)
        text = json.dumps({name: asdict(record) for name, record in self._records.items()}, indent=2)
        self._path.write_text(text + "\n")

    def get(self, name: str) -> Record | None:
        """The record of a stage, if it is of the sources as they are."""
        record = self._records.get(name)
        return record if record and record.sources == self._sources else None

    def ended(self, name: str) -> End | None:
        """How a stage ended; None: not run with the sources as they are."""
        record = self.get(name)
        return record.end if record else None
