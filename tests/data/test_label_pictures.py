"""Label pictures in every lossless form become the same train ids; colours and wide ids are read exactly."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import make_datasets as make
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from iidm.data.labels.encodings import Kind, LabelEncoding, encoding
from iidm.data.labels.label_map import read_label_map
from iidm.data.labels.pictures import read_ids
from iidm.data.specs.class_table import ClassEntry, Ignored, label_table
from iidm.types import UserError

COLORS = ("#804080", "#00008e", "#464646")
RGB = np.array([[0x80, 0x40, 0x80], [0, 0, 0x8E], [0x46, 0x46, 0x46], [0, 0, 0]], np.uint8)
"""Of the classes, then of what is ignored."""


def table(kind: Kind = "auto", colors: tuple[str, ...] = COLORS) -> LabelEncoding:
    entries = [ClassEntry(name, colors[k], (k + 1,)) for k, name in enumerate(("road", "car", "wall"))]
    return label_table(entries, Ignored((0,), ("#000000",)), kind)


def train_ids(size: tuple[int, int] = (9, 14), seed: int = 0) -> NDArray[np.uint8]:
    return make.random_ids((0, 1, 2, 255), size, seed)


def rgb_of(label: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return RGB[np.where(label == 255, 3, label)]


def save_rgb(path: Path, label: NDArray[np.uint8], mode: str = "RGB") -> None:
    image = Image.fromarray(rgb_of(label)).convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(np.random.default_rng(0).integers(0, 256, label.shape, np.uint8)))
    image.save(path)


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colour_masks_are_read_by_the_classes_colours(mode: str, ending: str, tmp_path: Path) -> None:
    label = train_ids()
    save_rgb(tmp_path / f"x{ending}", label, mode)
    for kind in ("auto", "colors"):
        np.testing.assert_array_equal(table(kind).read(tmp_path / f"x{ending}"), label)


def test_further_colours_of_a_class_are_that_class(tmp_path: Path) -> None:
    pixels = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    entries = [ClassEntry("a", "#010203", (0,), ("#040506",)), ClassEntry("b", "#070809", (1,))]
    np.testing.assert_array_equal(label_table(entries, Ignored()).read(tmp_path / "x.png"), [[0, 0]])


def test_an_unknown_colour_is_told_with_share_place_and_the_nearest(tmp_path: Path) -> None:
    pixels = rgb_of(train_ids((10, 20)))
    pixels[4, 7:9] = (0x80, 0x41, 0x80)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    with pytest.raises(UserError) as error:
        table().read(tmp_path / "x.png")
    assert "x.png has a colour that no class names: #804180 (1.0% of the picture, first at row 4, column 7" in str(
        error.value
    )
    assert "nearest known: #804080, class 'road'" in str(error.value) and "ignore_colors" in str(error.value)


def test_a_smoothed_colour_mask_is_called_so(tmp_path: Path) -> None:
    small = Image.fromarray(rgb_of(train_ids((12, 12))))
    small.resize((40, 40), Image.Resampling.BILINEAR).save(tmp_path / "x.png")
    with pytest.raises(UserError, match=r"and \d+ more colours\. So many colours come from smoothing"):
        table().read(tmp_path / "x.png")


def test_the_error_for_an_unknown_colour_names_it_after_the_labelmap_above_it(tmp_path: Path) -> None:
    (tmp_path / "labelmap.txt").write_text("# label:color_rgb:parts:actions\nroad:128,64,128::\nsign: 9,8,7::\n")
    folder = tmp_path / "SegmentationClass"
    folder.mkdir()
    Image.fromarray(np.full((3, 3, 3), (9, 8, 7), np.uint8)).save(folder / "x.png")
    with pytest.raises(UserError, match=r"#090807 \(100\.0% .*labelmap\.txt names it 'sign'\)"):
        table().read(folder / "x.png")


def test_a_labelmap_is_read_in_order_and_its_bad_lines_are_named(tmp_path: Path) -> None:
    path = tmp_path / "labelmap.txt"
    path.write_text("\ufeff# label:color_rgb:parts:actions\nbackground:0,0,0::\n\nside:walk:128,64,3:a,b:act\n")
    assert list(read_label_map(path).items()) == [("background", (0, 0, 0)), ("side:walk", (128, 64, 3))]
    path.write_text("road:128,64::\n")
    with pytest.raises(UserError, match=r"labelmap\.txt, line 1: needed is name:r,g,b:parts:actions, not 'road"):
        read_label_map(path)


def test_a_palette_picture_is_read_by_index_or_by_colour_as_its_kind_says(tmp_path: Path) -> None:
    label = np.array([[0, 1, 2, 255]], np.uint8)
    image = Image.fromarray(np.array([[5, 9, 0, 1]], np.uint8)).convert("P")
    palette = np.zeros((256, 3), np.uint8)
    palette[[5, 9, 0, 1]] = RGB
    image.putpalette(palette.ravel().tolist())
    image.save(tmp_path / "x.png")
    np.testing.assert_array_equal(table("colors").read(tmp_path / "x.png"), label)
    with pytest.raises(UserError, match="does not name: 5, 9"):
        table("ids").read(tmp_path / "x.png")


def test_a_palette_whose_indices_and_colours_are_other_classes_is_refused_until_its_kind_is_said(
    tmp_path: Path,
) -> None:
    """What programs that shrink pictures make of a colour mask: indices in any order."""
    image = Image.fromarray(np.array([[1, 2, 3]], np.uint8)).convert("P")
    palette = np.zeros((256, 3), np.uint8)
    palette[1:4] = RGB[[1, 0, 2]]
    image.putpalette(palette.ravel().tolist())
    image.save(tmp_path / "x.png")
    with pytest.raises(UserError, match=r"index 1 is 'road', but its colour #00008e is 'car'.*label_kind"):
        table().read(tmp_path / "x.png")
    np.testing.assert_array_equal(table("ids").read(tmp_path / "x.png"), [[0, 1, 2]])
    np.testing.assert_array_equal(table("colors").read(tmp_path / "x.png"), [[1, 0, 2]])


def test_a_colour_mask_for_classes_without_colours_asks_for_them(tmp_path: Path) -> None:
    save_rgb(tmp_path / "x.png", train_ids())
    with pytest.raises(UserError, match=r"x\.png is a picture in colours \(RGB\).*Give each class its `color"):
        table(colors=("", "", "")).read(tmp_path / "x.png")


def test_two_megapixels_of_colours_take_no_loop_over_pixels(tmp_path: Path) -> None:
    label = np.resize(train_ids((64, 64)), (1024, 2048))
    save_rgb(tmp_path / "x.png", label)
    lines = 0

    def count(frame: FrameType, event: str, value: object) -> Any:
        nonlocal lines
        lines += event == "line"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        read = table().read(tmp_path / "x.png")
    finally:
        sys.settrace(before)
    np.testing.assert_array_equal(read, label)
    assert 0 < lines < 20_000


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_16_bit_gray_ids_are_read_exactly(ending: str, tmp_path: Path) -> None:
    ids = np.array([[0, 7, 255, 256], [1000, 32768, 65535, 256 + 7]], np.uint16)
    Image.fromarray(ids).save(tmp_path / f"x{ending}")
    for kind in ("auto", "ids"):
        np.testing.assert_array_equal(read_ids(tmp_path / f"x{ending}", kind), ids)
    wide = encoding("auto", {7: 0, 1000: 1, 65535: 2}, ignored=(0, 255, 256, 32768))
    with pytest.raises(UserError, match="does not name: 263"):
        wide.read(tmp_path / f"x{ending}")


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif"])
def test_masks_of_one_bit_are_ids_0_and_1(ending: str, tmp_path: Path) -> None:
    mask = np.random.default_rng(0).random((7, 11)) > 0.5
    Image.fromarray(mask).save(tmp_path / f"x{ending}")
    with Image.open(tmp_path / f"x{ending}") as image:
        assert image.mode == "1"
    np.testing.assert_array_equal(read_ids(tmp_path / f"x{ending}", "auto"), mask)


@pytest.mark.parametrize("ending", [".bmp", ".tif"])
@pytest.mark.parametrize("palette", [False, True])
def test_ids_in_bmp_and_tiff_are_read_exactly(palette: bool, ending: str, tmp_path: Path) -> None:
    ids = make.random_ids(range(40), (20, 30), 0)
    image = Image.fromarray(ids)
    if palette:
        image = image.convert("P")
        image.putdata(ids.ravel().tolist())
        image.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
    image.save(tmp_path / f"x{ending}")
    np.testing.assert_array_equal(read_ids(tmp_path / f"x{ending}", "auto"), ids)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "JPEG"}, "is a JPEG, which changes ids and colours"),
        ({"format": "WEBP"}, "is WEBP; labels must be PNG, BMP or TIFF"),
        ({"format": "TIFF", "compression": "jpeg"}, "is a JPEG"),
        ({"format": "TIFF", "tiffinfo": {262: 0}}, "0 is white"),
        ({"format": "TIFF", "save_all": True, "append_images": [Image.new("L", (4, 4))]}, "has 2 pages"),
    ],
)
def test_pictures_that_may_hold_other_ids_are_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "x.png", **options)
    with pytest.raises(UserError, match=message):
        read_ids(tmp_path / "x.png", "auto")


def test_colours_of_16_bits_a_channel_are_refused(tmp_path: Path) -> None:
    make.save_png16(tmp_path / "x.png", np.full((4, 4, 3), 0x8040, np.uint16))
    with pytest.raises(UserError, match="16"):
        table("colors").read(tmp_path / "x.png")


@hypothesis_settings(max_examples=30)
@given(data=st.data())
def test_any_label_reads_the_same_in_every_form(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("forms")
    count = data.draw(st.integers(2, 12))
    height, width = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    color = st.integers(0, 0xFFFFFF)
    colors = data.draw(st.lists(color, min_size=count + 1, max_size=count + 1, unique=True))
    wide = data.draw(st.lists(st.integers(0, 65535), min_size=count + 1, max_size=count + 1, unique=True))
    seed = data.draw(st.integers(0, 99))
    label = np.random.default_rng(seed).integers(0, count + 1, (height, width)).astype(np.uint8)
    expected = np.where(label == count, 255, label)

    def entries(ids: list[int]) -> list[ClassEntry]:
        return [ClassEntry(f"c{k}", f"#{colors[k]:06x}", (ids[k],)) for k in range(count)]

    def forms(ids: list[int], kind: Kind = "auto") -> LabelEncoding:
        return label_table(entries(ids), Ignored((ids[count],), (f"#{colors[count]:06x}",)), kind)

    rgb = np.array([[c >> 16, c >> 8 & 255, c & 255] for c in colors], np.uint8)
    narrow = list(range(count + 1))
    Image.fromarray(label).save(folder / "gray.png")
    Image.fromarray(rgb[label]).save(folder / "rgb.png")
    Image.fromarray(np.array(wide, np.uint16)[label]).save(folder / "wide.png")
    indexed = Image.fromarray(label).convert("P")
    indexed.putdata(label.ravel().tolist())
    indexed.putpalette(rgb.ravel().tolist())
    indexed.save(folder / "indexed.png")
    for name, table_of in (
        ("gray.png", forms(narrow)),
        ("rgb.png", forms(narrow)),
        ("rgb.png", forms(narrow, "colors")),
        ("wide.png", forms(wide)),
        ("indexed.png", forms(narrow)),
        ("indexed.png", forms(narrow, "ids")),
        ("indexed.png", forms(narrow, "colors")),
    ):
        np.testing.assert_array_equal(table_of.read(folder / name), expected, err_msg=name)
