"""The folder of the built-in scenes."""

from __future__ import annotations

from pathlib import Path

from ...config import DatasetConfig
from ..files.common import Progress, cache_folder
from ..specs.known import SCENES_COUNTS, SCENES_SEED, SCENES_SIZE, SPECS
from . import scenes_root, write_scenes


def builtin_root(config: DatasetConfig, cache: Path | None = None, progress: Progress | None = None) -> Path | None:
    """The folder of the built-in scenes, written where it is not there yet; None for other data sets."""
    counts = {key: n for key, n in SCENES_COUNTS.items() if config.spec.startswith(f"streetscenes-{key[0]}")}
    if not counts or config.spec not in SPECS:
        return None
    root = scenes_root(cache or cache_folder(), seed=SCENES_SEED, size=SCENES_SIZE, counts=counts)
    return write_scenes(root, seed=SCENES_SEED, size=SCENES_SIZE, counts=counts, progress=progress)
