"""Write one HTML file that tells a person about a trained run, or sets several side by side.

    iidm report RUN                         RUN/report.html
    iidm report RUN RUN ... --out FILE.html
    iidm report RUN --network teacher --pictures 8
    iidm report RUN --no-evaluate           what the run's folder holds, without its images

The file needs no network and no other file. Student and teacher are evaluated on the validation images once; what was
counted is kept in RUN/report.json, for the next report of the same checkpoint and images. A run that is not finished,
or whose images, checkpoint or previews are not there any more, gets a report of what there is, which says what is
missing.
"""

from __future__ import annotations

if __name__ == "__main__":  # first: it reads the command line before anything that takes seconds to import
    from iidm.command import run_command

    run_command("report")

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from iidm.cli import ReportArguments, parse_arguments, program
from iidm.reports.folder import open_folders
from iidm.reports.gather import gather
from iidm.reports.page import GENERATOR, render
from iidm.text import write_text
from iidm.types import UserError


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    arguments = parse_arguments(ReportArguments, "report", argv)
    if not arguments.run:
        raise UserError("Name the folder of a run, or several: iidm report RUN...")
    if arguments.pictures is not None and arguments.pictures < 0:
        raise UserError(f"--pictures must be 0 or more, not {arguments.pictures}.")
    several = len(arguments.run) > 1
    out = arguments.out or (Path("report.html") if several else arguments.run[0] / "report.html")
    refuse_other_files(out)
    folders = open_folders(arguments.run)
    pictures = arguments.pictures if arguments.pictures is not None else 2 if several else 4
    runs = [gather(folder, arguments, pictures) for folder in folders]
    page = render(runs, arguments.network, shlex.join([*program("report").split(), *argv]))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, page)
    for run in runs:
        for line in run.missing:
            print(f"{run.folder.name}: {line}" if several else line)
    print(f"report: {out} ({len(page.encode()) / 1e6:.1f} MB)")


def refuse_other_files(out: Path) -> None:
    """Raise UserError where the report would overwrite a folder, or a file that is no report, or has no place: before
    minutes of evaluation, which a run's folder that is somebody else's cannot keep either."""
    if out.is_dir():
        raise UserError(f"{out} is a folder; give the name of a file: --out {out / 'report.html'}.")
    place = next(folder for folder in out.absolute().parents if folder.exists())
    if not os.access(place, os.W_OK):
        raise UserError(f"Nothing can be written in {place}. Give a file in a folder of yours: --out report.html.")
    mark = f'name="generator" content="{GENERATOR}'.encode()
    if out.is_file() and mark not in out.read_bytes()[:2000]:
        raise UserError(f"{out} exists and is no report of iidm; give another --out, or remove it.")
