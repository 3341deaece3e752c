"""Writes what a study has found: DIR/<study>.md, .csv and .json, and the pictures beside them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from iidm.config import DatasetConfig
from iidm.data import target_classes
from iidm.engine.preview import save_sheet
from iidm.text import write_text
from iidm.types import UserError

from .budget import draw, sentences
from .figures import draw_class_heatmap, draw_curves, strip_rows
from .folder import Record, StudyFolder
from .plan import Plan
from .progress import counted, duration
from .results import NETWORKS, Result, collect, compare
from .runner import Failure
from .statistics import RULE, Sample
from .tables import class_table, difference_lines, escaped, labels, score_table


@dataclass(frozen=True)
class Report:
    """The files of one study in its folder, and how it was asked for."""

    plan: Plan
    folder: StudyFolder
    command: str
    """As a shell reads it."""
    strips: tuple[str, ...] = ()
    """Names of the validation images that the strips show; empty: all that are kept."""

    def table(self, records: Mapping[str, Record]) -> str:
        """The table of scores alone."""
        return score_table(self.plan, collect(self.plan, records))

    def told(self, records: Mapping[str, Record]) -> list[str]:
        """What a person is told of it, sentence by sentence; nothing but of the study `budget`."""
        return sentences(collect(self.plan, records)) if self.plan.study.split_per_seed else []

    def write(self, records: Mapping[str, Record], failures: Sequence[Failure] = ()) -> None:
        """Write .md, .csv and .json of what is finished."""
        results = collect(self.plan, records)
        write_text(self._file(".md"), self._markdown(results, records, failures))
        write_text(self._file(".csv"), self._csv(results))
        write_text(self._file(".json"), json.dumps(self._json(results), indent=2) + "\n")

    def draw(self, records: Mapping[str, Record]) -> list[str]:
        """Draw curves, IoU per class and strips, of which the Markdown shows those that are there.

        Returns: lines on what could not be drawn.
        """
        results = collect(self.plan, records)
        if self.plan.study.split_per_seed:
            draw(results, self._file("-labels.png"))
        else:
            draw_curves(self.plan, results, self._file("-curves.png"))
        draw_class_heatmap(self.plan, results, self._file("-classes.png"))
        try:
            classes = target_classes(self.plan.cells[0].runs[0].config)
        except UserError as error:  # a data set's TOML file that is not at hand
            return [f"no strips: {error}"]
        for labeled in self.plan.budgets:
            rows = strip_rows(results, labeled, self.folder, classes, self.strips)
            if rows:
                title = f"{labels(labeled)}, {self.plan.steps} steps: student of seed 0 with its mIoU in per cent"
                save_sheet(self._file(f"-strips-{labeled}.png"), rows, classes, title)
        return []

    def _file(self, ending: str) -> Path:
        return self.folder.root / f"{self.plan.study.name}{ending}"

    def _markdown(self, results: Sequence[Result], records: Mapping[str, Record], failures: Sequence[Failure]) -> str:
        plan = self.plan
        parts = [f"# {escaped(plan.study.title)}", escaped(plan.study.note), self._caption(results)]
        parts += [score_table(plan, results), *self._missing(records, failures)]
        if plan.study.split_per_seed:
            parts += ["## How many labels are needed", " ".join(sentences(results))]
            parts += self._pictures("", ["-labels.png"])
        else:
            parts += ["## Differences that are not resolved", *self._differences(results)]
            parts += self._pictures("Over the label budget", ["-curves.png"])
        strips = [f"-strips-{labeled}.png" for labeled in plan.budgets]
        parts += self._pictures("The same images through all methods", strips)
        tables = [(labeled, class_table(plan, results, labeled)) for labeled in plan.budgets]
        if any(table for _, table in tables):
            parts.append("## IoU per class\nOf the student, in per cent, mean over the seeds.")
            parts += [f"{labels(labeled)}:\n\n{table}" for labeled, table in tables if table]
            parts += self._pictures("", ["-classes.png"])
        parts += self._origin(results)
        return "\n\n".join(part for part in parts if part) + "\n"

    def _caption(self, results: Sequence[Result]) -> str:
        plan, config = self.plan, self.plan.cells[0].runs[0].config
        found = [record for result in results for record in result.found]
        images = sorted({record["images"] for record in found})
        validation = f", {' or '.join(map(str, images))} validation images" if images else ""
        means = [next(iter(record["student"].get("means", {})), "") for record in found[:1]]
        over = f" over {means[0]}" if means and means[0] else ""
        setting = f"{_name(config.data.source)} -> {_name(config.data.target)}"
        text = (
            f"{setting} (preset `{plan.preset}`), {plan.steps} steps, {_seeds(plan)}{validation}. mIoU{over} in per"
            " cent: the student's, in brackets the teacher's; mean ± sample standard deviation over seeds; the best"
            f" mean of a column in bold. {_learned(plan)}"
        )
        if plan.study.paper_budgets:
            setting = f" on {plan.study.paper_setting}" if plan.study.paper_setting else ""
            other = "" if plan.preset == plan.study.preset else ", which is not the setting here"
            text += f' Columns "paper" hold the published numbers by labeled images{setting}{other}.'
        return text

    def _missing(self, records: Mapping[str, Record], failures: Sequence[Failure]) -> list[str]:
        said = {failure.run.key: failure.line for failure in failures}
        missing = [run for run in self.plan.runs if run.key not in records]
        if not missing:
            return []
        head = f"**Missing: {len(missing)} of {len(self.plan.runs)} runs.** The same command runs them."
        lines = [f"- {run.title}" + (f": {escaped(said[run.key])}" if run.key in said else "") for run in missing]
        return [head + "\n\n" + "\n".join(lines)]

    def _differences(self, results: Sequence[Result]) -> list[str]:
        pairs = [pair for labeled in self.plan.budgets for pair in compare(results, labeled)]
        judged = [pair for pair in pairs if pair.difference is not None]
        if not pairs:
            return ["There are no two rows to compare yet."]
        if not judged:
            return ["With one seed no difference can be judged: nothing tells it from chance. Give --seeds 3 or more."]
        lines = difference_lines(pairs)
        text = (
            "Each row against the best of its column, and against the one below it:"
            f" {counted(len(judged), 'comparison')} of the student's means, {len(lines)} of them not resolved. {RULE}"
        )
        if len(judged) < len(pairs):
            text += f" {len(pairs) - len(judged)} more cannot be judged yet: a row has one seed."
        return [text, "\n".join(f"- {line}" for line in lines)]

    def _pictures(self, title: str, endings: Sequence[str]) -> list[str]:
        files = [file for ending in endings if (file := self._file(ending)).is_file()]
        shown = [f"![{file.stem}]({file.name})" for file in files]
        return [f"## {title}", *shown] if shown and title else shown

    def _origin(self, results: Sequence[Result]) -> list[str]:
        found = {record["key"]: record for result in results for record in result.found}
        lines = [f"## How it was made\n\n    {self.command}"]
        origins: dict[str, list[Record]] = {}
        for record in found.values():
            origins.setdefault(_origin(record), []).append(record)
        for text, own in origins.items():
            time = duration(sum(record["seconds"] for record in own))
            days = sorted(record["date"][:10] for record in own)
            when = days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
            lines.append(f"- {counted(len(own), 'run')}, {time} in all, {when}: {text}.")
        return [lines[0], "\n".join(lines[1:]), "Each run with its configuration, command and scores: `runs.jsonl`."]

    def _csv(self, results: Sequence[Result]) -> str:
        classes = list(next((iou for result in results if (iou := result.iou("student"))), {}))
        scores = [f"{network}_{what}" for network in NETWORKS for what in ("miou", "pixel_accuracy")]
        head = ["study", "type", "row", "method", "labeled", "seed", "key", "steps", "seconds", *scores, "paper_miou"]
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([*head, *(f"{network}_iou_{name}" for network in NETWORKS for name in classes)])
        for result in results:
            for run, record in zip(result.cell.runs, result.records, strict=True):
                if record is None:
                    continue
                row, networks = result.row, [record.get(network, {}) for network in NETWORKS]
                line = [self.plan.study.name, row.type, row.name, row.method, result.labeled, run.config.seed]
                line += [record["key"], record["steps"], record["seconds"]]
                line += [_percent(network.get(what)) for network in networks for what in ("miou", "pixel_accuracy")]
                line.append(row.paper.get(result.labeled, ""))
                line += [_percent(network.get("iou", {}).get(name)) for network in networks for name in classes]
                writer.writerow(line)
        return out.getvalue()

    def _json(self, results: Sequence[Result]) -> dict[str, Any]:
        plan = self.plan
        pairs = [pair for labeled in plan.budgets for pair in compare(results, labeled)]
        return {
            "study": plan.study.name,
            "title": plan.study.title,
            "command": self.command,
            "preset": plan.preset,
            "steps": plan.steps,
            "seeds": plan.seeds,
            "budgets": plan.budgets,
            "paper_setting": plan.study.paper_setting,
            "cells": [_cell_json(result) for result in results],
            "comparisons": [{**asdict(p), "resolved": p.difference and p.difference.is_resolved} for p in pairs],
        }


def _cell_json(result: Result) -> dict[str, Any]:
    row = result.row
    networks = {
        network: {**_sample_json(result.miou(network)), "iou": result.iou(network)}
        for network in NETWORKS
        if result.miou(network)
    }
    return {
        "row": row.name,
        "type": row.type,
        "method": row.method,
        "options": row.options,
        "labeled": result.labeled,
        "paper": row.paper.get(result.labeled),
        "keys": result.keys,
        **networks,
    }


def _sample_json(sample: Sample | None) -> dict[str, Any]:
    return {} if sample is None else {"miou": sample.values, "mean": sample.mean, "deviation": sample.deviation}


def _origin(record: Record) -> str:
    """What a run was made on and with, in one line."""
    machine = record["machine"]
    cores = f"{machine['threads']} of {machine['cores']} cores of {machine['cpu']}"
    place = f"{machine['gpu']}, {cores}" if machine.get("gpu") and record["config"].get("device") != "cpu" else cores
    commit = f", commit {record['commit']}" if record.get("commit") else ""
    return f"{place}; Python {machine['python']}, torch {machine['torch']}; iidm {record['iidm']}{commit}"


def _name(data: DatasetConfig) -> str:
    return Path(data.spec).stem if data.spec.endswith(".toml") else data.spec


def _learned(plan: Plan) -> str:
    """Recipe, network and statistics of the runs; where rows differ, each value in the order of the rows."""
    configs = [run.config for run in plan.runs]
    values: dict[str, list[str]] = {
        "Recipe": [config.recipe for config in configs],
        "backbone": [config.model.backbone for config in configs],
        "weights": [Path(config.model.weights).name for config in configs],
        "head": [config.model.head for config in configs],
        "statistics": [config.eval.statistics for config in configs],
    }
    return (
        ", ".join(f"{name} {' or '.join(f'`{v}`' for v in dict.fromkeys(own))}" for name, own in values.items()) + "."
    )


def _seeds(plan: Plan) -> str:
    return "seed 0" if plan.seeds == 1 else f"seeds 0 {'and' if plan.seeds == 2 else 'to'} {plan.seeds - 1}"


def _percent(share: float | None) -> float | str:
    return "" if share is None else 100 * share
