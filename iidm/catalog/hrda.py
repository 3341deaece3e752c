"""MIC and HRDA, alone and with IIDM's mixes: the rows of the paper's Table 3."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from iidm.config import Config

from .entry import MEANS, Entry, Values
from .uda import DAFORMER, DIGA

DISTANCE_WEIGHT = 0.005
"""Of the feature distance."""


def _with(base: Entry | None, *, mask: bool, hrda: bool) -> Callable[[Config], Values]:
    """Values of `base` (None: IIDM's losses, which are the recipe's) with what MIC and HRDA add."""

    def values(config: Config) -> Values:
        found = {group: dict(fields) for group, fields in (base.values_for(config) if base else {}).items()}

        def add(group: str, **fields: Any) -> None:
            found.setdefault(group, {}).update(fields)

        if hrda:
            add("model", hrda=True)
            add("loss", detail_weight=0.1)
        if mask:
            add("loss", mask_weight=1.0)
            add("mixing", hidden_share=0.7)
        if base is DIGA:  # HRDA's mixes, of which DiGA's code tells nothing
            add("mixing", **DAFORMER.values_for(config)["mixing"])
        if base is not DAFORMER:  # what is HRDA's and MIC's own beside their losses is DAFormer's
            of_daformer = DAFORMER.values_for(config)
            margins = ("ema_decay", "ema_ramp", "ignore_top_px", "ignore_bottom_px")
            add("teacher", **{name: of_daformer["teacher"][name] for name in margins})
            add("data", **of_daformer["data"])
            add("loss", **MEANS)
        if base is None and hrda:
            add("loss", auxiliary_weight=DISTANCE_WEIGHT)
        return found

    return values


_HRDA = "HRDA, Hoyer et al., arXiv 2204.13132 (ECCV 2022)"
_MIC = "MIC, Hoyer et al., arXiv 2212.01322 (CVPR 2023)"
_IIDM = "IIDM, arXiv 2308.15855"

HRDA = Entry(
    "DAFormer on context and detail of each crop, fused by scale attention",
    f"{_HRDA}; Table 3, UDA",
    _with(DAFORMER, mask=False, hrda=True),
    has_further_term=True,
)
MIC_ALONE = Entry(
    "DAFormer + consistency of unlabeled images of which blocks are hidden",
    _MIC,
    _with(DAFORMER, mask=True, hrda=False),
    has_further_term=True,
    hides=True,
)
MIC_HRDA = Entry(
    "MIC on HRDA", f"{_MIC}; Table 3, UDA", _with(DAFORMER, mask=True, hrda=True), has_further_term=True, hides=True
)
DIGA_HRDA = Entry(
    "DiGA on HRDA", "DiGA, arXiv 2304.02222; Table 3, UDA", _with(DIGA, mask=False, hrda=True), has_further_term=True
)
IIDM_HRDA = Entry(
    "IIDM on HRDA: both mixes, EMA 0.999, feature distance on the source",
    f"{_IIDM}, Table 3",
    _with(None, mask=False, hrda=True),
    has_further_term=True,
)
IIDM_MIC = Entry(
    "IIDM + consistency of unlabeled images of which blocks are hidden, EMA 0.999",
    f"{_IIDM}, with {_MIC}",
    _with(None, mask=True, hrda=False),
    has_further_term=True,
    hides=True,
)
IIDM_MIC_HRDA = Entry(
    "IIDM + MIC on HRDA", f"{_IIDM}, Table 3", _with(None, mask=True, hrda=True), has_further_term=True, hides=True
)
