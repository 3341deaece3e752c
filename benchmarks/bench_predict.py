"""iidm.predict on images of 480x360: as it is, against one image after the other as it was before (commit 4fdf16a).

    python -m benchmarks.bench_predict --images 1000 --rounds 3       both in turns: wall and CPU seconds, and the ratio
    pytest benchmarks/bench_predict.py --benchmark-json predict.json

The network is a MobileNetV2 from random numbers, in bfloat16 unless --precision float32 is given. What it says of an
image changes nothing of the work but the size of the PNGs.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from iidm.config import Config, DataConfig, DatasetConfig
from iidm.data import Input, decoding_threads, read_image, target_classes, training_size_for
from iidm.data.scenes.draw import draw_scene
from iidm.engine.preview import colorize, overlay
from iidm.engine.runtime import machine_info, pick_amp_dtype, pick_device
from iidm.models import build_network
from iidm.prediction.flow import threads_shared_by
from iidm.prediction.images import Annotations, ImageWork, label_images
from iidm.prediction.looking import Look
from iidm.prediction.pictures import Pictures
from iidm.prediction.plans import Planner
from iidm.types import ClassSet

from .conftest import commit

SIZE = (360, 480)
"""(H, W) of CamVid."""
SCENES = 20
CONFIG = Config(data=DataConfig(target=DatasetConfig(spec="camvid")))


def bench_predict(benchmark: Any, provenance: dict[str, Any], tmp_path: Path) -> None:
    """Time iidm.predict on 200 images; its results are those of one after the other."""
    images = write_images(tmp_path / "images", 200 if benchmark.enabled else 3)
    look = build_look("amp")
    jobs = decoding_threads()
    benchmark.pedantic(lambda: overlapped(look, images, tmp_path / "new", jobs), rounds=3 if benchmark.enabled else 1)
    one_by_one(look, images[:3], tmp_path / "old")
    for path in (tmp_path / "old").iterdir():
        with Image.open(path) as old, Image.open(tmp_path / "new" / path.name) as new:
            np.testing.assert_array_equal(np.asarray(old), np.asarray(new))
    if benchmark.stats is not None:  # None where timing is off
        benchmark.extra_info["images_per_s"] = len(images) / benchmark.stats.stats.median
    benchmark.extra_info.update(op="predict", jobs=jobs, images=len(images), **provenance)


def write_images(folder: Path, count: int) -> list[Input]:
    """JPEGs of street scenes as a camera sees them; SCENES are drawn, the others are these moved sideways."""
    folder.mkdir(parents=True, exist_ok=True)
    scenes = [draw_scene("camera", 0, number, SIZE)[0] for number in range(min(SCENES, count))]
    written = []
    for number in range(count):
        path = folder / f"{number:05}.jpg"
        moved = np.roll(scenes[number % SCENES], 7 * (number // SCENES), 1)
        Image.fromarray(moved).save(path, quality=92)
        written.append(Input(path, path.stem, path.name))
    return written


def build_look(precision: str) -> Look:
    """The network on the device that there is."""
    torch.manual_seed(0)
    device = pick_device("auto")
    network = build_network("mobilenet_v2", len(target_classes(CONFIG)), output_stride=16)
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Look(network.eval(), pick_amp_dtype(device, precision == "amp"), CONFIG.model.align_corners)


def overlapped(look: Look, images: Sequence[Input], out: Path, jobs: int) -> None:
    """As iidm.predict."""
    work = ImageWork(look, Pictures(("ids", "color", "overlay"), target_classes(CONFIG)), Annotations(), out)
    with threads_shared_by(jobs):
        label_images(images, Planner(CONFIG, print, bounds_memory=True).of_image, work, jobs, lambda: None)


def one_by_one(look: Look, images: Sequence[Input], out: Path) -> None:
    """As it was: each image is read, seen and written before the next, PNGs as Pillow writes them by default."""
    classes = target_classes(CONFIG)
    out.mkdir(parents=True, exist_ok=True)
    for image in images:
        pixels = read_image(image.path)
        label = look([pixels], training_size_for(CONFIG, SIZE))[0].label
        save_pictures(out / image.name, pixels, label, classes)


def save_pictures(stem: Path, image: NDArray[np.uint8], label: NDArray[np.uint8], classes: ClassSet) -> None:
    """The three pictures as they were."""
    Image.fromarray(label).save(f"{stem}.ids.png")
    Image.fromarray(colorize(label, classes)).save(f"{stem}.color.png")
    Image.fromarray(overlay(image, label, classes)).save(f"{stem}.overlay.png")


def timed(unit: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds, those of all threads."""
    wall, cpu = time.perf_counter(), time.process_time()
    unit()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    """Both in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=("amp", "float32"), default="amp")
    parser.add_argument("--jobs", type=int, default=decoding_threads())
    words = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-predict-"))
    try:
        images = write_images(folder / "images", words.images)
        look = build_look(words.precision)
        ways: dict[str, Callable[[Sequence[Input]], None]] = {
            "one by one": lambda some: one_by_one(look, some, folder / "old"),
            "overlapped": lambda some: overlapped(look, some, folder / "new", words.jobs),
        }
        for way in ways.values():
            way(images[:8])
        print(f"{machine_info()}, commit {commit()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
        print(f"{words.images} images of {SIZE[0]}x{SIZE[1]} (HxW), {look.amp_dtype or 'float32'}, --jobs {words.jobs}")
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for number in range(words.rounds):
            for name, way in ways.items():
                wall, cpu = timed(lambda: way(images))  # noqa: B023
                found[name].append((wall, cpu))
                print(f"round {number}: {name:10} {wall:7.1f} s, {cpu:7.1f} s of CPU", flush=True)
        median = {
            name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in found.items()
        }
        for name, (wall, cpu) in median.items():
            print(f"{name:10} {words.images / wall:6.1f} images/s, {1e3 * cpu / words.images:6.1f} ms of CPU an image")
        print(f"ratio: wall {median['one by one'][0] / median['overlapped'][0]:.2f}, ", end="")
        print(f"CPU {median['one by one'][1] / median['overlapped'][1]:.2f}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
