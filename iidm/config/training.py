"""The network, its optimiser, and how a step is run and recorded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..types import UserError
from .checks import require, require_share


@dataclass(frozen=True)
class ModelConfig:
    """The network."""

    backbone: str = "resnet101-v1c"
    """resnet18, resnet50, resnet101 (7x7 stem), the same with -v1c (three 3x3, as DAFormer), or mobilenet_v2."""
    output_stride: int = 8
    """Image pixels per cell of the logits: 8 (paper's DeepLabV2), 16 or 32."""
    head: str = "deeplabv2"
    """`deeplabv2` (the paper's), or `cosine`: a 1x1 classifier by cosine similarity (MME)."""
    dilations: tuple[int, ...] = (6, 12)
    """Dilations of the summed 3x3 convolutions of the DeepLabV2 head; DAFormer, DACS: (6, 12) in every experiment."""
    dropout: float = 0.0
    """Channel dropout before the classifier; DAFormer's DLV2 head: 0, the other heads of mmsegmentation: 0.1."""
    align_corners: bool = False
    """Corner convention of the bilinear upsampling of logits: DAFormer False, DACS True."""
    weights: str = "imagenet"
    """Start of the backbone: `imagenet` (fetched by name), `none` (random), or the path of a state dict."""

    def __post_init__(self) -> None:
        require(len(self.dilations) >= 1, "model.dilations", self.dilations, "one dilation or more")
        require_share("model.dropout", self.dropout)


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
    warmup_steps: int = 1500
    """Steps of linear warm-up; DAFormer: 1500."""
    warmup_ratio: float = 1e-6
    """Share of the learning rate at step 0; DAFormer: 1e-6."""
    poly_power: float = 1.0
    """Power of the decay to 0 at `max_steps`; DAFormer: 1.0."""

    def __post_init__(self) -> None:
        require(self.lr > 0, "optim.lr", self.lr, "> 0")
        require(self.warmup_steps >= 0, "optim.warmup_steps", self.warmup_steps, ">= 0")


@dataclass(frozen=True)
class StepConfig:
    """How a step is run. Only `accumulate` changes what is computed; the others move rounding, time and memory."""

    branches: Literal["auto", "merged", "sequential"] = "auto"
    """`merged`: the student sees all branches in one pass, each with BatchNorm statistics of its own; `sequential`: one
    after the other with a backward each, so that one is in memory at a time. `auto`: merged on a GPU, sequential on a
    CPU (caches)."""
    accumulate: int = 1
    """Batches whose gradients are added up to one step of the optimiser; each has BatchNorm statistics of its own."""
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


@dataclass(frozen=True)
class EvalConfig:
    """What a saved and scored network is."""

    statistics: Literal["target", "running"] = "target"
    """BatchNorm statistics of what is saved, scored and drawn. `target`: those of plain target images, estimated anew
    (engine/norm_statistics.py); `running`: what training left, for the student a mixture of source, target and mixes in
    which the last branch counts most. The public code of the field has `running`; the same weights score up to 6.6
    points of mIoU more with `target`, baselines more than mixes. Training itself is the same with both."""
    statistics_crops: int = 64
    """Crops of labeled and unlabeled target images that the statistics are estimated on."""

    def __post_init__(self) -> None:
        require(self.statistics_crops >= 1, "eval.statistics_crops", self.statistics_crops, "at least 1")


@dataclass(frozen=True)
class LogConfig:
    """What a run writes, and how often."""

    every: int = 20
    """Steps between two readings of losses and quality: the only host synchronisation of the loop."""
    preview_every: int = 500
    """Steps between preview pictures; 0: only at the end."""
    checkpoint_every: int = 500
    """Steps between checkpoints; 0: only at the end and on Ctrl-C."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints stay."""
    eval_every: int = 0
    """Steps between evaluations of the teacher on the validation images; 0: only at the end."""
    tensorboard: bool = True
    """Write TensorBoard scalars and pictures to RUN/tensorboard."""

    def __post_init__(self) -> None:
        require(self.every >= 1, "log.every", self.every, "at least 1")
        require(self.keep_checkpoints >= 1, "log.keep_checkpoints", self.keep_checkpoints, "at least 1")
