"""One page of what the stages showed."""

from __future__ import annotations

import json
from pathlib import Path

from .. import report, report_loader, report_step
from ..conftest import commit
from .records import Records
from .stages import Stage

TABLES = {
    "kernels": report.table,
    "compile": report.table,
    "step": report_step.tables,
    "steps": report_step.tables,
    "compile-step": report_step.tables,
    "loader": report_loader.tables,
}
"""Stage -> its results as Markdown."""


def write_page(folder: Path, records: Records, stages: tuple[Stage, ...]) -> str:
    """Write FOLDER/gpu.md; returns its text."""
    title = "# Dry run on the CPU: it shows nothing about a GPU" if records.dry else "# What a GPU showed"
    lines = [title, "", f"Commit {commit() or 'unknown'}.", "", "| stage | shows | ended | seconds | GPU | |"]
    lines.append("|" + " --- |" * 6)
    for stage in stages:
        record = records.get(stage.name)
        cells = [stage.name, stage.shows, "not run", "", "", ""]
        if record:
            cells[2:] = [record.end, f"{record.seconds:.0f}", record.gpu, record.says.replace("|", "/")]
        lines.append("| " + " | ".join(cells) + " |")
    lines.append("")
    for stage in stages:
        path = folder / f"gpu-{stage.name}.json"
        if stage.name in TABLES and records.ended(stage.name) in ("passed", "failed", "stopped") and path.exists():
            lines += [f"## {stage.name}", "", *_table(stage.name, path), ""]
    text = "\n".join(lines)
    (folder / "gpu.md").write_text(text + "\n")
    return text


def _table(name: str, path: Path) -> list[str]:
    try:
        return TABLES[name](report.read(path)).splitlines()
    except json.JSONDecodeError:  # the stage was cut off while it wrote
        return ["No figures: the file is not whole."]
    except Exception as error:  # of half of the cases, say: it must not cost the stages that follow
        return [f"No table: {error!r}. The figures are in {path.name}."]
