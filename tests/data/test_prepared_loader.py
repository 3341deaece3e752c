"""Loaders on prepared folders: the same crops as from the files they were made of, bit for bit after a resume."""

from __future__ import annotations

from dataclasses import replace

import make_coordinates as make
import numpy as np
import pytest
import torch
from coordinate_folders import (
    CROP,
    FORMATS,
    RARE,
    RULES,
    SIZES,
    SPACING,
    Folders,
    Kind,
    is_window,
    labeled_crops,
    number_of,
)
from loaders import batches_of, domains_of, equal, everywhere, tensors

from iidm.config import DataConfig

pytestmark = pytest.mark.usefixtures("no_file_stays_mapped")

# ---- image and label stay a pair


@RULES
@pytest.mark.parametrize("kind", ["raw", "png"])
def test_every_pixel_of_a_prepared_crop_meets_its_own_label(folders: Folders, kind: Kind, data: DataConfig) -> None:
    batches = batches_of(everywhere(folders.open(kind)), 10, data)
    numbers, flips = set(), set()
    for image, label in labeled_crops(batches):
        inside = image[..., 2] > 0
        height, width = SIZES[int(image[..., 2].max()) // SPACING - 1]
        assert inside.sum() == min(height, CROP[0]) * min(width, CROP[1])
        np.testing.assert_array_equal(label[inside], make.label_of(image)[inside])
        assert (image[~inside] == 0).all() and (label[~inside] == 255).all()
        flips.add(is_window(image, SIZES))
        numbers.add(int(image[..., 2].max()) // SPACING)
    assert flips == {False, True} and numbers == set(range(1, len(SIZES) + 1))
    unlabeled = torch.cat([batch.unlabeled for batch in batches if batch.unlabeled is not None]).numpy()
    assert {is_window(image, SIZES) for image in unlabeled} == {False, True}


# ---- the same crops as from the files that were prepared


@RULES
@pytest.mark.parametrize("kind", FORMATS)
def test_a_prepared_folder_gives_the_crops_of_its_own_files(folders: Folders, kind: Kind, data: DataConfig) -> None:
    """The labels bit for bit; the images too unless they are JPEGs, which are a grey level off."""
    ours, theirs = (batches_of(everywhere(folders.open(k)), 12, data) for k in (kind, "downloaded"))
    if kind != "jpeg":
        assert equal(ours, theirs)
        return
    for (image, label), (expected, expected_label) in zip(labeled_crops(ours), labeled_crops(theirs), strict=True):
        np.testing.assert_array_equal(label, expected_label)
        error = abs(image.astype(int) - expected)
        assert error.mean() < 1.5 and error.max() < 12
        assert (image[label == 255] == 0).all()  # nothing of the image bleeds into the padding


@RULES
@pytest.mark.parametrize("kind", FORMATS)
def test_crops_of_resized_images_are_within_a_grey_level(folders: Folders, kind: Kind, data: DataConfig) -> None:
    """From the downloaded files only the crop is resized, in preparing the whole image was."""
    ours, theirs = (batches_of(everywhere(folders.open(k, boxed=True)), 12, data) for k in (kind, "downloaded"))
    pairs = list(zip(labeled_crops(ours), labeled_crops(theirs), strict=True))
    for (image, label), (expected, expected_label) in pairs:
        np.testing.assert_array_equal(label, expected_label)
        error = abs(image.astype(int) - expected)
        assert error.mean() < 1 and error.max() <= (12 if kind == "jpeg" else 1)
    assert {number_of(torch.from_numpy(image)) for (image, _), _ in pairs} == set(range(1, len(SIZES) + 1))


@RULES
def test_kinds_ride_side_by_side_and_each_stream_is_as_alone(folders: Folders, data: DataConfig) -> None:
    """Two DALI graphs: raw crops, and images that are decoded."""
    raw, downloaded, png = (folders.open(kind) for kind in ("raw", "downloaded", "png"))
    both = batches_of(domains_of(raw, downloaded, png), 8, data)
    alone = (batches_of(domains_of(*domains), 8, data) for domains in ((raw,), (None, downloaded), (None, None, png)))
    for batch, source, target, unlabeled in zip(both, *alone, strict=True):
        assert batch.source and batch.target and batch.unlabeled is not None
        parts = (source, target, unlabeled)
        assert all(map(torch.equal, tensors(batch), [tensor for part in parts for tensor in tensors(part)]))
    assert equal(both, batches_of(everywhere(downloaded), 8, data))
    assert equal(batches_of(domains_of(raw, downloaded, png), 5, data, start_step=3), both[3:])


# ---- a resume, and several processes


@RULES
@pytest.mark.parametrize("kind", FORMATS)
def test_a_resumed_loader_gives_the_tail_of_the_first_one_bit_for_bit(
    folders: Folders, kind: Kind, data: DataConfig
) -> None:
    domains = everywhere(folders.open(kind))
    whole = batches_of(domains, 11, data)
    for step in (1, 6):
        assert equal(batches_of(domains, 11 - step, data, start_step=step), whole[step:])
    assert not equal(batches_of(domains, 5, data, start_step=5), whole[6:])


def test_worker_processes_resume_to_the_same_batches_of_every_format(folders: Folders) -> None:
    """One test: processes start slowly."""
    domains = domains_of(*(folders.open(kind) for kind in FORMATS))
    whole = batches_of(domains, 12, RARE)
    assert equal(batches_of(domains, 8, replace(RARE, workers=2), start_step=4), whole[4:])


@RULES
@pytest.mark.parametrize("kind", ["raw", "png"])
def test_two_processes_draw_what_one_draws_with_twice_the_batch(folders: Folders, kind: Kind, data: DataConfig) -> None:
    domains = everywhere(folders.open(kind))
    small = replace(data, source_batch=1, target_batch=3, unlabeled_batch=1)
    large = replace(data, source_batch=2, target_batch=6, unlabeled_batch=2)
    steps, strategy = 6, "two-xu-two-streams"
    ranks = [batches_of(domains, steps, small, strategy=strategy, rank=r, world_size=2) for r in (0, 1)]
    whole = batches_of(domains, steps, large, strategy=strategy)
    for first, second, one in zip(*ranks, whole, strict=True):
        halves = zip(tensors(first), tensors(second), strict=True)
        assert all(map(torch.equal, [torch.cat(pair) for pair in halves], tensors(one)))
    resumed = batches_of(domains, steps - 2, small, strategy=strategy, rank=1, world_size=2, start_step=2)
    assert equal(resumed, ranks[1][2:])
    # 2 unlabeled crops a step and rank: three steps are two epochs of the six images, and nothing twice in either.
    numbers = [
        [number_of(image) for b in rank[:3] if b.unlabeled is not None for image in b.unlabeled] for rank in ranks
    ]
    steps_of_both = [*zip(numbers[0][0::2], numbers[0][1::2], numbers[1][0::2], numbers[1][1::2], strict=True)]
    drawn = [number for step in steps_of_both for number in step]
    assert sorted(drawn[:6]) == sorted(drawn[6:]) == [1, 2, 3, 4, 5, 6]
