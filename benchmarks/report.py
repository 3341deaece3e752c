"""Turns pytest-benchmark's JSON into a table and a picture.

    python -m benchmarks.report FILE.json [MORE.json...] [--out FOLDER]

Writes FILE.md and FILE.png beside FILE.json (or into FOLDER), with the results of all files, and prints the table.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

Row = dict[str, Any]
IMPLS = ("fused", "eager", "compile")


def read(path: Path) -> list[Row]:
    """One row a benchmark: its `extra_info` and `seconds`, the median of one call."""
    rows = []
    for benchmark in json.loads(path.read_text())["benchmarks"]:
        info = benchmark["extra_info"]
        rows.append({**info, "seconds": benchmark["stats"]["median"] / info.get("calls", 1)})
    return rows


def by_case(rows: list[Row]) -> dict[tuple[str, str, str, int, str], dict[str, Row]]:
    """(device, op, mode, batch, dtype) -> impl -> row, of the rows that compare implementations of an op."""
    cases: dict[tuple[str, str, str, int, str], dict[str, Row]] = {}
    for row in rows:
        if row["impl"] in IMPLS:
            key = (row["device"], row["op"], row["mode"], row["batch"], row["dtype"])
            cases.setdefault(key, {})[row["impl"]] = row
    return cases


def time_text(seconds: float) -> str:
    """Seconds in the unit that reads best."""
    return f"{seconds * 1e3:.2f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.1f} us"


def _ratio(impls: dict[str, Row], other: str) -> str:
    return f"{impls[other]['seconds'] / impls['fused']['seconds']:.1f}x" if {other, "fused"} <= set(impls) else "-"


def _megabytes(row: Row | None) -> str:
    return f"{row['peak_bytes'] / 1e6:.1f}" if row else "-"


def table(rows: list[Row]) -> str:
    """A Markdown table of all cases, with what they were measured on above it."""
    lines = []
    for text in dict.fromkeys(provenance(row) for row in rows):
        lines += [text, ""]
    head = [
        "op",
        "mode",
        "batch",
        "dtype",
        "fused",
        "eager",
        "compile",
        "eager/fused",
        "compile/fused",
        "GB/s",
        "of copy",
    ]
    head += ["peak MB fused", "peak MB eager"]
    for device in dict.fromkeys(key[0] for key in by_case(rows)):
        lines += [f"On {device}:", "", "| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
        for (where, op, mode, batch, dtype), impls in by_case(rows).items():
            if where != device:
                continue
            fused = impls.get("fused")
            cells = [op, mode.replace("_", " + "), str(batch), dtype]
            cells += [time_text(impls[i]["seconds"]) if i in impls else "-" for i in IMPLS]
            cells += [_ratio(impls, "eager"), _ratio(impls, "compile")]
            cells.append(f"{fused['bytes'] / fused['seconds'] / 1e9:.1f}" if fused else "-")
            copy = fused.get("copy_gb_per_s") if fused else None
            cells.append(f"{fused['bytes'] / fused['seconds'] / 1e7 / copy:.0f} %" if fused and copy else "-")
            cells += [_megabytes(fused), _megabytes(impls.get("eager"))]
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def provenance(row: Row) -> str:
    """What a row was measured on, in one line."""
    machine = row["machine"]
    name = machine.get("gpu") if row["device"] == "cuda" else f"{machine['cores']} cores of {machine['cpu']}"
    versions = ", ".join(f"{package} {version}" for package, version in row["versions"].items() if version)
    return f"{row['device']}: {name}; Python {machine['python']}, {versions}; commit {row['commit']}."


def picture(rows: list[Row], path: Path) -> None:
    """Bars: how many times faster than eager each body of each case is."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    cases = {key: impls for key, impls in by_case(rows).items() if {"fused", "eager"} <= set(impls)}
    figure, axes = plt.subplots(figsize=(9, 1 + 0.42 * len(cases)), constrained_layout=True)
    places = range(len(cases))
    for shift, impl in ((0.2, "fused"), (-0.2, "compile")):
        ratios = [i["eager"]["seconds"] / i[impl]["seconds"] if impl in i else 0.0 for i in cases.values()]
        bars = axes.barh([p + shift for p in places], ratios, height=0.38, label=impl)
        axes.bar_label(bars, [f"{r:.1f}" if r else "" for r in ratios], padding=3, fontsize=8)
    names = [
        f"{op}, {mode.replace('_', ' + ')}\n{device}, {batch} images, {dtype}"
        for device, op, mode, batch, dtype in cases
    ]
    axes.set_yticks(list(places), names, fontsize=7)
    axes.invert_yaxis()
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_xlabel("times faster than eager PyTorch")
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE.json")
    parser.add_argument("--out", type=Path, help="folder of the table and the picture; default: that of FILE")
    arguments = parser.parse_args()
    rows = [row for file in arguments.files for row in read(file)]
    first: Path = arguments.files[0]
    folder: Path = arguments.out or first.parent
    folder.mkdir(parents=True, exist_ok=True)
    text = table(rows)
    (folder / f"{first.stem}.md").write_text(text)
    picture(rows, folder / f"{first.stem}.png")
    print(text)


if __name__ == "__main__":
    main()
