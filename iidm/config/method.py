"""The method: losses, mixes, teacher, strong augmentation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ..types import UserError
from .checks import require, require_share

Normalizer = Literal["sum", "pixels", "valid"]


@dataclass(frozen=True)
class LossConfig:
    """L = source_weight L_s + target_weight L_t + inter_weight L_inter + intra_weight L_intra (paper eq. 11).

    A weight of 0 switches the branch off: its images are not loaded, its forward is not run. The rows of the paper's
    Table 4 are these four numbers.
    """

    source_weight: float = 1.0
    """Factor of L_s; paper: 1."""
    target_weight: float = 1.0
    """Factor of L_t; paper: 1."""
    inter_weight: float = 1.0
    """lambda, factor of L_inter; paper: 1.0."""
    intra_weight: float = 2.0
    """mu, factor of L_intra; paper: 2.0."""
    supervised_normalizer: Normalizer = "sum"
    """Divisor of L_s and L_t: `sum` none (paper eqs. 9-10), `pixels` all pixels with the ignored ones (DAFormer),
    `valid` the pixels that are not ignored (DACS)."""
    mixed_normalizer: Normalizer = "sum"
    """Divisor of L_inter and L_intra: `sum` (paper eqs. 7-8), `pixels` (DAFormer, DACS)."""
    class_balance: float = 0.0
    """Strength of the logit adjustment (balance.py): 0 none, 1 as if all classes were equally common. Where one class
    has nearly all pixels, pseudo-labels are drawn without it. The paper, DACS and DAFormer have none. Take this first
    where rare classes are missed: it follows the labels of each branch, and no pixel counts for more than another."""
    class_weights: tuple[str, ...] = ("none",)
    """What a pixel's cross-entropy weighs by the class of its label. `none`; `auto`: by how rare each class is in the
    labels, from 0.1 to 10 (method/class_weights.py); or your numbers, by name (crack=5 "traffic light=2", the others 1)
    or one for each class in their order (1 5 2). They hold for source, labeled target, mixes and hidden images,
    pseudo-labels too, beside the weights that pixels have there; a method's further terms have none. The normalizer
    counts pixels as without: with `valid` that is not the mean of torch's weighted cross-entropy, whose divisor is the
    sum of the weights. Take numbers where mistakes on one class cost more than others, `auto` to compare with recipes
    that balance so; then give class_balance 0, or rarity counts twice."""
    mask_weight: float = 0.0
    """Factor of L_mask: unlabeled images of which blocks are hidden, with the teacher's labels (MIC); MIC: 1."""
    detail_weight: float = 0.1
    """Share of the window at full resolution in each loss of an HRDA network; HRDA: 0.1."""
    auxiliary_weight: float = 0.0
    """Factor of a method's further term (--list-methods says which it is); IIDM has none."""

    def __post_init__(self) -> None:
        weights = {n: getattr(self, n) for n in ("source_weight", "target_weight", "inter_weight", "intra_weight")}
        others = {n: getattr(self, n) for n in ("class_balance", "mask_weight", "auxiliary_weight")}
        for name, value in {**weights, **others}.items():
            require(value >= 0, f"loss.{name}", value, ">= 0")
        _check_class_weights(self.class_weights)
        require_share("loss.detail_weight", self.detail_weight)
        if not any(weights.values()):
            raise UserError("All four loss weights are 0: nothing would be learned. Give at least one --loss.*-weight.")


def _check_class_weights(words: tuple[str, ...]) -> None:
    """The form alone: which classes there are is known when the data is opened."""
    if words in (("none",), ("auto",)):
        return
    name, form = "loss.class_weights", "none, auto, pairs CLASS=NUMBER such as crack=5, or a number for each class"
    named = ["=" in word for word in words]
    require(bool(words) and all(named) == any(named), name, " ".join(words), form)
    for word in words:
        try:
            value = float(word.rpartition("=")[2])
        except ValueError:
            value = math.nan
        require(0 <= value < math.inf, name, word, f"{form}, each number at least 0 and finite")
    classes = [word.rpartition("=")[0] for word in words if "=" in word]
    double = next((one for one in classes if classes.count(one) > 1), None)
    require(double is None, name, f"{double}=...", "one number for each class")


