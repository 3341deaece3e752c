"""A preset is a function that returns a whole configuration; `PRESETS` names them for `--preset`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from .catalog import with_method
from .config import (
    Config,
    DataConfig,
    DatasetConfig,
    EvalConfig,
    LogConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    Recipe,
    unknown_name,
)
from .recipes import with_recipe, with_values

LABEL_BUDGETS = (0, 100, 200, 500, 1000)
"""Labeled Cityscapes images of the paper's Tables 1 and 2, and none."""


def _paper(source: str, target: str, labeled_count: int) -> Config:
    """ResNet-101 DeepLabV2, 512x512, batch 2+2+2, 40,000 steps: the paper's implementation details.

    Scored with the running statistics of training, as the paper's code and all that it compares with do; with those of
    the target (`--eval.statistics target`) the same weights score higher, and differences to the paper say nothing.
    """
    loss = LossConfig() if labeled_count else LossConfig(target_weight=0.0, intra_weight=0.0)
    config = Config(
        preset=f"{source}-cityscapes-{labeled_count}",
        data=DataConfig(
            source=DatasetConfig(spec=source),
            target=DatasetConfig(spec=target),
            labeled_count=labeled_count,
            workers=4,
        ),
        loss=loss,
        eval=EvalConfig(statistics="running"),
        log=LogConfig(every=50, preview_every=2000, checkpoint_every=2000),
    )
    return with_recipe(config, "paper")


def _full_resolution(source: str, target: str, labeled_count: int) -> Config:
    """The paper's training on crops of 1024x1024 of whole images; both data sets as HRDA sees them, scored in windows.

    Rare class sampling counts HRDA's 3000 pixels in the source's own labels, and four times as many in a crop as in
    one of half its height and width.
    """
    size, own = {"gta5": ((1440, 2560), (1052, 1914)), "synthia": ((1520, 2560), (760, 1280))}[source]
    enlarged = min(size[0] / own[0], size[1] / own[1]) ** 2  # the ratio is kept
    return with_values(
        _paper(source, target, labeled_count),
        {
            "data": {
                "source": DatasetConfig(spec=source, resize=size),
                "target": DatasetConfig(spec=target, resize=(1024, 2048)),
                "crop_size": (1024, 1024),
                "rare_class_min_px": round(3000 * enlarged),
                "rare_class_min_crop_px": 6000,
            },
            "eval": {"mode": "slide"},
        },
    )


def _hrda(source: str, target: str, labeled_count: int) -> Config:
    """MiT-B5 with DAFormer's head on crops of 1024x1024, seen by HRDA: the paper's Table 3.

    What the paper does not say is as HRDA's and MIC's public code have it (docs/tables.md). MiT's public weights are
    for research alone; `--model.backbone pvt_v2_b5` is the same network with free ones.
    """
    network: dict[str, Any] = {"backbone": "mit_b5", "head": "daformer", "dropout": 0.1}
    config = with_values(_full_resolution(source, target, labeled_count), {"model": network})
    return replace(config, method="iidm_hrda" if labeled_count else "hrda")


def _dinov2(source: str, target: str, labeled_count: int) -> Config:
    """DINOv2's ViT-B/14 (from timm) with a light head on crops of 1022x1022: both mixes, and hidden patches.

    As published adaptations of such networks have it: no feature distance, no second scale, a backbone that learns
    slowly (1e-5, its layers slower towards the image), 70 % of the patches of unlabeled images hidden, EMA 0.999.
    """
    values: dict[str, dict[str, Any]] = {
        "model": {"backbone": "timm:vit_base_patch14_dinov2.lvd142m", "head": "segformer", "dropout": 0.1},
        "data": {"crop_size": (1022, 1022)},
        "optim": {"lr": 1e-5, "head_lr_mult": 20.0, "layer_decay": 0.9},
        "mixing": {"hidden_block_px": 14},
    }
    return replace(with_values(_full_resolution(source, target, labeled_count), values), method="iidm_mic")


def _small(preset: str, source: str, target: str) -> Config:
    """What trains in minutes on 2 CPU cores: MobileNetV2 with logits every 4 pixels on crops of about 240x320.

    With SegFormer's head a step takes 1.3 times as long as with DeepLabV2's at stride 16, and what is thin is found: on
    cracks the IoU with 9 labels rose from 23 to 45 (benchmarks/NOTES.md).

    The thresholds of rare class sampling are lower than the paper's 3000 and 1500 pixels scaled by area (879, 439).
    """
    config = Config(
        preset=preset,
        max_steps=400,
        data=DataConfig(
            source=DatasetConfig(spec=source),
            target=DatasetConfig(spec=target),
            crop_size=(240, 320),
            rare_class_min_px=600,
            rare_class_min_crop_px=300,
        ),
        model=ModelConfig(backbone="mobilenet_v2", output_stride=32, head="segformer", dropout=0.1),
        optim=OptimConfig(lr=1e-3, head_lr_mult=2.0, warmup_steps=40),
        log=LogConfig(every=10, preview_every=200, checkpoint_every=200),
    )
    return with_recipe(config, "adapt")


