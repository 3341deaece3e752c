"""From the words of a command line (or a config file) to what a command is told, and from its errors to one line.

Nothing here imports torch or DALI: help and mistakes are answered before anything that takes seconds.
"""

from .arguments import (
    PARSERS,
    EvaluateArguments,
    ExportArguments,
    InspectArguments,
    PredictArguments,
    PrepareArguments,
    ReportArguments,
    SelectArguments,
    StudyArguments,
    parse_study,
)
from .config_file import config_as_dict, config_of_run, read_config, write_config
from .running import run_main
from .train_words import CHANGEABLE_ON_RESUME, parse_config
from .words import parse_arguments, program

__all__ = [
    "CHANGEABLE_ON_RESUME",
    "PARSERS",
    "EvaluateArguments",
    "ExportArguments",
    "InspectArguments",
    "PredictArguments",
    "PrepareArguments",
    "ReportArguments",
    "SelectArguments",
    "StudyArguments",
    "config_as_dict",
    "config_of_run",
    "parse_arguments",
    "parse_config",
    "parse_study",
    "program",
    "read_config",
    "run_main",
    "write_config",
]
