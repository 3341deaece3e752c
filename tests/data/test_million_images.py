"""A prepared folder of a million images: what a start makes, reads and keeps does not grow with them, but for columns.

Work is counted, not timed: objects, files that are looked at, memory. Of the images only those exist that hold the rare
class; the lines of the index are none, so that nothing can have read them.
"""

from __future__ import annotations

import json
import shutil
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import make_coordinates as make
import numpy as np
import pytest
from coordinate_folders import RARE
from loaders import CPU

from iidm.config import Config, DatasetConfig
from iidm.data import Domains, TrainLoader, changes_since, check_data, open_domains, write_splits
from iidm.data.datasets import check
from iidm.data.datasets.statistics import class_pixel_counts
from iidm.data.loading.sampling import RareClasses
from iidm.data.preparation.plan import make_plan, prepare
from iidm.data.prepared.columns import COLUMNS, Columns, write_columns
from iidm.data.prepared.entries import INDEX, Entry
from iidm.data.prepared.folder import MANIFEST, read_manifest
from iidm.data.prepared.opened import Prepared
from iidm.presets import preset_config

IMAGES, CLASSES, LOOKED_AT = 1_000_000, 19, 100
RARE_ROWS = (5, IMAGES // 2, IMAGES - 1)
MIB = 2**20


@pytest.fixture(scope="module")
def million(tmp_path_factory: pytest.TempPathFactory) -> tuple[DatasetConfig, Path]:
    """How the images are described, and the folder."""
    folder = tmp_path_factory.mktemp("million")
    size, root = (40, 60), folder / "raw"
    config = DatasetConfig(images="train/images", labels="train/labels", class_names=make.CLASS_SET.names[:CLASSES])
    make.save(np.full((*size, 3), 7, np.uint8), folder / "downloaded" / "train" / "images" / "one.png")
    make.save(np.ones(size, np.uint8), folder / "downloaded" / "train" / "labels" / "one.png")
    prepare(make_plan(config, folder / "downloaded", root, image_format="raw", splits=("train",)), jobs=1)
    for row in RARE_ROWS:
        for kind in ("images", "labels"):
            place = root / kind / "train" / f"{_name(row)}.npy"
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / kind / "train" / "one.npy", place)
    (root / INDEX).write_text("these lines are none\n")
    pixels = np.tile(np.array([2000, 0, *range(2, CLASSES)], np.int32), (IMAGES, 1))
    pixels[RARE_ROWS, 1] = 400
    text = "".join(f"drive_{row // 1000:04d}/frame_{row:08d}" for row in range(IMAGES)).encode()
    sizes = np.tile(np.array(size, np.int32), (IMAGES, 1))
    lengths = [(root / kind / "train" / "one.npy").stat().st_size for kind in ("images", "labels")]
    write_columns(
        root / COLUMNS,
        Columns(
            splits=np.array(["train"]),
            split_ends=np.array([IMAGES]),
            text=np.frombuffer(text, np.uint8),
            starts=np.arange(0, len(text) + 1, len(_name(0))),
            disk_size=sizes,
            size=sizes,
            label_size=sizes,
            pixels=pixels,
            bytes=np.tile(np.array(lengths), (IMAGES, 1)),
            lines_bytes=np.array([(root / INDEX).stat().st_size]),
        ),
    )
    (root / MANIFEST).write_text(json.dumps(replace(read_manifest(root), images=IMAGES).as_json()))
    return config, root


def _name(row: int) -> str:
    return f"drive_{row // 1000:04d}/frame_{row:08d}"


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """How many samples are made, and how many files are looked at; one of the index's lines is an error."""
    counts = {"samples": 0, "files": 0}

    def sample(prepared: Prepared, row: int, own: Any = Prepared.sample) -> Any:
        counts["samples"] += 1
        return own(prepared, row)

    def look(path: Path, expected: int) -> None:
        counts["files"] += 1

    monkeypatch.setattr(Entry, "parse", lambda _: pytest.fail("a line of the index was read"))
    monkeypatch.setattr(Prepared, "sample", sample)
    monkeypatch.setattr(check, "check_length", look)
    monkeypatch.setattr(check, "SPACED_IMAGES", LOOKED_AT)
    yield counts


def test_a_run_of_a_million_images_starts_with_little_work_and_memory(
    million: tuple[DatasetConfig, Path], work: dict[str, int], tmp_path: Path
) -> None:
    described, root = million
    data = replace(
        preset_config("folder").data,
        source=described,
        target=described,
        labeled_count=100,
        crop_size=RARE.crop_size,
        accept=("missing-class",),
    )
    config: Config = replace(preset_config("folder"), data=data, source_root=root, target_root=root)
    tracemalloc.start()
    domains = open_domains(config)
    told = check_data(domains, data).notes
    assert domains.source is not None
    pixels = class_pixel_counts(domains.source)
    rare = RareClasses(pixels, temperature=1e-6, min_px=1, class_names=domains.classes.names)
    peak_mib = tracemalloc.get_traced_memory()[1] / MIB
    tracemalloc.stop()
    assert [int(row) for row in rare.images[1]] == list(RARE_ROWS) and len(rare.images[2]) == IMAGES
    sets = {name: getattr(domains, name) for name in ("source", "labeled", "unlabeled")}
    counts = {name: len(dataset.samples) for name, dataset in sets.items()}
    assert counts == {"source": IMAGES, "labeled": 100, "unlabeled": IMAGES - 100}
    assert work["files"] == 2 * 2 * LOOKED_AT + LOOKED_AT  # images and labels; the unlabeled have none
    assert work["samples"] < 1000
    # Which images hold each class takes 4 bytes an image and class; a million names or samples would take 83 and more.
    assert peak_mib < 4 * CLASSES * IMAGES / MIB + 60, peak_mib

    of_source = Domains(domains.classes, domains.source, None, None, None)
    loading = replace(RARE, rare_class_temperature=1e-6)
    with TrainLoader(of_source, loading, seed=0, device=CPU, threads=1) as loader:
        first = next(loader)
    assert first.source is not None and set(first.source.image.unique().tolist()) == {7}
    seen = f"unlabeled target: the files of {LOOKED_AT} of 999,900 images were looked at, evenly spaced"
    assert any(line.startswith(seen) for line in told)

    write_splits(replace(domains, source=None), tmp_path)
    lines = (tmp_path / "splits" / "unlabeled.txt").read_text().splitlines()
    assert len(lines) == IMAGES - 100 and lines[-1] == _name(IMAGES - 1)
    assert changes_since(replace(domains, source=None), tmp_path) == []
    assert work["samples"] < 1000
