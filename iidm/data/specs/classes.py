"""Label spaces: class names and colours of the data sets that are known by name."""

from __future__ import annotations

from dataclasses import replace

from ...types import ClassSet

CITYSCAPES = ClassSet(
    names=(
        "road",
        "sidewalk",
        "building",
        "wall",
        "fence",
        "pole",
        "traffic light",
        "traffic sign",
        "vegetation",
        "terrain",
        "sky",
        "person",
        "rider",
        "car",
        "truck",
        "bus",
        "train",
        "motorcycle",
        "bicycle",
    ),
    palette=(
        (128, 64, 128),
        (244, 35, 232),
        (70, 70, 70),
        (102, 102, 156),
        (190, 153, 153),
        (153, 153, 153),
        (250, 170, 30),
        (220, 220, 0),
        (107, 142, 35),
        (152, 251, 152),
        (70, 130, 180),
        (220, 20, 60),
        (255, 0, 0),
        (0, 0, 142),
        (0, 0, 70),
        (0, 60, 100),
        (0, 80, 100),
        (0, 0, 230),
        (119, 11, 32),
    ),
)
"""The 19 train ids of Cityscapes with its official colours."""

_SIXTEEN = tuple(c for c in range(19) if c not in (9, 14, 16))
_THIRTEEN = tuple(c for c in _SIXTEEN if c not in (3, 4, 5))

SYNTHIA16 = replace(CITYSCAPES, report=(("13 classes", _THIRTEEN), ("16 classes", _SIXTEEN)))
"""Cityscapes' classes as the SYNTHIA settings report them: the mean over 13 (the headline) and over 16 classes."""

CAMVID = ClassSet(
    names=(
        "sky",
        "building",
        "pole",
        "road",
        "pavement",
        "tree",
        "sign symbol",
        "fence",
        "car",
        "pedestrian",
        "bicyclist",
    ),
    palette=(
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (0, 0, 192),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ),
)
"""CamVid's 11 classes in SegNet's order and colours."""
