"""StreetScenes on disk: written once, whole or not at all, by several processes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from PIL import Image

from ...locks import locked
from ...types import UserError
from ..files.common import cache_folder
from .draw import GENERATOR_VERSION, check_request, draw_scene

SPLITS = ("train", "val")
VAL_START = 1_000_000
"""Index of the first validation scene; training scenes start at 0."""
CARD = "streetscenes.json"
"""The file that says what a finished folder holds."""

Counts = Mapping[tuple[str, str], int]
"""(domain, split) -> number of images."""
Task = tuple[str, str, int]
"""Domain, split and number of one scene."""

_WORKER = "import sys; from iidm.data.scenes.files import draw_share; draw_share(sys.argv[1])"


def scenes_root(cache: Path | None, *, seed: int, size: tuple[int, int], counts: Counts) -> Path:
    """The folder below the cache that holds these scenes; its name changes with all that changes them."""
    digest = hashlib.sha256(json.dumps(_listed(counts)).encode()).hexdigest()[:8]
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
    """Write scenes as root/<domain>/{images,labels}/<split>/<number>.png, or find them written.

    The folder appears whole or not at all, also when several processes ask for it at once or one is killed.

    Args:
        root: the folder.
        seed, size, counts: what to draw; splits are `train` and `val`, which share no scene.
        jobs: processes; default: one a core, fewer for few scenes.
        progress: called with (written, all).

    Returns: root.
    Raises: UserError for an unknown domain or split, a folder that holds something else, and a full disk
        (nothing half-written stays).
    """
    _check(seed, size, counts)
    card = {
        "generator": GENERATOR_VERSION,
        "seed": seed,
        "size": list(size),
        "counts": {f"{domain}/{split}": count for domain, split, count in _listed(counts)},
    }
    if _is_written(root, card, counts):
        return root
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with locked(root.parent / f".{root.name}.lock") as alone:
            if _is_written(root, card, counts):  # by the process that held the lock
                return root
            if alone:
                for left in root.parent.glob(f".{root.name}-*"):
                    shutil.rmtree(left, ignore_errors=True)  # by a process that was killed
            _write_whole(root, card, counts, jobs or _jobs(counts), progress)
    except OSError as error:
        # A camera's noise leaves a PNG nearly as large as its pixels.
        megabytes = 1 + (sum(counts.values()) * size[0] * size[1] * 3 >> 20)
        raise UserError(
            f"The built-in scenes could not be written to {root.parent} ({error}). Free up to {megabytes} MB there"
            " or set IIDM_CACHE to another folder."
        ) from None
    return root


def _check(seed: int, size: tuple[int, int], counts: Counts) -> None:
    for (domain, split), count in counts.items():
        check_request(domain, seed, 0, size)
        if split not in SPLITS:
            raise UserError(f"StreetScenes has the splits {' and '.join(SPLITS)}, not {split!r}.")
        if not 0 <= count <= VAL_START:
            raise UserError(f"A split of StreetScenes holds 0 to {VAL_START} images, not {count}.")


def _listed(counts: Counts) -> list[tuple[str, str, int]]:
    return sorted((domain, split, count) for (domain, split), count in counts.items())


def _tasks(counts: Counts) -> list[Task]:
    return [(domain, split, n) for domain, split, count in _listed(counts) for n in range(count)]


def _is_written(root: Path, card: Mapping[str, object], counts: Counts) -> bool:
    """Whether the folder holds just these scenes. Files that were deleted since make it unfinished."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = json.loads((root / CARD).read_text())
        found.pop("sha256", None)
    except (OSError, ValueError, AttributeError):
        found = None
    if found != card:
        raise UserError(
            f"{root} holds something else than the StreetScenes asked for (its {CARD} is missing or differs)."
            " Remove it or name another folder."
        )
    return all(
        sum(1 for _ in (root / domain / kind / split).glob("*.png")) == count
        for domain, split, count in _listed(counts)
        for kind in ("images", "labels")
    )


