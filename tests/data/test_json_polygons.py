"""LabelMe's and Cityscapes' files become label pictures, pixel by pixel as their own tools draw them."""

from __future__ import annotations

import base64
import importlib.util
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotation_files import (
    CITYSCAPES_SUFFIX,
    SIZE,
    SQUARE,
    box,
    label_of,
    labelme,
    opened,
    save_image,
    write_cityscapes,
    write_labelme,
)
from PIL import Image

from iidm.types import UserError


def test_labelme_shapes_cover_the_pixels_that_labelme_gives_them(tmp_path: Path) -> None:
    name = write_labelme(tmp_path, {"label": "car", "points": SQUARE})
    np.testing.assert_array_equal(label_of(opened(tmp_path, name)), box(1, 5, 1, 5, 1))
    write_labelme(tmp_path, {"label": "car", "points": [[4, 1], [1, 4]], "shape_type": "rectangle"})
    np.testing.assert_array_equal(label_of(opened(tmp_path, name)), box(1, 5, 1, 5, 1))


def test_a_labelme_mask_fills_its_box(tmp_path: Path) -> None:
    mask = np.random.default_rng(0).random((3, 5)) > 0.5
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(buffer, "PNG")
    text = base64.b64encode(buffer.getvalue()).decode()
    shape = {"label": "car", "points": [[6.0, 2.0], [10.0, 4.0]], "shape_type": "mask", "mask": text}
    expected = box(0, 0, 0, 0, 0)
    expected[2:5, 6:11][mask] = 1
    np.testing.assert_array_equal(label_of(opened(tmp_path, write_labelme(tmp_path, shape))), expected)
    with pytest.raises(UserError, match=r"shape 0 cannot be read: its mask is 3x5 \(HxW\), which does not fill"):
        opened(tmp_path, write_labelme(tmp_path, {**shape, "points": [[6, 2], [11, 4]]}))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"label": "car", "points": [[1, 1], [2, 2]]}, "2 points where 3 are needed"),
        ({"label": "car", "points": SQUARE, "shape_type": "spiral"}, "no rule for shapes of type 'spiral'"),
        ({"points": SQUARE}, "'label'"),
        ({"label": "car", "points": [[1, 1], [2, "y"], [3, 3]]}, "'y' is no coordinate"),
        ({"label": "car", "points": None}, "NoneType"),
    ],
)
def test_a_bad_labelme_shape_is_named(shape: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"a\.json, shape 0 cannot be read: .*{message}"):
        opened(tmp_path, write_labelme(tmp_path, shape))


def _tool(name: str, *parts: str) -> Any:
    """A file of a labeling tool's own code, which need not be installed whole (LabelMe needs Qt)."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip(f"{name} is not installed")
    path = Path(spec.submodule_search_locations[0], *parts)
    module_spec = importlib.util.spec_from_file_location(f"tool_{path.stem}", path)
    assert module_spec is not None and module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except ImportError as error:
        pytest.skip(f"{name} lacks what it needs: {error}")
    return module


def test_labels_are_those_that_labelme_itself_exports(tmp_path: Path) -> None:
    shape_to_mask = _tool("labelme", "utils", "shape.py").shape_to_mask
    rng = np.random.default_rng(0)
    counts = {"polygon": 5, "rectangle": 2, "circle": 2, "line": 2, "linestrip": 4, "point": 1}
    for i in range(60):
        kind = list(counts)[i % len(counts)]
        points = rng.uniform(-1, 15, (counts[kind], 2)).tolist()
        if kind == "rectangle":
            points = np.sort(points, axis=0).tolist()
        mask = shape_to_mask(SIZE, points, kind)
        name = write_labelme(tmp_path, {"label": "car", "points": points, "shape_type": kind})
        np.testing.assert_array_equal(label_of(opened(tmp_path, name)), np.where(mask, 1, 3), err_msg=kind)


def test_json_files_beside_their_images_are_found_though_the_images_are_png(tmp_path: Path) -> None:
    save_image(tmp_path / "images" / "a.png")
    (tmp_path / "images" / "a.json").write_text(labelme({"label": "car", "points": SQUARE}))
    np.testing.assert_array_equal(label_of(opened(tmp_path, "images")), box(1, 5, 1, 5, 1))


def test_cityscapes_objects_lie_over_earlier_ones_and_deleted_ones_are_none(tmp_path: Path) -> None:
    things = [
        {"label": "road", "polygon": [[0, 0], [15, 0], [15, 11], [0, 11]]},
        {"label": "cargroup", "polygon": SQUARE},
        {"label": "license plate", "polygon": [[2, 2], [3, 2], [3, 3]]},
        {"label": "sign", "polygon": SQUARE, "deleted": 1},
    ]
    label = label_of(opened(tmp_path, write_cityscapes(tmp_path, *things), CITYSCAPES_SUFFIX))
    np.testing.assert_array_equal(label, box(1, 5, 1, 5, 1, background=0))


def test_labels_are_those_that_cityscapes_scripts_draw(tmp_path: Path) -> None:
    pytest.importorskip("pyquaternion", reason="cityscapesscripts needs it")
    scripts = pytest.importorskip("cityscapesscripts.preparation.json2labelImg", reason="cityscapesscripts")
    from cityscapesscripts.helpers.annotation import Annotation

    rng = np.random.default_rng(0)
    names = ("road", "car", "cargroup", "license plate", "static")
    things = [
        {"label": names[i % 5], "polygon": rng.integers(-2, 18, (int(rng.integers(3, 7)), 2)).tolist()}
        for i in range(25)
    ]
    root = write_cityscapes(tmp_path, *things)
    annotation = Annotation()
    annotation.fromJsonFile(str(tmp_path / root / "a_gtFine_polygons.json"))
    ids = np.asarray(scripts.createLabelImage(annotation, "ids"))
    label = label_of(
        opened(tmp_path, root, CITYSCAPES_SUFFIX + '\nignore_names = ["static"]\nunlabeled = "background"')
    )
    np.testing.assert_array_equal(label, np.select([ids == 7, ids == 26, ids == 4], [0, 1, 255], 3))
