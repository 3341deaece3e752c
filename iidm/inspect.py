"""Look into folders of images and labels, and write the file that describes them.

    iidm inspect FOLDER                               tell what is there
    iidm inspect IMAGES EXPORT --write camera.toml    one data set: images, and a labeling tool's export
    iidm inspect OLD NEW --write old.toml new.toml    two data sets: the source, then the target

A FOLDER with images is a data set; one without, such as a labeling tool's export, belongs to the FOLDER before it.
--write takes one FILE.toml a data set and puts a contact sheet FILE.png beside it: images with their labels. What the
labels do not say (names of ids, ...) is guessed, and the file says so where it is.
"""

from __future__ import annotations

if __name__ == "__main__":  # first: it reads the command line before anything that takes seconds to import
    from iidm.command import run_command

    run_command("inspect")

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from iidm.cli import InspectArguments, parse_arguments
from iidm.config import DatasetConfig
from iidm.data import Dataset, read_image
from iidm.data.datasets.dataset import open_dataset
from iidm.data.datasets.places import Split
from iidm.data.files.common import evenly
from iidm.data.inspection.commands import next_steps
from iidm.data.inspection.describe import describe, tell
from iidm.data.inspection.report import Report, group_folders, inspect_folders
from iidm.engine.preview import Panel, colorize, overlay, save_sheet
from iidm.presets import preset_config
from iidm.types import Sample, UserError

SHEET_ROWS = 6
"""Images of a contact sheet."""
SHEET_PROBLEMS = 2
"""Of images that cannot be drawn so many are told in full: most often all are wrong in the same way."""
SHEET_PX = 768
"""Images of a sheet are thinned out to about this width before they are drawn."""


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    arguments = parse_arguments(InspectArguments, "inspect", argv)
    if not arguments.folders:
        raise UserError("Name the folders of images and labels first: iidm inspect FOLDER... --write FILE.toml")
    groups = group_folders(arguments.folders)
    if len(groups) > 2:
        raise UserError(f"{len(groups)} folders have images; at most two are inspected at once: source and target.")
    check_files(arguments, len(groups))
    reports = [inspect_folders(group) for group in groups]
    for report in reports:
        print(readable("\n".join(tell(report))), end="\n\n")
    for number, path in enumerate(arguments.write):
        write(reports, number, path)
    usual_crop = preset_config("folder").data.crop_size
    print("\n".join(next_steps(reports, arguments.folders, arguments.write, usual_crop)))


def check_files(arguments: InspectArguments, count: int) -> None:
    """Refuse what could not be written at the end."""
    if not arguments.write:
        return
    if len(arguments.write) != count:
        sets = "one data set" if count == 1 else "two data sets, source and target"
        raise UserError(
            f"The folders hold {sets}; give --write {'one file' if count == 1 else 'two files'}, not"
            f" {len(arguments.write)}. A folder without images belongs to the folder before it."
        )
    for path in arguments.write:
        if path.suffix != ".toml":
            raise UserError(f"--write needs a file that ends with .toml, not {path}.")
        for file in (path, path.with_suffix(".png")):
            if file.exists() and not arguments.force:
                raise UserError(f"{file} exists. Give another name, or --force to overwrite it.")


def write(reports: Sequence[Report], number: int, path: Path) -> None:
    """Write the description and the contact sheet of a data set, and say what training will read by it."""
    report = reports[number]
    classes = reports[0].naming.classes
    if not any(entry.scored for entry in report.naming.classes or classes):
        raise UserError(
            f"{path} was not written: without labels there are no classes to write. Give the folder of the labels too,"
            " or the source's folder before this one."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    text = describe(report, path, classes=classes)
    if readable(text) != text:
        raise UserError(f"{path} was not written: the name of a folder or class is no Unicode. Rename it first.")
    path.write_text(text, encoding="utf-8")
    print(f"wrote {path}")
    try:
        opened = [open_split(report, path, split) for split in ("train", "val") if split == "train" or report.val]
    except UserError as error:
        print(f"  but training cannot read it yet: {error}")
        return
    for dataset, split in zip(opened, (report.train, report.val), strict=False):
        labeled = sum(sample.label is not None for sample in dataset.samples)
        assert split is not None
        if (len(dataset.samples), labeled) != report.count(split):
            print(
                f"  training reads {len(dataset.samples)} images of {split}, {labeled} of them labeled; found were"
                f" {report.count(split)[0]} and {report.count(split)[1]}"
            )
    sheet(opened, path.with_suffix(".png"))


def readable(text: str) -> str:
    """The text with escapes in place of bytes of file names that are no Unicode."""
    return text.encode("utf-8", "backslashreplace").decode()


def open_split(report: Report, path: Path, split: Split) -> Dataset:
    """One split as training opens it."""
    need = "some" if report.count(report.train if split == "train" else report.val or split)[1] else "optional"
    return open_dataset(DatasetConfig(spec=str(path)), None, split, labels=need)  # type: ignore[arg-type]


def sheet(opened: Sequence[Dataset], path: Path) -> None:
    """Draw some images, evenly spaced, with their labels as training reads them."""
    labeled = [(dataset, sample) for dataset in opened for sample in dataset.samples if sample.label is not None]
    chosen = evenly(labeled or [(dataset, sample) for dataset in opened for sample in dataset.samples], SHEET_ROWS)
    rows, problems = [], []
    for dataset, sample in chosen:
        try:
            rows.append(panels(dataset, sample))
        except UserError as error:
            problems.append(str(error))
    if rows:
        save_sheet(path, rows, opened[0].classes, f"{path.stem}: image, label, both")
        print(f"wrote {path}: look whether the labels lie on their images and have the right names")
    for problem in problems[:SHEET_PROBLEMS]:
        print(f"  not drawn: {problem}")
    if len(problems) > SHEET_PROBLEMS:
        print(f"  not drawn: {len(problems) - SHEET_PROBLEMS} more")


def panels(dataset: Dataset, sample: Sample) -> list[Panel]:
    """An image, its label and both together."""
    image = read_image(sample.image)
    step = max(1, image.shape[1] // SHEET_PX)
    small = np.ascontiguousarray(image[::step, ::step])
    if sample.label is None:
        return [Panel(sample.name, small)]
    label = dataset.load_label(sample)
    drawn = colorize(label[::step, ::step], dataset.classes)
    if label.shape != image.shape[:2]:
        size = f"{label.shape[0]}x{label.shape[1]}, image {image.shape[0]}x{image.shape[1]}"
        return [Panel(sample.name, small), Panel(f"label has another size: {size}", drawn)]
    both = overlay(small, label[::step, ::step], dataset.classes)
    if "background" in dataset.classes.names:  # of a thin thing on it more is seen so
        is_background = label[::step, ::step] == dataset.classes.names.index("background")
        both[is_background] = small[is_background]
    ignored = float((label == 255).mean())
    note = f"label, {ignored:.0%} ignored" if ignored else "label"
    return [Panel(sample.name, small), Panel(note, drawn), Panel("both", both)]
