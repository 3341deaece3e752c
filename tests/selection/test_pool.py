"""Which images one may choose from, and what their copies are called."""

from __future__ import annotations

from pathlib import Path

import make_datasets as make

from iidm.config import Config, DataConfig, DatasetConfig
from iidm.data.datasets.domains import open_training_target
from iidm.selection.files import copy_images
from iidm.selection.pool import open_pool

TOML = """
images = "images"
labels = "labels"
image_suffix = "_rgb"
label_suffix = "_ids"

[[classes]]
name = "road"

[[classes]]
name = "sky"
"""


def test_images_from_outside_are_called_as_those_of_the_target_are(tmp_path: Path) -> None:
    for name in ("day/a", "day/b"):
        make.save_image(tmp_path / "images" / f"{name}_rgb.jpg", make.SIZE, 0)
    for name in ("c_rgb", "plain"):
        make.save_image(tmp_path / "new" / f"{name}.jpg", make.SIZE, 1)
    (tmp_path / "camera.toml").write_text(TOML)
    config = Config(data=DataConfig(target=DatasetConfig(spec=str(tmp_path / "camera.toml"))))
    pool = open_pool(config, tmp_path / "run", [tmp_path / "new"], None)
    assert pool.names == ["c", "plain"]
    copies = copy_images(tmp_path / "out", pool, range(2))
    assert copies is not None
    assert sorted(path.name for path in copies.iterdir()) == ["c_rgb.jpg", "plain_rgb.jpg"]
    for path in copies.iterdir():
        path.rename(tmp_path / "images" / path.name)
    assert {*pool.names, "day/a"} < set(open_training_target(config).names), "the list of the next round names them"
    inside = open_pool(config, tmp_path / "run", [], None)
    assert [inside.copied_name(place) for place in range(2)] == ["c.jpg", "day/a.jpg"], "annotations find them so"
