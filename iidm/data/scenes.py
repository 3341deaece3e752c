"""StreetScenes: the built-in data. Street scenes in Cityscapes' 19 classes and in two domains of one world.

`rendered` is clean and game-like, all labeled: the source. `camera` has other palettes, textures, light, haze, lens and
sensor, and other streets: the target. A scene is a function of (seed, domain, index): the same bytes for the same
versions of numpy and Pillow, on any machine, in any process and order. It is written to a cache folder once and read
from there like any data set.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..types import IGNORE_INDEX, UserError
from .files import cache_folder
from .scenes_style import STYLES, photograph, texture
from .scenes_world import build_world

DOMAINS = ("rendered", "camera")
GENERATOR_VERSION = 1
"""Raised whenever pictures change, so that old caches are left alone."""
VAL_START = 1_000_000
"""Index of the first validation scene; training scenes start at 0."""
CARD = "streetscenes.json"

Counts = Mapping[tuple[str, str], int]
"""(domain, split) -> number of images."""


def draw_scene(
    domain: str, seed: int, index: int, size: tuple[int, int] = (256, 512)
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw one scene.

    Args:
        domain: `rendered` or `camera`.
        seed: of the whole data set.
        index: which scene.
        size: (H, W) in pixels, at least 64x128.

    Returns: image uint8 [H,W,3] RGB and label uint8 [H,W] of Cityscapes train ids; the camera's own bonnet, where it is
        in the picture, is 255.
    Raises: UserError for an unknown domain or a size that is too small.
    """
    if domain not in STYLES:
        raise UserError(f"StreetScenes has the domains {' and '.join(DOMAINS)}, not {domain!r}.")
    if size[0] < 64 or size[1] < 128:
        raise UserError(f"StreetScenes are drawn at 64x128 pixels or more, not {size[0]}x{size[1]}.")
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, DOMAINS.index(domain), index])))
    style = STYLES[domain]
    canvas = build_world(style, size, rng)
    image = np.asarray(canvas.image).astype(np.int32)
    label = np.array(canvas.label)
    texture(image, label, style, rng)
    if style.real:
        _bonnet(image, label, rng)
        return photograph(image, np.asarray(canvas.distance), rng), label
    return np.clip(image, 0, 255).astype(np.uint8), label


def _bonnet(image: NDArray[np.int32], label: NDArray[np.uint8], rng: np.random.Generator) -> None:
    """The bonnet of the car that carries the camera, in two of three pictures."""
    if rng.integers(0, 3) == 0:
        return
    height, width = label.shape
    rows = int(rng.integers(height // 40, height // 14))
    columns = 2 * np.arange(width, dtype=np.int64) - width
    top = height - rows + rows * columns * columns // (width * width)
    inside = np.arange(height)[:, None] >= top[None, :]
    label[inside] = IGNORE_INDEX
    image[inside] = rng.integers(20, 70)


def scenes_root(cache: Path | None, *, seed: int, size: tuple[int, int], counts: Counts) -> Path:
    """The folder below the cache that holds these scenes; its name changes with all that changes them."""
    listed = sorted((domain, split, count) for (domain, split), count in counts.items())
    digest = hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:8]
    name = f"streetscenes-v{GENERATOR_VERSION}-seed{seed}-{size[0]}x{size[1]}-{digest}"
    return (cache or cache_folder()) / name


def write_scenes(
    root: Path,
    *,
    seed: int,
    size: tuple[int, int],
    counts: Counts,
    jobs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write scenes as root/<domain>/{images,labels}/<split>/<index>.png, or find them written.

    The folder appears whole or not at all, also when several processes write it at once or one is killed.

    Args:
        root: the folder.
        seed, size, counts: what to draw; splits are `train` and `val`.
        jobs: processes; default: one a core.
        progress: called with (written, all).

    Returns: root.
    Raises: UserError for a folder that holds something else, and for a full disk (nothing half-written stays).
    """
    card = {
        "generator": GENERATOR_VERSION,
        "seed": seed,
        "size": list(size),
        "counts": {f"{domain}/{split}": count for (domain, split), count in sorted(counts.items())},
    }
    if _is_written(root, card):
        return root
    tasks = [
        (domain, split, number)
        for (domain, split), count in sorted(counts.items())
        for number in range(count)
    ]  # fmt: skip
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        half = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    except OSError as error:
        raise UserError(f"The built-in scenes cannot be written to {root.parent} ({error}). Set IIDM_CACHE.") from None
    try:
        for domain, split in counts:
            for kind in ("images", "labels"):
                (half / domain / kind / split).mkdir(parents=True, exist_ok=True)
        _draw_all(partial(_write_one, half, seed, size), tasks, jobs or _cores(), progress)
        (half / CARD).write_text(json.dumps(card, indent=2) + "\n")
        _publish(half, root, card)
    except OSError as error:
        raise UserError(
            f"The built-in scenes could not be written to {root.parent} ({error}). Free some space (about"
            f" {len(tasks) * size[0] * size[1] * 3 >> 20} MB) or set IIDM_CACHE to another folder."
        ) from None
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return root


def _is_written(root: Path, card: Mapping[str, object]) -> bool:
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = json.loads((root / CARD).read_text())
    except (OSError, ValueError):
        found = None
    if found != json.loads(json.dumps(card)):
        raise UserError(f"{root} holds something else than these StreetScenes. Remove it or name another folder.")
    return True


def _publish(half: Path, root: Path, card: Mapping[str, object]) -> None:
    try:
        os.replace(half, root)
    except OSError:
        # Another process was faster; what it wrote is the same.
        if not _is_written(root, card):
            raise


def _draw_all(
    write: Callable[[tuple[str, str, int]], None],
    tasks: list[tuple[str, str, int]],
    jobs: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    # Spawned, not forked: torch's and DALI's threads are running.
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(jobs, max(len(tasks), 1))) as pool:
        for done, _ in enumerate(pool.imap_unordered(write, tasks, chunksize=8), start=1):
            if progress is not None:
                progress(done, len(tasks))


def _write_one(root: Path, seed: int, size: tuple[int, int], task: tuple[str, str, int]) -> None:
    domain, split, number = task
    image, label = draw_scene(domain, seed, number + (VAL_START if split == "val" else 0), size)
    for kind, array in (("images", image), ("labels", label)):
        Image.fromarray(array).save(root / domain / kind / split / f"{number:05d}.png", compress_level=1)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
