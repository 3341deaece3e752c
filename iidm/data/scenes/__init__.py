"""StreetScenes: the built-in data. Street scenes in Cityscapes' 19 classes and in two domains of one world.

`rendered` is clean and game-like, all labeled: the source. `camera` has other palettes, textures, light, haze, lens
and sensor, and other streets: the target. A scene is a function of (seed, domain, index): the same bytes for the
same versions of numpy and Pillow, in any process and order. Scenes are written to a cache folder once and read from
there like any data set.

    scenes_draw      one picture
    scenes_world     what stands where     scenes_things, scenes_vehicles     how it looks
    scenes_style     what tells the domains apart     scenes_canvas     what is painted on
    scenes_files     the folder
"""

from __future__ import annotations

from .draw import DOMAINS, GENERATOR_VERSION, draw_scene
from .files import CARD, VAL_START, Counts, scenes_root, write_scenes

__all__ = ["CARD", "DOMAINS", "GENERATOR_VERSION", "VAL_START", "Counts", "draw_scene", "scenes_root", "write_scenes"]
