"""The loaders to compare with: torch.utils.data.DataLoader over Pillow, as the public code of the field reads its data.

What a sample goes through is DAFormer's and mmsegmentation's list: decode image and label at full size, resize both to
the training resolution, up to ten random crops for rare class sampling and for at most 75 % of one class, flip,
normalize to float32 [3,H,W], label to int64. It is at its best: the crop is searched in the decoded label (DAFormer
decodes the image anew for each of its ten tries), and the loader has all its options (a process a core, persistent,
pinned memory).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from iidm.data.prepared.entries import INDEX, read_index
from iidm.data.specs.known import CITYSCAPES_IDS
from iidm.types import MEAN_RGB, STD_RGB

CROP = 512
TRIES, MAX_SHARE, MIN_CLASS_PX = 10, 0.75, 1500
SIZES = {"gta5": (704, 1280), "cityscapes": (512, 1024)}
Kind = Literal["png", "prepared", "prepared-uint8"]

_LOOKUP = np.full(256, 255, np.uint8)
for _id, _train_id in CITYSCAPES_IDS.items():
    _LOOKUP[_id] = _train_id


class Crops(Dataset[Any]):
    """A source crop, a labeled target crop and an unlabeled one.

    Args:
        gta5, cityscapes: where they lie, as downloaded or prepared as raw.
        kind: `png`; `prepared`: the same work after reading the crop from the prepared arrays; `prepared-uint8`: that
            without normalization and casts, as this project's loader leaves them to the fused ops.
    """

    def __init__(self, gta5: Path, cityscapes: Path, kind: Kind) -> None:
        self.kind = kind
        self.source = _files(gta5, kind)
        self.target = _files(cityscapes, kind)

    def __len__(self) -> int:
        return 1 << 30

    def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
        rng = np.random.default_rng(index)
        source = self.source[rng.integers(len(self.source))]
        target, unlabeled = (self.target[rng.integers(len(self.target))] for _ in range(2))
        return (
            *self.crop(*source, SIZES["gta5"], rng, wanted=int(rng.integers(19))),
            *self.crop(*target, SIZES["cityscapes"], rng),
            self.crop(unlabeled[0], None, SIZES["cityscapes"], rng)[0],
        )

    def crop(
        self, image_path: Path, label_path: Path | None, size: tuple[int, int], rng: Any, wanted: int | None = None
    ) -> tuple[torch.Tensor, ...]:
        """Image, and label where there is one, of one crop."""
        image, label = self.read(image_path, size), None if label_path is None else self.read_label(label_path, size)
        window = None
        for _ in range(TRIES if wanted is not None else 1):
            y, x = (int(rng.integers(side - CROP + 1)) for side in size)
            window = (slice(y, y + CROP), slice(x, x + CROP))
            if label is None or wanted is None:
                break
            ids, counts = np.unique(label[window], return_counts=True)
            shares = counts[ids != 255] / max(1, counts[ids != 255].sum())
            if len(shares) > 1 and shares.max() < MAX_SHARE and counts[ids == wanted].sum() > MIN_CLASS_PX:
                break
        assert window is not None
        parts = [image[window]] + ([] if label is None else [label[window]])
        if rng.random() < 0.5:
            parts = [part[:, ::-1] for part in parts]
        if self.kind == "prepared-uint8":
            return tuple(torch.from_numpy(np.ascontiguousarray(part)) for part in parts)
        normalized = (parts[0].astype(np.float32) - np.float32(MEAN_RGB)) / np.float32(STD_RGB)
        tensors = [torch.from_numpy(np.ascontiguousarray(normalized.transpose(2, 0, 1)))]
        return (*tensors, *(torch.from_numpy(part.astype(np.int64)) for part in parts[1:]))

    def read(self, path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
        """uint8 [H,W,3] at training resolution."""
        if self.kind != "png":
            return np.load(path, mmap_mode="r")
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB").resize(size[::-1], Image.Resampling.BILINEAR))

    def read_label(self, path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
        """uint8 [H,W] train ids at training resolution."""
        if self.kind != "png":
            return np.load(path, mmap_mode="r")
        with Image.open(path) as ids:
            return _LOOKUP[np.asarray(ids.resize(size[::-1], Image.Resampling.NEAREST))]


def _files(root: Path, kind: Kind) -> list[tuple[Path, Path]]:
    """Images and labels."""
    if kind != "png":
        stems = [f"{entry.split}/{entry.name}.npy" for entry in read_index(root / INDEX)]
        return [(root / "images" / stem, root / "labels" / stem) for stem in stems]
    if (root / "labels").exists():
        return [(path, root / "labels" / path.name) for path in sorted((root / "images").glob("*.png"))]
    images = sorted(root.glob("leftImg8bit/train/*/*.png"))
    pair = ("leftImg8bit", "gtFine"), ("_leftImg8bit", "_gtFine_labelIds")
    return [(p, Path(str(p).replace(*pair[1]).replace(*pair[0], 1))) for p in images]


def batches(gta5: Path, cityscapes: Path, kind: Kind, workers: int, device: torch.device) -> Iterator[Any]:
    """Batches of 2 + 2 + 2 crops on `device`, for ever."""
    loader = DataLoader(
        Crops(gta5, cityscapes, kind),
        batch_size=2,
        num_workers=workers,
        persistent_workers=True,
        prefetch_factor=4,
        pin_memory=device.type == "cuda",
        multiprocessing_context="spawn" if device.type == "cuda" else None,
    )
    for batch in loader:
        yield [tensor.to(device, non_blocking=True) for tensor in batch]
