"""Label images with a trained run.

    python -m iidm.predict RUN image.jpg folder/ ... --out DIR
    python -m iidm.predict RUN orthophoto.png --out DIR --mode slide --window 512 512

For each image DIR gets <name>.ids.png (train ids), <name>.color.png (class colours) and <name>.overlay.png, all of the
image's own size. An image of any size is labeled: see docs/own-data.md on large ones. Of folders the same images are
taken as in training; what DIR holds of an earlier call is none. Images that cannot be read are told at the end, with
exit status 2.
"""

from __future__ import annotations

if __name__ == "__main__":  # first: it reads the command line before anything that takes seconds to import
    from iidm.command import run_command

    run_command("predict")

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from iidm.cli import PredictArguments, parse_arguments
from iidm.config import SlidingWindow, sliding_window
from iidm.data import find_images, read_image, target_classes, training_size_for
from iidm.data.files.common import counted
from iidm.engine.preview import colorize, overlay
from iidm.engine.rows import STRIP_ROWS, resized_rows, resized_strips
from iidm.engine.runtime import pick_device
from iidm.engine.windows import slide_strips
from iidm.evaluation import normalize_image, with_windows
from iidm.kernels.pseudo_label import pseudo_label
from iidm.models import Network
from iidm.runs import description_notes, load_network, open_run, run_precision
from iidm.types import ClassSet, UserError

MOST_WHOLE_PX = 8 * 2**20
"""Most pixels at training resolution that the network sees at once unless --mode whole insists; a 4K frame (3840x2160)
is just below. The activations of a ResNet-101 at output stride 8 take about 7 GB of float32 there. One number for all
networks and machines, so that a command means the same everywhere."""


def main(argv: Sequence[str]) -> None:
    """Entry point."""
    arguments = parse_arguments(PredictArguments, "predict", argv)
    if not arguments.images:
        raise UserError("Name images, or folders of images, after the run: iidm predict RUN IMAGES --out DIR.")
    device = pick_device(arguments.device)
    config, checkpoint = open_run(arguments.run)
    for line in description_notes(arguments.run):
        print(line, file=sys.stderr)
    config = with_windows(config, arguments.mode, arguments.window, arguments.stride)
    classes = target_classes(config)
    network = load_network(config, checkpoint, arguments.network, len(classes), device)
    amp_dtype = run_precision(config, arguments.precision, device)
    images, notes = find_images(arguments.images)
    for note in notes:
        print(note, file=sys.stderr)
    arguments.out.mkdir(parents=True, exist_ok=True)
    bad: list[str] = []
    for path, name in images:
        try:
            image = read_image(path)
        except UserError as error:
            bad.append(str(error))
            continue
        size = training_size_for(config, image.shape[:2])
        windows = sliding_window(config)
        if arguments.mode is None and windows is None and size[0] * size[1] > MOST_WHOLE_PX:
            windows = config.eval.sliding_window(config.data.crop_size)
            print(
                f"{path}: the network would see {size[0]}x{size[1]} pixels (HxW) at once; to bound memory it sees"
                f" {windows}. --mode whole insists on the whole image, --mode slide chooses windows for all."
            )
        label = predict(network, image, size, amp_dtype, align_corners=config.model.align_corners, windows=windows)
        save_pictures(arguments.out / name, image, label, classes)
    done = len(images) - len(bad)
    if done:
        count = counted(done, "image")
        print(f"labeled {count} with the {arguments.network} of {checkpoint}; results in {arguments.out}")
    if len(images) == 1 and bad:
        raise UserError(bad[0])
    for line in bad:
        print(line, file=sys.stderr)
    if bad:
        raise UserError(f"{len(bad)} of {len(images)} images could not be labeled; each is named above.")


def predict(
    network: Network,
    image: np.ndarray,
    size: tuple[int, int],
    amp_dtype: torch.dtype | None,
    *,
    align_corners: bool = False,
    windows: SlidingWindow | None = None,
) -> np.ndarray:
    """Label one image: uint8 [H,W,3] RGB -> uint8 [H,W] train ids, the network seeing it resized to `size` (h, w).

    With `windows` rows are labeled as soon as no further window covers them: the largest float tensor is float32
    [K, window height, w], the sum of one row of windows; none holds the whole image.
    """
    device = next(network.parameters()).device
    height, width = image.shape[:2]
    rows = resized_rows(np.ascontiguousarray(image), size, normalize_image, device)
    with torch.inference_mode(), torch.autocast(device.type, dtype=amp_dtype, enabled=amp_dtype is not None):
        if windows is None:
            logits = network(rows(0, size[0]).contiguous(memory_format=torch.channels_last))
            return _label(logits, (height, width), align_corners)
        label = np.empty((height, width), np.uint8)
        strips = slide_strips(network, rows, size, windows, align_corners)
        top = 0
        for strip in resized_strips(strips, size[0], height, align_corners=align_corners):
            bottom = top + strip.shape[2]
            label[top:bottom] = _label(strip, (bottom - top, width), align_corners)
            top = bottom
    return label


def _label(logits: torch.Tensor, size: tuple[int, int], align_corners: bool) -> np.ndarray:
    """uint8 [H,W] of logits [1,K,h,w] upsampled to `size`, without full-size logits."""
    label: np.ndarray = pseudo_label(logits, size, 0.0, align_corners=align_corners).label[0].cpu().numpy()
    return label


def save_pictures(stem: Path, image: np.ndarray, label: np.ndarray, classes: ClassSet) -> None:
    """Write <stem>.ids.png, .color.png and .overlay.png of an image uint8 [H,W,3] and its label uint8 [H,W], one after
    the other: beside the two, one picture is in memory (4 bytes a pixel in Pillow)."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(label).save(f"{stem}.ids.png")
    _save_painted(f"{stem}.color.png", label.shape, lambda rows: colorize(label[rows], classes))
    _save_painted(f"{stem}.overlay.png", label.shape, lambda rows: overlay(image[rows], label[rows], classes))


def _save_painted(path: str, shape: tuple[int, ...], paint: Callable[[slice], np.ndarray]) -> None:
    """Write a picture of (H, W) that `paint` makes strip by strip; all of an overlay is 24 bytes a pixel in float64."""
    height, width = shape
    picture = Image.new("RGB", (width, height))
    for top in range(0, height, STRIP_ROWS):
        picture.paste(Image.fromarray(paint(slice(top, top + STRIP_ROWS))), (0, top))
    picture.save(path)
