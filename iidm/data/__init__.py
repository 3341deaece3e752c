"""The data: which images there are, which crops are drawn, and the DALI pipeline that brings them in.

Its rooms, each standing on those before it: files (which there are), labels (how they are read), annotating (how
predicted ones are written for labeling tools), specs (what a data set is), scenes (the built-in ones), prepared (the
form of prepared folders), datasets (opened: the images of a run), loading (what a step reads), preparation (writing
prepared folders), inspection (folders that nobody described yet).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .annotating.regions import Regions
from .annotating.writers import AnnotatedImage, Writer
from .annotating.writing import WRITERS, AnnotationFormat, PredictedLabel, find_regions, write_annotations
from .datasets.check import check_data, slow_reading_notes
from .datasets.dataset import Dataset
from .datasets.domains import (
    Domains,
    changes_since,
    open_domains,
    open_folder,
    open_plain_target,
    open_training_target,
    target_classes,
    target_ids,
    target_unlabeled,
    training_size_for,
    with_kept_validation,
    write_splits,
)
from .datasets.splits import NoneUnlabeled, TooFewLabeled
from .datasets.statistics import class_pixel_counts
from .datasets.summary import refuse
from .datasets.validation import require_validation
from .files.inputs import Input, find_images, find_inputs
from .files.walking import FRAMES
from .scenes.builtin import builtin_root

if TYPE_CHECKING:
    from .annotating.writing import PredictedLabel, write_annotations
    from .loading.decoding import decoding_threads, read_image, read_image_size
    from .loading.eval_loader import EvalLoader
    from .loading.loader import TrainLoader, plain_crops
    from .preparation.check import check_prepared
    from .preparation.plan import make_plan, megabytes, prepare
    from .preparation.shards import Shard, unfinished

_LATER = {
    "PredictedLabel": ".annotating.writing",
    "write_annotations": ".annotating.writing",
    "EvalLoader": ".loading.eval_loader",
    "TrainLoader": ".loading.loader",
    "plain_crops": ".loading.loader",
    "decoding_threads": ".loading.decoding",
    "read_image": ".loading.decoding",
    "read_image_size": ".loading.decoding",
    "check_prepared": ".preparation.check",
    "make_plan": ".preparation.plan",
    "megabytes": ".preparation.plan",
    "prepare": ".preparation.plan",
    "Shard": ".preparation.shards",
    "unfinished": ".preparation.shards",
}
"""Imported when they are asked for: what they need, torch or DALI, takes a second or two and 300 MB that the worker
processes of the loader have no use for."""

__all__ = [
    "WRITERS",
    "AnnotatedImage",
    "AnnotationFormat",
    "Dataset",
    "FRAMES",
    "Domains",
    "EvalLoader",
    "Input",
    "NoneUnlabeled",
    "PredictedLabel",
    "Regions",
    "Shard",
    "TooFewLabeled",
    "TrainLoader",
    "Writer",
    "builtin_root",
    "changes_since",
    "check_data",
    "check_prepared",
    "class_pixel_counts",
    "decoding_threads",
    "find_images",
    "find_inputs",
    "find_regions",
    "make_plan",
    "megabytes",
    "open_domains",
    "open_folder",
    "open_plain_target",
    "open_training_target",
    "plain_crops",
    "prepare",
    "read_image",
    "read_image_size",
    "refuse",
    "require_validation",
    "slow_reading_notes",
    "target_classes",
    "target_ids",
    "target_unlabeled",
    "training_size_for",
    "unfinished",
    "write_annotations",
    "with_kept_validation",
    "write_splits",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATER[name], __name__), name)
