"""Named sets of values. A preset starts from one of them; `--recipe NAME` takes another.

`paper` is the equations of arXiv 2308.15855 as written, with the inherited code's values where they are silent;
`daformer` the behaviour of the code that the paper builds on (lhoyer/DAFormer); `adapt` what was found to make the best
networks from few labeled real images (docs/results/README.md, benchmarks/NOTES.md).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .config import Config, Recipe

PAPER: dict[str, dict[str, Any]] = {
    "data": {"scale_range": (1.0, 1.0)},
    "loss": {
        "intra_weight": 2.0,
        "supervised_normalizer": "sum",
        "mixed_normalizer": "sum",
        "class_balance": 0.0,
    },
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
        "weighting": "quality",
        "batchnorm": "batch",
    },
    "augment": {"jitter_strength": 0.2, "draw_per": "batch"},
}
"""The paper's equations; where they are silent, the value that is common to DACS and DAFormer."""

DAFORMER: dict[str, dict[str, Any]] = {
    "data": {"scale_range": (1.0, 1.0)},
    "loss": {
        "intra_weight": 2.0,
        "supervised_normalizer": "pixels",
        "mixed_normalizer": "pixels",
        "class_balance": 0.0,
    },
    "mixing": {"classes_from": "batch", "rounding": "ceil", "draw_ignored": True, "pasted_weight": "one"},
    "teacher": {
        "ema_decay": 0.99,
        "ema_ramp": True,
        "comparison": ">=",
        "quality_per": "batch",
        "weighting": "quality",
        "batchnorm": "batch",
    },
    "augment": {"jitter_strength": 0.2, "draw_per": "batch"},
}
"""The inherited code. alpha and mu stay the paper's, which the paper states."""

ADAPT: dict[str, dict[str, Any]] = {
    # Random scales help L_s + L_t and cost IIDM a point in 2000 steps (benchmarks/NOTES.md).
    "data": {"scale_range": (1.0, 1.0)},
    "loss": {
        # A weight of 2 costs (docs/results/streetscenes/table6.md).
        "intra_weight": 1.0,
        "supervised_normalizer": "pixels",
        "mixed_normalizer": "pixels",
        # What few labels show rarely is missed by the teacher, and then by the student.
        "class_balance": 0.5,
    },
    "mixing": {"classes_from": "image", "rounding": "ceil", "draw_ignored": False, "pasted_weight": "one"},
    "teacher": {
        "ema_decay": 0.99,
        "ema_ramp": True,
        "comparison": ">",
        "quality_per": "image",
        # One quality for a whole image counts a missed pedestrian as much as the road.
        "weighting": "confidence",
        "batchnorm": "batch",
    },
    "augment": {"jitter_strength": 0.2, "draw_per": "image"},
}
"""Each value with its reason; what each is worth is measured in benchmarks/NOTES.md."""

RECIPES: dict[Recipe, dict[str, dict[str, Any]]] = {"paper": PAPER, "daformer": DAFORMER, "adapt": ADAPT}


def with_values(config: Config, values: dict[str, dict[str, Any]]) -> Config:
    """A copy of `config` in which the named fields of the named groups are replaced."""
    groups = {group: replace(getattr(config, group), **fields) for group, fields in values.items()}
    return replace(config, **groups)


def with_recipe(config: Config, recipe: Recipe) -> Config:
    """A copy of `config` with every value that `recipe` sets. A loss that is off stays off."""
    values = RECIPES[recipe]
    if config.loss.intra_weight == 0:
        values = {**values, "loss": {k: v for k, v in values["loss"].items() if k != "intra_weight"}}
    return replace(with_values(config, values), recipe=recipe)
