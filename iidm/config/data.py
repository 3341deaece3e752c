"""Which images a run reads, and how crops are drawn."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .checks import require, require_share

LEAST_CROP = 16
"""Pixels of the shorter side of a crop."""
Mistake = Literal["ignored", "one-class", "train-ids", "missing-class", "class-names", "changed"]
"""What stops a run before its first step unless `data.accept` names it."""


@dataclass(frozen=True)
class DatasetConfig:
    """Which data set a domain is. A spec's own values stand where a field is left empty."""

    spec: str = "folder"
    """A TOML file that describes your folders (docs/own-data.md), `folder`, or the name of a known data set
    (streetscenes-rendered, streetscenes-camera, gta5, synthia, cityscapes, camvid, ...)."""
    images: str | None = None
    """Image folder of the training split, relative to the root or absolute."""
    labels: str | None = None
    """Label folder of the training split; matched to the images by file stem."""
    val_images: str | None = None
    """Image folder of the validation split (target only)."""
    val_labels: str | None = None
    """Label folder of the validation split (target only)."""
    resize: tuple[int, int] | None = None
    """Training resolution (H, W) in pixels before the crop: the box that an image must fit into, aspect ratio kept.
    Default: the spec's, or the size on disk."""
    class_names: tuple[str, ...] = ()
    """Names of the classes in the order of their train ids (folder data sets)."""
    palette: tuple[str, ...] = ()
    """One colour per class as #rrggbb (folder data sets). Default: a generated palette."""
    id_map: tuple[str, ...] = ()
    """`id:train_id` pairs, e.g. 7:0 8:1 255:255 (folder data sets). Default: ids are train ids already, 255 ignored.
    An id on disk that the map does not name is an error."""


