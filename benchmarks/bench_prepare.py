"""iidm.prepare on generated data in GTA5's size and encoding: images per second and the share of all cores in use.

pytest benchmarks/bench_prepare.py --benchmark-json prepare.json && python -m benchmarks.report_loader prepare.json
"""

from __future__ import annotations

import itertools
import os
import resource
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from iidm.config import DatasetConfig
from iidm.data.preparation.plan import make_plan, prepare

from . import street_data

IMAGES = 160


@pytest.mark.parametrize("image_format", ["raw", "jpeg", "png"])
def bench_prepare(benchmark: Any, provenance: dict[str, Any], tmp_path: Path, image_format: Any) -> None:
    """Time one preparation from nothing, the start of its processes included."""
    count = IMAGES if benchmark.enabled else 2
    root = _linked(street_data.official().gta5, tmp_path / "gta5", count)
    out = tmp_path / "out"

    def unit() -> None:
        prepare(make_plan(DatasetConfig(spec="gta5"), root, out, image_format=image_format))

    def set_up() -> None:
        shutil.rmtree(out, ignore_errors=True)

    before, started = _cpu_s(), time.perf_counter()
    rounds = 2 if benchmark.enabled else 1
    benchmark.pedantic(unit, setup=set_up, rounds=rounds)
    busy = (_cpu_s() - before) / ((time.perf_counter() - started) * (os.cpu_count() or 1))
    megabytes = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 1e6
    if benchmark.stats is not None:  # None where timing is off
        benchmark.extra_info.update(images_per_s=count / benchmark.stats.stats.median, busy_share=busy)
    benchmark.extra_info.update(
        op="prepare", impl=image_format, device="cpu", images=count, mb_per_image=megabytes / count, **provenance
    )


def _cpu_s() -> float:
    """Processor seconds of this process and of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _linked(root: Path, out: Path, count: int) -> Path:
    """A data set of `count` images that are links to those of `root`."""
    names = sorted(path.name for path in (root / "images").iterdir())
    for number, name in zip(range(count), itertools.cycle(names), strict=False):
        for kind in ("images", "labels"):
            (out / kind).mkdir(parents=True, exist_ok=True)
            os.link(root / kind / name, out / kind / f"{number:05d}.png")
    return out
