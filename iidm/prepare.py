"""Prepare a data set: decode and resize it once, so that training reads it at full speed.

    python -m iidm.prepare gta5 --root GTA5 --out PREPARED                      raw uint8: fastest, largest
    python -m iidm.prepare cityscapes --root CITYSCAPES --out PREPARED --format jpeg
    python -m iidm.prepare my-camera.toml --root DIR --out PREPARED             your own folders (docs/own-data.md)
    python -m iidm.prepare --check PREPARED                                     read everything, name what is damaged

Give the folder as --source-root or --target-root in place of the data set. Killed, it goes on where it stopped;
finished, it does only what changed since.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from iidm.cli import run_main
from iidm.config import DatasetConfig
from iidm.data import builtin_root, check_prepared, make_plan, megabytes, prepare
from iidm.engine.log import Progress
from iidm.types import UserError


@dataclass(frozen=True)
class Arguments:
    """Decode and resize a data set once, so that training reads it at full speed."""

    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")] = ""
    """Name of a known data set (gta5, synthia, cityscapes, cityscapes-16, camvid, camvid-day, camvid-dusk, ...),
    `folder`, or the path of a TOML file that describes one (docs/own-data.md)."""
    root: Path | None = None
    """Folder of the data set as it was downloaded. Not needed for streetscenes-rendered and streetscenes-camera."""
    out: Path | None = None
    """Folder to write: new, empty, or an earlier, perhaps unfinished run of the same command."""
    format: Literal["raw", "jpeg", "png"] = "raw"
    """`raw`: uint8 arrays, of which only the crop is read; `jpeg`: quality 95 at 4:4:4, a tenth of the size, decoded by
    a GPU where there is one; `png`: lossless, the slowest."""
    splits: tuple[Literal["train", "val"], ...] = ()
    """Which splits. Empty: all that the data set has."""
    jobs: int | None = None
    """Processes. Empty: one a core."""
    skip_damaged: bool = False
    """Leave damaged images out in place of an error; prepared.json names them."""
    check: Path | None = None
    """Read all of a prepared folder and name every file that is damaged or does not fit; prepares nothing."""
    data: DatasetConfig = field(default_factory=DatasetConfig)
    """What a `folder` data set is, and --data.resize H W. The first word of the command is its spec."""


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    arguments = tyro.cli(Arguments, prog="python -m iidm.prepare", args=list(argv))
    if arguments.check is not None:
        check(arguments.check, arguments.jobs)
        return
    if not arguments.dataset or arguments.out is None:
        raise UserError("Give the data set and where it goes: python -m iidm.prepare gta5 --root GTA5 --out PREPARED.")
    if arguments.jobs is not None and arguments.jobs < 1:
        raise UserError(f"--jobs must be at least 1, not {arguments.jobs}.")
    config = replace(arguments.data, spec=arguments.dataset)
    with Progress("drawing the built-in scenes, once", quiet=False) as progress:
        root = arguments.root or builtin_root(config, progress=progress)
    plan = make_plan(
        config,
        root,
        arguments.out.expanduser(),
        image_format=arguments.format,
        splits=arguments.splits,
    )
    for note in dict.fromkeys(note for dataset in plan.datasets.values() for note in dataset.notes):
        say(note)
    about = "" if arguments.format == "raw" else "about "
    say(
        f"{plan.manifest.dataset}: {len(plan.tasks)} images to prepare, {len(plan.done)} are there;"
        f" {about}{megabytes(plan.need_bytes)} needed, {megabytes(plan.free_bytes)} free in {plan.out}"
    )
    try:
        with Progress("preparing", quiet=False) as progress:
            manifest = prepare(plan, jobs=arguments.jobs, skip_damaged=arguments.skip_damaged, progress=progress)
    except KeyboardInterrupt:
        raise UserError(f"Stopped; {plan.out} keeps what is done. Run the same command again to go on.") from None
    for line in manifest.skipped:
        say(f"left out: {line}")
    print(f"{plan.out} is complete. Train with it: --source-root {plan.out} or --target-root {plan.out}")


def check(root: Path, jobs: int | None) -> None:
    """Print what is wrong with a prepared folder; exit status 2 where something is."""
    with Progress("checking", quiet=False) as progress:
        count, problems = check_prepared(root, jobs=jobs, progress=progress)
    for line in problems:
        print(line)
    if problems:
        raise UserError(
            f"{len(problems)} problems in {root}, named above. Remove those files and run its iidm.prepare"
            " command again: what is missing is prepared anew."
        )
    print(f"{root} is whole: {count} images, every checksum right")


def say(line: str) -> None:
    """A note, apart from what the command answers."""
    print(line, file=sys.stderr)


if __name__ == "__main__":
    run_main(main)
