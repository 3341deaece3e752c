"""Turns the JSON of bench_loader and bench_prepare into a table and a picture.

    python -m benchmarks.report_loader FILE.json [MORE.json...]

Writes FILE.md and FILE.png beside FILE.json, with the results of all files, and prints the tables.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from .report import Row, provenance, read

LINES = {
    "iidm-prepared": "iidm, prepared as raw",
    "iidm-jpeg": "iidm, prepared as JPEG",
    "iidm-png": "iidm, PNG as downloaded",
    "dataloader-prepared-uint8": "DataLoader, prepared as raw, no float conversion",
    "dataloader-prepared": "DataLoader, prepared as raw",
    "dataloader-png": "DataLoader, PNG as downloaded",
    "ideal": "ideal: copies of one cached batch",
}


def tables(rows: list[Row]) -> str:
    """Markdown tables of all rows, with what they were measured on above them."""
    lines = [text for row in rows[:1] for text in (provenance(row), "")]
    for device in dict.fromkeys(row["device"] for row in rows):
        loaders = {row["impl"]: row for row in rows if row["op"] == "loader" and row["device"] == device}
        if "iidm-prepared" in loaders:
            lines += [f"2 + 2 + 2 crops of 512x512 on {device}:", ""]
            lines += ["| loader | images/s | ms a batch | iidm, prepared as raw, is faster by |", "|" + " --- |" * 4]
            for impl, words in LINES.items():
                if impl in loaders:
                    ratio = loaders[impl]["seconds"] / loaders["iidm-prepared"]["seconds"]
                    speed = loaders[impl]["images_per_s"]
                    lines.append(f"| {words} | {speed:.0f} | {6e3 / speed:.1f} | {ratio:.2f}x |")
            lines.append("")
    indexes = [row for row in rows if row["op"] == "loader-index"]
    if indexes:
        lines += ["| entries of the index | s for 20 batches |", "| --- | --- |"]
        lines += [f"| {row['entries']} | {row['seconds']:.3f} |" for row in indexes]
        lines.append("")
    starts = [row for row in rows if row["op"] == "loader-start"]
    if starts:
        lines += ["| images, all prepared | s to the first batch asked for | of it with the images | MB at most |"]
        lines.append("|" + " --- |" * 4)
        for row in starts:
            parts = row["parts_s"]
            images = sum(parts[name] for name in ("open_domains", "check_data", "prepare_run_dir", "TrainLoader"))
            total = parts["import"] + parts["start"]
            lines.append(f"| {row['entries']} | {total:.2f} | {images:.2f} | {row['peak_mb']:.0f} |")
        lines.append("")
    prepared = [row for row in rows if row["op"] == "prepare"]
    if prepared:
        lines += ["| iidm.prepare gta5 | images/s | all cores in use | MB an image |", "|" + " --- |" * 4]
        for row in prepared:
            share, size = 100 * row["busy_share"], row["mb_per_image"]
            lines.append(f"| {row['impl']} | {row['images_per_s']:.1f} | {share:.0f} % | {size:.2f} |")
        lines.append("")
    return "\n".join(lines)


def picture(rows: list[Row], path: Path) -> None:
    """Bars: images per second of each loader, on a logarithmic axis."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    loaders = [row for row in rows if row["op"] == "loader"]
    loaders.sort(key=lambda row: (row["device"], list(LINES).index(row["impl"])))
    figure, axes = plt.subplots(figsize=(8, 1 + 0.4 * len(loaders)), constrained_layout=True)
    colors = ["tab:blue" if row["impl"].startswith("iidm") else "tab:gray" for row in loaders]
    bars = axes.barh(range(len(loaders)), [row["images_per_s"] for row in loaders], color=colors)
    axes.bar_label(bars, [f"{row['images_per_s']:.0f}" for row in loaders], padding=3)
    axes.set_yticks(range(len(loaders)), [f"{LINES[row['impl']]} ({row['device']})" for row in loaders])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.margins(x=0.12)
    axes.set_xlabel("images per second (512x512 crops with their labels)")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE.json")
    files = parser.parse_args().files
    rows = [row for file in files for row in read(file)]
    text = tables(rows)
    files[0].with_suffix(".md").write_text(text)
    if any(row["op"] == "loader" for row in rows):
        picture(rows, files[0].with_suffix(".png"))
    print(text)


if __name__ == "__main__":
    main()
