"""Random scales: image and label stay a pair in every kind of folder, and the factors are those that were asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import make_coordinates as make
import numpy as np
import pytest
import torch
from coordinate_folders import DATA, FORMATS, RARE, RULES, Folders, Kind
from loaders import CPU, batches_of, equal, everywhere, tensors

from iidm.config import DataConfig
from iidm.data.loading.crops import CropRules
from iidm.data.loading.loader import PLAIN_BATCH, plain_crops
from iidm.data.loading.pipeline import SampleSource, train_pipeline
from iidm.data.loading.sampling import RareClasses, Sampler
from iidm.types import IGNORE_INDEX, UserError

CROP = (32, 48)
RANGE = (0.5, 2.0)
SIZE = (96, 120)
"""(H, W) of images that may shrink to 0.4 before a crop reaches beyond them."""


@pytest.mark.parametrize(("channel", "name"), [(0, "row"), (1, "column")])
def test_a_scaled_image_meets_its_scaled_label(tmp_path: Path, channel: int, name: str) -> None:
    """A ramp survives the linear filter, so a pixel says where it was; its label is that of the nearest pixel."""
    dataset = make.write_dataset(tmp_path, sizes=[SIZE, (130, 90)], label=name)
    source = SampleSource([(Sampler(dataset, CropRules(CROP, scale_range=RANGE), seed=0, stream=0), 4)], 0)
    pipeline = train_pipeline(source, device=CPU, threads=1)
    scales = set()
    for step in range(12):
        images, labels = (np.array(output.as_tensor()) for output in pipeline.run())
        for place in range(4):
            draw, label = source.draw(step, place), labels[place]
            coordinate = images[place][..., channel].astype(int)
            shrink = draw.disk_size[channel] / draw.size[channel]
            scales.add(shrink > 1)
            assert (label != IGNORE_INDEX).all()
            # At the image's own edge the filter repeats the last pixel, which bends the ramp.
            margin = 2 * max(shrink, 1)
            straight = (label >= margin) & (label <= draw.disk_size[channel] - 1 - margin)
            assert straight.sum() > 400
            np.testing.assert_allclose(coordinate[straight], label[straight].astype(int), atol=1)
            middle = coordinate[straight].mean() - label[straight].mean()
            assert abs(middle) < 0.3, "no shift"
    assert scales == {True, False}


@RULES
@pytest.mark.parametrize("kind", FORMATS)
def test_a_prepared_folder_gives_the_scaled_crops_of_its_own_files(
    folders: Folders, kind: Kind, data: DataConfig
) -> None:
    data = replace(data, scale_range=RANGE)
    ours, theirs = (batches_of(everywhere(folders.open(k)), 12, data) for k in (kind, "downloaded"))
    off = 0
    for one, other in zip(ours, theirs, strict=True):
        assert one.source is not None and other.source is not None
        assert torch.equal(one.source.label, other.source.label)
        for a, b in zip(tensors(one), tensors(other), strict=True):
            off = max(off, int((a.int() - b.int()).abs().max()))
    assert off <= (6 if kind == "jpeg" else 1)
    assert not equal(theirs, batches_of(everywhere(folders.open("downloaded")), 12, replace(data, scale_range=(1, 1))))


@pytest.mark.parametrize("kind", ["downloaded", "raw"])
def test_a_resumed_run_draws_the_same_scales_with_any_workers(folders: Folders, kind: Kind) -> None:
    data = replace(RARE, scale_range=RANGE)
    whole = batches_of(everywhere(folders.open(kind)), 6, data)
    assert equal(whole[3:], batches_of(everywhere(folders.open(kind)), 3, data, start_step=3))
    assert equal(whole, batches_of(everywhere(folders.open(kind)), 6, replace(data, workers=1)))


def test_factors_are_log_uniform_and_the_crop_stays_inside_the_image() -> None:
    rules, rng = CropRules(CROP, scale_range=RANGE), np.random.default_rng(0)
    drawn = np.array([rules.draw_size((960, 1200), rng)[0] / 960 for _ in range(4000)])
    shares, _ = np.histogram(np.log2(drawn), bins=8, range=(-1, 1))
    expected = 4000 / 8
    assert ((shares - expected) ** 2 / expected).sum() < 24.3, "chi-square, 7 degrees of freedom, p = 0.001"
    for size in (SIZE, (40, 60), (32, 48), (30, 100)):
        least = min(1.0, max(crop / side for crop, side in zip(CROP, size, strict=True)))
        heights = {rules.draw_size(size, rng)[0] for _ in range(400)}
        assert min(heights) >= int(least * size[0]) and min(heights) < size[0] * max(least, 0.6) + 1
        assert max(heights) > 1.8 * size[0]


def test_the_wanted_class_is_looked_for_in_the_scaled_window(tmp_path: Path) -> None:
    """Its pixels are in one corner: crops drawn for it hold more of them than the rule asks, at any scale."""
    dataset = make.write_dataset(tmp_path, sizes=[SIZE])
    label = np.zeros(SIZE, np.uint8)
    label[-30:, -30:] = 1
    make.save(label, tmp_path / "labels" / "001.png")
    counts = np.zeros((1, make.CLASSES), np.int64)
    counts[0, 1] = 900
    rare = RareClasses(counts, temperature=0.01, min_px=1, class_names=make.CLASS_SET.names)
    rules = CropRules(CROP, min_class_px=60, tries=300, scale_range=RANGE)
    sampler = Sampler(dataset, rules, seed=0, stream=0, rare_classes=rare)
    found = [draw.label for draw in map(sampler.draw, range(60))]
    # The place is rounded down, which may cost a row and a column of the class.
    assert min(int((label == 1).sum()) for label in found if label is not None) > 40


def test_plain_crops_are_not_scaled(folders: Folders) -> None:
    dataset = folders.open("downloaded")
    given = plain_crops(dataset, replace(DATA, scale_range=RANGE), 12, seed=0, device=CPU)
    assert [len(batch) for batch in given] == [6, 6] and PLAIN_BATCH == 8
    assert all(map(torch.equal, given, plain_crops(dataset, DATA, 12, seed=0, device=CPU)))


@pytest.mark.parametrize("scales", [(0.0, 1.0), (2.0, 1.0), (1.0, 11.0)])
def test_a_range_that_is_none_is_refused(scales: tuple[float, float]) -> None:
    with pytest.raises(UserError, match="data.scale-range must be 0.1 <= low <= high <= 10"):
        DataConfig(scale_range=scales)
