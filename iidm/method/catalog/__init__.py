"""Every method by name. A new one is a small file that ends in an `Entry`, and a line in METHODS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from iidm.config import Config, unknown_name
from iidm.recipes import with_values
from iidm.types import UserError

from ..base import Method
from ..class_weights import class_weights
from . import ass, complexmix, confeti, daformer, diga, dldm, dst_cbc, iidm, mic, mme, proda, ssl, uda
from .entry import Entry

__all__ = ["METHODS", "Entry", "build_method", "describe_methods", "with_method"]

METHODS: dict[str, Entry] = {
    "iidm": iidm.IIDM,
    "source_only": iidm.SOURCE_ONLY,
    "target_only": iidm.TARGET_ONLY,
    "source_target": iidm.SOURCE_TARGET,
    "target_intra": iidm.TARGET_INTRA,
    "source_target_inter": iidm.SOURCE_TARGET_INTER,
    "source_target_intra": iidm.SOURCE_TARGET_INTRA,
    "dacs": uda.DACS,
    "daformer": daformer.DAFORMER,
    "proda": proda.PRODA,
    "confeti": confeti.CONFETI,
    "diga": diga.DIGA,
    "mic": mic.MIC_ALONE,
    "hrda": mic.HRDA,
    "diga_hrda": mic.DIGA_HRDA,
    "mic_hrda": mic.MIC_HRDA,
    "iidm_hrda": mic.IIDM_HRDA,
    "iidm_mic": mic.IIDM_MIC,
    "iidm_mic_hrda": mic.IIDM_MIC_HRDA,
    "cowmix": ssl.COWMIX,
    "cutmix": ssl.CUTMIX,
    "dusperb": ssl.DUSPERB,
    "dst_cbc": dst_cbc.DST_CBC,
    "mme": mme.MME,
    "ass": ass.ASS,
    "ass_sdss": ass.ASS_SDSS,
    "dldm": dldm.DLDM,
    "complexmix": complexmix.COMPLEXMIX,
}
"""Method name -> what it is."""


def with_method(config: Config, method: str) -> Config:
    """A copy of `config` with the values of `method`. Raises UserError for a name that no method has."""
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    return replace(with_values(config, METHODS[method].values_for(config)), method=method)


def build_method(
    config: Config, student: nn.Module, classes: tuple[str, ...], counts: Sequence[NDArray[np.int64]] = ()
) -> Method:
    """What `config.method` computes in a step.

    Args:
        student: the network at its start, on its device.
        classes: names of the classes.
        counts: int64 [N,K] pixels of each class in each labeled image, of each labeled stream; needed where
            `loss.class_weights` is `auto`.

    Raises:
        UserError: a name that no method has, or what the method needs and the configuration does not give.
    """
    if config.method not in METHODS:
        raise unknown_name("method", config.method, METHODS)
    build = METHODS[config.method].build
    if config.loss.mask_weight > 0 and not build.hides:
        able = ", ".join(name for name, entry in METHODS.items() if entry.build.hides)
        raise UserError(f"{config.method} hides nothing: --loss.mask-weight is for the methods {able}.")
    method = build(config, student, classes)
    method.weigh_classes(class_weights(config.loss.class_weights, classes, counts))
    return method


def describe_methods() -> str:
    """A line a method, and its source below it."""
    width = max(map(len, METHODS)) + 2
    return "\n".join(f"{name:{width}}{entry.summary}\n{'':{width}}{entry.source}" for name, entry in METHODS.items())
