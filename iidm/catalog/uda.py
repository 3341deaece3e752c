"""Unsupervised domain adaptation: source and unlabeled target images."""

from __future__ import annotations

from iidm.config import Config
from iidm.recipes import DAFORMER as RECIPE

from .entry import MEANS, WITHOUT_LABELS, Entry, Values

CROP, TOP, BOTTOM = 512, 15, 120
"""DAFormer's margins: rows of a crop of 512, which is as high as its Cityscapes images. At the bottom there is the
car's own bonnet, so other data sets have none."""

DACS_VALUES: Values = {
    "loss": {
        **WITHOUT_LABELS,
        "source_weight": 1.0,
        "inter_weight": 1.0,
        "supervised_normalizer": "valid",
        "mixed_normalizer": "pixels",
    },
    "mixing": {
        **RECIPE["mixing"],
        "mask": "classmix",
        "strategy": "one-xu-two-streams",
        "classes_from": "image",
    },
    "teacher": {**RECIPE["teacher"], "confidence_threshold": 0.968},
}
"""As its public code has them, much of which DAFormer inherited; but the jitter's strength is the preset's and not its
0.25, since some presets' images are too dark for more."""

DACS = Entry(
    "L_s + L_inter: ClassMix of the source onto unlabeled target images, no target label",
    "DACS, arXiv 2007.08702 (WACV 2021); Tables 1 and 2, UDA",
    DACS_VALUES,
)


def _daformer(config: Config) -> Values:
    height = config.data.crop_size[0] if config.data.target.spec.startswith("cityscapes") else 0
    return {
        "loss": {
            **WITHOUT_LABELS,
            "source_weight": 1.0,
            "inter_weight": 1.0,
            **MEANS,
            "auxiliary_weight": 0.005,
        },
        "mixing": {**RECIPE["mixing"], "mask": "classmix", "strategy": "one-xu-two-streams"},
        "teacher": {
            **RECIPE["teacher"],
            "ema_decay": 0.999,
            "confidence_threshold": 0.968,
            "ignore_top_px": height * TOP // CROP,
            "ignore_bottom_px": height * BOTTOM // CROP,
        },
        "data": {"rare_class_sampling": True},
    }


DAFORMER = Entry(
    "DACS + rare class sampling + distance to ImageNet features on things + EMA 0.999, no target label",
    "DAFormer, arXiv 2111.14887 (CVPR 2022); Tables 1 and 2, UDA",
    _daformer,
    has_further_term=True,
)

PRODA = Entry(
    "L_s + symmetric cross-entropy by denoised pseudo-labels + agreement on prototypes, no target label",
    "ProDA, Zhang et al., arXiv 2101.10979 (CVPR 2021); Tables 1 and 2, UDA",
    {
        "loss": {
            **WITHOUT_LABELS,
            **MEANS,
            "source_weight": 1.0,
            "inter_weight": 0.0,
            "intra_weight": 0.1,  # rce_alpha: -log p(y) of its symmetric cross-entropy
            "auxiliary_weight": 1.0,
            "class_balance": 0.0,
        },
        "mixing": {"mask": "none", "strategy": "one-xu-two-streams", "intra_from": "unlabeled", "intra_views": 1},
        "teacher": {"ema_decay": 0.999, "ema_ramp": True, "weighting": "quality", "batchnorm": "batch"},
    },
    has_further_term=True,
)


def _confeti(config: Config) -> Values:
    values = DAFORMER.values_for(config)
    return {**values, "loss": {**values["loss"], "auxiliary_weight": 0.5}}


CONFETI = Entry(
    "L_s + L_inter on a source in the target's colours + contrast of pixels with prototypes, no target label",
    "CONFETI, Li et al., arXiv 2306.09098 (CVPRW 2023); Table 1, UDA",
    _confeti,
    has_further_term=True,
)

DIGA = Entry(
    "L_s + distillation between views of the source + mix with pseudo-labels that centroids confirm",
    "DiGA, Shen et al., arXiv 2304.02222 (CVPR 2023); Tables 1 and 2, UDA",
    {
        "loss": {**WITHOUT_LABELS, **MEANS, "source_weight": 1.0, "inter_weight": 1.0, "auxiliary_weight": 0.25},
        "mixing": {
            "mask": "classmix",
            "classes_from": "image",
            "rounding": "floor",
            "draw_ignored": True,
            "strategy": "one-xu-two-streams",
            "pasted_weight": "one",
        },
        "teacher": {
            "ema_decay": 0.999,
            "ema_ramp": True,
            "labels_by": "teacher",
            "weighting": "quality",
            "batchnorm": "batch",
        },
    },
    has_further_term=True,
)