@dataclass(frozen=True)
class MixingConfig:
    """What is pasted onto unlabeled images, and where."""

    strategy: Literal["one-xu-two-streams", "two-xu-two-streams", "one-xu-one-stream"] = "one-xu-two-streams"
    """Paper Table 5. `one-xu-two-streams`: the same unlabeled crops meet the source and the labeled target, two images;
    `two-xu-two-streams`: each stream has unlabeled crops of its own; `one-xu-one-stream`: both are pasted onto one
    image (the labeled target over the source), one branch of weight inter_weight + intra_weight."""
    mask: Literal["classmix", "cutmix", "cowmix", "none"] = "classmix"
    """Which pixels are pasted: `classmix` those of half of the classes (paper, DACS), `cutmix` a box (arXiv
    1905.04899), `cowmix` irregular blobs (arXiv 1906.01916); `none` pastes nothing: the image is only augmented."""
    two_classes: Literal["cutmix", "classmix"] = "cutmix"
    """What mask `classmix` is where there are two classes. Half of two is one: the mix would be the whole labeled image
    where a crop shows one class, and elsewhere a thing with its outline cut out, or an image with a hole of that
    outline, by which alone the network would know it."""
    mask_probability: float = 1.0
    """Chance that anything is pasted onto an image (box and blobs); UniMatch: 0.5, all others 1."""
    cut_area: tuple[float, float] = (0.5, 0.5)
    """Range of the box's share of the image; French et al. and DLDM: half, UniMatch: (0.02, 0.4)."""
    intra_from: Literal["labeled", "unlabeled"] = "labeled"
    """What the intra-domain mix pastes: labeled target images with their labels (paper), or other unlabeled ones with
    their pseudo-labels (CutMix, CowMix, UniMatch)."""
    intra_views: int = 1
    """Intra-domain mixes of each unlabeled image, each with draws of its own; their losses are averaged. UniMatch's two
    strong views: 2."""
    classes_from: Literal["image", "batch"] = "image"
    """Half of the classes of each image (paper, DACS) or of the whole batch (DAFormer)."""
    rounding: Literal["ceil", "floor"] = "ceil"
    """Half of n classes: ceil(n/2) in DACS and DAFormer, the paper says "half"; `floor` takes at least one."""
    draw_ignored: bool = False
    """Whether 255 is a class that can be drawn (DACS, DAFormer: yes; the paper is silent)."""
    pasted_weight: Literal["quality", "one"] = "quality"
    """Loss weight of pasted ground-truth pixels: q like the rest (paper eqs. 7-8), or 1 (DACS, DAFormer)."""
    hidden_block_px: int | None = None
    """Side of the blocks of unlabeled images that `loss.mask_weight` hides. None: a sixteenth of the crop's shorter
    side, as MIC."""
    hidden_share: float = 0.7
    """Chance that a block is hidden; MIC: 0.7."""

    def __post_init__(self) -> None:
        require_share("mixing.mask_probability", self.mask_probability)
        low, high = self.cut_area
        require(0 < low <= high <= 1, "mixing.cut_area", self.cut_area, "0 < low <= high <= 1")
        block = self.hidden_block_px
        require(block is None or block >= 1, "mixing.hidden_block_px", block, "at least 1")
        require_share("mixing.hidden_share", self.hidden_share)
        require(self.intra_views >= 1, "mixing.intra_views", self.intra_views, "at least 1")
        if self.strategy == "one-xu-one-stream" and (self.mask != "classmix" or self.intra_from != "labeled"):
            raise UserError(
                "--mixing.strategy one-xu-one-stream pastes classes of labeled images over classes of source images:"
                " it goes with --mixing.mask classmix and --mixing.intra-from labeled alone."
            )


