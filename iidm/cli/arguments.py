"""What the commands beside `train` are told: a dataclass each, whose docstrings are its help.

`Default:` in a text says what happens without the option, where the default itself (None, empty) tells nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ..config import DatasetConfig
from .train_words import parse_config
from .words import expanded, parse_arguments, program


@dataclass(frozen=True)
class InspectArguments:
    """Tell what is in folders of images and labels, and write the file that describes them. For example: iidm inspect
    photos export --write camera.toml"""

    folders: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER...")]
    """Folders with images and labels. One without images belongs to the one before it."""
    write: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE.toml...")] = ()
    """Files to write, one a data set: source, then target. A contact sheet with the ending .png lies beside each."""
    force: bool = False
    """Overwrite files that exist."""


@dataclass(frozen=True)
class PredictArguments:
    """Label images and videos with a trained run. For example: iidm predict runs/first photos --out results"""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Images, videos, or folders of them (docs/predict.md)."""
    out: Path
    """Folder for the results."""
    network: Literal["student", "teacher"] = "teacher"
    """Which network: the student that was trained, or the teacher, its mean over the last steps."""
    write: tuple[Literal["ids", "color", "overlay", "confidence", "probabilities"], ...] = ("ids", "color", "overlay")
    """What to write of each image. `ids`: a PNG whose values are the classes' numbers; `color`: their colours;
    `overlay`: these over the image; `confidence`: a gray PNG, 255 times the probability of the class;
    `probabilities`: a .npz with those of all classes, float16 [K,H,W]."""
    ids: Literal["train", "dataset"] = "train"
    """The numbers in `ids`: those of the network's outputs, with the classes' colours as palette; or the data set's
    own, e.g. Cityscapes' for its server, as gray."""
    annotations: tuple[Literal["coco", "labelme", "cvat"], ...] = ()
    """Annotation files of the images for labeling tools, in the folder `annotations` of the results."""
    tolerance_px: float = 1.0
    """Of --annotations: how many pixels the border of a polygon may be from that of the label."""
    least_region_px: int = 32
    """Of --annotations: regions of fewer pixels go to a neighbour."""
    every: int = 1
    """Of a video: label every N-th frame only."""
    frames: bool = False
    """Of a video: write what --write names for each frame too, into a folder with the video's name."""
    jobs: int | None = None
    """Images at work at once. Default: one a core, 8 at most."""
    mode: Literal["whole", "slide"] | None = None
    """How the network sees an image: `whole`, or in overlapping windows. Default: as the run's configuration says, but
    in windows where it would see more than 8 megapixels at once."""
    window: tuple[int, int] | None = None
    """Window (H, W) in pixels of the image at training resolution. Default: the run's, else its training crop."""
    stride: tuple[int, int] | None = None
    """Pixels from one window to the next, down and to the right. Default: the run's, else half the window."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: the GPU where there is one."""
    precision: Literal["run", "float32", "amp"] = "run"
    """`run`: as it was trained; `amp`: bfloat16 or float16, whichever the device has."""


@dataclass(frozen=True)
class EvaluateArguments:
    """Score a trained run on labeled images: its own validation images, or others (--images, --labels)."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    images: Path | None = None
    """Folder of images to score in place of the run's validation images; needs --labels."""
    labels: Path | None = None
    """Their labels, in the ids, colours or names of the run's target data set: a folder of label pictures, matched by
    file stem, or of LabelMe JSON files, a COCO .json or a CVAT .xml file."""
    network: Literal["student", "teacher", "both"] = "both"
    """Which network: the student that was trained, or the teacher, its mean over the last steps."""
    statistics: Literal["saved", "target"] = "saved"
    """BatchNorm statistics: as saved, or those of plain target images, for runs that were saved with their training's
    (--eval.statistics running, and all before iidm had that option)."""
    mode: Literal["whole", "slide"] | None = None
    """How the network sees an image: `whole`, or in overlapping windows. Default: as the run's configuration says."""
    window: tuple[int, int] | None = None
    """Window (H, W) in pixels of the image at training resolution. Default: the run's, else its training crop."""
    stride: tuple[int, int] | None = None
    """Pixels from one window to the next, down and to the right. Default: the run's, else half the window."""
    json: bool = False
    """Print JSON in place of the table."""
    target_root: Path | None = None
    """Where the target data set lies now, if it moved since the run."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: the GPU where there is one."""
    precision: Literal["run", "float32", "amp"] = "run"
    """`run`: as it was trained; `amp`: bfloat16 or float16, whichever the device has."""


