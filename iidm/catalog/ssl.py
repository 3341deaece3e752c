"""Semi-supervised learning on the target alone.

Most are L_t + L_intra without the source: mixes of unlabeled images with each other. CowMix and CutMix (French et al.)
compare softmax outputs by their squared difference, weighted by the share of confident pixels; here, as in everything
else of the engine, a pseudo-label's cross-entropy takes its place, with the same weight.
"""

from __future__ import annotations

from typing import Any

from .entry import MEANS, WITHOUT_SOURCE, Entry, Values


def _french(mask: str, **mixing: Any) -> Values:
    """Values of French et al.'s code: threshold 0.97, the share of confident pixels of the batch as weight."""
    return {
        "loss": {**WITHOUT_SOURCE, **MEANS, "target_weight": 1.0, "intra_weight": 1.0},
        "mixing": {"mask": mask, "intra_from": "unlabeled", "intra_views": 1, "strategy": "one-xu-two-streams"}
        | mixing,
        "teacher": {
            "ema_decay": 0.99,
            "ema_ramp": True,
            "confidence_threshold": 0.97,
            "comparison": ">",
            "quality_per": "batch",
            "weighting": "quality",
            "batchnorm": "batch",
        },
        "augment": {"jitter_probability": 0.0, "blur_probability": 0.0},
    }


COWMIX = Entry(
    "L_t + consistency of unlabeled images mixed by irregular blobs; no source",
    "CowMix, French et al., arXiv 1906.01916; Tables 1 and 2, SSL",
    _french("cowmix"),
)
CUTMIX = Entry(
    "L_t + consistency of unlabeled images mixed by boxes of half their area; no source",
    "CutMix for segmentation, French et al., arXiv 1906.01916, after arXiv 1905.04899",
    _french("cutmix", cut_area=(0.5, 0.5)),
)
DUSPERB = Entry(
    "L_t + two strong views with CutMix, confident pixels alone, the student as its own teacher; no source",
    "DusPerb, the image-level part of UniMatch, arXiv 2208.09910; Tables 1, 2 and 7, SSL",
    {
        "loss": {
            **WITHOUT_SOURCE,
            "target_weight": 1.0,
            "intra_weight": 1.0,
            "supervised_normalizer": "valid",
            "mixed_normalizer": "valid",
        },
        "mixing": {
            "mask": "cutmix",
            "mask_probability": 0.5,
            "cut_area": (0.02, 0.4),
            "intra_from": "unlabeled",
            "intra_views": 2,
            "strategy": "one-xu-two-streams",
        },
        "teacher": {"labels_by": "student", "weighting": "confident", "confidence_threshold": 0.95, "comparison": ">="},
        "augment": {"jitter_probability": 0.8, "blur_probability": 0.5, "draw_per": "image"},
    },
)
DST_CBC = Entry(
    "L_t + pseudo-labels of each class's surest share, weighted by the student's own probability; no source",
    "DST-CBC, Feng et al., arXiv 2004.08514; Tables 1 and 2, SSL",
    {
        "loss": {
            **WITHOUT_SOURCE,
            "target_weight": 1.0,
            "intra_weight": 0.0,
            "auxiliary_weight": 1.0,
            "class_balance": 0.0,
            # Means over the labeled pixels, as in its code: in the first phase four of five are ignored.
            "supervised_normalizer": "valid",
            "mixed_normalizer": "valid",
        },
        "mixing": {"mask": "none", "intra_from": "unlabeled", "intra_views": 1, "strategy": "one-xu-two-streams"},
    },
    has_further_term=True,
)
