"""Both mixes and all three strategies against a per-pixel oracle written from the paper's equations."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from iidm.config import AugmentConfig, Config
from iidm.method.mixing import mix, mix_onto_one
from iidm.method.published import build_method
from iidm.recipes import with_recipe, with_values
from iidm.types import IGNORE_INDEX, MEAN_RGB, STD_RGB, LabeledImages, PseudoLabel

PLAIN = AugmentConfig(jitter_probability=0.0, blur_probability=0.0)
B, H, W, K = 2, 6, 8, 5


def config_of(recipe: str, **mixing: object) -> Config:
    config = replace(with_recipe(Config(), recipe), augment=PLAIN)  # type: ignore[arg-type]
    return with_values(config, {"mixing": mixing}) if mixing else config


def images(seed: int) -> LabeledImages:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (B, H, W, 3), generator=generator, dtype=torch.uint8)
    label = torch.randint(0, K, (B, H, W), generator=generator, dtype=torch.uint8)
    label[:, 0, :3] = IGNORE_INDEX
    return LabeledImages(image, label)


def unlabeled() -> tuple[torch.Tensor, PseudoLabel]:
    labeled = images(seed=99)
    return labeled.image, PseudoLabel(labeled.label % K, torch.tensor([0.25, 0.75]))


def pixels(mixed_image: torch.Tensor) -> torch.Tensor:
    """Normalized [B,3,H,W] back to uint8 [B,H,W,3]."""
    mean, std = torch.tensor(MEAN_RGB)[:, None, None], torch.tensor(STD_RGB)[:, None, None]
    return (mixed_image * std + mean).round().to(torch.uint8).permute(0, 2, 3, 1)


def pasted_classes(label: torch.Tensor, image: torch.Tensor, mixed: torch.Tensor) -> list[set[int]]:
    """The classes of each image all of whose pixels stand in the mix."""
    found = []
    for b in range(len(label)):
        same = (image[b] == mixed[b]).all(-1)
        found.append({int(c) for c in label[b].unique() if bool(same[label[b] == c].all())})
    return found


@pytest.mark.parametrize("recipe", ["paper", "daformer"])
@pytest.mark.parametrize("seed", range(5))
def test_every_pixel_comes_whole_from_one_of_the_two_images(recipe: str, seed: int) -> None:
    labeled, (base, pseudo) = images(seed), unlabeled()
    config = config_of(recipe)
    out = mix(labeled, base, pseudo, config, torch.Generator().manual_seed(seed))
    image = pixels(out.image)
    chosen = pasted_classes(labeled.label, labeled.image, image)
    for b in range(B):
        for y in range(H):
            for x in range(W):
                pasted = int(labeled.label[b, y, x]) in chosen[b]
                assert torch.equal(image[b, y, x], (labeled.image if pasted else base)[b, y, x])
                assert out.label[b, y, x] == (labeled.label if pasted else pseudo.label)[b, y, x]
                q = float(pseudo.quality[b])
                assert float(out.weight[b, y, x]) == (1.0 if pasted and recipe == "daformer" else q)


@pytest.mark.parametrize("seed", range(10))
def test_the_paper_draws_half_of_each_images_classes_and_never_the_ignored_ones(seed: int) -> None:
    labeled, (base, pseudo) = images(seed), unlabeled()
    out = mix(labeled, base, pseudo, config_of("paper"), torch.Generator().manual_seed(seed))
    for b, chosen in enumerate(pasted_classes(labeled.label, labeled.image, pixels(out.image))):
        present = {int(c) for c in labeled.label[b].unique()} - {IGNORE_INDEX}
        assert len(chosen) == (len(present) + 1) // 2
        assert IGNORE_INDEX not in chosen


@pytest.mark.parametrize("seed", range(10))
def test_daformer_draws_for_each_image_half_of_the_batchs_classes_with_the_ignored_as_one(seed: int) -> None:
    labeled, (base, pseudo) = images(seed), unlabeled()
    labeled.label[0][labeled.label[0] < 2] = 2  # classes 0 and 1 are in the second image alone
    labeled.label[1][labeled.label[1] == 2] = 1
    out = mix(labeled, base, pseudo, config_of("daformer"), torch.Generator().manual_seed(seed))
    chosen = pasted_classes(labeled.label, labeled.image, pixels(out.image))
    present = {int(c) for c in labeled.label.unique()}
    keys = torch.rand(B, 256, generator=torch.Generator().manual_seed(seed))  # the first draw of a mix
    for b in range(B):
        drawn = sorted(present, key=lambda c: float(keys[b, c]))[: (len(present) + 1) // 2]
        assert chosen[b] == set(drawn) & {int(c) for c in labeled.label[b].unique()}


MARGINS = {"teacher": {"ignore_top_px": 2, "ignore_bottom_px": 1}}


def weight_by_pixel(pseudo: PseudoLabel) -> PseudoLabel:
    """Each pixel another confidence."""
    return pseudo._replace(weight=torch.rand(B, H, W, generator=torch.Generator().manual_seed(8)))


def in_margins(weight: torch.Tensor) -> torch.Tensor:
    """Those of a pseudo-label: 0 in the margins."""
    weight = weight.clone()
    weight[:, :2] = weight[:, H - 1 :] = 0.0
    return weight


@pytest.mark.parametrize("by_pixel", [False, True])
@pytest.mark.parametrize("recipe", ["paper", "daformer"])
def test_margins_take_the_weight_of_pseudo_labels_but_not_of_pasted_pixels(recipe: str, by_pixel: bool) -> None:
    labeled, (base, pseudo) = images(3), unlabeled()
    pseudo = weight_by_pixel(pseudo) if by_pixel else pseudo
    own = pseudo.quality[:, None, None].expand(B, H, W) if pseudo.weight is None else pseudo.weight
    config = with_values(config_of(recipe), MARGINS)
    out = mix(labeled, base, pseudo, config, torch.Generator().manual_seed(3))
    pasted = (pixels(out.image) == labeled.image).all(-1)
    expected = torch.where(pasted, torch.ones(()) if recipe == "daformer" else own, in_margins(own))
    assert torch.equal(out.weight, expected) and pasted[:, :2].any()


@pytest.mark.parametrize("by_pixel", [False, True])
@pytest.mark.parametrize("recipe", ["paper", "daformer"])
def test_margins_of_one_stream_leave_what_is_pasted_from_either_domain(recipe: str, by_pixel: bool) -> None:
    source, target, (base, pseudo) = images(1), images(2), unlabeled()
    pseudo = weight_by_pixel(pseudo) if by_pixel else pseudo
    own = pseudo.quality[:, None, None].expand(B, H, W) if pseudo.weight is None else pseudo.weight
    config = with_values(config_of(recipe), MARGINS)
    out = mix_onto_one(source, target, base, pseudo, config, torch.Generator().manual_seed(0))
    image = pixels(out.image)
    pasted = (image == target.image).all(-1) | (image == source.image).all(-1)
    expected = torch.where(pasted, torch.ones(()) if recipe == "daformer" else own, in_margins(own))
    assert torch.equal(out.weight, expected) and pasted[:, :2].any()


@pytest.mark.parametrize("recipe", ["paper", "daformer"])
def test_one_stream_pastes_the_labeled_target_over_the_source_over_the_unlabeled(recipe: str) -> None:
    source, target, (base, pseudo) = images(1), images(2), unlabeled()
    out = mix_onto_one(source, target, base, pseudo, config_of(recipe), torch.Generator().manual_seed(0))
    image = pixels(out.image)
    from_target = (image == target.image).all(-1)
    from_source = (image == source.image).all(-1) & ~from_target
    from_base = ~(from_target | from_source)
    assert from_target.any() and from_source.any() and from_base.any()
    assert torch.equal(image[from_base], base[from_base])
    for mask, label in ((from_target, target.label), (from_source, source.label), (from_base, pseudo.label)):
        assert torch.equal(out.label[mask], label[mask])
    q = pseudo.quality[:, None, None].expand(B, H, W)
    assert torch.equal(out.weight[from_base], q[from_base])
    pasted = ~from_base
    assert torch.equal(out.weight[pasted], torch.ones_like(q[pasted]) if recipe == "daformer" else q[pasted])


def test_the_same_seed_gives_the_same_mix_with_all_augmentation() -> None:
    labeled, (base, pseudo) = images(4), unlabeled()
    config = with_recipe(Config(), "paper")
    first, second, other = (mix(labeled, base, pseudo, config, torch.Generator().manual_seed(s)) for s in (7, 7, 8))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first.image, other.image)


def test_augmentation_changes_images_and_leaves_labels_and_weights() -> None:
    labeled, (base, pseudo) = images(5), unlabeled()
    strong = AugmentConfig(jitter_probability=1.0, blur_probability=1.0)
    plain, changed = (
        mix(labeled, base, pseudo, replace(config_of("paper"), augment=a), torch.Generator().manual_seed(1))
        for a in (PLAIN, strong)
    )
    assert not torch.allclose(plain.image, changed.image)
    assert torch.equal(plain.label, changed.label)
    assert torch.equal(plain.weight, changed.weight)


@pytest.mark.parametrize(
    ("classes", "mixing", "mask"),
    [
        (2, {}, "cutmix"),
        (3, {}, "classmix"),
        (2, {"two_classes": "classmix"}, "classmix"),
        (2, {"mask": "cowmix"}, "cowmix"),
        (2, {"strategy": "one-xu-one-stream"}, "classmix"),
    ],
)
def test_where_there_are_two_classes_boxes_are_pasted(classes: int, mixing: dict[str, Any], mask: str) -> None:
    """ClassMix would paste one of two: a thing with its outline cut out, or all but a hole of that outline."""
    config = with_values(config_of("adapt"), {"mixing": mixing})
    names = tuple(f"class {number}" for number in range(classes))
    method = build_method(config, torch.nn.Conv2d(3, classes, 1), names)
    assert method.config.mixing.mask == mask and config.mixing.mask == mixing.get("mask", "classmix")
