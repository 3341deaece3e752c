"""The data: which images there are, which crops are drawn, and the DALI pipeline that brings them in.

Its rooms, each standing on those before it: files (which there are), labels (how they are read), specs (what a data
set is), scenes (the built-in ones), prepared (the form of prepared folders), datasets (opened: the images of a run),
loading (what a step reads), preparation (writing prepared folders), inspection (folders that nobody described yet).
"""

from .datasets.check import check_data, slow_reading_notes
from .datasets.dataset import Dataset
from .datasets.domains import (
    Domains,
    changes_since,
    open_domains,
    open_folder,
    open_plain_target,
    target_classes,
    training_size_for,
    write_splits,
)
from .datasets.statistics import class_pixel_counts
from .datasets.summary import refuse
from .datasets.validation import require_validation
from .files.inputs import find_images
from .loading.eval_loader import EvalLoader
from .loading.loader import TrainLoader, plain_crops
from .loading.pipeline import decoding_threads, read_image
from .preparation.check import check_prepared
from .preparation.plan import make_plan, megabytes, prepare
from .preparation.shards import Shard, unfinished
from .scenes.builtin import builtin_root

__all__ = [
    "Dataset",
    "Domains",
    "EvalLoader",
    "Shard",
    "TrainLoader",
    "builtin_root",
    "changes_since",
    "check_data",
    "check_prepared",
    "class_pixel_counts",
    "decoding_threads",
    "find_images",
    "make_plan",
    "megabytes",
    "open_domains",
    "open_folder",
    "open_plain_target",
    "plain_crops",
    "prepare",
    "read_image",
    "refuse",
    "require_validation",
    "slow_reading_notes",
    "target_classes",
    "training_size_for",
    "unfinished",
    "write_splits",
]
