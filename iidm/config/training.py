"""The network, its optimiser, and how a step is run and recorded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ..types import UserError
from .checks import require, require_share


@dataclass(frozen=True)
class ModelConfig:
    """The network."""

    backbone: str = "resnet101-v1c"
    """resnet18, resnet50, resnet101 (7x7 stem), the same with -v1c (three 3x3, as DAFormer), mobilenet_v2, mit_b0 to
    mit_b5 (SegFormer's), pvt_v2_b5 (mit_b5's graph with freely licensed weights), or timm:NAME for any of timm's."""
    output_stride: int = 8
    """Image pixels per cell of the backbone's deepest level: 8 (paper's DeepLabV2), 16 or 32. Transformers have one of
    their own."""
    head: str = "auto"
    """`deeplabv2` (the paper's), `daformer` and `segformer` (all levels of the backbone), or `cosine`: a 1x1 classifier
    by cosine similarity (MME). `auto`: `deeplabv2` for ResNets and MobileNetV2, `daformer` for other backbones with
    levels of several sizes, `segformer` for plain ViTs."""
    dilations: tuple[int, ...] = (6, 12)
    """Dilations of the summed 3x3 convolutions of the DeepLabV2 head; DAFormer, DACS: (6, 12) in every experiment."""
    dropout: float = 0.0
    """Channel dropout before the classifier; DAFormer's DLV2 head: 0, the other heads of mmsegmentation: 0.1."""
    drop_path: float | None = None
    """Stochastic depth: chance that the deepest residual branches of the backbone are dropped, less for those before.
    Default: what the backbone's recipe has, 0.1 for mit_* and pvt_v2_b5, 0 for others. ResNets and MobileNetV2 have
    none."""
    hrda: bool = False
    """See each crop at half its resolution and a window of it at the full one (HRDA, models/hrda.py)."""
    align_corners: bool = False
    """Corner convention of the bilinear upsampling of logits: DAFormer False, DACS True."""
    weights: str = "imagenet"
    """Start of the network: `imagenet` (the backbone's, fetched by name), `none` (random), the path of a state dict
    with a backbone, or a run to train on: its folder (the teacher of its newest checkpoint), one of its checkpoints, or
    student.safetensors or teacher.safetensors in one. Of a run the head is taken too where the classes are the same in
    the same order, and starts anew otherwise."""

    def __post_init__(self) -> None:
        require(len(self.dilations) >= 1, "model.dilations", self.dilations, "one dilation or more")
        require_share("model.dropout", self.dropout)
        require(self.drop_path is None or 0 <= self.drop_path < 1, "model.drop_path", self.drop_path, ">= 0 and < 1")

    @property
    def head_by_name(self) -> str:
        """`head`, where `auto` is decided by the name of the backbone alone; timm's are decided when they are built."""
        if self.head != "auto" or self.backbone.startswith("timm:"):
            return self.head
        return "deeplabv2" if self.backbone.startswith(("resnet", "mobilenet")) else "daformer"


@dataclass(frozen=True)
class OptimConfig:
    """AdamW and its schedule: linear warm-up times polynomial decay."""

    lr: float = 6e-5
    """Learning rate of the backbone; paper: 6e-5."""
    head_lr_mult: float = 10.0
    """Factor of the head's learning rate; paper: 6e-4 / 6e-5."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Paper."""
    weight_decay: float = 0.01
    """Paper."""
    layer_decay: float = 1.0
    """Factor of the learning rate from each layer of the backbone to the one before it; 1: none. Vision foundation
    models are often trained with 0.8 to 0.9."""
    warmup_steps: int = 1500
    """Steps of linear warm-up; DAFormer: 1500."""
    warmup_ratio: float = 1e-6
    """Share of the learning rate at step 0; DAFormer: 1e-6."""
    poly_power: float = 1.0
    """Power of the decay to 0 at `max_steps`; DAFormer: 1.0."""

    def __post_init__(self) -> None:
        require(0 < self.lr < math.inf, "optim.lr", self.lr, "> 0 and finite")
        require(self.head_lr_mult >= 0, "optim.head_lr_mult", self.head_lr_mult, ">= 0")
        require(all(0 <= beta < 1 for beta in self.betas), "optim.betas", self.betas, "each 0 or more and below 1")
        require(self.weight_decay >= 0, "optim.weight_decay", self.weight_decay, ">= 0")
        require(self.poly_power >= 0, "optim.poly_power", self.poly_power, ">= 0")
        require_share("optim.warmup_ratio", self.warmup_ratio)
        require(0 < self.layer_decay <= 1, "optim.layer_decay", self.layer_decay, "> 0 and at most 1")
        require(self.warmup_steps >= 0, "optim.warmup_steps", self.warmup_steps, ">= 0")


