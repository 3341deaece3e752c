"""IIDM and the rows of its ablation: the same step with other loss weights."""

from __future__ import annotations

from collections.abc import Callable

from iidm.config import Config, LossConfig

from .entry import Entry, Values

_PAPER = "IIDM, arXiv 2308.15855"


def _losses(source: float, target: float, inter: float, intra: float) -> Values:
    weights = {"source_weight": source, "target_weight": target, "inter_weight": inter, "intra_weight": intra}
    return {"loss": weights}


def _with_intra(source: float) -> Callable[[Config], Values]:
    """L_t + mu L_intra, mu being the recipe's, or the paper's where the preset has no labels."""
    return lambda config: _losses(source, 1, 0, config.loss.intra_weight or LossConfig.intra_weight)


IIDM = Entry("L_s + L_t + lambda L_inter + mu L_intra: inter- and intra-domain mixing", f"{_PAPER}, eq. 11", {})
SOURCE_ONLY = Entry("L_s alone: the lower bound", f"{_PAPER}, Table 4, row 1", _losses(1, 0, 0, 0))
TARGET_ONLY = Entry(
    "L_t alone: the labeled target images",
    f"{_PAPER}, Table 4, row 2, and the supervised rows of Tables 1, 2 and 7",
    _losses(0, 1, 0, 0),
)
SOURCE_TARGET = Entry("L_s + L_t: both labeled sets, no mixing", f"{_PAPER}, Table 4, row 3", _losses(1, 1, 0, 0))
TARGET_INTRA = Entry(
    "L_t + mu L_intra: the intra-domain mix alone, without the source",
    f"{_PAPER}, Table 4, row 4",
    _with_intra(source=0),
)
SOURCE_TARGET_INTER = Entry(
    "L_s + L_t + lambda L_inter: without the intra-domain mix", f"{_PAPER}, Table 4, row 5", _losses(1, 1, 1, 0)
)
SOURCE_TARGET_INTRA = Entry(
    "L_s + L_t + mu L_intra: without the inter-domain mix", f"{_PAPER}, Table 4, row 6", _with_intra(source=1)
)
