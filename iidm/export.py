"""Write a trained network as one file that needs no iidm.

    iidm export RUN                                      RUN/exports/teacher.onnx, images of any size
    iidm export RUN --size 1080 1920 --precision fp32 fp16 int8
    iidm export RUN --format torch --out camera.pt2      for torch.export.load

In: uint8 images [B,H,W,3] RGB; out: uint8 ids [B,H,W]. Normalization, resize, network and argmax are in the file. It
is run on the run's validation images (or on --images) before it gets its name, and compared with `iidm predict`.
docs/export.md shows a program that uses it.
"""

from __future__ import annotations

if __name__ == "__main__":  # first: it reads the command line before anything that takes seconds to import
    from iidm.command import run_command

    run_command("export")

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from iidm.cli import ExportArguments, parse_arguments, program
from iidm.config import Config, sliding_window
from iidm.data import target_classes, training_size_for
from iidm.data.specs.described import find_spec as find_dataset
from iidm.engine.checkpoint import read_metadata
from iidm.evaluation import with_windows
from iidm.exporting.check import Measured, check
from iidm.exporting.deployed import Deployed, Form
from iidm.exporting.facts import dataset_ids, describe, size_text
from iidm.exporting.graph import trace, write_onnx, write_torch
from iidm.exporting.images import Images, images_to_calibrate, images_to_check
from iidm.exporting.opened import open_file
from iidm.exporting.quantized import write_int8
from iidm.exporting.report import remarks, require_equal, table
from iidm.exporting.unfinished import unfinished
from iidm.models import Network
from iidm.prediction.looking import predict
from iidm.runs import description_notes, load_network, open_run
from iidm.types import ClassSet, UserError

SUFFIX = {"onnx": ".onnx", "torch": ".pt2"}


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    arguments = parse_arguments(ExportArguments, "export", argv)
    refuse_what_cannot_be(arguments)
    config, checkpoint = open_run(arguments.run)
    for line in description_notes(arguments.run):
        print(line, file=sys.stderr)
    config = with_windows(config, arguments.mode, arguments.window, arguments.stride)
    classes = target_classes(config)
    form = form_of(config, arguments, classes)
    network = load_network(config, checkpoint, arguments.network, len(classes), torch.device("cpu"))
    deployed = Deployed(deepcopy(network), form)
    images, unchecked = find_checks(config, arguments)
    steps, command = read_metadata(checkpoint)["step"], shlex.join([*program("export").split(), *argv])
    facts = {p: describe(config, form, classes, arguments.network, steps, p, command) for p in precisions(arguments)}
    paths = {precision: path_of(arguments, precision) for precision in facts}
    print(f"{arguments.network} of {checkpoint}: {size_text(form)}", flush=True)
    with unfinished(paths) as parts:
        write_files(deployed, network, parts, facts, config, arguments)
        own, found = measure(network, deployed, config, images, parts, classes)
        if "fp32" in found:
            require_equal(paths["fp32"], found["fp32"])
        for precision, path in paths.items():
            os.replace(parts[precision], path)
    for path in paths.values():
        print(f"written: {path}")
    if images is None:
        raise UserError(f"What was written was not checked: {unchecked}. Name images with --images DIR.")
    print("\n".join(["", table(paths, own, found, classes), "", *remarks(paths, own, found, classes, images)]))


def refuse_what_cannot_be(arguments: ExportArguments) -> None:
    """Raise UserError for a missing extra, and for options that do not fit together."""
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if arguments.format == "onnx" and missing:
        raise UserError(
            f"--format onnx needs {', '.join(missing)}. Install what is missing with: pip install 'iidm[export]', or"
            " write --format torch, which needs nothing more."
        )
    if not arguments.precision:
        raise UserError("--precision needs one of fp32, fp16, int8 or several; give them after the run.")
    if arguments.format == "torch" and "int8" in arguments.precision:
        raise UserError("--format torch writes fp32 and fp16; int8 is onnxruntime's: give --format onnx.")
    suffix = SUFFIX[arguments.format]
    if arguments.out is not None and arguments.out.suffix != suffix:
        raise UserError(
            f"--out names a file that ends with {suffix} for --format {arguments.format}, not {arguments.out}."
        )
    if arguments.size is not None and min(arguments.size) < 1:
        raise UserError(f"--size is H W in pixels, 1 or more, not {arguments.size[0]} {arguments.size[1]}.")
    if arguments.labels is not None and not arguments.images:
        raise UserError("--labels belongs to images that are given with --images; name them too.")
    if arguments.count < 1:
        raise UserError(f"--count is the number of images to check on, 1 or more, not {arguments.count}.")


