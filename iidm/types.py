"""What crosses the border of a room: the values that data, models, method and engine hand to each other.

Shape letters: B images, C channels, K classes, H x W pixels at label size, h x w pixels at the network's output
stride. Everything here is a NamedTuple of tensors (torch.compile, CUDA graphs and tree_map see through it) or a frozen
dataclass of plain values.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # torch takes seconds to import, and a command line is read before that
    from torch import Tensor

IGNORE_INDEX = 255
"""The label value that no loss and no metric counts."""

MEAN_RGB = (123.675, 116.28, 103.53)
"""ImageNet mean in pixel values 0..255, RGB; the value every pretrained backbone here was trained with."""
STD_RGB = (58.395, 57.12, 57.375)
"""ImageNet standard deviation in pixel values 0..255, RGB."""


class UserError(Exception):
    """A mistake that the user can mend: the message names what is needed, what came and what to do.

    Entry points print it as one line and end with exit status 2; it never carries a traceback to the user.
    """


class AgreedError(UserError):
    """One that all processes of a run end with; the first tells it."""


class LabeledImages(NamedTuple):
    """Crops with labels."""

    image: Tensor
    """uint8 [B,H,W,3] RGB."""
    label: Tensor
    """uint8 [B,H,W] train ids, 255 ignored."""


class TrainBatch(NamedTuple):
    """One step's crops on the device. A stream that no active loss reads is None and is never loaded."""

    source: LabeledImages | None
    target: LabeledImages | None
    unlabeled: Tensor | None
    """uint8 [B,H,W,3] RGB; with strategy `two-xu-two-streams` 2B images: the first B meet the source."""
    beyond: Tensor | None = None
    """uint8 [B,H,W]: 255 beyond the end of an unlabeled image that is smaller than the crop, else 0. None: nowhere.
    Nothing is learned from pseudo-labels there; qualities and the further terms of methods see these pixels."""


class EvalBatch(NamedTuple):
    """Images for evaluation: the image at the size the network sees, the label at its own full size."""

    image: Tensor
    """uint8 [B,H,W,3] RGB."""
    label: Tensor
    """uint8 [B,H2,W2] train ids, 255 ignored; H2 x W2 may be larger than H x W."""
    names: tuple[str, ...]
    """File stem of each image."""


class Place(NamedTuple):
    """Where a window lies that slides over a batch of images."""

    image: int
    """Index in the batch."""
    top: int
    left: int


class PseudoLabel(NamedTuple):
    """What the teacher says about unlabeled images."""

    label: Tensor
    """uint8 [B,H,W] argmax of the teacher."""
    quality: Tensor
    """float32 [B], share of pixels whose confidence exceeds tau (paper eq. 6)."""
    weight: Tensor | None = None
    """float32 [B,H,W], the loss weight of each pixel where it is not its image's quality."""


class Losses(NamedTuple):
    """The step's losses, float32 scalars on the device, unweighted except `total`. Off losses are zero."""

    total: Tensor
    source: Tensor
    target: Tensor
    inter: Tensor
    intra: Tensor
    mask: Tensor
    """Of images of which blocks are hidden (MIC)."""
    auxiliary: Tensor
    """A method's further term."""


class Mixed(NamedTuple):
    """A ClassMix of a labeled image onto an unlabeled one (paper eqs. 1-4)."""

    image: Tensor
    """float [B,3,H,W] normalized, channels-last memory, strongly augmented."""
    label: Tensor
    """uint8 [B,H,W]."""
    weight: Tensor
    """float32 [B,H,W]: quality on pseudo-labeled pixels (0 in the margins); on pasted ones as `mixing.pasted_weight`
    says."""


class StepOutput(NamedTuple):
    """What a training step hands to logs and pictures. Reading any of it on the host synchronises."""

    losses: Losses
    quality: Tensor
    """float32 [] mean quality of the pseudo-labels."""
    pseudo_label: PseudoLabel | None
    inter: Mixed | None
    intra: Mixed | None
    """With several views the first."""


class Sample(NamedTuple):
    """One image on disk."""

    name: str
    """Unique within its list: path below the image folder without its ending; split files hold these names."""
    image: Path
    label: Path | None


@dataclass(frozen=True)
class ClassSet:
    """The classes of a label space."""

    names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    """RGB 0..255 per class."""
    report: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """Named subsets of class ids whose mean IoU is reported beside the mean over all, e.g. ("13 classes", (0, 1, ...)).
    The first one, if any, is the headline mIoU."""

    def __post_init__(self) -> None:
        if len(self.names) != len(self.palette):
            raise UserError(
                f"A class set needs one colour per class: {len(self.names)} names, {len(self.palette)} colours."
            )
        if len(self.names) == 1:
            raise UserError(
                f"{self.names[0]} is the only class, and a network cannot learn one class alone: it would call every"
                " pixel so. Add a class for all the rest: in a TOML file a second [[classes]] with name ="
                ' "background" and the ids of the other pixels (ids = [0]), on the command line "background" among the'
                " class names."
            )
        if not 2 <= len(self.names) <= 255:
            raise UserError(f"A class set needs 2 to 255 classes, not {len(self.names)}.")
        if len(set(self.names)) != len(self.names):
            raise UserError(f"Class names must differ from each other: {', '.join(self.names)}.")

    def __len__(self) -> int:
        return len(self.names)
