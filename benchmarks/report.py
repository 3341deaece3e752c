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
OF_PYTORCH = {("cuda", "depthwise")}
"""(device, op) without a fused kernel: what runs as `fused` there is PyTorch's."""


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
        is_fused = row["impl"] == "fused"
        if row["impl"] in IMPLS and not (is_fused and (row["device"], row["op"]) in OF_PYTORCH):
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


def from_memory(row: Row) -> float | None:
    """Seconds of a call whose data lie in memory; None where that was not measured. On a GPU replays of a graph find in
    the L2 cache what the call before has left there; a copy of a gigabyte finds nothing."""
    if row["device"] != "cuda":
        seconds: float = row["seconds"]
        return seconds
    return row["cold_us"] / 1e6 if "cold_us" in row else None


def table(rows: list[Row]) -> str:
    """A Markdown table of all cases, with what they were measured on above it."""
    lines = []
    for text in dict.fromkeys(provenance(row) for row in rows):
        lines += [text, ""]
    head = ["op", "mode", "batch", "dtype", *IMPLS, "eager/fused", "compile/fused"]
    more = ["GB/s", "of copy", "peak MB fused", "peak MB eager"]
    for device in dict.fromkeys(key[0] for key in by_case(rows)):
        names = [*head, *(["fused cold"] if device == "cuda" else []), *more]
        lines += [f"On {device}:", "", "| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
        for (where, op, mode, batch, dtype), impls in by_case(rows).items():
            if where != device:
                continue
            fused = impls.get("fused")
            cells = [op, mode.replace("_", " + "), str(batch), dtype]
            cells += [time_text(impls[i]["seconds"]) if i in impls else "-" for i in IMPLS]
            cells += [_ratio(impls, "eager"), _ratio(impls, "compile")]
            cells += _rates(fused)[0 if device == "cuda" else 1 :]
            cells += [_megabytes(fused), _megabytes(impls.get("eager"))]
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
        if device == "cuda":
            lines += [
                "Cold: a call whose data lie in memory and not in the L2 cache; GB/s and `of copy` are of it.",
                "",
            ]
    return "\n".join(lines)


def _rates(fused: Row | None) -> list[str]:
    """Time of the fused body with a cold cache, its bytes a second, and the share of a copy's."""
    seconds = from_memory(fused) if fused else None
    if fused is None or seconds is None:
        return ["-"] * 3
    rate, copy = fused["bytes"] / seconds / 1e9, fused.get("copy_gb_per_s")
    return [time_text(seconds), f"{rate:.1f}", f"{100 * rate / copy:.0f} %" if copy else "-"]


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
