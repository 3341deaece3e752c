"""Unsupervised domain adaptation that a configuration alone makes of IIDM's step."""

from __future__ import annotations

from iidm.recipes import DAFORMER

from .entry import WITHOUT_LABELS, Entry, Values

DACS_VALUES: Values = {
    "loss": {
        **WITHOUT_LABELS,
        "source_weight": 1.0,
        "inter_weight": 1.0,
        "supervised_normalizer": "valid",
        "mixed_normalizer": "pixels",
    },
    "mixing": {
        **DAFORMER["mixing"],
        "mask": "classmix",
        "strategy": "one-xu-two-streams",
        "classes_from": "image",
    },
    "teacher": {**DAFORMER["teacher"], "confidence_threshold": 0.968},
}
"""As its public code has them, much of which DAFormer inherited; but the jitter's strength is the preset's and not its
0.25, since some presets' images are too dark for more."""

DACS = Entry(
    "L_s + L_inter: ClassMix of the source onto unlabeled target images, no target label",
    "DACS, arXiv 2007.08702 (WACV 2021); Tables 1 and 2, UDA",
    DACS_VALUES,
)