@dataclass(frozen=True)
class DataConfig:
    """What is read, and how crops are drawn."""

    source: DatasetConfig = field(default_factory=DatasetConfig)
    """The labeled source domain."""
    target: DatasetConfig = field(default_factory=DatasetConfig)
    """The target domain: few labeled images, many unlabeled ones, and the validation images."""
    crop_size: tuple[int, int] = (512, 512)
    """Crop (H, W) in pixels of every stream; paper: 512x512."""
    source_batch: int = 2
    """Source crops a step; paper: 2."""
    target_batch: int = 2
    """Labeled target crops a step; paper: 2."""
    unlabeled_batch: int = 2
    """Unlabeled target crops a step; paper: 2. With `two-xu-two-streams` twice as many are read."""
    batch_per: Literal["process", "run"] = "process"
    """With several processes (torchrun), whether the batch sizes are those of each, so that a step sees more images, or
    of all of them together (`run`): the number of processes must divide them. The learning rate stays either way."""
    labeled_count: int | None = 100
    """Labeled target images; the other training images are unlabeled. 0: none; None: all that have a label."""
    labeled_choice: Literal["random", "even"] = "random"
    """`random`: the first `labeled_count` names of one shuffle by `split_seed`, so budgets are nested; `even`: evenly
    spaced in file order."""
    split_seed: int = 0
    """Seed of that shuffle; independent of `seed`, so that runs with other seeds share their split."""
    labeled_list: Path | None = None
    """Text file with the names of the labeled target images, one a line, in place of `labeled_count`."""
    unlabeled_list: Path | None = None
    """Text file with the names of the unlabeled target images. Default: all that are not labeled."""
    source_list: Path | None = None
    """Text file with the names of the source images. Default: all."""
    source_subset: float | None = None
    """Share of the source images (of `source_list`, where given) that is used: those nearest to the labeled target
    images by the shares of their classes, with some of every class. Reads the labels of those target images
    (`labeled_count`, `labeled_list`) even where no loss does. Default: all (the paper). The idea is SDSS's (arXiv
    2205.00312), the distance this project's: see data/datasets/subset.py."""
    val_list: Path | None = None
    """Text file with the names of the validation images: of the spec's validation split, or of the labeled training
    images where it has none and with `val_count`, whose number it must name. Default: the whole split."""
    val_count: int | None = None
    """Labeled target images that validate and do not train. They stand in place of a validation split: the first that
    `labeled_list` does not name, in an order by `split_seed` and name. So a smaller number is a part of a larger one,
    and further labels displace few. A run keeps those that it began with. Without them and without a validation split
    nothing is scored."""
    flip_probability: float = 0.5
    """Chance of a horizontal flip; DAFormer: 0.5."""
    scale_range: tuple[float, float] = (1.0, 1.0)
    """Range of the factor by which each training image and its label are resized before the crop, log-uniform; never
    so small that the crop would reach beyond the image. Paper, DACS, DAFormer: none; mmsegmentation, UniMatch: 0.5 to
    2."""
    rare_class_sampling: bool = True
    """Draw source images by rare class: p(c) = softmax((1 - f_c) / temperature). Source: DAFormer section 3.2."""
    rare_class_target: bool = False
    """The same for the labeled target images (the paper is silent; DAFormer has none)."""
    rare_class_temperature: float = 0.01
    """DAFormer: 0.01. Larger is more uniform."""
    rare_class_min_px: int = 3000
    """An image counts for a class when it holds more of its pixels than this at training resolution; DAFormer: 3000."""
    rare_class_min_crop_px: int = 1500
    """The crop must hold more than so many pixels of the class, best of `crop_tries`; DAFormer: 1500."""
    max_class_share: float = 0.75
    """A source crop may hold at most this share of one class, up to `crop_tries` draws; DAFormer: 0.75 (1: off)."""
    crop_tries: int = 10
    """Draws of a crop position for the two rules above; DAFormer: 10."""
    workers: int = 0
    """Processes that read ahead; 0 reads in the training process (best on 2 cores)."""
    prefetch: int = 2
    """Batches that are ready ahead."""
    check: bool = True
    """Before the first step: open every image, read every label once, tell what there is, and stop at likely mistakes
    (`accept`)."""
    accept: tuple[Mistake, ...] = ()
    """Likely mistakes that do not stop the run, by the name that their error gives them: `ignored` (nearly all pixels
    of a set of labels are), `one-class` (all labels hold one class), `train-ids` (train ids are read as ids),
    `missing-class` (validation asks for a class that no training label holds), `class-names` (source and target each
    have classes that the other lacks), `changed` (a resumed run finds other images than it began with)."""
    skip_damaged: bool = False
    """Draw another image where one cannot be read, in place of a stop; each process names each once. Validation images
    are never skipped."""

    def __post_init__(self) -> None:
        least = f"at least {LEAST_CROP} x {LEAST_CROP} pixels"
        require(min(self.crop_size) >= LEAST_CROP, "data.crop_size", self.crop_size, least)
        for name in ("source_batch", "target_batch", "unlabeled_batch", "crop_tries", "prefetch"):
            require(getattr(self, name) >= 1, f"data.{name}", getattr(self, name), "at least 1")
        require(
            self.labeled_count is None or self.labeled_count >= 0,
            "data.labeled_count",
            self.labeled_count,
            ">= 0",
        )
        require(self.val_count is None or self.val_count >= 1, "data.val_count", self.val_count, "at least 1")
        require(
            self.source_subset is None or 0 < self.source_subset <= 1,
            "data.source_subset",
            self.source_subset,
            "more than 0 and at most 1",
        )
        low, high = self.scale_range
        require(0.1 <= low <= high <= 10, "data.scale_range", self.scale_range, "0.1 <= low <= high <= 10")
        require(self.workers >= 0, "data.workers", self.workers, ">= 0")
        require(self.rare_class_temperature > 0, "data.rare_class_temperature", self.rare_class_temperature, "> 0")
        require_share("data.flip_probability", self.flip_probability)
        require_share("data.max_class_share", self.max_class_share)