@dataclass(frozen=True)
class StepConfig:
    """How a step is run. Only `accumulate` changes what is computed; the others move rounding, time and memory."""

    branches: Literal["auto", "merged", "sequential"] = "auto"
    """`merged`: the student sees all branches in one pass, each with BatchNorm statistics of its own; `sequential`: one
    after the other with a backward each, so that one is in memory at a time. `auto`: merged on a GPU, sequential on a
    CPU (caches)."""
    accumulate: int = 1
    """Batches whose gradients are added up to one step of the optimiser; each has BatchNorm statistics and random draws
    of its own. With several processes (torchrun) those of each; two of them compute what one does with 2."""
    graph: Literal["auto", "on", "off"] = "auto"
    """Capture the whole step in a CUDA graph and replay it; `auto`: on a GPU. It starts when the teacher's decay has
    reached its end."""
    compile: bool = False
    """Run the networks through torch.compile; the first steps then take minutes."""
    recompute: bool = False
    """Compute the inner activations of the backbone's blocks again in the backward instead of keeping them: less
    memory, more time."""

    def __post_init__(self) -> None:
        require(self.accumulate >= 1, "step.accumulate", self.accumulate, "at least 1")
        if self.compile and self.recompute:
            raise UserError("--step.compile and --step.recompute do not go together; give one of them.")


class SlidingWindow(NamedTuple):
    """How windows cover an image that the network sees piece by piece."""

    size: tuple[int, int]
    """(H, W) in pixels of the image at training resolution; larger than an image, it is the image."""
    stride: tuple[int, int]
    """Pixels from one window to the next, down and to the right."""
    batch: int
    """Windows that the network sees in one call."""

    def __str__(self) -> str:
        (height, width), (down, right) = self.size, self.stride
        return f"windows of {height}x{width} every {down}x{right} pixels (HxW)"


@dataclass(frozen=True)
class EvalConfig:
    """What a saved and scored network is, and how it sees an image."""

    statistics: Literal["target", "running"] = "target"
    """BatchNorm statistics of what is saved, scored and drawn. `target`: those of plain target images, estimated anew
    (engine/norm_statistics.py); `running`: what training left, for the student a mixture of source, target and mixes in
    which the last branch counts most. The public code of the field has `running`; the same weights score up to 6.6
    points of mIoU more with `target`, baselines more than mixes. Training itself is the same with both."""
    statistics_crops: int = 64
    """Crops of labeled and unlabeled target images that the statistics are estimated on."""
    mode: Literal["whole", "slide"] = "whole"
    """How the network sees an image that is scored or labeled, at training resolution. `whole`: at once, as DACS and
    DAFormer; `slide`: in overlapping windows whose logits are averaged, as HRDA and MIC (engine/windows.py)."""
    window: tuple[int, int] | None = None
    """Window (H, W) in pixels of the image at training resolution. Default: `data.crop_size`."""
    stride: tuple[int, int] | None = None
    """Pixels from one window to the next, down and to the right. Default: half the window, rounded up, as HRDA."""
    window_batch: int = 4
    """Windows that the network sees in one call: changes time, memory and rounding only."""

    def __post_init__(self) -> None:
        require(self.statistics_crops >= 1, "eval.statistics_crops", self.statistics_crops, "at least 1")
        need = "at least 16 x 16 pixels"
        require(self.window is None or min(self.window) >= 16, "eval.window", self.window, need)
        require(self.window_batch >= 1, "eval.window_batch", self.window_batch, "at least 1")

    def sliding_window(self, crop_size: tuple[int, int]) -> SlidingWindow:
        """The windows of mode `slide`, for a run that is trained on crops of (H, W).

        Raises: UserError for a stride that leaves pixels between windows.
        """
        height, width = self.window or crop_size
        stride = self.stride or (-(-height // 2), -(-width // 2))
        fits = 1 <= stride[0] <= height and 1 <= stride[1] <= width
        require(fits, "eval.stride", stride, f"1 to {height} down and 1 to {width} right, the window")
        return SlidingWindow((height, width), stride, self.window_batch)


@dataclass(frozen=True)
class LogConfig:
    """What a run writes, and how often."""

    every: int = 20
    """Steps between two readings of losses and quality: the only host synchronisation of the loop."""
    preview_every: int = 500
    """Steps between preview pictures; 0: only at the end."""
    checkpoint_every: int = 500
    """Steps between checkpoints; 0: only at the end and on Ctrl-C. SIGUSR1 makes one at once."""
    checkpoint_minutes: float = 0.0
    """Minutes after which a checkpoint is written too, where steps are slow or machines go away; 0: by steps alone."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints stay."""
    eval_every: int = 0
    """Steps between evaluations of the teacher on the validation images; 0: only at the end."""
    tensorboard: bool = True
    """Write TensorBoard scalars and pictures to RUN/tensorboard."""
    wandb: bool = False
    """Log to Weights & Biases too: configuration, scalars, final scores (pip install 'iidm[wandb]'); WANDB_MODE=offline
    needs no network."""
    mlflow: bool = False
    """The same to MLflow, where MLFLOW_TRACKING_URI says (pip install 'iidm[mlflow]')."""

    def __post_init__(self) -> None:
        require(self.every >= 1, "log.every", self.every, "at least 1")
        require(self.checkpoint_minutes >= 0, "log.checkpoint_minutes", self.checkpoint_minutes, ">= 0")
        require(self.keep_checkpoints >= 1, "log.keep_checkpoints", self.keep_checkpoints, "at least 1")
