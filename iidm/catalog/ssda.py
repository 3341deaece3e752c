"""Semi-supervised domain adaptation: source, labeled and unlabeled target images."""

from __future__ import annotations

from iidm.config import Config

from .entry import MEANS, Entry, Values

SUBSET = 0.25
"""Share of the source images that `ass_sdss` trains on. Its abstract says "small-scale" and no number; a quarter is a
choice."""


def _mme(config: Config) -> Values:
    return {
        "loss": {
            **MEANS,
            "source_weight": 1.0,
            "target_weight": 1.0,
            "inter_weight": 0.0,
            "intra_weight": 0.0,
            "auxiliary_weight": 0.1,
        },
        # Its head reads the deepest level alone.
        "model": {"head": "cosine", "output_stride": min(config.model.output_stride, 16)},
    }


MME = Entry(
    "L_s + L_t + minimax entropy of the unlabeled images, cosine head, gradient reversal",
    "MME, Saito et al., arXiv 1904.06487 (ICCV 2019); Tables 1 and 2, SSDA",
    _mme,
    has_further_term=True,
)
_ASS: Values = {
    "loss": {
        **MEANS,
        "source_weight": 1.0,
        "target_weight": 1.0,
        "inter_weight": 0.0,
        "intra_weight": 0.0,
        "auxiliary_weight": 0.001,
    }
}
ASS = Entry(
    "L_s + L_t + adversarial alignment of outputs and of each class's mean features",
    "ASS, Wang et al., arXiv 2004.00794 (CVPRW 2020), on AdaptSegNet, arXiv 1802.10349; Tables 1 and 2, SSDA",
    _ASS,
    has_further_term=True,
)
ASS_SDSS = Entry(
    "ASS on a quarter of the source: the images nearest to the labeled target ones",
    "SDSS, Kim et al., arXiv 2205.00312; Tables 1 and 2, SSDA",
    {**_ASS, "data": {"source_subset": SUBSET}},
    has_further_term=True,
)
DLDM = Entry(
    "Teachers of source and target mixed by box and by batch, distilled into a student of the target",
    "DLDM, Chen et al., arXiv 2103.04705 (CVPR 2021); Tables 1 and 2, SSDA",
    {
        "loss": {
            **MEANS,
            "source_weight": 1.0,
            "target_weight": 1.0,
            "inter_weight": 1.0,
            "intra_weight": 0.0,
            "auxiliary_weight": 0.5,
            "class_balance": 0.0,
        },
        "mixing": {"mask": "cutmix", "cut_area": (0.5, 0.5), "mask_probability": 1.0, "strategy": "one-xu-two-streams"},
        "teacher": {"weighting": "confident", "confidence_threshold": 0.9, "ignore_top_px": 0, "ignore_bottom_px": 0},
        "augment": {"jitter_probability": 0.0, "blur_probability": 0.0},
    },
    has_further_term=True,
)
COMPLEXMIX = Entry(
    "L_s + L_t + CutMix of source and labeled target, then ClassMix of unlabeled images with each other",
    "Dual-domain adaptation, Chen et al., arXiv 2110.10639; Tables 1 and 2, SSDA (ComplexMix)",
    {
        "loss": {
            **MEANS,
            "source_weight": 1.0,
            "target_weight": 1.0,
            "inter_weight": 1.0,
            "intra_weight": 1.0,
        },
        "mixing": {
            "mask": "classmix",
            "cut_area": (0.5, 0.5),
            "strategy": "one-xu-two-streams",
            "intra_from": "unlabeled",
            "intra_views": 1,
            "classes_from": "image",
            "rounding": "floor",
        },
        "teacher": {
            "ema_decay": 0.99,
            "ema_ramp": True,
            "confidence_threshold": 0.968,
            "comparison": ">=",
            "quality_per": "batch",
            "weighting": "quality",
            "batchnorm": "batch",
        },
    },
)
