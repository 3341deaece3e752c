"""The data room: which images there are, which crops are drawn, and the DALI pipeline that brings them in."""

from .check import check_domains
from .datasets import Dataset
from .domains import (
    Domains,
    open_domains,
    open_folder,
    open_validation,
    target_classes,
    training_size_for,
    write_splits,
)
from .loader import EvalLoader, TrainLoader
from .pipeline import read_image

__all__ = [
    "Dataset",
    "Domains",
    "EvalLoader",
    "TrainLoader",
    "check_domains",
    "open_domains",
    "open_folder",
    "open_validation",
    "read_image",
    "target_classes",
    "training_size_for",
    "write_splits",
]
