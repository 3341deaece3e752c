"""The files that a drawn folder becomes, and what is known of them.

An image shows its label: blocks of 8x8 pixels whose brightness is that of the block's class, so that a label can be
held to its image after JPEG, a turn, a crop and a resize.
"""

from __future__ import annotations

import io
import json
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from make_datasets import TURN_BACK
from messy_cases import ASIDE, BROKEN_EXIF, CLASSES, COLORS, KINDS, SUFFIX, Folder, Picture, composed
from numpy.typing import NDArray
from PIL import Image

from iidm.types import IGNORE_INDEX

LEVELS = np.array((20, 128, 235))
"""Brightness of each class in the images."""
BLOCK = 8


@dataclass
class Known:
    """What is known of a folder's files."""

    folder: Path
    images: dict[str, Picture] = field(default_factory=dict)
    """Real path -> what lies there."""
    aside: Counter[str] = field(default_factory=Counter)
    """Kind -> how many files are no images."""


def shown(picture: Picture, where: str) -> NDArray[np.uint8]:
    """uint8 [H,W] class ids of the upright image: the same for all pictures of one name below `where`."""
    seed = zlib.crc32(f"{where}/{composed(picture.stem)}".encode("utf-8", "surrogateescape"))
    rng = np.random.default_rng(seed)
    rows, columns = [(3, 4), (4, 3), (3, 3)][seed % 3]
    blocks = rng.integers(0, 3, rows * columns)
    blocks[:3] = 0, 1, 2
    ids = rng.permutation(blocks).reshape(rows, columns)
    return np.kron(ids, np.ones((BLOCK, BLOCK), np.int64)).astype(np.uint8)


def fits(image: NDArray[np.uint8], label: NDArray[np.uint8]) -> float:
    """Share of the labeled pixels whose brightness is that of their class."""
    inside = label != IGNORE_INDEX
    gray = image.astype(np.int64).mean(axis=-1)[inside]
    if not gray.size:
        return 1.0
    nearest = np.abs(gray[:, None] - LEVELS).argmin(axis=1)
    return float((nearest == label[inside]).mean())


def encoded(picture: Picture, ids: NDArray[np.uint8]) -> bytes:
    """The file of an image."""
    _, kind, mode = KINDS[picture.kind]
    if picture.damage == "empty" or not kind:
        return b"" if picture.damage == "empty" else b"this is no picture, whatever its name says\n" * 20
    gray = Image.fromarray(LEVELS[ids].astype(np.uint8))
    stored = gray.transpose(TURN_BACK[picture.turn]) if picture.turn in TURN_BACK else gray
    if mode == "I;16":
        image = Image.fromarray(np.asarray(stored).astype(np.uint16) * 16)
    elif mode == "1":
        image = stored.point(lambda v: 255 * (v > LEVELS[1]), "1")
    elif mode == "CMYK":
        black = Image.eval(stored, lambda v: 255 - v)
        none = Image.new("L", stored.size)
        image = Image.merge("CMYK", (none, none, none, black))
    else:
        image = stored.convert("RGB").convert(mode) if mode == "RGBA" else stored.convert(mode)
    body = io.BytesIO()
    image.save(body, kind, **_exif(picture, kind))
    return _damaged(body.getvalue(), picture)


def _exif(picture: Picture, kind: str) -> dict[str, Any]:
    more: dict[str, Any] = {"quality": 95} if kind in ("JPEG", "WEBP") else {}
    if kind == "MPO":
        more = {"quality": 95, "save_all": True, "append_images": [Image.new("RGB", (8, 8))]}
    if not picture.has_exif:
        return more
    if picture.orientation == BROKEN_EXIF:
        return more if kind == "TIFF" else {**more, "exif": b"Exif\0\0II*\0\x08\0\0\0\xff\x7f\x12\x01"}
    if kind == "TIFF":
        return {**more, "tiffinfo": {0x0112: picture.orientation}}
    exif = Image.Exif()
    exif[0x0112] = picture.orientation
    return {**more, "exif": exif.tobytes()}


