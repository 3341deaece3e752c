"""Unsupervised domain adaptation that a configuration alone makes of IIDM's step."""

from __future__ import annotations

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
        "mask": "classmix",
        "strategy": "one-xu-two-streams",
        "classes_from": "image",
        "rounding": "ceil",
        "draw_ignored": True,
        "pasted_weight": "one",
    },
    "teacher": {
        "ema_decay": 0.99,
        "ema_ramp": True,
        "comparison": ">=",
        "quality_per": "batch",
        "batchnorm": "batch",
        "confidence_threshold": 0.968,
    },
}
"""As its public code has them; its jitter strength of 0.25 too, but where a preset's images are too dark for it the
preset's own stands, as for all methods."""

DACS = Entry(
    "L_s + L_inter: ClassMix of the source onto unlabeled target images, no target label",
    "DACS, arXiv 2007.08702 (WACV 2021); Tables 1 and 2, UDA",
    DACS_VALUES,
)
