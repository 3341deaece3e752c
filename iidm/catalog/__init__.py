"""Every method by name: what it is, and the values that define it. A new one is an `Entry` and a line in METHODS; where
values do not make it, its code lies in iidm/method/published."""

from __future__ import annotations

from dataclasses import replace

from iidm.config import Config, unknown_name
from iidm.recipes import with_values

from . import hrda, iidm, ssda, ssl, uda
from .entry import Entry

__all__ = ["METHODS", "Entry", "describe_methods", "with_method"]

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
    """A copy of `config` with the values of `method`. Raises UserError for a name that no method has."""
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    return replace(with_values(config, METHODS[method].values_for(config)), method=method)


def describe_methods() -> str:
    """A line a method, and its source below it."""
    width = max(map(len, METHODS)) + 2
    return "\n".join(f"{name:{width}}{entry.summary}\n{'':{width}}{entry.source}" for name, entry in METHODS.items())
