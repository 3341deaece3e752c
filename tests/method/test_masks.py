"""Boxes and blobs: where they lie, how large they are, and what pasting by them does."""

from dataclasses import replace

import pytest
import torch

from iidm.config import AugmentConfig, Config, MixingConfig
from iidm.method.masks import COW_AREA, draw_region
from iidm.method.mixing import mix, mix_unlabeled
from iidm.recipes import with_values
from iidm.types import MEAN_RGB, STD_RGB, LabeledImages, PseudoLabel, UserError

B, H, W = 2, 12, 16


def regions(size: tuple[int, int] = (40, 56), batch: int = 200, **mixing: object) -> torch.Tensor:
    config = MixingConfig(**mixing)  # type: ignore[arg-type]
    return draw_region(batch, size, config, torch.Generator().manual_seed(0))


def box_of(region: torch.Tensor) -> tuple[int, int, int, int]:
    rows, columns = region.any(1).nonzero()[:, 0], region.any(0).nonzero()[:, 0]
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


@pytest.mark.parametrize("area", [(0.5, 0.5), (0.02, 0.4)])
def test_a_cut_is_one_box_of_the_area_that_was_asked_for(area: tuple[float, float]) -> None:
    found = regions(mask="cutmix", cut_area=area)
    shapes = set()
    for region in found:
        top, bottom, left, right = box_of(region)
        assert bool(region[top:bottom, left:right].all()), "a box has no holes"
        assert int(region.sum()) == (bottom - top) * (right - left)
        shapes.add((bottom - top, right - left))
    share = found.float().mean((1, 2))
    assert float(share.min()) > area[0] - 0.06 and float(share.max()) < area[1] + 0.06
    assert float(share.mean()) == pytest.approx(sum(area) / 2, abs=0.03)
    assert len(shapes) > 30, "of many shapes"
    assert all(bool(found[:, at].any() and found[:, :, at].any()) for at in (0, -1)), "up to the borders"


def test_cow_blobs_have_the_share_and_the_smoothness_of_their_draws() -> None:
    found = regions(mask="cowmix")
    share = found.float().mean((1, 2))
    assert float(share.mean()) == pytest.approx(sum(COW_AREA) / 2, abs=0.04)
    assert float(share.min()) < 0.3 and float(share.max()) > 0.7
    # Neighbours agree far more often than in independent noise of the same share.
    same = (found[:, 1:] == found[:, :-1]).float().mean()
    assert float(same) > 0.85
    assert not bool(found.flatten(1).all(1).any())


def test_nothing_is_pasted_with_mask_none_and_half_of_the_images_at_a_chance_of_half() -> None:
    assert not bool(regions(mask="none").any())
    some = regions(mask="cutmix", mask_probability=0.5).flatten(1).any(1)
    assert 70 < int(some.sum()) < 130


def config_of(**mixing: object) -> Config:
    plain = AugmentConfig(jitter_probability=0.0, blur_probability=0.0)
    return with_values(replace(Config(), augment=plain), {"mixing": mixing})


def scene(seed: int) -> tuple[LabeledImages, torch.Tensor, PseudoLabel]:
    draw = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (2 * B, H, W, 3), generator=draw, dtype=torch.uint8)
    labels = torch.randint(0, 5, (2 * B, H, W), generator=draw, dtype=torch.uint8)
    return LabeledImages(images[:B], labels[:B]), images[B:], PseudoLabel(labels[B:], torch.tensor([0.25, 0.75]))


def pixels(image: torch.Tensor) -> torch.Tensor:
    mean, std = torch.tensor(MEAN_RGB)[:, None, None], torch.tensor(STD_RGB)[:, None, None]
    return (image * std + mean).round().to(torch.uint8).permute(0, 2, 3, 1)


@pytest.mark.parametrize("pasted_weight", ["one", "quality"])
@pytest.mark.parametrize("mask", ["cutmix", "cowmix"])
def test_image_label_and_weight_of_a_pixel_come_from_the_same_image(mask: str, pasted_weight: str) -> None:
    config = config_of(mask=mask, pasted_weight=pasted_weight)
    labeled, base, pseudo = scene(3)
    region = draw_region(B, (H, W), config.mixing, torch.Generator().manual_seed(7))
    out = mix(labeled, base, pseudo, config, torch.Generator().manual_seed(7))
    assert 0 < int(region.sum()) < region.numel()
    assert torch.equal(pixels(out.image), torch.where(region[..., None], labeled.image, base))
    assert torch.equal(out.label, torch.where(region, labeled.label, pseudo.label))
    quality = pseudo.quality[:, None, None].expand(B, H, W)
    pasted = torch.ones(B, H, W) if pasted_weight == "one" else quality
    assert torch.equal(out.weight, torch.where(region, pasted, quality))


@pytest.mark.parametrize("mask", ["cutmix", "classmix"])
def test_unlabeled_images_meet_their_neighbours_with_label_and_weight_of_their_own(mask: str) -> None:
    config = with_values(
        config_of(mask=mask, intra_from="unlabeled"), {"teacher": {"ignore_top_px": 2, "ignore_bottom_px": 3}}
    )
    _, base, pseudo = scene(4)
    out = mix_unlabeled(base, pseudo, config, torch.Generator().manual_seed(1))
    image, other = pixels(out.image), base.roll(1, 0)
    pasted = (image == other).all(-1) & ~(image == base).all(-1)
    kept = (image == base).all(-1) & ~(image == other).all(-1)
    assert int(pasted.sum()) > 20 and int(kept.sum()) > 20
    assert bool((pasted | kept).float().mean() > 0.95)
    assert torch.equal(out.label[pasted], pseudo.label.roll(1, 0)[pasted])
    assert torch.equal(out.label[kept], pseudo.label[kept])
    weight = pseudo.quality[:, None, None].expand(B, H, W).clone()
    weight[:, :2], weight[:, H - 3 :] = 0.0, 0.0  # neither image is trusted in the margins: no label is a true one
    assert torch.equal(out.weight[pasted], weight.roll(1, 0)[pasted])
    assert torch.equal(out.weight[kept], weight[kept])


def test_weights_of_single_pixels_take_the_place_of_the_quality() -> None:
    labeled, base, pseudo = scene(5)
    by_pixel = pseudo._replace(weight=torch.rand(B, H, W).round())
    config = config_of(mask="cutmix", pasted_weight="one")
    region = draw_region(B, (H, W), config.mixing, torch.Generator().manual_seed(2))
    out = mix(labeled, base, by_pixel, config, torch.Generator().manual_seed(2))
    assert torch.equal(out.weight, torch.where(region, torch.ones(()), by_pixel.weight))


@pytest.mark.parametrize(
    ("mixing", "message"),
    [
        ({"cut_area": (0.0, 0.5)}, "--mixing.cut-area must be 0 < low <= high <= 1"),
        ({"mask_probability": 1.5}, "--mixing.mask-probability must be between 0 and 1"),
        ({"intra_views": 0}, "--mixing.intra-views must be at least 1"),
        ({"strategy": "one-xu-one-stream", "mask": "cutmix"}, "goes with --mixing.mask classmix"),
    ],
)
def test_values_that_make_no_mix_are_refused(mixing: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        config_of(**mixing)


def test_one_unlabeled_image_cannot_meet_another() -> None:
    with pytest.raises(UserError, match="--data.unlabeled-batch is 1; give 2 or more"):
        with_values(
            config_of(mask="cutmix", intra_from="unlabeled"), {"data": {"unlabeled_batch": 1, "source_batch": 1}}
        )
