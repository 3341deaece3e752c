"""Writers of tiny annotation files in each tool's form, and data sets that read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from iidm.config import DatasetConfig
from iidm.data.datasets.dataset import Dataset, open_dataset

EXPORTS = Path(__file__).parent / "exports"
SIZE = (12, 16)
SQUARE = [[1, 1], [4, 1], [4, 4], [1, 4]]
"""A square whose pixels differ between the rules of pycocotools (1 to 3) and Pillow (1 to 4)."""

Label = NDArray[np.uint8]


def save_image(path: Path, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(path)


def write_toml(root: Path, labels: str, more: str = "", background: bool = True) -> DatasetConfig:
    text = f'images = "images"\nlabels = "{labels}"\n{more}\n'
    for name in ("road", "car", "sign", *(["background"] if background else [])):
        text += f'[[classes]]\nname = "{name}"\n'
    (root / "d.toml").write_text(text)
    return DatasetConfig(spec=str(root / "d.toml"))


def opened(root: Path, labels: str, more: str = "", background: bool = True) -> Dataset:
    return open_dataset(write_toml(root, labels, more, background), None, "train", labels="some")


def label_of(dataset: Dataset, name: str = "a") -> Label:
    return dataset.load_label(next(s for s in dataset.samples if s.name == name))


def box(top: int, bottom: int, left: int, right: int, value: int, background: int = 3) -> Label:
    """A label of one class in rows and columns up to before the second numbers."""
    label = np.full(SIZE, background, np.uint8)
    label[top:bottom, left:right] = value
    return label


def coco(*annotations: dict[str, Any], file_name: str = "a.jpg", **image: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 7, "file_name": file_name, "height": SIZE[0], "width": SIZE[1], **image}],
        "categories": [{"id": 1, "name": "road"}, {"id": 2, "name": "car"}, {"id": 3, "name": "sign"}],
        "annotations": [{"id": 10 + i, "image_id": 7, "iscrowd": 0, **a} for i, a in enumerate(annotations)],
    }


def write_coco(root: Path, table: dict[str, Any]) -> str:
    save_image(root / "images" / "a.jpg")
    (root / "a.json").write_text(json.dumps(table))
    return "a.json"


def labelme(*shapes: dict[str, Any], **more: Any) -> str:
    table = {"version": "5.4.1", "imagePath": "a.jpg", "imageData": None, "imageHeight": 12, "imageWidth": 16}
    return json.dumps({**table, "shapes": [{"shape_type": "polygon", "flags": {}, **s} for s in shapes], **more})


def write_labelme(root: Path, *shapes: dict[str, Any], **more: Any) -> str:
    save_image(root / "images" / "a.jpg")
    (root / "json").mkdir(exist_ok=True)
    (root / "json" / "a.json").write_text(labelme(*shapes, **more))
    return "json"


def write_cvat(root: Path, *shapes: str, image: str = 'name="a.jpg" width="16" height="12"') -> str:
    save_image(root / "images" / "a.jpg")
    body = f'<image id="0" {image}>{"".join(shapes)}</image>'
    (root / "a.xml").write_text(f"<annotations><version>1.1</version>{body}</annotations>")
    return "a.xml"


def flat(points: list[list[float]]) -> list[float]:
    return [c for point in points for c in point]


def write_cityscapes(root: Path, *things: dict[str, Any]) -> str:
    save_image(root / "images" / "a.jpg")
    (root / "poly").mkdir(exist_ok=True)
    table = {"imgHeight": 12, "imgWidth": 16, "objects": list(things)}
    (root / "poly" / "a_gtFine_polygons.json").write_text(json.dumps(table))
    return "poly"


CITYSCAPES_SUFFIX = 'label_suffix = "_gtFine_polygons"'