@dataclass(frozen=True)
class ReportArguments:
    """Write one HTML file that tells a person about a trained run, or sets several side by side."""

    run: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")]
    """Folders of runs, finished or not."""
    out: Path | None = None
    """File to write. Default: RUN/report.html; of several runs report.html in this folder."""
    network: Literal["student", "teacher"] = "student"
    """Whose weak classes, mistakes and images are shown; the scores are of both."""
    pictures: int | None = None
    """How many of the worst and of the best validation images of a run are shown. Default: 4, of several runs 2."""
    evaluate: bool = True
    """Evaluate the networks on the validation images, once; RUN/report.json keeps what was counted."""
    source_root: Path | None = None
    """Where the source data set lies now, if it moved since the run."""
    target_root: Path | None = None
    """The same of the target."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: the GPU where there is one."""


@dataclass(frozen=True)
class SelectArguments:
    """Choose the images that are worth labeling next. For example: iidm select runs/first --count 20"""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    count: int
    """How many images to choose."""
    out: Path | None = None
    """Folder for the lists, the copies and the contact sheet. Default: RUN/label-next."""
    images: tuple[Path, ...] = ()
    """Images, or folders of images, to choose from. Default: the run's target images without label."""
    strategy: Literal["select", "uncertainty", "random", "even"] = "select"
    """`select`: images that cover most of what the networks are unsure of and no labeled image shows, rare classes
    first; `uncertainty`: the most uncertain ones, however alike; `random`, and `even` (evenly spaced by name), to
    compare with."""
    seed: int = 0
    """Of --strategy random."""
    annotations: Literal["run", "coco", "labelme", "cvat", "none"] = "run"
    """Form of the teacher's labels of the chosen images, for a labeling tool. `run`: that of the run's own labels, COCO
    where they are pictures."""
    target_root: Path | None = None
    """Where the target data set lies now, if it moved since the run."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: the GPU where there is one."""
    precision: Literal["run", "float32", "amp"] = "run"
    """`run`: as it was trained; `amp`: bfloat16 or float16, whichever the device has."""


@dataclass(frozen=True)
class ExportArguments:
    """Write a trained network as one file that needs no iidm. docs/export.md shows a program that uses it."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    format: Literal["onnx", "torch"] = "onnx"
    """`onnx`: for onnxruntime, TensorRT, OpenVINO and others (needs `pip install 'iidm[export]'`); `torch`: a .pt2 file
    for torch.export.load."""
    out: Path | None = None
    """File to write. Default: RUN/exports/NETWORK.onnx or .pt2. Of several precisions the others get their name before
    the ending: camera-int8.onnx."""
    size: tuple[int, int] | None = None
    """Size (H, W) of the images. Default: any; an HRDA network and windows need one. One size is written faster."""
    precision: tuple[Literal["fp32", "fp16", "int8"], ...] = ("fp32",)
    """One file for each. `fp16`: half the size, for GPUs; `int8`: a quarter, calibrated on target images of the run."""
    network: Literal["student", "teacher"] = "teacher"
    """Which network: the student that was trained, or the teacher, its mean over the last steps."""
    ids: Literal["train", "dataset"] = "train"
    """Ids that come out: `train`: the classes' places, 0, 1, ...; `dataset`: those of the data set's label files."""
    confidence: bool = False
    """A second output: the largest class probability of each pixel."""
    mode: Literal["whole", "slide"] | None = None
    """How the network sees an image: `whole`, or in overlapping windows. Default: as the run's configuration says."""
    window: tuple[int, int] | None = None
    """Window (H, W) in pixels of the image at training resolution. Default: the run's, else its training crop."""
    stride: tuple[int, int] | None = None
    """Pixels from one window to the next, down and to the right. Default: the run's, else half the window."""
    images: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="PATH...")] = ()
    """Images, or folders of images, to check the files on. Default: the run's validation images."""
    labels: Path | None = None
    """Their labels, as for iidm evaluate; --images then names one folder."""
    count: int = 20
    """How many images to check on at most, evenly spaced."""
    target_root: Path | None = None
    """Where the target data set lies now, if it moved since the run."""


