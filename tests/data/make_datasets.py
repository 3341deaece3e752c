"""Writers of tiny data sets, file by file as the official downloads are: folders, names and label encodings.

Each writer takes the folder to write to and returns what it wrote: the ids of each label, by sample name.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Ids = NDArray[np.uint8]

GTA5_IDS = range(35)
CITYSCAPES_IDS = (*range(34), 255)
SYNTHIA_IDS = range(23)
CAMVID_IDS = range(12)
SIZE = (30, 52)
"""(H, W) of the images unless said otherwise: odd enough that a swapped axis shows."""


TURN_BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How an upright picture is stored so that the orientation shows it upright."""


def random_ids(ids: Iterable[int], size: tuple[int, int], seed: int) -> Ids:
    """Blocks of 2x2 pixels of random ids, among which every id occurs (the size must allow it)."""
    values = np.array(list(ids), np.uint8)
    rng = np.random.default_rng(seed)
    height, width = (-(-side // 2) for side in size)
    blocks = np.resize(rng.permutation(values), height * width)
    assert height * width >= len(values)
    rng.shuffle(blocks)
    return blocks.reshape(height, width).repeat(2, 0).repeat(2, 1)[: size[0], : size[1]]


def random_image(size: tuple[int, int], seed: int) -> NDArray[np.uint8]:
    """uint8 [H,W,3] of smooth random colours."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 6, 3), dtype=np.uint8))
    return np.asarray(small.resize((size[1], size[0]), Image.Resampling.BICUBIC))


def save_image(path: Path, size: tuple[int, int], seed: int) -> None:
    """A PNG or JPEG photograph stand-in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Written in a quarter of the time at the lowest level, and read as any other; of PNG alone.
    Image.fromarray(random_image(size, seed)).save(path, compress_level=1)


def save_gray(path: Path, ids: Ids) -> None:
    """8-bit gray PNG of ids."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids).save(path)


def save_palette(path: Path, ids: Ids, seed: int = 0) -> None:
    """Palette PNG whose indices are the ids; its colours are unrelated to them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.frombytes("P", ids.shape[::-1], ids.tobytes())
    image.putpalette(np.random.default_rng(seed).integers(0, 256, 768).tolist())
    image.save(path)


def save_png16(path: Path, pixels: NDArray[np.uint16]) -> None:
    """16-bit PNG of uint16 [H,W,3] (RGB), which Pillow cannot write; filters None, Sub and Up."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width, channels = pixels.shape
    assert channels == 3
    lines = pixels.astype(">u2").reshape(height, -1).view(np.uint8)
    rows = []
    for y in range(height):
        kind = y % 3
        line = lines[y].astype(np.int16)
        if kind == 1:  # Sub: minus the pixel to the left, six bytes away
            line[6:] -= lines[y, :-6]
        elif kind == 2:  # Up: minus the pixel above
            line -= lines[y - 1]
        rows.append(bytes([kind]) + (line & 255).astype(np.uint8).tobytes())

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"".join(rows))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def write_gta5(root: Path, count: int = 3, size: tuple[int, int] = SIZE) -> dict[str, Ids]:
    """images/00001.png and labels/00001.png, palette indices 0 to 34."""
    written = {}
    for i in range(1, count + 1):
        name, ids = f"{i:05d}", random_ids(GTA5_IDS, size, i)
        save_image(root / "images" / f"{name}.png", size, i)
        save_palette(root / "labels" / f"{name}.png", ids, i)
        written[name] = ids
    return written


def write_synthia(root: Path, count: int = 3, size: tuple[int, int] = SIZE) -> dict[str, Ids]:
    """RGB/0000000.png and GT/LABELS/0000000.png: 16-bit, id in red, instance numbers in green."""
    written = {}
    for i in range(count):
        name, ids = f"{i:07d}", random_ids(SYNTHIA_IDS, size, i)
        instances = np.random.default_rng(i).integers(0, 65536, size)
        save_image(root / "RGB" / f"{name}.png", size, i)
        channels = np.stack([ids, instances, np.zeros_like(ids)], axis=-1)
        save_png16(root / "GT" / "LABELS" / f"{name}.png", channels.astype(np.uint16))
        written[name] = ids
    return written


def write_cityscapes(
    root: Path, train: int = 4, val: int = 2, size: tuple[int, int] = SIZE
) -> dict[str, dict[str, Ids]]:
    """leftImg8bit and gtFine with city folders, and beside the labels the files that are none."""
    written: dict[str, dict[str, Ids]] = {"train": {}, "val": {}}
    cities = {"train": ("aachen", "bochum"), "val": ("frankfurt",)}
    for split, count in (("train", train), ("val", val)):
        for i in range(count):
            city = cities[split][i % len(cities[split])]
            name, ids = f"{city}/{city}_{i:06d}_000019", random_ids(CITYSCAPES_IDS, size, i)
            save_image(root / "leftImg8bit" / split / f"{name}_leftImg8bit.png", size, i)
            save_gray(root / "gtFine" / split / f"{name}_gtFine_labelIds.png", ids)
            save_gray(root / "gtFine" / split / f"{name}_gtFine_instanceIds.png", np.zeros_like(ids))
            (root / "gtFine" / split / f"{name}_gtFine_polygons.json").write_text("{}")
            written[split][name] = ids
    return written


def write_camvid(
    root: Path, names: Sequence[str], split: str = "train", size: tuple[int, int] = SIZE
) -> dict[str, Ids]:
    """images/<split>/*.jpg and labels/<split>/*.png, 8-bit ids 0 to 11."""
    return write_folder(root, [f"{split}/{name}" for name in names], CAMVID_IDS, size)


def write_scene_folders(
    root: Path, domain: str, split: str, count: int, size: tuple[int, int] = SIZE
) -> dict[str, Ids]:
    """<domain>/images/<split>/*.png and <domain>/labels/<split>/*.png, 8-bit train ids."""
    names = [f"{split}/{i:05d}" for i in range(count)]
    return write_folder(root / domain, names, (*range(19), 255), size, ending=".png")


def write_folder(
    root: Path, names: Sequence[str], ids: Iterable[int], size: tuple[int, int] = SIZE, ending: str = ".jpg"
) -> dict[str, Ids]:
    """images/<name>.jpg and labels/<name>.png, 8-bit gray; a name may have folders."""
    values, written = tuple(ids), {}
    for i, name in enumerate(names):
        label = random_ids(values, size, i)
        save_image(root / "images" / f"{name}{ending}", size, i)
        save_gray(root / "labels" / f"{name}.png", label)
        written[name] = label
    return written
