"""Turns the JSON of bench_step into tables and a picture.

    python -m benchmarks.report_step FILE.json [MORE.json...]

Writes FILE.md and FILE.png beside FILE.json, with the results of all files, and prints the tables.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from .report import Row, provenance, read

IMPLS = {"iidm": "iidm", "reference-best": "PyTorch at its best", "reference": "PyTorch as usual"}
Case = tuple[str, str, str, int]


def by_case(rows: list[Row]) -> dict[Case, dict[str, Row]]:
    """(device, model, crop, batch) -> impl -> row, of the rows that compare implementations."""
    cases: dict[Case, dict[str, Row]] = {}
    for row in rows:
        if row["op"] == "step" and "options" not in row:
            crop = "x".join(map(str, row["crop"]))
            cases.setdefault((row["device"], row["model"], crop, row["batch"]), {})[row["impl"]] = row
    return cases


def _seconds(row: Row) -> str:
    seconds: float = row["seconds"]
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"


def _times(row: Row, other: Row | None, key: str) -> str:
    return f"{other[key] / row[key]:.2f}x" if other else "-"


def tables(rows: list[Row]) -> str:
    """Markdown tables of all rows, with what they were measured on above them."""
    lines = [line for text in dict.fromkeys(provenance(row) for row in rows) for line in (text, "")]
    for device in dict.fromkeys(case[0] for case in by_case(rows)):
        names = [IMPLS[impl] for impl in IMPLS]
        head = ["model", "crop", "batch", "precision of iidm", *names, "faster than at its best", "than usual"]
        head += ["share of the floor", "peak MB: iidm", "at its best", "usual"]
        lines += [f"One step on {device}:", "", "| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
        for (where, model, crop, batch), impls in by_case(rows).items():
            if where != device or "iidm" not in impls:
                continue
            ours = impls["iidm"]
            cells = [model, crop, "+".join([str(batch)] * 3), ours["dtype"]]
            cells += [_seconds(impls[impl]) if impl in impls else "-" for impl in IMPLS]
            cells += [_times(ours, impls.get(impl), "seconds") for impl in ("reference-best", "reference")]
            cells.append(f"{100 * ours['floor_share']:.0f} %")
            cells += [f"{impls[impl]['peak_bytes'] / 1e6:.0f}" if impl in impls else "-" for impl in IMPLS]
            lines.append("| " + " | ".join(cells) + " |")
        rate = next(row["matmul_tflops"] for row in rows if row["device"] == device)
        lines += ["", f"The floor: the convolutions' arithmetic at {rate:.2f} TFLOP/s, the fastest matrix product.", ""]
    options = [row for row in rows if row["op"] == "step" and "options" in row]
    if options:
        lines += ["| options of iidm | model | crop | batch | a step | peak MB |", "|" + " --- |" * 6]
        for row in options:
            crop, batch = "x".join(map(str, row["crop"])), "+".join([str(row["batch"])] * 3)
            cells = [row["options"], row["model"], crop, batch, _seconds(row), f"{row['peak_bytes'] / 1e6:.0f}"]
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def picture(rows: list[Row], path: Path) -> None:
    """Bars: steps per second of each case relative to PyTorch as usual, and the memory that each needs."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    cases = {case: impls for case, impls in by_case(rows).items() if {"iidm", "reference"} <= set(impls)}
    figure, (speed, memory) = plt.subplots(1, 2, figsize=(11, 1.5 + 0.7 * len(cases)), constrained_layout=True)
    for offset, impl in enumerate(IMPLS):
        places = [i + 0.27 * (offset - 1) for i in range(len(cases))]
        rates = [c["reference"]["seconds"] / c[impl]["seconds"] if impl in c else 0 for c in cases.values()]
        sizes = [c[impl]["peak_bytes"] / 1e6 if impl in c else 0 for c in cases.values()]
        for axes, values, form in ((speed, rates, "{:.2f}"), (memory, sizes, "{:.0f}")):
            bars = axes.barh(places, values, height=0.25, label=IMPLS[impl])
            axes.bar_label(bars, [form.format(v) if v else "" for v in values], padding=3, fontsize=8)
    names = [f"{model}\n{crop}, {batch}+{batch}+{batch}, {device}" for device, model, crop, batch in cases]
    for axes, title in ((speed, "times faster than PyTorch as usual"), (memory, "MB at the peak of a step")):
        axes.set_yticks(range(len(cases)), names if axes is speed else [""] * len(cases), fontsize=8)
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.set_xlabel(title)
    figure.legend(*speed.get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE.json")
    arguments = parser.parse_args()
    rows = [row for file in arguments.files for row in read(file)]
    first: Path = arguments.files[0]
    text = tables(rows)
    first.with_suffix(".md").write_text(text)
    picture(rows, first.with_suffix(".png"))
    print(text)


if __name__ == "__main__":
    main()
