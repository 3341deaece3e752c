"""Every value of a run, each with its unit, its source and what the public code of the field does.

The recipes are in `recipes.py`, presets in `presets.py`, the command line in `cli.py`.
"""

from .checks import TEXT, TEXTS, ValueKind, check_keys, list_of, list_of_tables, parse_mistake, unknown_name
from .data import DataConfig, DatasetConfig, Mistake
from .method import AugmentConfig, LossConfig, MixingConfig, Normalizer, TeacherConfig
from .run import PROFILE_WARMUP, Config, Recipe, Streams, sliding_window, streams_of
from .training import EvalConfig, LogConfig, ModelConfig, OptimConfig, SlidingWindow, StepConfig

__all__ = [
    "PROFILE_WARMUP",
    "TEXT",
    "TEXTS",
    "AugmentConfig",
    "Config",
    "DataConfig",
    "DatasetConfig",
    "EvalConfig",
    "LogConfig",
    "LossConfig",
    "Mistake",
    "MixingConfig",
    "ModelConfig",
    "Normalizer",
    "OptimConfig",
    "Recipe",
    "SlidingWindow",
    "StepConfig",
    "Streams",
    "TeacherConfig",
    "ValueKind",
    "check_keys",
    "list_of",
    "list_of_tables",
    "parse_mistake",
    "sliding_window",
    "streams_of",
    "unknown_name",
]
