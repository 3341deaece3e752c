"""What tells StreetScenes' two domains apart: palettes, textures, light, lens and sensor, and how streets are built."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from .canvas import Color

Palette = tuple[Color, ...]


@dataclass(frozen=True)
class Style:
    """One domain."""

    palettes: dict[str, Palette]
    """Base colours of each material; one is drawn for each thing and varied by `spread`."""
    spread: int
    """Largest deviation of a thing's colour from its base, each channel."""
    grain: dict[int, tuple[int, int]]
    """Class id -> (amplitude of its texture in pixel values, size of its blotches in pixels at 256 rows)."""
    height_m: tuple[float, float]
    """Camera height."""
    horizon: tuple[float, float]
    """Row of the horizon as a share of the height."""
    road_m: tuple[float, float]
    """Half of the road's width."""
    sidewalk_m: tuple[float, float]
    building_m: tuple[float, float]
    """Height of buildings."""
    gap: float
    """Chance that a stretch beside the street has no building."""
    trees: float
    """Trees along each side, mean number."""
    traffic: float
    """Vehicles, mean number."""
    people: float
    """Pedestrians, mean number."""
    curve: float
    """Largest curvature."""
    real: bool
    """Whether haze, light, lens and sensor of a camera are applied."""


RENDERED = Style(
    palettes={
        "sky": ((90, 150, 230), (110, 170, 240), (150, 195, 245)),
        "cloud": ((240, 245, 250),),
        "road": ((84, 86, 96), (96, 98, 106), (74, 76, 86)),
        "mark": ((235, 235, 235), (240, 220, 90)),
        "sidewalk": ((176, 172, 168), (190, 180, 172), (160, 160, 164)),
        "terrain": ((110, 180, 70), (130, 190, 90), (150, 170, 80)),
        "building": (
            (206, 120, 90),
            (220, 190, 140),
            (170, 190, 210),
            (190, 90, 80),
            (230, 220, 200),
            (140, 150, 190),
        ),
        "window": ((60, 90, 140), (90, 130, 170), (40, 60, 100)),
        "wall": ((170, 150, 130), (150, 140, 150), (190, 170, 140)),
        "fence": ((130, 90, 60), (200, 200, 205), (90, 110, 90)),
        "pole": ((120, 124, 130), (90, 96, 100)),
        "light": ((40, 40, 44), (210, 170, 30)),
        "sign": ((40, 90, 200), (220, 40, 40), (240, 200, 30)),
        "vegetation": ((50, 140, 50), (70, 160, 60), (40, 120, 60), (90, 150, 40)),
        "trunk": ((100, 70, 45),),
        "skin": ((225, 175, 140), (140, 95, 70)),
        "cloth": (
            (200, 50, 50),
            (50, 80, 180),
            (230, 200, 60),
            (60, 160, 90),
            (230, 230, 230),
            (120, 60, 150),
        ),
        "car": ((200, 40, 40), (40, 80, 190), (240, 240, 240), (230, 180, 40), (60, 150, 90), (40, 40, 46)),
        "glass": ((70, 100, 130), (50, 70, 95)),
        "truck": ((235, 235, 230), (60, 110, 190), (200, 120, 40)),
        "bus": ((220, 60, 50), (240, 190, 40), (60, 130, 80)),
        "train": ((50, 90, 160), (200, 205, 210), (180, 40, 60)),
        "wheel": ((24, 24, 26),),
    },
    spread=14,
    grain={0: (7, 2), 1: (6, 3), 2: (5, 6), 3: (8, 3), 8: (26, 4), 9: (16, 3), 10: (3, 24)},
    height_m=(1.3, 1.6),
    horizon=(0.40, 0.46),
    road_m=(3.6, 5.6),
    sidewalk_m=(2.6, 5.0),
    building_m=(6.0, 15.0),
    gap=0.34,
    trees=3.8,
    traffic=3.6,
    people=2.2,
    curve=0.0012,
    real=False,
)

