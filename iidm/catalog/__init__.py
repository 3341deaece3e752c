"""Every method by name: what it is, and the values that define it. A new one is an `Entry` and a line in METHODS; where
values do not make it, its code lies in iidm/method/published."""

from __future__ import annotations

from dataclasses import replace

from iidm.config import Config, unknown_name
from iidm.recipes import with_values
from iidm.types import UserError

from . import hrda, iidm, ssda, ssl, uda
from .entry import Entry

__all__ = ["METHODS", "Entry", "describe_methods", "refuse_unused", "with_method"]

METHODS: dict[str, Entry] = {
    "iidm": iidm.IIDM,
    "source_only": iidm.SOURCE_ONLY,
    "target_only": iidm.TARGET_ONLY,
    "source_target": iidm.SOURCE_TARGET,
    "target_intra": iidm.TARGET_INTRA,
    "source_target_inter": iidm.SOURCE_TARGET_INTER,
    "source_target_intra": iidm.SOURCE_TARGET_INTRA,
    "dacs": uda.DACS,
    "daformer": uda.DAFORMER,
    "proda": uda.PRODA,
    "confeti": uda.CONFETI,
    "diga": uda.DIGA,
    "mic": hrda.MIC_ALONE,
    "hrda": hrda.HRDA,
    "diga_hrda": hrda.DIGA_HRDA,
    "mic_hrda": hrda.MIC_HRDA,
    "iidm_hrda": hrda.IIDM_HRDA,
    "iidm_mic": hrda.IIDM_MIC,
    "iidm_mic_hrda": hrda.IIDM_MIC_HRDA,
    "cowmix": ssl.COWMIX,
    "cutmix": ssl.CUTMIX,
    "dusperb": ssl.DUSPERB,
    "dst_cbc": ssl.DST_CBC,
    "mme": ssda.MME,
    "ass": ssda.ASS,
    "ass_sdss": ssda.ASS_SDSS,
    "dldm": ssda.DLDM,
    "complexmix": ssda.COMPLEXMIX,
}
"""Method name -> what it is."""


def with_method(config: Config, method: str) -> Config:
    """A copy of `config` with the values of `method`, without the terms of another that it has not.

    Raises: UserError for a name that no method has.
    """
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    entry = METHODS[method]
    has = {"auxiliary_weight": entry.has_further_term, "mask_weight": entry.hides}
    config = with_values(config, {"loss": {name: 0.0 for name, is_there in has.items() if not is_there}})
    return replace(with_values(config, entry.values_for(config)), method=method)


def refuse_unused(config: Config) -> None:
    """Raise UserError for a loss weight that the method of `config` does not read."""
    entry, weights = METHODS[config.method], config.loss
    if weights.mask_weight > 0 and not entry.hides:
        able = ", ".join(name for name, other in METHODS.items() if other.hides)
        raise UserError(f"{config.method} hides nothing: --loss.mask-weight is for the methods {able}.")
    if weights.auxiliary_weight > 0 and not entry.has_further_term:
        able = ", ".join(name for name, other in METHODS.items() if other.has_further_term)
        raise UserError(f"{config.method} has no further term: --loss.auxiliary-weight is for the methods {able}.")


def describe_methods() -> str:
    """A line a method, and its source below it."""
    width = max(map(len, METHODS)) + 2
    return "\n".join(f"{name:{width}}{entry.summary}\n{'':{width}}{entry.source}" for name, entry in METHODS.items())
