"""CVAT files become label pictures, pixel by pixel as CVAT has it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from annotation_files import EXPORTS, SIZE, Label, box, label_of, opened, save_image, write_cvat
from pycocotools import mask as coco_mask

from iidm.types import UserError


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ('<polygon label="car" points="1,1;4,1;4,4;1,4" z_order="0"/>', box(1, 4, 1, 4, 1)),
        ('<box label="car" xtl="1" ytl="2" xbr="4" ybr="4" z_order="0"/>', box(2, 4, 1, 4, 1)),
        ('<box label="car" xtl="2" ytl="4" xbr="8" ybr="6" rotation="90"/>', box(2, 8, 4, 6, 1)),
        ('<ellipse label="car" cx="5" cy="5" rx="1" ry="1"/>', box(4, 6, 4, 6, 1)),
        ('<ellipse label="car" cx="6.5" cy="6.5" rx="2.9" ry="0.6" rotation="90"/>', box(4, 9, 6, 7, 1)),
        ('<mask label="car" rle="0, 6" left="3" top="2" width="3" height="2"/>', box(2, 4, 3, 6, 1)),
    ],
)
def test_cvat_shapes_cover_the_pixels_that_cvat_gives_them(shape: str, expected: Label, tmp_path: Path) -> None:
    np.testing.assert_array_equal(label_of(opened(tmp_path, write_cvat(tmp_path, shape))), expected)


def test_cvat_masks_go_row_by_row(tmp_path: Path) -> None:
    name = write_cvat(tmp_path, '<mask label="car" rle="1, 1, 2, 2" left="3" top="2" width="3" height="2"/>')
    expected = box(0, 0, 0, 0, 0)
    expected[2, 4] = expected[3, 4] = expected[3, 5] = 1
    np.testing.assert_array_equal(label_of(opened(tmp_path, name)), expected)


def test_higher_layers_of_cvat_lie_over_lower_ones(tmp_path: Path) -> None:
    shapes = [f'<box label="{n}" xtl="1" ytl="1" xbr="4" ybr="4" z_order="{z}"/>' for n, z in (("car", 1), ("road", 0))]
    np.testing.assert_array_equal(label_of(opened(tmp_path, write_cvat(tmp_path, *shapes))), box(1, 4, 1, 4, 1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "<annotations><track id='0' label='car'/></annotations>",
            "is CVAT for video. Export the task as CVAT for images",
        ),
        ("<annotation><object/></annotation>", "it is no file of CVAT"),
        ("<annotations>", r"a\.xml cannot be read"),
        ('<annotations><image id="0"/></annotations>', "an <image> without name"),
    ],
)
def test_other_xml_files_are_refused(text: str, message: str, tmp_path: Path) -> None:
    write_cvat(tmp_path)
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(UserError, match=message):
        opened(tmp_path, "a.xml")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ('<polygon label="car" points="1,1;4,1"/>', "2 points where 3"),
        ('<polygon points="1,1;4,1;4,4"/>', "it lacks 'label'"),
        ('<box label="car" xtl="1" ytl="1" xbr="inf" ybr="3"/>', "inf is no coordinate"),
        (
            '<mask label="car" rle="5" left="0" top="0" width="3" height="2"/>',
            "its run lengths cover 5 pixels",
        ),
        ('<blob label="car"/>', "there is no rule for <blob>"),
    ],
)
def test_a_bad_cvat_shape_is_named(shape: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"a\.xml, image 'a\.jpg', shape 0 \(<\w+>\) cannot be read: {message}"):
        opened(tmp_path, write_cvat(tmp_path, shape))


def test_a_cvat_export_of_datumaro_is_read(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_image(tmp_path / "images" / "drive" / f"{name}.png")
    (tmp_path / "a.xml").write_bytes((EXPORTS / "datumaro_cvat.xml").read_bytes())
    dataset = opened(tmp_path, "a.xml")
    label = label_of(dataset, "drive/a")
    car = coco_mask.decode(coco_mask.frPyObjects([[2.5, 3.5, 7.5, 4.2, 6, 9, 1.5, 8]], *SIZE))[..., 0] > 0
    car[7:11, 10:14] = True
    expected = np.full(SIZE, 3, np.uint8)
    expected[6:] = 0
    expected[car] = 1
    np.testing.assert_array_equal(label, expected)
    assert "1 image without any annotation: unlabeled (drive/b)" in dataset.notes[0], "it lists it all the same"
    assert dataset.notes[1:] == ("Annotations without an area are left out: 1 <polyline>.",)