def scenes() -> Config:
    """Built-in StreetScenes, rendered to camera, 20 labeled camera images; random start, no download.

    A random start needs many images in few minutes: half of the scenes' resolution, four crops a stream, ResNet-18
    (faster from scratch than MobileNetV2), one learning rate for backbone and head.
    """
    config = _small("scenes", "streetscenes-rendered", "streetscenes-camera")
    box = (144, 288)
    config = with_values(
        config,
        {
            "data": {
                "source": DatasetConfig(spec="streetscenes-rendered", resize=box),
                "target": DatasetConfig(spec="streetscenes-camera", resize=box),
                "labeled_count": 20,
                "crop_size": (128, 256),
                "source_batch": 4,
                "target_batch": 4,
                "unlabeled_batch": 4,
                "rare_class_min_px": 200,
                "rare_class_min_crop_px": 100,
            },
            "model": {"backbone": "resnet18", "weights": "none"},
            "optim": {"lr": 2e-3, "head_lr_mult": 1.0},
        },
    )
    return replace(config, max_steps=340)


def camvid_dusk() -> Config:
    """CamVid, day to dusk: 305 labeled day frames, 3 labeled and 43 unlabeled dusk frames; 16 more validate.

    A weaker jitter than the field's 0.2: brightness is added, and 65 % of the pixels of the dusk frames lie below 0.2
    of the pixel range (by day 27 %), so it often leaves a black picture beside a true label (benchmarks/NOTES.md).
    """
    config = _small("camvid-dusk", "camvid-day", "camvid-dusk")
    values: dict[str, dict[str, Any]] = {
        "data": {"labeled_count": 3, "labeled_choice": "even"},
        "augment": {"jitter_strength": 0.05},
    }
    return replace(with_values(config, values), max_steps=600)


def scenes_camvid() -> Config:
    """StreetScenes rendered to CamVid, 11 classes, 20 labeled CamVid frames."""
    config = _small("scenes-camvid", "streetscenes-rendered-camvid", "camvid")
    return with_values(config, {"data": {"labeled_count": 20, "labeled_choice": "even"}})


def folder() -> Config:
    """A user's own folders: say what they are with --data.source.* and --data.target.* or two TOML files."""
    return with_values(_small("folder", "folder", "folder"), {"data": {"labeled_count": None}})


PRESETS: dict[str, Callable[[], Config]] = {
    "scenes": scenes,
    "camvid-dusk": camvid_dusk,
    "scenes-camvid": scenes_camvid,
    "folder": folder,
    **{f"gta5-cityscapes-{n}": partial(_paper, "gta5", "cityscapes", n) for n in LABEL_BUDGETS},
    **{f"synthia-cityscapes-{n}": partial(_paper, "synthia", "cityscapes-16", n) for n in LABEL_BUDGETS},
    **{f"gta5-cityscapes-hrda-{n}": partial(_hrda, "gta5", "cityscapes", n) for n in LABEL_BUDGETS},
    **{f"synthia-cityscapes-hrda-{n}": partial(_hrda, "synthia", "cityscapes-16", n) for n in LABEL_BUDGETS},
    **{f"gta5-cityscapes-dinov2-{n}": partial(_dinov2, "gta5", "cityscapes", n) for n in LABEL_BUDGETS},
}
"""Preset name -> function. All of them are checked by a test, all paths come from the command line."""


def preset_config(name: str, recipe: Recipe | None = None, method: str | None = None) -> Config:
    """The configuration of a preset, with another recipe or method than its own if they are given.

    Raises: UserError with the nearest name for one that does not exist.
    """
    if name not in PRESETS:
        raise unknown_name("preset", name, PRESETS)
    config = replace(PRESETS[name](), preset=name)
    if recipe not in (None, config.recipe):  # a preset may have values of its own in its recipe
        config = with_recipe(config, recipe)
    return with_method(config, method or config.method)


def describe_presets() -> str:
    """One line a preset."""
    lines, width = [], max(map(len, PRESETS)) + 2
    for name, function in PRESETS.items():
        doc = (function.func if isinstance(function, partial) else function).__doc__ or ""
        lines.append(f"{name:{width}}{doc.splitlines()[0]}")
    return "\n".join(lines)