@dataclass(frozen=True)
class TeacherConfig:
    """The EMA teacher and its pseudo-labels."""

    ema_decay: float = 0.99
    """alpha; paper and DACS: 0.99, DAFormer: 0.999."""
    ema_ramp: bool = False
    """min(1 - 1/(step+1), alpha) (DACS, DAFormer), so that the teacher starts as the student's running mean; the paper
    writes alpha."""
    batchnorm: Literal["batch", "running"] = "batch"
    """Statistics in the teacher's BatchNorm: of its own batch (DACS, DAFormer: train mode, dropout off) or the running
    ones (averaged with the student's by EMA)."""
    labels_by: Literal["teacher", "student"] = "teacher"
    """Which network labels the unlabeled images: the EMA teacher (paper), or the student itself, in training mode
    (UniMatch)."""
    weighting: Literal["quality", "confident", "confidence"] = "quality"
    """Loss weight of a pseudo-labeled pixel: its image's quality (paper eq. 7); `confident`: 1 where its own confidence
    exceeds the threshold and 0 elsewhere (FixMatch, UniMatch); `confidence`: its own confidence."""
    confidence_threshold: float = 0.968
    """tau; paper, DACS, DAFormer: 0.968."""
    comparison: Literal[">", ">="] = ">"
    """A pixel counts as confident when its confidence is > tau (paper eq. 6) or >= tau (DACS, DAFormer)."""
    quality_per: Literal["image", "batch"] = "image"
    """q of each image (paper eq. 6), or one of the batch (DACS, DAFormer): of each process's own, and of each that
    `step.accumulate` adds up."""
    ignore_top_px: int = 0
    """Rows at the top of the crop whose pseudo-labels get weight 0; 15 in full DAFormer, 0 in its DACS. They are meant
    for crops as high as the image."""
    ignore_bottom_px: int = 0
    """Rows at the bottom; 120 in full DAFormer, 0 in its DACS."""

    def __post_init__(self) -> None:
        require_share("teacher.ema_decay", self.ema_decay)
        require_share("teacher.confidence_threshold", self.confidence_threshold)
        require(
            min(self.ignore_top_px, self.ignore_bottom_px) >= 0,
            "teacher.ignore_*_px",
            "negative",
            ">= 0 rows",
        )


@dataclass(frozen=True)
class AugmentConfig:
    """Strong augmentation of the mixed images: colour jitter, then Gaussian blur (kornia 0.5.8's forms)."""

    jitter_probability: float = 0.8
    """Chance of the colour jitter; DACS and DAFormer: 0.8 (DAFormer's field of 0.2 is a threshold)."""
    jitter_strength: float = 0.2
    """Strength s of brightness, contrast, saturation and hue; DAFormer: 0.2, DACS: 0.25."""
    blur_probability: float = 0.5
    """Chance of the blur; DACS and DAFormer: 0.5."""
    blur_sigma: tuple[float, float] = (0.15, 1.15)
    """Range of the blur's sigma in pixels; DACS and DAFormer: (0.15, 1.15)."""
    draw_per: Literal["image", "batch"] = "batch"
    """One on/off draw and one set of parameters a batch for on/off (DAFormer), or for each image. The parameters
    themselves differ from image to image in both."""

    def __post_init__(self) -> None:
        require_share("augment.jitter_probability", self.jitter_probability)
        require_share("augment.blur_probability", self.blur_probability)
        require(0 <= self.jitter_strength <= 0.5, "augment.jitter_strength", self.jitter_strength, "0 to 0.5")
        require(
            0 < self.blur_sigma[0] <= self.blur_sigma[1],
            "augment.blur_sigma",
            self.blur_sigma,
            "0 < low <= high",
        )