def _write_whole(
    root: Path,
    card: Mapping[str, Any],
    counts: Counts,
    jobs: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    half = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    try:
        half.chmod(0o755)  # mkdtemp's folders are private; a shared cache is read by others
        for domain, split in counts:
            for kind in ("images", "labels"):
                (half / domain / kind / split).mkdir(parents=True, exist_ok=True)
        total, digest = sum(counts.values()), hashlib.sha256()
        for done, scene in enumerate(_drawn(half, card, counts, jobs), start=1):
            digest.update(bytes.fromhex(scene))
            if progress is not None:
                progress(done, total)
        (half / CARD).write_text(json.dumps({**card, "sha256": digest.hexdigest()}, indent=2) + "\n")
        _publish(half, root, card, counts)
    finally:
        shutil.rmtree(half, ignore_errors=True)


def _publish(half: Path, root: Path, card: Mapping[str, object], counts: Counts) -> None:
    aside = half.parent / f"{half.name}-old"
    if root.exists() and not _is_written(root, card, counts):
        root.rename(aside)  # unfinished
    try:
        half.rename(root)
    except OSError:
        # Where locks do not work another process may have been faster; what it wrote is the same.
        if not _is_written(root, card, counts):
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _jobs(counts: Counts) -> int:
    """Processes worth starting: each takes a second or two to import what it needs."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, sum(counts.values()) // 50))


def _drawn(root: Path, card: Mapping[str, Any], counts: Counts, jobs: int) -> Iterator[str]:
    """Draw all scenes and yield the digest of each, in order.

    The processes are plain Python interpreters: a fork would copy the threads of torch and DALI, and a spawned pool
    would run the caller's main module once more in each.
    """
    if jobs == 1:
        for task in _tasks(counts):
            yield _write_one(root, card["seed"], card["size"], task)
        return
    request = {"root": str(root), "seed": card["seed"], "size": card["size"], "counts": _listed(counts)}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)}
    with ExitStack() as stack:
        processes = []
        for first in range(jobs):
            command = [sys.executable, "-c", _WORKER, json.dumps({**request, "first": first, "step": jobs})]
            process = stack.enter_context(
                subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
            )
            stack.callback(process.kill)
            processes.append(process)
        for i in range(len(_tasks(counts))):
            process = processes[i % jobs]
            assert process.stdout is not None and process.stderr is not None
            line = process.stdout.readline().strip()
            if line.startswith(_FAILED):
                raise OSError(line.removeprefix(_FAILED))
            if not line:
                said = process.stderr.read().strip().splitlines()[-1:]
                status = process.wait()
                raise UserError(
                    f"A process that draws the built-in scenes ended early (status {status}). {''.join(said)}"
                )
            yield line


_FAILED = "failed: "


def draw_share(request: str) -> None:
    """What each process runs: every `step`-th scene from the `first` on; prints the digest of each."""
    asked = json.loads(request)
    counts = {(domain, split): count for domain, split, count in asked["counts"]}
    try:
        for task in _tasks(counts)[asked["first"] :: asked["step"]]:
            print(_write_one(Path(asked["root"]), asked["seed"], asked["size"], task), flush=True)
    except BrokenPipeError:
        os._exit(1)  # the process that asked is gone
    except OSError as error:
        print(f"{_FAILED}{error}", flush=True)


def _write_one(root: Path, seed: int, size: Sequence[int], task: Task) -> str:
    """Write a scene; the digest is of its pixels, which do not depend on how a PNG packs them."""
    domain, split, number = task
    image, label = draw_scene(domain, seed, number + (VAL_START if split == "val" else 0), (size[0], size[1]))
    for kind, array in (("images", image), ("labels", label)):
        Image.fromarray(array).save(root / domain / kind / split / f"{number:05d}.png", compress_level=1)
    return hashlib.sha256(image.tobytes() + label.tobytes()).hexdigest()