def _damaged(body: bytes, picture: Picture) -> bytes:
    if picture.damage == "cut":
        return body[: len(body) * 6 // 10]
    if picture.damage == "middle":
        noise = np.random.default_rng(len(body)).integers(0, 256, 200, np.uint8).tobytes()
        start = len(body) // 2
        return (body[:start] + noise + body[start + len(noise) :])[: len(body)]
    return body


def label_picture(picture: Picture, ids: NDArray[np.uint8]) -> tuple[str, bytes]:
    """Ending and file of a label."""
    ending, kind, image = ".png", "PNG", Image.fromarray(ids)
    if picture.label == "turned":
        image = image.transpose(TURN_BACK.get(picture.turn, Image.Transpose.ROTATE_90))
    elif picture.label == "wrong size":
        image = Image.fromarray(ids[:-1])
    elif picture.label == "jpeg":
        ending, kind = ".jpg", "JPEG"
    elif picture.label == "mask":
        image = Image.fromarray(((ids == 2) * 255).astype(np.uint8))
    elif picture.label == "ignored":
        image = Image.fromarray(np.full_like(ids, 255))
    elif picture.label == "unknown id":
        image = Image.fromarray(np.where(np.arange(ids.shape[1]) < 2, 77, ids).astype(np.uint8))
    elif picture.label == "deep":
        image = Image.fromarray(ids.astype(np.uint16))
    elif picture.label in ("colour", "unknown colour"):
        rgb = np.array(COLORS, np.uint8)[ids]
        if picture.label == "unknown colour":
            rgb[:2, :2] = 1, 2, 3
        image = Image.fromarray(rgb)
    elif picture.label == "palette":
        image.putpalette([value for color in COLORS for value in color])
    body = io.BytesIO()
    image.save(body, kind)
    return ending, body.getvalue()


def write_folder(folder: Folder, root: Path, split: str) -> Known:
    """root/images/<split> and root/labels/<split>, and what is known of the images."""
    place = root / "images" / split
    known = Known(place)
    for picture in folder.pictures:
        path = _write(place / picture.name, encoded(picture, shown(picture, split)))
        if picture.kind in ASIDE:
            known.aside[path.suffix] += 1
        else:
            known.images[str(path)] = picture
    _write_labels(folder, root, split)
    for name in folder.junk:
        _write(place / name, b"junk")
    known.aside.update(_junk_kinds(folder.junk))
    if folder.has_results:
        for ending in (".ids.png", ".color.png", ".overlay.png"):
            _write(
                place / f"done{ending}", encoded(Picture("done", "gray png", 0, "none", ""), np.zeros((8, 8), np.uint8))
            )
        known.aside["result of iidm.predict"] += 3
    for link in folder.links:
        _write_link(link, folder, root, split, known)
    return known


def _junk_kinds(names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        first = name.split("/")[0]
        is_folder = "/" in name
        hidden = "hidden folder" if is_folder else "hidden file"
        yield hidden if first.startswith(".") else f"folder {first}" if is_folder else first


def _write_link(link: str, folder: Folder, root: Path, split: str, known: Known) -> None:
    place = known.folder
    if link == "loop":
        (place / "loop").symlink_to(".")
        known.aside["link to what is listed already"] += 1
    elif link == "file":
        picture = folder.pictures[0]
        ending = KINDS[picture.kind][0]
        (place / f"copy{ending}").symlink_to(picture.name)
        known.aside[ending if picture.kind in ASIDE else "link to what is listed already"] += 1
    elif link == "folder":
        if split != "train" or root.name == "source":  # its image has no label
            return
        other = Picture("far", "jpg", 0, "none", "none")
        path = _write(root / f"elsewhere {split}" / "far.jpg", encoded(other, shown(other, split)))
        (place / "more").symlink_to(path.parent)
        known.images[str(path)] = other
    elif link == "broken":
        (place / "gone.png").symlink_to("nowhere.png")
        known.images[str(place / "nowhere.png")] = Picture("gone", "png", 0, "empty", "none")


def _write_labels(folder: Folder, root: Path, split: str) -> None:
    """Every label once, beside the images or below labels/<split>."""
    drawn = [(picture, shown(picture, split)) for picture in folder.annotated()]
    place = root / "labels" / split
    if folder.labels in ("pictures", "beside"):
        place.mkdir(parents=True)
        for picture, ids in drawn:
            ending, body = label_picture(picture, ids)
            where = place / f"{picture.stem}{ending}"
            if folder.labels == "beside":
                where = root / "images" / split / f"{picture.stem}{SUFFIX}{ending}"
            _write(where, body)
    elif folder.labels == "labelme":
        place.mkdir(parents=True)
        for picture, ids in drawn:
            _write(place / f"{picture.stem}.json", json.dumps(_labelme(picture, ids)).encode())
    elif folder.labels == "coco":
        _write(root / f"{split}.json", json.dumps(_coco(drawn)).encode())
    else:
        _write(root / f"{split}.xml", _cvat(drawn).encode("utf-8", "surrogateescape"))


def label_place(folder: Folder) -> str:
    """The labels of a folder, as a data set's description names them."""
    return {"beside": "images/{split}", "coco": "{split}.json", "cvat": "{split}.xml"}.get(
        folder.labels, "labels/{split}"
    )


def _blocks(ids: NDArray[np.uint8]) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Class and corners (x, y) of each block."""
    for y in range(0, ids.shape[0], BLOCK):
        for x in range(0, ids.shape[1], BLOCK):
            corners = [(x, y), (x + BLOCK, y), (x + BLOCK, y + BLOCK), (x, y + BLOCK)]
            yield int(ids[y, x]), corners


def _labelme(picture: Picture, ids: NDArray[np.uint8]) -> dict[str, Any]:
    shapes = [
        {"label": CLASSES[k], "shape_type": "polygon", "flags": {}, "points": corners} for k, corners in _blocks(ids)
    ]
    size = {"imageHeight": ids.shape[0], "imageWidth": ids.shape[1]}
    return {"version": "5.4.1", "imagePath": picture.name, "imageData": None, **size, "shapes": shapes}


def _coco(drawn: list[tuple[Picture, NDArray[np.uint8]]]) -> dict[str, Any]:
    images, annotations = [], []
    for number, (picture, ids) in enumerate(drawn, start=1):
        images.append({"id": number, "file_name": picture.name, "height": ids.shape[0], "width": ids.shape[1]})
        for k, corners in _blocks(ids):
            polygon = [value for corner in corners for value in corner]
            about = {"id": len(annotations) + 1, "image_id": number, "category_id": k + 1, "iscrowd": 0}
            annotations.append({**about, "segmentation": [polygon]})
    categories = [{"id": k, "name": name} for k, name in enumerate(CLASSES, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _cvat(drawn: list[tuple[Picture, NDArray[np.uint8]]]) -> str:
    images = []
    for number, (picture, ids) in enumerate(drawn):
        shapes = "".join(
            f'<polygon label="{CLASSES[k]}" points="{";".join(f"{x},{y}" for x, y in corners)}" occluded="0"/>'
            for k, corners in _blocks(ids)
        )
        size = f'width="{ids.shape[1]}" height="{ids.shape[0]}"'
        images.append(f'<image id="{number}" name="{picture.name}" {size}>{shapes}</image>')
    return f"<annotations><version>1.1</version>{''.join(images)}</annotations>"


def _write(path: Path, body: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    return path
