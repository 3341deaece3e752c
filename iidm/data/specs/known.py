"""The data sets that are known by name: folders, classes, ids and training resolution of each.

Ids and layouts are those of the official downloads: GTA5 and SYNTHIA as DACS and DAFormer read them,
Cityscapes after cityscapesScripts' labels.py, CamVid in its 480x360 form of 11 classes. A new data set is one
more entry of `SPECS`.
"""

from __future__ import annotations

from dataclasses import replace

from ...types import IGNORE_INDEX
from ..labels.encodings import encoding, merged
from .classes import CAMVID, CITYSCAPES, SYNTHIA16
from .spec import DatasetSpec, SplitSpec

CITYSCAPES_IDS = {
    7: 0,
    8: 1,
    11: 2,
    12: 3,
    13: 4,
    17: 5,
    19: 6,
    20: 7,
    21: 8,
    22: 9,
    23: 10,
    24: 11,
    25: 12,
    26: 13,
    27: 14,
    28: 15,
    31: 16,
    32: 17,
    33: 18,
}
"""Cityscapes and GTA5: id -> train id (cityscapesScripts, labels.py)."""

SYNTHIA_IDS = {
    3: 0,
    4: 1,
    2: 2,
    21: 3,
    5: 4,
    7: 5,
    15: 6,
    9: 7,
    6: 8,
    16: 9,
    1: 10,
    10: 11,
    17: 12,
    8: 13,
    18: 14,
    19: 15,
    20: 16,
    12: 17,
    11: 18,
}
"""SYNTHIA (RAND_CITYSCAPES): id -> train id of Cityscapes (DACS, DAFormer)."""

CITYSCAPES_TO_CAMVID = {
    0: 3,
    1: 4,
    2: 1,
    3: 1,
    4: 7,
    5: 2,
    6: 6,
    7: 6,
    8: 5,
    9: 5,
    10: 0,
    11: 9,
    12: 10,
    13: 8,
    14: 8,
    15: 8,
    16: 8,
    17: 10,
    18: 10,
}
"""Train ids of Cityscapes -> CamVid's 11 classes: walls are buildings, terrain is tree, all motor vehicles
are cars, riders and their vehicles are bicyclists."""

_SIXTEEN = {t: t for t in range(19) if t not in (9, 14, 16)}
"""SYNTHIA has no terrain, truck or train: both domains ignore them, the network keeps 19 outputs."""

_GTA5 = encoding("palette", CITYSCAPES_IDS, ignored=range(35))
"""The same ids as palette indices; here the licence plate is 34."""
_SYNTHIA = merged(encoding("red16", SYNTHIA_IDS, ignored=range(23)), _SIXTEEN)
"""Ids 0 to 22; 0 is void, 13 parking slot, 14 road work, 22 lane marking."""
_CAMVID = encoding("gray8", {i: i for i in range(11)}, ignored=(11,))
_SCENES = encoding("gray8", {i: i for i in range(19)}, ignored=(IGNORE_INDEX,))

_CITY_SPLIT = SplitSpec("leftImg8bit/{split}", "gtFine/{split}")
_CITY = DatasetSpec(
    "cityscapes",
    CITYSCAPES,
    encoding("gray8", CITYSCAPES_IDS, ignored=(*range(34), 255)),
    _CITY_SPLIT,
    _CITY_SPLIT,
    image_suffix="_leftImg8bit",
    label_suffix="_gtFine_labelIds",
    resize=(512, 1024),
)
"""labelIds files hold ids 0 to 33, and 255 for the licence plate's -1."""
_SPLIT = SplitSpec("images/{split}", "labels/{split}")
_CAMVID_DAY = ("0006R0", "0016E5")
_CAMVID_DUSK = ("0001TP",)
_DUSK_VAL_FRAMES = 16
"""The last frames of the dusk sequence validate: neighbours look alike, so the split is by time."""


SCENES_COUNTS = {("rendered", "train"): 500, ("camera", "train"): 400, ("camera", "val"): 60}
"""Images that are drawn of the built-in scenes, by domain and split."""
SCENES_SIZE = (256, 512)
"""(H, W) of them, pixels."""
SCENES_SEED = 0


def _scenes_split(domain: str) -> SplitSpec:
    return SplitSpec(f"{domain}/images/{{split}}", f"{domain}/labels/{{split}}")


_ALL = (
    DatasetSpec("gta5", CITYSCAPES, _GTA5, SplitSpec("images", "labels"), resize=(720, 1280)),
    DatasetSpec("synthia", SYNTHIA16, _SYNTHIA, SplitSpec("RGB", "GT/LABELS")),
    _CITY,
    replace(_CITY, name="cityscapes-16", classes=SYNTHIA16, encoding=merged(_CITY.encoding, _SIXTEEN)),
    DatasetSpec("camvid", CAMVID, _CAMVID, _SPLIT, _SPLIT),
    DatasetSpec(
        "camvid-day",
        CAMVID,
        _CAMVID,
        SplitSpec("images/train", "labels/train", sequences=_CAMVID_DAY),
        _SPLIT,
    ),
    DatasetSpec(
        "camvid-dusk",
        CAMVID,
        _CAMVID,
        SplitSpec("images/train", "labels/train", _CAMVID_DUSK, (None, -_DUSK_VAL_FRAMES)),
        SplitSpec("images/train", "labels/train", _CAMVID_DUSK, (-_DUSK_VAL_FRAMES, None)),
    ),
    DatasetSpec("streetscenes-rendered", CITYSCAPES, _SCENES, _scenes_split("rendered")),
    DatasetSpec("streetscenes-camera", CITYSCAPES, _SCENES, _scenes_split("camera"), _scenes_split("camera")),
    DatasetSpec(
        "streetscenes-rendered-camvid",
        CAMVID,
        merged(_SCENES, CITYSCAPES_TO_CAMVID),
        _scenes_split("rendered"),
    ),
)

SPECS: dict[str, DatasetSpec] = {spec.name: spec for spec in _ALL}
"""Name -> data set."""
