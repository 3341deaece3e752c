"""Decode and resize a data set once, so that training reads it at full speed.

    iidm prepare gta5 --root GTA5 --out PREPARED                      raw uint8: fastest, largest
    iidm prepare cityscapes --root CITYSCAPES --out PREPARED --format jpeg
    iidm prepare my-camera.toml --root DIR --out PREPARED             your own folders (docs/prepare.md)
    iidm prepare gta5 --root GTA5 --out PREPARED --shard 2/4          on the second of four machines
    iidm prepare --check PREPARED                                     read everything, name what is damaged

Give the folder as --source-root or --target-root in place of the data set. Killed, it goes on where it stopped;
finished, it does only what changed since.
"""

from __future__ import annotations

if __name__ == "__main__":  # first: it reads the command line before anything that takes seconds to import
    from iidm.command import run_command

    run_command("prepare")

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from iidm.cli import PrepareArguments, parse_arguments, program
from iidm.data import Shard, builtin_root, check_prepared, make_plan, megabytes, prepare, unfinished
from iidm.engine.log import Progress
from iidm.types import UserError


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    arguments = parse_arguments(PrepareArguments, "prepare", argv)
    if arguments.check is not None:
        check(arguments.check, arguments.jobs)
        return
    if not arguments.dataset or arguments.out is None:
        raise UserError(f"Give the data set and where it goes: {program('prepare')} gta5 --root GTA5 --out PREPARED.")
    if arguments.jobs is not None and arguments.jobs < 1:
        raise UserError(f"--jobs must be at least 1, not {arguments.jobs}.")
    shard = Shard.parse(arguments.shard) if arguments.shard else None
    config = replace(arguments.data, spec=arguments.dataset)
    with Progress("drawing scenes or labels, once", quiet=False) as progress:
        root = arguments.root or builtin_root(config, progress=progress)
        plan = make_plan(
            config,
            root,
            arguments.out,
            image_format=arguments.format,
            splits=arguments.splits,
            shard=shard,
            progress=progress,
        )
    for note in dict.fromkeys(note for dataset in plan.datasets.values() for note in dataset.notes):
        say(note)
    about = "" if arguments.format == "raw" else "about "
    part = f", shard {shard}" if shard else ""
    say(
        f"{plan.manifest.dataset}{part}: {len(plan.tasks)} images to prepare, {len(plan.done)} are there;"
        f" {about}{megabytes(plan.need_bytes)} needed, {megabytes(plan.free_bytes)} free in {plan.out}"
    )
    try:
        with Progress("preparing", quiet=False) as progress:
            manifest = prepare(plan, jobs=arguments.jobs, skip_damaged=arguments.skip_damaged, progress=progress)
    except KeyboardInterrupt:
        raise UserError(f"Stopped; {plan.out} keeps what is done. Run the same command again to go on.") from None
    if shard and not manifest.complete:
        left = ", ".join(map(str, unfinished(plan.out, shard.of)))
        print(f"shard {shard} of {plan.out} is done, {left} not yet; the last one that ends completes the folder")
        return
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
