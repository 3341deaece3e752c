"""Every value of a run, each with its unit, its source and what the public code of the field does.

The two recipes are in `recipes.py`, presets in `presets.py`, the command line in `cli.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from .types import UserError

Normalizer = Literal["sum", "pixels", "valid"]
PROFILE_WARMUP = 6
"""Steps before the first that `profile` records: a CUDA graph is captured in the fourth."""


def _require(condition: bool, name: str, value: object, need: str) -> None:
    if not condition:
        raise UserError(f"--{name.replace('_', '-')} must be {need}, not {value!r}.")


def _share(name: str, value: float) -> None:
    _require(0.0 <= value <= 1.0, name, value, "between 0 and 1")


@dataclass(frozen=True)
class DatasetConfig:
    """Which data set a domain is. A spec's own values stand where a field is left empty."""

    spec: str = "folder"
    """Name of a known data set (streetscenes-rendered, streetscenes-camera, gta5, synthia, cityscapes, camvid, ...),
    `folder`, or the path of a TOML file that describes a folder data set (see docs/own-data.md)."""
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
    Empty: the spec's, or the size on disk."""
    class_names: tuple[str, ...] = ()
    """Names of the classes in the order of their train ids (folder data sets)."""
    palette: tuple[str, ...] = ()
    """One colour per class as #rrggbb (folder data sets). Empty: a generated palette."""
    id_map: tuple[str, ...] = ()
    """`id:train_id` pairs, e.g. 7:0 8:1 255:255 (folder data sets). Empty: ids are train ids already, 255 ignored.
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
    labeled_count: int | None = 100
    """Labeled target images; the other training images are unlabeled. 0: none; empty: all of them are labeled."""
    labeled_choice: Literal["random", "even"] = "random"
    """`random`: the first `labeled_count` names of one shuffle by `split_seed`, so budgets are nested; `even`: evenly
    spaced in file order."""
    split_seed: int = 0
    """Seed of that shuffle; independent of `seed`, so that runs with other seeds share their split."""
    labeled_list: Path | None = None
    """Text file with the names of the labeled target images, one a line, in place of `labeled_count`."""
    unlabeled_list: Path | None = None
    """Text file with the names of the unlabeled target images. Empty: all that are not labeled."""
    source_list: Path | None = None
    """Text file with the names of the source images. Empty: all."""
    source_subset: float | None = None
    """Share of the source images (of `source_list`, where given) that is used: those nearest to the labeled target
    images by the shares of their classes, with some of every class. Reads the labels of those target images
    (`labeled_count`, `labeled_list`) even where no loss does. Empty: all (the paper). The idea is SDSS's (arXiv
    2205.00312), the distance this project's: see data/subset.py."""
    val_list: Path | None = None
    """Text file with the names of the validation images. Empty: the spec's validation split."""
    flip_probability: float = 0.5
    """Chance of a horizontal flip; DAFormer: 0.5."""
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
    """Open every image and label header and fully decode a sample of them before the first step."""
    skip_damaged: bool = False
    """Draw another image where one cannot be read, in place of a stop; each process names each once. Validation images
    are never skipped."""

    def __post_init__(self) -> None:
        _require(min(self.crop_size) >= 16, "data.crop_size", self.crop_size, "at least 16 x 16 pixels")
        for name in ("source_batch", "target_batch", "unlabeled_batch", "crop_tries", "prefetch"):
            _require(getattr(self, name) >= 1, f"data.{name}", getattr(self, name), "at least 1")
        _require(
            self.labeled_count is None or self.labeled_count >= 0,
            "data.labeled_count",
            self.labeled_count,
            ">= 0",
        )
        _require(
            self.source_subset is None or 0 < self.source_subset <= 1,
            "data.source_subset",
            self.source_subset,
            "more than 0 and at most 1",
        )
        _require(self.workers >= 0, "data.workers", self.workers, ">= 0")
        _require(self.rare_class_temperature > 0, "data.rare_class_temperature", self.rare_class_temperature, "> 0")
        _share("data.flip_probability", self.flip_probability)
        _share("data.max_class_share", self.max_class_share)


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
        _require(len(self.dilations) >= 1, "model.dilations", self.dilations, "one dilation or more")
        _share("model.dropout", self.dropout)


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
        _require(self.lr > 0, "optim.lr", self.lr, "> 0")
        _require(self.warmup_steps >= 0, "optim.warmup_steps", self.warmup_steps, ">= 0")


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
    auxiliary_weight: float = 0.0
    """Factor of a method's further term (--list-methods says which it is); IIDM has none."""

    def __post_init__(self) -> None:
        weights = {n: getattr(self, n) for n in ("source_weight", "target_weight", "inter_weight", "intra_weight")}
        for name, value in {**weights, "auxiliary_weight": self.auxiliary_weight}.items():
            _require(value >= 0, f"loss.{name}", value, ">= 0")
        if not any(weights.values()):
            raise UserError("All four loss weights are 0: nothing would be learned. Give at least one --loss.*-weight.")


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

    def __post_init__(self) -> None:
        _share("mixing.mask_probability", self.mask_probability)
        low, high = self.cut_area
        _require(0 < low <= high <= 1, "mixing.cut_area", self.cut_area, "0 < low <= high <= 1")
        _require(self.intra_views >= 1, "mixing.intra_views", self.intra_views, "at least 1")
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
    weighting: Literal["quality", "confident"] = "quality"
    """Loss weight of a pseudo-labeled pixel: its image's quality (paper eq. 7), or 1 where its own confidence exceeds
    the threshold and 0 elsewhere (FixMatch, UniMatch)."""
    confidence_threshold: float = 0.968
    """tau; paper, DACS, DAFormer: 0.968."""
    comparison: Literal[">", ">="] = ">"
    """A pixel counts as confident when its confidence is > tau (paper eq. 6) or >= tau (DACS, DAFormer)."""
    quality_per: Literal["image", "batch"] = "image"
    """q of each image (paper eq. 6), or one of the batch (DACS, DAFormer)."""
    ignore_top_px: int = 0
    """Rows at the top of the crop whose pseudo-labels get weight 0; 15 in full DAFormer, 0 in its DACS."""
    ignore_bottom_px: int = 0
    """Rows at the bottom; 120 in full DAFormer, 0 in its DACS."""

    def __post_init__(self) -> None:
        _share("teacher.ema_decay", self.ema_decay)
        _share("teacher.confidence_threshold", self.confidence_threshold)
        _require(
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
        _share("augment.jitter_probability", self.jitter_probability)
        _share("augment.blur_probability", self.blur_probability)
        _require(0 <= self.jitter_strength <= 0.5, "augment.jitter_strength", self.jitter_strength, "0 to 0.5")
        _require(
            0 < self.blur_sigma[0] <= self.blur_sigma[1],
            "augment.blur_sigma",
            self.blur_sigma,
            "0 < low <= high",
        )


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
        _require(self.accumulate >= 1, "step.accumulate", self.accumulate, "at least 1")
        if self.compile and self.recompute:
            raise UserError("--step.compile and --step.recompute do not go together; give one of them.")


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
        _require(self.every >= 1, "log.every", self.every, "at least 1")
        _require(self.keep_checkpoints >= 1, "log.keep_checkpoints", self.keep_checkpoints, "at least 1")


@dataclass(frozen=True)
class Config:
    """A whole run."""

    preset: str = "scenes"
    """Where the values came from; see --list-presets."""
    method: str = "iidm"
    """Which losses are on; see --list-methods."""
    recipe: Literal["paper", "daformer"] = "paper"
    """Values for the points where the paper is silent: its equations as written, or the inherited code's behaviour."""
    source_root: Path | None = None
    """Folder of the source data set."""
    target_root: Path | None = None
    """Folder of the target data set."""
    run_dir: Path | None = None
    """Folder of the run; empty: runs/<preset>-<method>-<time>."""
    max_steps: int = 40_000
    """Training steps; paper: 40,000."""
    seed: int = 0
    """Seed of weights, data order, crops, class draws and augmentation."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: the GPU where there is one."""
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
    log: LogConfig = field(default_factory=LogConfig)
    """Logs, pictures and checkpoints."""

    def __post_init__(self) -> None:
        _require(self.max_steps >= 1, "max_steps", self.max_steps, "at least 1")
        most = max(self.max_steps - PROFILE_WARMUP, 0)
        need = f"0 to {most} (--max-steps {self.max_steps}, of which the first {PROFILE_WARMUP} warm up)"
        _require(0 <= self.profile <= most, "profile", self.profile, need)
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
        alone = self.data.unlabeled_batch < 2 and self.mixing.intra_from == "unlabeled" and self.mixing.mask != "none"
        if alone and self.loss.intra_weight > 0:
            raise UserError(
                "Unlabeled images are pasted onto each other (--mixing.intra-from unlabeled), and"
                " --data.unlabeled-batch is 1; give 2 or more."
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
        unlabeled=inter or intra or loss.auxiliary_weight > 0,
    )


def unknown_name(what: str, name: str, known: Any) -> UserError:
    """The error for a name that is not in `known`, with the nearest one that is."""
    from difflib import get_close_matches

    near = get_close_matches(name, list(known), n=1, cutoff=0.4)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UserError(f"There is no {what} {name!r}.{hint} Known: {', '.join(sorted(known))}.")
