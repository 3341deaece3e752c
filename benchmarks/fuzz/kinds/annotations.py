"""Annotation files of four tools, and the cache of labels that are drawn from them."""

from __future__ import annotations

import base64
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask

from iidm.config import DatasetConfig
from iidm.data import class_pixel_counts
from iidm.data.datasets.dataset import Dataset, open_dataset

from .base import Kind, description, ids, read_all, write_pictures

RING = [[1, 1], [9, 1], [9, 9], [1, 9]]
_BOMB = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a0 "aaaaaaaaaaaaaaaa">{}]><annotations>&a{};</annotations>'


def write_coco(folder: Path) -> None:
    """Polygons and both kinds of run lengths."""
    write_pictures(folder)
    (folder / "camera.toml").write_text(description("coco.json"))
    flat = [number for point in RING for number in point]
    runs = mask.encode(np.asfortranarray((ids() == 1).astype(np.uint8)))["counts"].decode()
    forms: list[Any] = [[flat], {"size": [24, 32], "counts": [100, 20, 648]}, {"size": [24, 32], "counts": runs}, []]
    images = [{"id": k, "file_name": f"{name}.jpg", "height": 24, "width": 32} for k, name in enumerate("abcd")]
    del images[3]["height"], images[3]["width"]
    table = {
        "images": images,
        "categories": [{"id": 1, "name": "road"}, {"id": 2, "name": "car"}],
        "annotations": [
            {"id": k, "image_id": k % 4, "category_id": 1 + k % 2, "segmentation": form, "iscrowd": 0}
            for k, form in enumerate([*forms, *forms[:2], *forms[:2]])
        ],
    }
    (folder / "coco.json").write_text(json.dumps(table))


def write_labelme(folder: Path) -> None:
    """Every type of shape."""
    write_pictures(folder)
    (folder / "camera.toml").write_text(description("json"))
    (folder / "json").mkdir()
    picture = io.BytesIO()
    Image.new("1", (9, 9), 1).save(picture, "PNG")
    corners = [[1, 1], [9, 9]]
    shapes: list[dict[str, Any]] = [
        {"label": "road", "points": RING, "shape_type": "polygon"},
        {"label": "car", "points": corners, "shape_type": "rectangle"},
        {"label": "sky", "points": corners, "shape_type": "circle"},
        {"label": "car", "points": corners, "shape_type": "line"},
        {"label": "road", "points": [[3, 3]], "shape_type": "point"},
        {
            "label": "sky",
            "points": corners,
            "shape_type": "mask",
            "mask": base64.b64encode(picture.getvalue()).decode(),
        },
    ]
    for name in "abcd":
        table = {"version": "5.4.1", "imagePath": f"{name}.jpg", "imageData": None, "imageHeight": 24, "imageWidth": 32}
        (folder / "json" / f"{name}.json").write_text(json.dumps({**table, "shapes": shapes}))


def write_cvat(folder: Path) -> None:
    """Every shape with an area and some without; and a file whose entities grow."""
    write_pictures(folder)
    for name in ("cvat", "hostile"):
        (folder / f"{name}.toml").write_text(description(f"{name}.xml"))
    shapes = (
        '<polygon label="road" points="1,1;9,1;9,9" z_order="1"/><box label="car" xtl="1" ytl="1" xbr="9" ybr="9"/>'
        '<ellipse label="sky" cx="9" cy="9" rx="4" ry="2" rotation="30"/><polyline label="car" points="1,1;2,2"/>'
        '<mask label="sky" rle="4, 8, 4" left="2" top="3" width="4" height="4"/>'
    )
    images = "".join(
        f'<image id="{k}" name="{n}.jpg" width="32" height="24">{shapes}</image>' for k, n in enumerate("abcd")
    )
    labels = "<meta><task><labels><label><name>road</name></label></labels></task></meta>"
    (folder / "cvat.xml").write_text(
        f'<?xml version="1.0" encoding="utf-8"?><annotations>{labels}{images}</annotations>'
    )
    entities = "".join(f'<!ENTITY a{k} "{f"&a{k - 1};" * 16}">' for k in range(1, 12))
    (folder / "hostile.xml").write_text(_BOMB.format(entities, 11))


def write_cityscapes(folder: Path) -> None:
    """Polygons beside each image."""
    write_pictures(folder)
    (folder / "camera.toml").write_text(description("poly", 'ignore_names = ["license plate"]'))
    (folder / "poly").mkdir()
    things = [
        {"label": "road", "polygon": RING},
        {"label": "cargroup", "polygon": RING},
        {"label": "sky", "polygon": RING, "deleted": 1},
    ]
    for name in "abcd":
        table = {"imgHeight": 24, "imgWidth": 32, "objects": things}
        (folder / "poly" / f"{name}.json").write_text(json.dumps(table))


def _open(folder: Path, path: Path) -> Dataset:
    toml = folder / f"{path.stem}.toml"
    spec = toml if toml.is_file() else folder / "camera.toml"
    return open_dataset(DatasetConfig(spec=str(spec)), None, "train", labels="some")


def use(folder: Path, path: Path) -> None:
    """Labels are drawn and read."""
    read_all(_open(folder, path))


def write_cache(folder: Path) -> None:
    """A data set whose labels were drawn and counted before."""
    write_coco(folder)
    before = os.environ.get("IIDM_CACHE")
    os.environ["IIDM_CACHE"] = str(folder / "cache")
    try:
        use_cache(folder, folder)
    finally:
        os.environ.pop("IIDM_CACHE") if before is None else os.environ.update(IIDM_CACHE=before)


def use_cache(folder: Path, path: Path) -> None:
    """The cache is used, or what of it is damaged is made anew."""
    dataset = open_dataset(DatasetConfig(spec=str(folder / "camera.toml")), None, "train", labels="some")
    read_all(dataset)
    class_pixel_counts(dataset)


ANNOTATIONS = (
    Kind("coco", write_coco, ("coco.json",), use),
    Kind("labelme", write_labelme, ("json/*.json",), use),
    Kind("cvat", write_cvat, ("*.xml",), use),
    Kind("cityscapes", write_cityscapes, ("poly/*.json",), use),
    Kind("cache", write_cache, ("cache/**/*.*",), use_cache),
)
