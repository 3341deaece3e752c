"""Inter- and intra-domain ClassMix (paper eqs. 1-4) in the three strategies of the paper's Table 5."""

from __future__ import annotations

import torch
from torch import Tensor

from iidm.config import Config
from iidm.kernels.blur import blur
from iidm.kernels.classmix import classmix, draw_classes
from iidm.types import MEAN_RGB, STD_RGB, LabeledImages, Mixed, PseudoLabel

from .augment import draw_strong


def select_classes(label: Tensor, config: Config, generator: torch.Generator) -> Tensor:
    """Half of the classes of each image (or of the batch), from random keys. uint8 [B,H,W] -> bool [B,256]."""
    keys = torch.rand(label.shape[0], 256, generator=generator, device=label.device)
    return draw_classes(
        label,
        keys,
        per_batch=config.mixing.classes_from == "batch",
        rounding=config.mixing.rounding,
        include_ignored=config.mixing.draw_ignored,
    )


def mix(
    labeled: LabeledImages, unlabeled: Tensor, pseudo: PseudoLabel, config: Config, generator: torch.Generator
) -> Mixed:
    """Paste half of the classes of each labeled image onto an unlabeled one, then augment strongly.

    Args:
        labeled: B images with labels (source: inter-domain; labeled target: intra-domain).
        unlabeled: uint8 [B,H,W,3].
        pseudo: the teacher's label and quality of `unlabeled`.
        config: mixing, teacher (margins) and augment.
        generator: of the device of the images.

    Returns: the mixed images, labels and loss weights.
    """
    selected = select_classes(labeled.label, config, generator)
    return _paste(labeled, selected, unlabeled, pseudo.label, pseudo.quality, config, generator)


def mix_onto_one(
    source: LabeledImages,
    target: LabeledImages,
    unlabeled: Tensor,
    pseudo: PseudoLabel,
    config: Config,
    generator: torch.Generator,
) -> Mixed:
    """`one-xu-one-stream`: source classes are pasted first, classes of the labeled target over them."""
    selected = select_classes(source.label, config, generator)
    rows = torch.arange(len(selected), device=selected.device)[:, None, None]
    pasted = selected[rows, source.label.long()]
    base_image = torch.where(pasted[..., None], source.image, unlabeled)
    base_label = torch.where(pasted, source.label, pseudo.label)
    base_weight = _margined(pseudo, config)
    if config.mixing.pasted_weight == "one":
        base_weight = torch.where(pasted, 1.0, base_weight)
    else:
        base_weight = torch.where(pasted, pseudo.quality[:, None, None], base_weight)
    selected = select_classes(target.label, config, generator)
    return _paste(target, selected, base_image, base_label, base_weight, config, generator)


def _margined(pseudo: PseudoLabel, config: Config) -> Tensor:
    """Quality per pixel [B,H,W], 0 in the rows of the margins."""
    weight = pseudo.quality[:, None, None].expand(pseudo.label.shape).clone()
    height = weight.shape[1]
    weight[:, : config.teacher.ignore_top_px] = 0.0
    weight[:, max(height - config.teacher.ignore_bottom_px, 0) :] = 0.0
    return weight


def _paste(
    labeled: LabeledImages,
    selected: Tensor,
    base_image: Tensor,
    base_label: Tensor,
    base_weight: Tensor,
    config: Config,
    generator: torch.Generator,
) -> Mixed:
    """ClassMix onto a base whose weight is per image [B] or per pixel [B,H,W], jitter on the way, then blur."""
    strong = draw_strong(len(selected), config.augment, generator)
    per_image = base_weight.dim() == 1
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
        margin_top=config.teacher.ignore_top_px if per_image else 0,
        margin_bottom=config.teacher.ignore_bottom_px if per_image else 0,
    )
    return Mixed(blur(image, strong.sigma, strong.blurred), label, weight)