@dataclass(frozen=True)
class PrepareArguments:
    """Decode and resize a data set once, so that training reads it at full speed. For example: iidm prepare camera.toml
    --out prepared/camera"""

    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")] = ""
    """Name of a known data set (gta5, synthia, cityscapes, cityscapes-16, camvid, camvid-day, camvid-dusk, ...),
    `folder`, or the path of a TOML file that describes one (docs/own-data.md)."""
    root: Path | None = None
    """Folder of the data set as it was downloaded. Not needed for streetscenes-rendered and streetscenes-camera."""
    out: Path | None = None
    """Folder to write: a new one, an empty one, or that of an earlier call of the same command, which goes on."""
    format: Literal["raw", "jpeg", "png"] = "raw"
    """`raw`: uint8 arrays, of which only the crop is read; `jpeg`: quality 95 at 4:4:4, a sixteenth of it, decoded
    by a GPU where there is one; `png`: lossless, the slowest."""
    splits: tuple[Literal["train", "val"], ...] = ()
    """Which splits. Default: all that the data set has."""
    jobs: int | None = None
    """Processes at work. Default: one a core."""
    shard: Annotated[str, tyro.conf.arg(metavar="I/N")] = ""
    """Prepare a part of the images: `2/4` on the second of four machines that share the folder --out. The last one that
    ends completes it."""
    skip_damaged: bool = False
    """Leave damaged images out in place of an error; prepared.json names them."""
    check: Path | None = None
    """Read all of a prepared folder and name every file that is damaged or does not fit; prepares nothing."""
    data: DatasetConfig = field(default_factory=DatasetConfig)
    """What a data set is whose DATASET is `folder`, and --data.resize H W for any."""


@dataclass(frozen=True)
class StudyArguments:
    """Train many runs and make one table of them: the tables of the paper, or a grid of your own. Options of iidm train
    for every run stand after a `--`. For example: iidm study table4 --out studies/scenes -- --amp"""

    study: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="STUDY")] = ""
    """table1 to table7, budget (--list tells them), or the path of a TOML file (docs/studies.md)."""
    out: Path | None = None
    """Folder of the study; several studies may share one, and then share their runs."""
    preset: str | None = None
    """Preset of iidm train that every run starts from. Default: the study's own."""
    budgets: tuple[int, ...] = ()
    """Labeled target images, the columns of the table. Default: the study's; with another preset than its own, that
    preset's number; of `budget`, five up to all labels."""
    seeds: int = 3
    """Runs of each cell: seeds 0, 1, ..."""
    steps: int | None = None
    """Training steps of each run. Default: the preset's."""
    on: Literal["here", "ray"] = "here"
    """`ray`: on all machines of the Ray cluster that this one belongs to, with --out in a folder that they share. Needs
    `pip install 'iidm[cluster]'`, `ray start --head` here, `ray start --address=THIS-MACHINE:6379` on the others."""
    jobs: int | None = None
    """Runs at once: each has a GPU of its own, or on a CPU an equal share of the cores. Default: 1; with --on ray as
    many as it has GPUs, or machines where none has one."""
    runs_per_gpu: int = 1
    """Runs that share a GPU."""
    retries: int = 2
    """How often a run goes on from its last checkpoint after it was killed, or the machine that it ran on died."""
    strips: tuple[str, ...] = ()
    """Names of the validation images that the pictures show. Default: four, evenly spaced."""
    keep_checkpoints: bool = False
    """Keep the checkpoints of finished runs."""
    dry_run: bool = False
    """Say which runs there are and which are done; run nothing."""
    report_only: bool = False
    """Write tables and pictures of what is done; run nothing."""
    list: bool = False
    """Say which studies come with iidm."""


def parse_study(argv: Sequence[str]) -> tuple[StudyArguments, list[str]]:
    """The words of `study`, and those for each of its runs, which stand after a `--`."""
    words = list(argv)
    cut = words.index("--") if "--" in words else len(words)
    try:
        arguments = parse_arguments(StudyArguments, "study", words[:cut])
    except SystemExit as end:
        if end.code and cut == len(words):
            example = f"{program('study')} table4 --out DIR -- --amp"
            print(f"iidm: options of iidm.train stand after a --, as in: {example}", file=sys.stderr)
        raise
    return arguments, expanded(words[cut + 1 :], "train")


PARSERS: dict[str, Callable[[Sequence[str]], Any]] = {
    "inspect": partial(parse_arguments, InspectArguments, "inspect"),
    "train": parse_config,
    "predict": partial(parse_arguments, PredictArguments, "predict"),
    "evaluate": partial(parse_arguments, EvaluateArguments, "evaluate"),
    "report": partial(parse_arguments, ReportArguments, "report"),
    "select": partial(parse_arguments, SelectArguments, "select"),
    "export": partial(parse_arguments, ExportArguments, "export"),
    "prepare": partial(parse_arguments, PrepareArguments, "prepare"),
    "study": parse_study,
}
"""Command -> what reads its words. It imports nothing that takes seconds, and ends the process where the words ask for
help or are wrong."""
