"""Tiny images and labels for the campaign: three classes that a network learns in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("ground", "wall", "sky")
COLORS = ((90, 80, 70), (180, 120, 60), (110, 160, 220))
SIZE = (48, 64)
"""(H, W) of every image."""
SETS = {"source/train": ("s", 4, ".jpg"), "target/train": ("t", 5, ".png"), "target/val": ("v", 2, ".png")}
"""DOMAIN/SPLIT: what its names begin with, how many there are, the ending of images."""


def write_data(root: Path) -> Path:
    """ROOT/{source,target}/{images,labels}/{train,val}: noise on sky over a wall over ground;
    beside them a TOML file each."""
    for number, (where, (letter, count, ending)) in enumerate(SETS.items()):
        domain, split = where.split("/")
        for i in range(count):
            rng = np.random.default_rng([number, i])
            label = np.zeros(SIZE, np.uint8)
            label[: SIZE[0] * 2 // 3] = 1
            label[: SIZE[0] // 3, : SIZE[1] // 2 + rng.integers(0, SIZE[1] // 2)] = 2
            noise = rng.integers(-30, 31, (*SIZE, 3))
            image = (np.asarray(COLORS, np.int64)[label] + noise).clip(0, 255).astype(np.uint8)
            for kind, array, end in (("images", image, ending), ("labels", label, ".png")):
                path = root / domain / kind / split / f"{letter}{i}{end}"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
    write_descriptions(root)
    return root


def write_descriptions(root: Path) -> None:
    """ROOT/source.toml and ROOT/target.toml, which describe the two as data sets of one's own."""
    classes = "".join(
        f'\n[[classes]]\nname = "{name}"\ncolor = "#{bytes(color).hex()}"\nids = [{number}]\n'
        for number, (name, color) in enumerate(zip(CLASSES, COLORS, strict=True))
    )
    where = 'images = "images/{split}"\nlabels = "labels/{split}"\n'
    for domain in ("source", "target"):
        (root / f"{domain}.toml").write_text(where + classes)


def options(root: Path) -> list[str]:
    """Words for iidm.train: the data, and how small all is."""
    words = ["--preset", "folder"]
    for domain in ("source", "target"):
        words += [f"--data.{domain}.spec", str(root / f"{domain}.toml"), f"--{domain}-root", str(root / domain)]
    words += "--data.labeled-count 2 --data.crop-size 32 32 --data.rare-class-min-px 60".split()
    words += "--data.rare-class-min-crop-px 30 --model.backbone mobilenet_v2 --model.output-stride 16".split()
    words += "--model.weights none --optim.warmup-steps 2 --eval.statistics-crops 2".split()
    return words
