"""Facts about well-known palettes that would be false if a line of them were lost, doubled or moved."""

from __future__ import annotations

from collections import Counter

import pytest

from iidm.data.labels.palettes import FIRST_ID, NOT_SCORED, PALETTES, voc_color
from iidm.data.specs.classes import CAMVID, CITYSCAPES
from iidm.data.specs.known import CITYSCAPES_IDS

LENGTHS = {
    "Cityscapes trainIds": 19,
    "Cityscapes labelIds": 34,
    "CamVid, 11 classes": 12,
    "CamVid, 32 classes": 32,
    "Pascal VOC": 21,
    "ADE20K": 150,
    "CARLA up to 0.9.9": 13,
    "CARLA 0.9.10 to 0.9.13": 23,
    "CARLA 0.9.14 and later": 29,
}
SHARED_COLORS = {
    "Cityscapes labelIds": {(0, 0, 0): 5, (153, 153, 153): 2},
    "ADE20K": {(140, 140, 140): 2},  # road and skyscraper, in every copy of the list
}


@pytest.mark.parametrize("name", PALETTES)
def test_a_palette_has_its_length_and_no_class_or_colour_twice(name: str) -> None:
    palette = PALETTES[name]
    assert len(palette) == LENGTHS[name]
    assert len({n for n, _ in palette}) == len(palette)
    assert {c: k for c, k in Counter(c for _, c in palette).items() if k > 1} == SHARED_COLORS.get(name, {})
    assert all(0 <= v <= 255 for _, color in palette for v in color)
    assert NOT_SCORED.get(name, frozenset()) <= {n for n, _ in palette}


@pytest.mark.parametrize(
    ("name", "index", "entry"),
    [
        ("Cityscapes labelIds", 24, ("person", (220, 20, 60))),
        ("CamVid, 32 classes", 17, ("Road", (128, 64, 128))),
        ("Pascal VOC", 15, ("person", (192, 128, 128))),
        ("Pascal VOC", 20, ("tvmonitor", (0, 64, 128))),
        ("ADE20K", 0, ("wall", (120, 120, 120))),
        ("ADE20K", 12, ("person", (150, 5, 61))),
        ("ADE20K", 80, ("bus", (255, 0, 245))),
        ("ADE20K", 149, ("flag", (92, 0, 255))),
        ("CARLA up to 0.9.9", 7, ("road", (128, 64, 128))),
        ("CARLA 0.9.10 to 0.9.13", 22, ("terrain", (145, 170, 100))),
        ("CARLA 0.9.14 and later", 1, ("road", (128, 64, 128))),
        ("CARLA 0.9.14 and later", 28, ("guard rail", (180, 165, 180))),
    ],
)
def test_known_entries_stand_at_their_ids(name: str, index: int, entry: tuple[str, tuple[int, int, int]]) -> None:
    assert PALETTES[name][index] == entry


def test_ids_of_ade20k_start_at_one() -> None:
    assert FIRST_ID == {"ADE20K": 1}


def test_vocs_border_is_its_colour_of_255() -> None:
    assert [voc_color(i) for i in (0, 1, 8, 255)] == [(0, 0, 0), (128, 0, 0), (64, 0, 0), (224, 224, 192)]


def test_palettes_agree_with_the_data_sets_that_are_known_by_name() -> None:
    assert PALETTES["Cityscapes trainIds"] == tuple(zip(CITYSCAPES.names, CITYSCAPES.palette, strict=True))
    assert PALETTES["CamVid, 11 classes"][:11] == tuple(zip(CAMVID.names, CAMVID.palette, strict=True))
    label_ids = PALETTES["Cityscapes labelIds"]
    assert {i: CITYSCAPES.names.index(label_ids[i][0]) for i in CITYSCAPES_IDS} == CITYSCAPES_IDS
    scored = {n for n, _ in label_ids} - NOT_SCORED["Cityscapes labelIds"]
    assert scored == set(CITYSCAPES.names)
