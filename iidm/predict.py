"""Label images with a trained run.

    python -m iidm.predict RUN image.jpg folder/ ... --out DIR

For each image DIR gets <name>.ids.png (train ids), <name>.color.png (class colours) and <name>.overlay.png, all of the
image's own size.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from PIL import Image

from iidm.cli import run_main
from iidm.data import read_image, target_classes, training_size_for
from iidm.engine.preview import colorize, overlay
from iidm.engine.runtime import pick_device
from iidm.evaluation import normalize_image
from iidm.kernels.pseudo_label import pseudo_label
from iidm.models import Network
from iidm.runs import load_network, open_run, run_precision
from iidm.types import UserError

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg"}


@dataclass(frozen=True)
class Arguments:
    """Label images with a trained run."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Images, or folders of images."""
    out: Path
    """Folder for the results."""
    network: Literal["student", "teacher"] = "teacher"
    """Which network."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: the GPU where there is one."""
    precision: Literal["run", "float32", "amp"] = "run"
    """`run`: as it was trained; `amp`: bfloat16 or float16, whichever the device has."""


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    arguments = tyro.cli(Arguments, prog="python -m iidm.predict", args=list(argv))
    device = pick_device(arguments.device)
    config, checkpoint = open_run(arguments.run)
    classes = target_classes(config)
    network = load_network(config, checkpoint, arguments.network, len(classes), device)
    amp_dtype = run_precision(config, arguments.precision, device)
    paths = find_images(arguments.images)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for path, name in paths:
        image = read_image(path)
        size = training_size_for(config, image.shape[:2])
        label = predict(network, image, size, amp_dtype, align_corners=config.model.align_corners)
        stem = arguments.out / name
        Image.fromarray(label).save(f"{stem}.ids.png")
        Image.fromarray(colorize(label, classes)).save(f"{stem}.color.png")
        Image.fromarray(overlay(image, label, classes, 0.5)).save(f"{stem}.overlay.png")
    images = "1 image" if len(paths) == 1 else f"{len(paths)} images"
    print(f"labeled {images} with the {arguments.network} of {checkpoint}; results in {arguments.out}")


def predict(
    network: Network,
    image: np.ndarray,
    size: tuple[int, int],
    amp_dtype: torch.dtype | None,
    *,
    align_corners: bool = False,
) -> np.ndarray:
    """Label one image: uint8 [H,W,3] RGB -> uint8 [H,W] train ids, the network seeing it resized to `size` (H, W)."""
    device = next(network.parameters()).device
    with torch.inference_mode(), torch.autocast(device.type, dtype=amp_dtype, enabled=amp_dtype is not None):
        tensor = normalize_image(torch.from_numpy(np.ascontiguousarray(image))[None].to(device))
        if tensor.shape[2:] != size:
            tensor = F.interpolate(tensor, size=size, mode="bilinear", antialias=True)
        logits = network(tensor.contiguous(memory_format=torch.channels_last))
        label = pseudo_label(logits, (image.shape[0], image.shape[1]), 0.0, align_corners=align_corners).label
    return label[0].cpu().numpy()


def find_images(paths: Iterable[Path]) -> list[tuple[Path, str]]:
    """Every image named or below a named folder, each with a name for its results that no other has."""
    found: list[tuple[Path, str]] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
            if not inside:
                raise UserError(f"There are no images ({', '.join(sorted(IMAGE_SUFFIXES))}) in {path}.")
            found += [(p, "_".join(p.relative_to(path).with_suffix("").parts)) for p in inside]
        elif path.is_file():
            found.append((path, path.stem))
        else:
            raise UserError(f"There is no image {path}.")
    names = [name for _, name in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(
            f"Several images would write the same result {twice[0]!r}; label them into folders of their own."
        )
    return found


if __name__ == "__main__":
    run_main(main)
