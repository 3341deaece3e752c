"""The counts of a campaign as a page."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from iidm.engine.runtime import machine_info

from .cases import latest

Record = dict[str, Any]


def write_report(folder: Path) -> None:
    """FOLDER/README.md from FOLDER/*.jsonl."""
    parts = [
        "# Killed, gone on with, and compared",
        "`python -m benchmarks.campaign` wrote this page and the lines beside it; the package's docstring says what a"
        " case is. A loss is a case whose end differs in any bit from that of the uninterrupted command, but for"
        " times, that left a process or a temporary file, or that did not say what it had to say. A case that lost"
        " something is done again by the next call; the counts are of the last time.",
    ]
    for file in sorted(folder.glob("*.jsonl")):
        records = [json.loads(line) for line in file.read_text().splitlines()]
        parts.append(page_of(file.stem, records))
    parts.append(f"Machine of the last part: {machine_info()}.")
    (folder / "README.md").write_text("\n\n".join(parts) + "\n")


def page_of(name: str, every: Sequence[Record]) -> str:
    """The counts of one kind."""
    records = [*latest(every).values()]
    before = [record for record in every if record["losses"] and record not in records]
    losses = [record for record in records if record["losses"]]
    kills = Counter(hit for record in records for hit in record["kills"])
    troubles = Counter(record["trouble"] or "none" for record in records if not record["left_out"])
    left_out = Counter(f"{record['trouble']}: {record['left_out']}" for record in records if record["left_out"])
    starts = Counter(record["start"] for record in records)
    seconds, cpu_s = (sorted(record[key] for record in records) for key in ("seconds", "cpu_s"))
    commits = sorted({record["commit"] for record in records})
    lines = [
        f"## {name}",
        f"**{len(records)} cases, {sum(kills.values())} kills, {len(losses)} with losses.**",
        "| killed while | kills |\n| --- | --- |\n" + "\n".join(f"| {hit} | {n} |" for hit, n in kills.most_common()),
        "| what else went wrong | cases |\n| --- | --- |\n"
        + "\n".join(f"| {trouble} | {n} |" for trouble, n in troubles.most_common()),
        f"Fresh processes in {starts['fresh']} cases, forks in {starts['fork']}. A case took"
        f" {seconds[len(seconds) // 2]} s and {cpu_s[len(cpu_s) // 2]} s of the processor (medians), all together"
        f" {sum(cpu_s) / 3600:.1f} h of the processor. Commits: {', '.join(commits)}.",
    ]
    lines += [f"Left out: {n} times {what}." for what, n in left_out.items()]
    lines += [f"- case {record['number']}: {'; '.join(record['losses'])}" for record in losses]
    lines += [
        f"- case {record['number']}, done again, had lost this at {record['commit']}: {'; '.join(record['losses'])}"
        for record in before
    ]
    return "\n\n".join(lines)
