"""What a method of the catalog says of itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from iidm.config import Config

Values = dict[str, dict[str, Any]]
"""Field values by group of the configuration."""

WITHOUT_LABELS: dict[str, Any] = {"target_weight": 0.0, "intra_weight": 0.0}
"""Losses of a method that reads no labeled target image (UDA)."""
WITHOUT_SOURCE: dict[str, Any] = {"source_weight": 0.0, "inter_weight": 0.0}
"""Losses of a method that reads no source image (SSL)."""
MEANS: dict[str, Any] = {"supervised_normalizer": "pixels", "mixed_normalizer": "pixels"}
"""Losses as means over pixels, so that a further term's published weight keeps its meaning beside them."""


@dataclass(frozen=True)
class Entry:
    """One method: what it is, and the values that define it."""

    summary: str
    """One line."""
    source: str
    """Paper, and where it stands in this project's paper."""
    values: Values | Callable[[Config], Values]
    """Values that it sets; a function where they depend on the preset's. What it leaves alone (network, crops, learning
    rate, steps) is the preset's, so that methods are compared at equal conditions."""
    has_further_term: bool = False
    """Whether it has a term beside supervised losses and mixes (`loss.auxiliary_weight`)."""
    hides: bool = False
    """Whether it has images of which blocks are hidden (`loss.mask_weight`)."""

    def values_for(self, config: Config) -> Values:
        """Values that it sets in `config`."""
        return self.values(config) if callable(self.values) else self.values