def form_of(config: Config, arguments: ExportArguments, classes: ClassSet) -> Form:
    """What the file takes and gives."""
    target = find_dataset(config.data.target)
    size = arguments.size
    return Form(
        size=size,
        seen=None if size is None else training_size_for(config, size),
        box=config.data.target.resize or target.resize,
        windows=sliding_window(config),
        align_corners=config.model.align_corners,
        ids=dataset_ids(target.encoding, classes) if arguments.ids == "dataset" else None,
        confidence=arguments.confidence,
    )


def precisions(arguments: ExportArguments) -> list[str]:
    """Each once, in the order of the table."""
    return [name for name in ("fp32", "fp16", "int8") if name in arguments.precision]


def path_of(arguments: ExportArguments, precision: str) -> Path:
    """Where a precision's file goes: the name itself belongs to fp32, or to the only one."""
    suffix = SUFFIX[arguments.format]
    out = arguments.out or arguments.run / "exports" / f"{arguments.network}{suffix}"
    alone = arguments.out is not None and len(precisions(arguments)) == 1
    return out if precision == "fp32" or alone else out.with_name(f"{out.stem}-{precision}{suffix}")


def find_checks(config: Config, arguments: ExportArguments) -> tuple[Images | None, str]:
    """The images to check on; None, and why, where the run's own are gone. Raises UserError for those given."""
    wishes = (arguments.images, arguments.labels, arguments.target_root, arguments.count, arguments.size)
    try:
        return images_to_check(config, *wishes), ""
    except UserError as error:
        if arguments.images or arguments.target_root:
            raise
        return None, str(error).rstrip(".")


def write_files(
    deployed: Deployed,
    network: Network,
    parts: Mapping[str, Path],
    facts: Mapping[str, Mapping[str, str]],
    config: Config,
    arguments: ExportArguments,
) -> None:
    """Write a file of each precision under its unfinished name."""

    def write(module: Deployed, path: Path, own: Mapping[str, str]) -> None:
        print(f"writing {own['precision']} ...", flush=True)
        graph = trace(module)
        if arguments.format == "torch":
            write_torch(graph, path, own)
        else:
            write_onnx(graph, path, own, module.form)

    calibration = None
    if "int8" in parts:
        calibration = images_to_calibrate(config, arguments.target_root, arguments.size)
    if "fp32" in parts:
        write(deployed, parts["fp32"], facts["fp32"])
    if "fp16" in parts:
        write(Deployed(deepcopy(network), deployed.form, half=True), parts["fp16"], facts["fp16"])
    if calibration is not None:
        with unfinished({"float": parts["int8"]}) as base:
            source = parts.get("fp32", base["float"])
            if "fp32" not in parts:
                write(deployed, source, facts["int8"])
            write_int8(source, parts["int8"], (known.image for known in calibration), facts["int8"])


def measure(
    network: Network,
    deployed: Deployed,
    config: Config,
    images: Images | None,
    parts: Mapping[str, Path],
    classes: ClassSet,
) -> tuple[Measured, dict[str, Measured]]:
    """The files against `iidm predict` in float32; nothing measured where there are no images."""
    form = deployed.form
    how = {"align_corners": form.align_corners, "windows": form.windows}

    def labels(image: np.ndarray) -> np.ndarray:
        return predict(network, image, training_size_for(config, image.shape[:2]), None, **how)  # type: ignore[arg-type]

    files = {} if images is None else {precision: open_file(part) for precision, part in parts.items()}
    return check(files, labels, deployed, images or (), form.ids, len(classes))
