"""The data room: which images there are, which crops are drawn, and the DALI pipeline that brings them in."""

from .check import Checked, check_domains, slow_reading_notes
from .datasets import Dataset
from .domains import (
    Domains,
    builtin_root,
    open_domains,
    open_folder,
    open_plain_target,
    open_validation,
    target_classes,
    training_size_for,
    write_splits,
)
from .eval_loader import EvalLoader
from .loader import TrainLoader, plain_crops
from .pipeline import read_image
from .preparation import make_plan, megabytes, prepare
from .prepared_check import check_prepared

__all__ = [
    "Checked",
    "Dataset",
    "Domains",
    "EvalLoader",
    "TrainLoader",
    "builtin_root",
    "check_domains",
    "check_prepared",
    "make_plan",
    "megabytes",
    "open_domains",
    "open_folder",
    "open_plain_target",
    "open_validation",
    "plain_crops",
    "prepare",
    "read_image",
    "slow_reading_notes",
    "target_classes",
    "training_size_for",
    "write_splits",
]
