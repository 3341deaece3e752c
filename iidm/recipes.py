"""Named sets of values: the two recipes for the points where the paper is silent.

The recipe `paper` is the equations of arXiv 2308.15855 as written, `daformer` the behaviour of the code that the paper
builds on (lhoyer/DAFormer).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from .config import Config

PAPER: dict[str, dict[str, Any]] = {
    "loss": {"supervised_normalizer": "sum", "mixed_normalizer": "sum"},
    "mixing": {
        "classes_from": "image",
        "rounding": "ceil",
        "draw_ignored": False,
        "pasted_weight": "quality",
    },
    "teacher": {
        "ema_decay": 0.99,
        "ema_ramp": False,
        "comparison": ">",
        "quality_per": "image",
        "batchnorm": "batch",
    },
    "augment": {"jitter_strength": 0.2, "draw_per": "batch"},
}
"""The paper's equations; where they are silent, the value that is common to DACS and DAFormer."""

DAFORMER: dict[str, dict[str, Any]] = {
    "loss": {"supervised_normalizer": "pixels", "mixed_normalizer": "pixels"},
    "mixing": {"classes_from": "batch", "rounding": "ceil", "draw_ignored": True, "pasted_weight": "one"},
    "teacher": {
        "ema_decay": 0.99,
        "ema_ramp": True,
        "comparison": ">=",
        "quality_per": "batch",
        "batchnorm": "batch",
    },
    "augment": {"jitter_strength": 0.2, "draw_per": "batch"},
}
"""The inherited code. alpha stays the paper's 0.99, which the paper states."""

RECIPES: dict[str, dict[str, dict[str, Any]]] = {"paper": PAPER, "daformer": DAFORMER}


def with_values(config: Config, values: dict[str, dict[str, Any]]) -> Config:
    """A copy of `config` in which the named fields of the named groups are replaced."""
    groups = {group: replace(getattr(config, group), **fields) for group, fields in values.items()}
    return replace(config, **groups)


def with_recipe(config: Config, recipe: Literal["paper", "daformer"]) -> Config:
    """A copy of `config` with every silent point set as `recipe` has it."""
    return replace(with_values(config, RECIPES[recipe]), recipe=recipe)
