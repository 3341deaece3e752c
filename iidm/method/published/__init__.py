"""The code of the methods that values alone do not make: a file each, and its line in CODE."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import nn

from iidm.catalog import METHODS, refuse_unused
from iidm.config import Config, unknown_name

from ..base import Method
from ..class_weights import class_weights
from .ass import SemanticLevelShift
from .complexmix import ComplexMix
from .confeti import Confeti
from .daformer import DAFormer
from .diga import DiGA
from .dldm import DualLevelMixing
from .dst_cbc import DynamicSelfTraining
from .mic import MIC, DiGAHRDA
from .mme import MinimaxEntropy
from .proda import ProDA

__all__ = ["CODE", "build_method"]

CODE: dict[str, type[Method]] = {
    "daformer": DAFormer,
    "proda": ProDA,
    "confeti": Confeti,
    "diga": DiGA,
    "mic": MIC,
    "hrda": DAFormer,
    "diga_hrda": DiGAHRDA,
    "mic_hrda": MIC,
    "iidm_hrda": DAFormer,
    "iidm_mic": MIC,
    "iidm_mic_hrda": MIC,
    "dst_cbc": DynamicSelfTraining,
    "mme": MinimaxEntropy,
    "ass": SemanticLevelShift,
    "ass_sdss": SemanticLevelShift,
    "dldm": DualLevelMixing,
    "complexmix": ComplexMix,
}
"""Method name -> what computes it; `Method`, IIDM's own step, for all others."""


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
    refuse_unused(config)
    method = CODE.get(config.method, Method)(config, student, classes)
    method.weigh_classes(class_weights(config.loss.class_weights, classes, counts))
    return method