CAMERA = Style(
    palettes={
        "sky": ((196, 200, 204), (176, 184, 194), (214, 212, 206)),
        "cloud": ((226, 226, 224), (168, 172, 178)),
        "road": ((112, 106, 98), (98, 94, 90), (126, 118, 108)),
        "mark": ((196, 190, 178),),
        "sidewalk": ((128, 118, 106), (116, 108, 104), (142, 130, 114)),
        "terrain": ((116, 112, 74), (128, 112, 78), (98, 104, 66)),
        "building": ((132, 118, 102), (112, 104, 100), (152, 136, 114), (98, 84, 76), (140, 132, 126)),
        "window": ((56, 58, 60), (80, 80, 78), (148, 148, 144)),
        "wall": ((122, 112, 100), (104, 100, 94)),
        "fence": ((72, 66, 58), (112, 110, 106), (58, 62, 58)),
        "pole": ((86, 84, 80), (112, 108, 102)),
        "light": ((30, 32, 30), (52, 50, 40)),
        "sign": ((52, 76, 128), (150, 60, 52), (176, 156, 70), (190, 190, 184)),
        "vegetation": ((66, 78, 46), (86, 86, 48), (58, 64, 44), (104, 88, 50)),
        "trunk": ((66, 56, 46),),
        "skin": ((176, 136, 112), (112, 82, 66)),
        "cloth": ((46, 46, 52), (66, 62, 58), (92, 76, 62), (54, 62, 82), (122, 116, 108), (110, 50, 46)),
        "car": ((36, 38, 42), (72, 74, 78), (150, 150, 150), (196, 194, 190), (62, 66, 82), (92, 42, 40)),
        "glass": ((44, 48, 52), (86, 92, 96)),
        "truck": ((172, 168, 158), (96, 102, 112), (140, 118, 90)),
        "bus": ((166, 140, 60), (140, 66, 56), (170, 168, 160)),
        "train": ((150, 144, 122), (96, 106, 104), (122, 52, 52)),
        "wheel": ((30, 28, 28),),
    },
    spread=18,
    grain={0: (12, 5), 1: (12, 2), 2: (12, 3), 3: (12, 2), 8: (30, 2), 9: (22, 5), 10: (8, 40)},
    height_m=(1.1, 1.4),
    horizon=(0.38, 0.48),
    road_m=(3.0, 4.8),
    sidewalk_m=(2.2, 4.4),
    building_m=(7.0, 18.0),
    gap=0.28,
    trees=3.4,
    traffic=3.8,
    people=2.8,
    curve=0.0018,
    real=True,
)

STYLES = {"rendered": RENDERED, "camera": CAMERA}


def texture(image: NDArray[np.int32], label: NDArray[np.uint8], style: Style, rng: np.random.Generator) -> None:
    """Add each class's blotchy texture to the image [H,W,3] in place; one field of noise for each blotch size."""
    height, width = label.shape
    fields: dict[int, NDArray[np.int32]] = {}
    amplitude = np.zeros(256, np.int32)
    for class_id, (amount, blotch) in style.grain.items():
        size = max(1, blotch * height // 256)
        if size not in fields:
            fields[size] = _noise(height, width, size, rng)
        amplitude[:] = 0
        amplitude[class_id] = amount
        image += (fields[size] * amplitude[label] // 128)[..., None]


def _noise(height: int, width: int, blotch: int, rng: np.random.Generator) -> NDArray[np.int32]:
    """Smooth noise of -128..127 whose blotches are about so many pixels."""
    small = rng.integers(0, 256, (height // blotch + 2, width // blotch + 2), dtype=np.uint8)
    grown = Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(grown).astype(np.int32) - 128


def photograph(image: NDArray[np.int32], distance: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Haze, light, white balance, exposure, lens blur, vignette and sensor noise. int [H,W,3] -> uint8 [H,W,3]."""
    height, width = distance.shape
    # Haze: the share of the haze's colour grows with the distance (halves of metres), to at most 60 %.
    density = int(rng.integers(10, 80))
    share = np.minimum(distance.astype(np.int32) * density // 100, 154)[..., None]
    haze = np.array([int(rng.integers(150, 215))] * 3) + rng.integers(-14, 15, 3)
    image = (image * (256 - share) + haze * share) // 256
    # One side of the street is lit more than the other; white balance; exposure.
    lean = int(rng.integers(-40, 41))
    ramp = 256 + lean * (2 * np.arange(width, dtype=np.int32) - width) // width
    gains = rng.integers(226, 280, 3) * int(rng.integers(200, 290)) // 256
    image = image * ramp[None, :, None] // 256 * gains // 256
    # Low contrast about a middle gray.
    contrast = int(rng.integers(190, 257))
    image = np.clip((image - 110) * contrast // 256 + 110, 0, 255)
    rows = (2 * np.arange(height, dtype=np.int32) - height) * 256 // height
    columns = (2 * np.arange(width, dtype=np.int32) - width) * 256 // width
    radius = (rows[:, None] * rows[:, None] + columns[None, :] * columns[None, :]) // 512
    image = image * (256 - radius * int(rng.integers(30, 100)) // 256)[..., None] // 256
    blurred = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))
    if rng.integers(0, 3):
        blurred = blurred.filter(ImageFilter.BoxBlur(1))
    noise = rng.integers(0, 256, (3, height, width, 3), dtype=np.uint8).astype(np.int32).sum(axis=0) - 382
    strength = int(rng.integers(4, 20))
    return np.clip(np.asarray(blurred).astype(np.int32) + noise * strength // 256, 0, 255).astype(np.uint8)
