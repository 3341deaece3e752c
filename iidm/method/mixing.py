"""Pasting images onto others (paper eqs. 1-4): any mask, any pair, the three strategies of the paper's Table 5."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from iidm.config import Config
from iidm.kernels.blur import blur
from iidm.kernels.classmix import classmix, draw_classes
from iidm.types import MEAN_RGB, STD_RGB, LabeledImages, Mixed, PseudoLabel

from .augment import draw_strong
from .masks import draw_region


def with_mask_for(config: Config, classes: int) -> Config:
    """The configuration with the mask that is pasted by where there are so many classes (`mixing.two_classes`)."""
    mixing = config.mixing
    boxes = classes == 2 and mixing.mask == "classmix" and mixing.two_classes == "cutmix"
    if not boxes or mixing.strategy == "one-xu-one-stream":  # which pastes classes alone
        return config
    return replace(config, mixing=replace(mixing, mask="cutmix"))


def select_classes(label: Tensor, config: Config, generator: torch.Generator) -> Tensor:
    """For each image half of its classes (or of the batch's), by random keys. uint8 [B,H,W] -> bool [B,256]."""
    keys = torch.rand(label.shape[0], 256, generator=generator, device=label.device)
    return draw_classes(
        label,
        keys,
        from_batch=config.mixing.classes_from == "batch",
        rounding=config.mixing.rounding,
        include_ignored=config.mixing.draw_ignored,
    )


def mix(
    pasted: LabeledImages,
    base: Tensor,
    pseudo: PseudoLabel,
    config: Config,
    generator: torch.Generator,
    *,
    pasted_weight: Tensor | None = None,
) -> Mixed:
    """Paste parts of each image onto another, as `mixing.mask` says which, then augment strongly.

    Args:
        pasted: B images with labels (source: inter-domain; labeled target: intra-domain).
        base: uint8 [B,H,W,3], the unlabeled images.
        pseudo: the teacher's label and weight of `base`; true labels with a weight of 1 where `base` is labeled.
        config: mixing, teacher (margins) and augment.
        generator: of the device of the images.
        pasted_weight: float32 [B,H,W], of pasted pixels whose label is not a true one; None: as `mixing.pasted_weight`
            says.

    Returns: the mixed images, labels and loss weights.
    """
    weight = pseudo.quality if pseudo.weight is None else pseudo.weight
    margins = config.teacher.ignore_top_px, config.teacher.ignore_bottom_px
    by_class = config.mixing.mask == "classmix"
    region = None
    if by_class:
        selected = select_classes(pasted.label, config, generator)
        mixed = _paste(pasted, selected, base, pseudo.label, weight, config, generator, margins)
    else:
        # The op pastes by values of a label: here the mask is the label, and 1 is the value that is pasted.
        region = draw_region(len(base), (base.shape[1], base.shape[2]), config.mixing, generator)
        selected = torch.zeros(len(base), 256, dtype=torch.bool, device=base.device)
        selected[:, 1].fill_(True)
        masked = LabeledImages(pasted.image, region.to(torch.uint8))
        mixed = _paste(masked, selected, base, pseudo.label, weight, config, generator, margins)
        mixed = mixed._replace(label=torch.where(region, pasted.label, pseudo.label))
    if pasted_weight is not None:
        if region is None:
            region = _looked_up(selected, pasted.label)
        mixed = mixed._replace(weight=torch.where(region, pasted_weight, mixed.weight))
    return mixed


def mix_unlabeled(base: Tensor, pseudo: PseudoLabel, config: Config, generator: torch.Generator) -> Mixed:
    """Paste the unlabeled images onto each other, each onto the next one, with their pseudo-labels and weights."""
    pasted = LabeledImages(base.roll(1, 0), pseudo.label.roll(1, 0))
    weight = with_margins(pseudo, config).roll(1, 0)
    return mix(pasted, base, pseudo, config, generator, pasted_weight=weight)


def mix_onto_one(
    source: LabeledImages,
    target: LabeledImages,
    unlabeled: Tensor,
    pseudo: PseudoLabel,
    config: Config,
    generator: torch.Generator,
) -> Mixed:
    """`one-xu-one-stream`: source classes are pasted first, classes of the labeled target over them."""
    pasted = _looked_up(select_classes(source.label, config, generator), source.label)
    base_image = torch.where(pasted[..., None], source.image, unlabeled)
    base_label = torch.where(pasted, source.label, pseudo.label)
    quality = pseudo.quality[:, None, None].expand(pasted.shape) if pseudo.weight is None else pseudo.weight
    ones = config.mixing.pasted_weight == "one"
    base_weight = torch.where(pasted, 1.0 if ones else quality, with_margins(pseudo, config))
    selected = select_classes(target.label, config, generator)
    mixed = _paste(target, selected, base_image, base_label, base_weight, config, generator, (0, 0))
    if ones:
        return mixed
    return mixed._replace(weight=torch.where(_looked_up(selected, target.label), quality, mixed.weight))


def with_margins(pseudo: PseudoLabel, config: Config) -> Tensor:
    """Loss weight of each pseudo-labeled pixel, float32 [B,H,W]: its own or its image's quality, 0 in the margins."""
    weight = pseudo.quality[:, None, None].expand(pseudo.label.shape) if pseudo.weight is None else pseudo.weight
    weight = weight.clone()
    height = weight.shape[1]
    weight[:, : config.teacher.ignore_top_px] = 0.0
    weight[:, max(height - config.teacher.ignore_bottom_px, 0) :] = 0.0
    return weight


def _looked_up(selected: Tensor, label: Tensor) -> Tensor:
    """bool [B,H,W]: whether the value of each pixel is selected."""
    rows = torch.arange(len(selected), device=selected.device)[:, None, None]
    return selected[rows, label.long()]


def _paste(
    labeled: LabeledImages,
    selected: Tensor,
    base_image: Tensor,
    base_label: Tensor,
    base_weight: Tensor,
    config: Config,
    generator: torch.Generator,
    margins: tuple[int, int],
) -> Mixed:
    """ClassMix onto a base whose weight is per image [B] or per pixel [B,H,W], jitter on the way, then blur. In the
    margins, rows at the top and the bottom, the base weighs 0."""
    strong = draw_strong(len(selected), config.augment, generator)
    image, label, weight = classmix(
        labeled.image,
        labeled.label,
        base_image,
        base_label,
        base_weight,
        selected,
        strong.jitter,
        pasted_weight=1.0 if config.mixing.pasted_weight == "one" else None,
        mean=MEAN_RGB,
        std=STD_RGB,
        margins=margins,
    )
    return Mixed(blur(image, strong.sigma, strong.blurred), label, weight)
