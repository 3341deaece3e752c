"""Does choosing the images to label pay? Rounds: train with 5 labels, choose 5 more, train anew, choose 10 more.

    python docs/results/label_next.py --out DIR --start "--preset scenes --amp" --budgets 5 10 20 --seeds 3

Each seed labels other images first; from there each strategy goes its own way, with the same number of labels and the
same steps, each run from the same start (not from the round before). A run that is done is not done again, and one
that was stopped is resumed. DIR/select.md has the table, DIR/select.jsonl a line a run.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from iidm.cli import read_config
from iidm.data import class_pixel_counts, open_training_target
from iidm.data.datasets.splits import read_list
from iidm.studies.folder import write_text
from iidm.studies.local import source_commit
from iidm.studies.statistics import CONFIDENCE, Difference, Sample, t_quantile

RULE = (
    "Differences are over seeds, which begin with the same images: Student's t interval at 95 % for the mean of the"
    " seeds' differences. One whose interval holds 0 is not resolved."
)
STRATEGIES = ("select", "random", "even")
QUIET = "--quiet --log.no-tensorboard --log.preview-every 0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", required=True, help="options of iidm.train, as one word")
    parser.add_argument("--budgets", type=int, nargs="+", default=[5, 10, 20])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES))
    told = parser.parse_args()
    for budget in range(
        1, len(told.budgets)
    ):  # all seeds of a budget before the next: what is stopped early is a table
        for seed in range(told.seeds):
            start = train(told, seed, "start", ["--data.labeled-count", told.budgets[0], "--data.split-seed", seed])
            for strategy in told.strategies:
                before = (
                    start if budget == 1 else told.out / "runs" / f"s{seed}" / f"{strategy}-{told.budgets[budget - 1]}"
                )
                count = told.budgets[budget]
                chosen = choose(before, count - told.budgets[budget - 1], strategy, seed)
                train(told, seed, f"{strategy}-{count}", ["--data.labeled-list", chosen / "labeled.txt"])
                report(told)


def train(told: argparse.Namespace, seed: int, name: str, words: list[Any]) -> Path:
    """A run, if it is not done; returns its folder."""
    run = told.out / "runs" / f"s{seed}" / name
    if (run / "results.json").exists():
        return run
    print(f"seed {seed}: {name}", flush=True)
    given = [*shlex.split(told.start), *QUIET.split(), "--seed", seed, *words, "--run-dir", run]
    call("iidm.train", ["--resume", run] if (run / "config.json").exists() else given)
    return run


def choose(run: Path, count: int, strategy: str, seed: int) -> Path:
    """The folder of a choice from a run."""
    out = run / f"{strategy}-{count}-more"
    if not (out / "new.txt").exists():
        call("iidm.select", [run, "--count", count, "--strategy", strategy, "--seed", seed, "--out", out])
    return out


def call(module: str, words: list[Any]) -> None:
    subprocess.run([sys.executable, "-m", module, *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def report(told: argparse.Namespace) -> None:
    """select.jsonl and select.md of what is done."""
    records = [record for run in sorted(told.out.glob("runs/s*/*")) if (record := read(run)) is not None]
    write_text(told.out / "select.jsonl", "".join(json.dumps(record) + "\n" for record in records))
    rows = {name: [r for r in records if r["strategy"] == name] for name in ("start", *told.strategies)}
    lines = ["| strategy | labels | mIoU by seed | mean ± deviation | classes | rare pixels |", "| --- " * 6 + "|"]
    samples: dict[tuple[str, int], Sample] = {}
    for name, group in rows.items():
        for count in sorted({r["labeled"] for r in group}):
            own = sorted((r for r in group if r["labeled"] == count), key=lambda r: r["seed"])
            sample = samples[name, count] = Sample(tuple(100 * r["student"] for r in own))
            spread = "" if sample.deviation is None else f" ± {sample.deviation:.1f}"
            seeds = ", ".join(f"{value:.1f}" for value in sample.values)
            held, rare = (np.mean([r[key] for r in own]) for key in ("classes", "rare"))
            lines.append(
                f"| {name} | {count} | {seeds} | {sample.mean:.1f}{spread} | {held:.1f} | {100 * rare:.1f} % |"
            )
    said = []
    for (name, count), sample in samples.items():
        for other in told.strategies[1:] if name == told.strategies[0] else ():
            found = paired(sample, samples[other, count]) if (other, count) in samples else None
            if found is not None:
                is_resolved = "resolved" if found.is_resolved else "not resolved"
                interval = f"{found.value:+.1f} ({found.low:+.1f} to {found.high:+.1f})"
                said.append(f"- {name} less {other}, {count} labels: {interval}, {is_resolved}")
    steps = sorted({r["steps"] for r in records})
    head = f"Student's mIoU in per cent, {' and '.join(map(str, steps))} steps, `{told.start}`. {RULE}"
    foot = (
        "Classes: those with a pixel in the labeled images. Rare pixels: the share of the labeled pixels of the"
        " rarer half of the target's classes."
    )
    write_text(told.out / "select.md", "\n".join([head, "", *lines, "", foot, "", *said, ""]))
    print("\n".join([*lines, *said]), flush=True)


def paired(a: Sample, b: Sample) -> Difference | None:
    """The difference of two strategies over the seeds that both have, which began with the same images and network."""
    values = Sample(tuple(x - y for x, y in zip(a.values, b.values, strict=False)))
    if values.deviation is None:
        return None
    count = len(values.values)
    half = t_quantile(0.5 + CONFIDENCE / 2, count - 1) * values.deviation / count**0.5
    return Difference(values.mean, values.mean - half, values.mean + half)


def read(run: Path) -> dict[str, Any] | None:
    """What is known of a finished run: scores, and what its labeled images hold."""
    if not (run / "results.json").exists():
        return None
    results, config = json.loads((run / "results.json").read_text()), read_config(run / "config.json")
    target = open_training_target(config)
    pixels = class_pixel_counts(target).astype(np.float64)
    rare = np.argsort(pixels.sum(0))[: pixels.shape[1] // 2]
    names = read_list(run / "splits" / "labeled.txt")
    own = pixels[[target.places[name] for name in names]]
    return {
        "strategy": run.name.split("-")[0],
        "labeled": len(names),
        "seed": config.seed,
        "steps": results["steps"],
        "student": results["student"]["miou"],
        "teacher": results["teacher"]["miou"],
        "iou": results["student"]["iou"],
        "classes": int((own.sum(0) > 0).sum()),
        "rare": float(own[:, rare].sum() / own.sum()),
        "seconds": results["seconds"],
        "commit": source_commit(),
    }


if __name__ == "__main__":
    main()
