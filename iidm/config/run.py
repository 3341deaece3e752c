"""The whole configuration of a run, and what follows from it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from ..types import UserError
from .checks import require
from .data import DataConfig
from .method import AugmentConfig, LossConfig, MixingConfig, TeacherConfig
from .training import EvalConfig, LogConfig, ModelConfig, OptimConfig, SlidingWindow, StepConfig

Recipe = Literal["paper", "daformer", "adapt"]

PROFILE_WARMUP = 6
"""Steps before the first that `profile` records: a CUDA graph is captured in the fourth."""


@dataclass(frozen=True)
class Config:
    """A whole run."""

    preset: str = "scenes"
    """Where the values came from; see --list-presets."""
    method: str = "iidm"
    """Which losses are on; see --list-methods."""
    recipe: Recipe = "paper"
    """Where losses, mixes, teacher and scales have their values from: the paper's equations as written, the inherited
    code's behaviour, or what was found best for few labeled real images (recipes.py)."""
    source_root: Path | None = None
    """Folder of the source data set."""
    target_root: Path | None = None
    """Folder of the target data set."""
    run_dir: Path | None = None
    """Folder of the run. Default: runs/<preset>-<method>-<time>."""
    max_steps: int = 40_000
    """Training steps; paper: 40,000. With --resume another number makes a run longer (or ends it earlier): it goes on
    with the images that are next, the learning rate takes the place that the next step has in the schedule of the new
    length, and what a method does by the share of the run that is done follows too."""
    seed: int = 0
    """Seed of weights, data order, crops, class draws and augmentation."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: the GPU where there is one; CUDA_VISIBLE_DEVICES=1 before the command chooses another than the first."""
    amp: bool = False
    """Mixed precision: bfloat16 where the device has it, else float16 with a GradScaler."""
    kernels: Literal["auto", "fused", "reference"] = "auto"
    """Which implementation of the ops runs: the fused one, plain PyTorch, or the fused one where it exists."""
    profile: int = 0
    """Record this many steps, after six that warm up: RUN/profile gets a trace and a table of where time goes."""
    quiet: bool = False
    """No progress bar and no notes; the final table stays."""
    data: DataConfig = field(default_factory=DataConfig)
    """The images."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The network."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """The optimiser."""
    loss: LossConfig = field(default_factory=LossConfig)
    """The losses."""
    mixing: MixingConfig = field(default_factory=MixingConfig)
    """The mixes."""
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    """The teacher."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """The strong augmentation."""
    step: StepConfig = field(default_factory=StepConfig)
    """How a step is run."""
    eval: EvalConfig = field(default_factory=EvalConfig)
    """Which network is saved and scored, and how it sees an image."""
    log: LogConfig = field(default_factory=LogConfig)
    """Logs, pictures and checkpoints."""

    def __post_init__(self) -> None:
        require(self.max_steps >= 1, "max_steps", self.max_steps, "at least 1")
        most = max(self.max_steps - PROFILE_WARMUP, 0)
        need = f"0 to {most} (--max-steps {self.max_steps}, of which the first {PROFILE_WARMUP} warm up)"
        require(0 <= self.profile <= most, "profile", self.profile, need)
        self.eval.sliding_window(self.data.crop_size)  # refuses strides that do not fit
        mixes = {"inter_weight": "source_batch"}
        if self.mixing.intra_from == "labeled":
            mixes["intra_weight"] = "target_batch"
        for weight, batch in mixes.items():
            pairs = (getattr(self.data, batch), self.data.unlabeled_batch)
            if self.mixing.mask != "none" and getattr(self.loss, weight) > 0 and pairs[0] != pairs[1]:
                raise UserError(
                    f"Mixing pastes one labeled image onto each unlabeled one: --data.{batch.replace('_', '-')} is"
                    f" {pairs[0]}, --data.unlabeled-batch is {pairs[1]}; give both the same number."
                )
        weights = self.loss.inter_weight, self.loss.intra_weight
        if self.mixing.strategy == "one-xu-one-stream" and min(weights) > 0 and self.mixing.intra_views > 1:
            raise UserError(
                "With --mixing.strategy one-xu-one-stream both mixes are one image: leave --mixing.intra-views at 1."
            )
        alone = self.data.unlabeled_batch < 2 and self.mixing.intra_from == "unlabeled" and self.mixing.mask != "none"
        if alone and self.loss.intra_weight > 0:
            raise UserError(
                "Unlabeled images are pasted onto each other (--mixing.intra-from unlabeled), and"
                " --data.unlabeled-batch is 1; give 2 or more."
            )
        self._refuse_one_cell()

    def _refuse_one_cell(self) -> None:
        """BatchNorm needs two values a channel, and each branch has statistics of its own."""
        stride = self.model.output_stride * (2 if self.model.hrda else 1)  # HRDA sees each crop at half its size
        cells = math.prod(math.ceil(side / stride) for side in self.data.crop_size)
        if cells > 1 or not self.model.backbone.startswith(("resnet", "mobilenet")):
            return
        batches = {"source": "source_batch", "labeled": "target_batch", "unlabeled": "unlabeled_batch"}
        read = [batches[stream] for stream, is_read in streams_of(self)._asdict().items() if is_read]
        least = {f"data.{batch}": (getattr(self.data, batch), 2) for batch in read}
        if self.mixing.strategy == "two-xu-two-streams" and "unlabeled_batch" in read:  # each mix has half of it
            least["data.unlabeled_batch"] = self.data.unlabeled_batch, 4
        if self.eval.statistics == "target":
            least["eval.statistics_crops"] = self.eval.statistics_crops, 2
        for name, (count, needed) in least.items():
            if count < needed:
                raise UserError(
                    f"A crop of {self.data.crop_size} pixels is one cell of the network at --model.output-stride"
                    f" {self.model.output_stride}, and --{name.replace('_', '-')} is {count}: BatchNorm needs two"
                    f" values. Give a larger --data.crop-size, a smaller output stride, or {needed} or more crops."
                )


class Streams(NamedTuple):
    """Which images a run reads."""

    source: bool
    labeled: bool
    unlabeled: bool


def streams_of(config: Config) -> Streams:
    """The streams that any loss of a run reads; a further term reads the unlabeled images, and no others."""
    loss, mixing = config.loss, config.mixing
    pastes = mixing.mask != "none"
    inter, intra = loss.inter_weight > 0, loss.intra_weight > 0
    return Streams(
        source=loss.source_weight > 0 or (inter and pastes),
        labeled=loss.target_weight > 0 or (intra and pastes and mixing.intra_from == "labeled"),
        unlabeled=inter or intra or loss.mask_weight > 0 or loss.auxiliary_weight > 0,
    )


def sliding_window(config: Config) -> SlidingWindow | None:
    """The windows in which the network sees an image that is scored or labeled; None: it sees the image whole."""
    return config.eval.sliding_window(config.data.crop_size) if config.eval.mode == "slide" else None
