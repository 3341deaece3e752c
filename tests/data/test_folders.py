"""A user's own folders, described by fields or a TOML file; every mistake in them is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import make_datasets as make
import numpy as np
import pytest
from PIL import Image

from iidm.config import DatasetConfig
from iidm.data.datasets.dataset import Dataset, open_dataset
from iidm.types import UserError


def _spec(name: str, **fields: Any) -> DatasetConfig:
    return DatasetConfig(spec=name, **fields)


def _names(dataset: Dataset | None) -> list[str]:
    assert dataset is not None
    return [sample.name for sample in dataset.samples]


def test_command_line_classes_and_ids_describe_a_folder(tmp_path: Path) -> None:
    written = make.write_folder(tmp_path, ["x"], (7, 8, 11))
    config = _spec(
        "folder",
        images="images",
        labels="labels",
        class_names=("road", "rest"),
        id_map=("7:0", "8:1", "11:255"),
        palette=("#804080", "#0a0b0c"),
    )
    dataset = open_dataset(config, tmp_path, "train")
    assert dataset.classes.palette == ((128, 64, 128), (10, 11, 12))
    label = dataset.load_label(dataset.samples[0])
    np.testing.assert_array_equal(label, np.select([written["x"] == 7, written["x"] == 8], [0, 1], 255))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"class_names": ()}, "class-names"),
        ({"images": None}, "image folder"),
        ({"labels": None}, "needs a label folder"),
        ({"id_map": ("7=0",)}, "pairs id:train_id such as 7:0, not '7=0'"),
        ({"id_map": ("7:2",)}, "names train id 2; there are 2 classes"),
        ({"id_map": ("7:0", "7:1")}, "id 7 more than once"),
        ({"palette": ("#804080",)}, "2 classes, 1 colours"),
        ({"palette": ("#804080", "red")}, "not 'red'"),
        ({"spec": "gta5"}, "class_names belong to folder data sets; gta5 has classes of its own"),
    ],
)
def test_mistakes_in_a_folders_fields_are_named(fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    make.write_folder(tmp_path, ["x"], range(2))
    config = _spec("folder", images="images", labels="labels", class_names=("a", "b"))
    with pytest.raises(UserError, match=message):
        open_dataset(replace(config, **fields), tmp_path, "train")


TOML = """
images = "images/{split}"
labels = "labels/{split}"
image_suffix = "_rgb"
label_suffix = "_ids"
resize = [20, 40]
ignore = [0]

[[classes]]
name = "road"
color = "#804080"
ids = [7, 9]

[[classes]]
name = "car"
ids = [26]
"""


def test_a_toml_file_describes_a_data_set_beside_it(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(TOML)
    for split, name in (("train", "one"), ("train", "sub/two"), ("val", "three")):
        make.save_image(tmp_path / "images" / split / f"{name}_rgb.jpg", make.SIZE, 0)
        make.save_gray(tmp_path / "labels" / split / f"{name}_ids.png", make.random_ids((0, 7, 9, 26), make.SIZE, 0))
    config = _spec(str(tmp_path / "mine.toml"))
    dataset = open_dataset(config, None, "train")
    assert _names(dataset) == ["one", "sub/two"] and dataset.resize == (20, 40)
    assert dataset.classes.names == ("road", "car") and dataset.classes.palette[0] == (128, 64, 128)
    assert dict(dataset.encoding.train_ids) == {0: 255, 7: 0, 9: 0, 26: 1}
    assert set(np.unique(dataset.load_label(dataset.samples[0]))) == {0, 1, 255}
    assert _names(open_dataset(config, None, "val")) == ["three"]
    assert _names(open_dataset(config, tmp_path, "val")) == ["three"]


def test_a_toml_file_without_ids_counts_its_classes(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('images = "i"\n[[classes]]\nname = "a"\n[[classes]]\nname = "b"\n')
    make.save_image(tmp_path / "i" / "x.png", make.SIZE, 0)
    dataset = open_dataset(_spec(str(path)), None, "train", labels="optional")
    assert dict(dataset.encoding.train_ids) == {0: 0, 1: 1, 255: 255}
    assert dataset.classes.palette[0] != dataset.classes.palette[1]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("resize", "resise", r"mine\.toml: There is no key 'resise'. Did you mean 'resize'"),
        ("color", "colour", r"key of \[\[classes\]\] 'colour'. Did you mean 'color'"),
        ("ids = [26]", "ids = [9]", r"id 9 of class 'car' is named more than once"),
        ("ignore = [0]", "ignore = [26]", r"id 26 of class 'car'"),
        ("ids = [26]", "", "give `ids` to all classes or to none"),
        ("ids = [26]", 'ids = "26"', "ids must be a list of whole numbers, not '26'"),
        ("resize = [20, 40]", "resize = [20]", r"resize must be \[height, width\]"),
        ('images = "images/{split}"', "", "lacks 'images'"),
        ('name = "car"', "", "needs a name"),
        ('name = "car"', 'name = "road"', "must differ"),
        ("resize =", "resize", "cannot be read"),
    ],
)
def test_mistakes_in_a_toml_file_are_named(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert old in TOML
    (tmp_path / "mine.toml").write_text(TOML.replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        open_dataset(_spec(str(tmp_path / "mine.toml")), None, "train")


CAME = r"one table\. Begin each of them with a line \[\[classes\]\]"
LINE = r"is \[classes\], which is one table, .* Begin each of them with a line \[\[classes\]\]"


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ('[classes]\nname = "a"\n', rf"classes must be \[\[classes\]\] tables, not {CAME}"),
        ("[classes.a]\nids = [1]\n[classes.b]\nids = [2]\n", f"not {CAME}"),
        ("[[classes.a]]\nids = [1]\n", f"not {CAME}"),
        ("classes = { a = 1, b = 2 }\n", f"not {CAME}"),
        ('classes = ["a", "b"]\n', r"not \['a', 'b'\]\. Begin each of them"),
        ('[classes]\nname = "a"\n[classes]\nname = "b"\n', f"line 2 {LINE}"),
        ('[[classes]]\nname = "a"\n[ classes ]\nname = "b"\n', f"line 4 {LINE}"),
        ('[classes]\nname = "a"\n[[classes]]\nname = "b"\n', f"line 2 {LINE}"),
        ('classes = []\n[[classes]]\nname = "a"\n', r"line 3, '\[\[classes\]\]', gives once more what stands above it"),
        ('[[classes]]\nname = "a"\nname = "b"\n', "line 4, 'name = \"b\"', gives once more .* Keep one"),
        ('[[classes]]\nname = "a"\n[classes.ids]\nx = 1\n', r"not a table\. In place .* write a line ids = \.\.\."),
        ('[[labels]]\nx = "l"\n', r"labels must be text, not a list of tables\. In place .* line labels = \.\.\."),
    ],
)
def test_brackets_of_another_number_are_answered_with_those_that_are_needed(
    classes: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.toml").write_text(f'images = "i"\n{classes}')
    with pytest.raises(UserError, match=rf"mine\.toml.*: .*{message}") as refused:
        open_dataset(_spec(str(tmp_path / "mine.toml")), None, "train")
    assert "{" not in str(refused.value) and "\n" not in str(refused.value)


def test_a_missing_toml_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no data set file .*gone\.toml"):
        open_dataset(_spec(str(tmp_path / "gone.toml")), None, "train")


LABELS_TOML = """
images = "i"
labels = "l"
label_kind = "colors"
ignore_colors = ["#000000"]

[[classes]]
name = "road"
color = "#804080"
colors = ["#804081"]

[[classes]]
name = "car"
color = "#00008e"
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"colors"', '"colour"', r"There is no label_kind 'colour'\. Did you mean 'colors'"),
        ('"#00008e"', '"#804081"', "color #804081 of class 'car' is named more than once: class 'road' has it too"),
        ('"#804081"', '"#804080"', "color #804080 of class 'road' is named more than once"),
        ('"#00008e"', '"#000000"', "color #000000 of class 'car' is named more than once: ignored colors hold it too"),
        ('"#00008e"', '"00008e"', "A colour must be #rrggbb such as #804080, not '00008e'"),
        ('["#000000"]', '["black"]', "A colour must be #rrggbb such as #804080, not 'black'"),
        ('color = "#00008e"', "", "label_kind = \"colors\" needs the color of each class; 'car' has none"),
        (
            'color = "#00008e"',
            'color = "#00008e"\nnames = ["road"]',
            "name 'road' of class 'car' is named more than once",
        ),
        ('name = "car"', 'name = "car"\nnames = ["a", "a"]', "name 'a' of class 'car' is named more than once"),
        ('name = "car"', 'name = "car"\nnames = "a"', "names must be a list of texts, not 'a'"),
        ('label_kind = "colors"', 'unlabeled = "sky"', "unlabeled must be \"ignore\" or a class's name, not 'sky'"),
        (
            'name = "car"',
            'name = "car"\nids = [1]',
            r"`ids` to all classes or to none .*: 'car' has some, 'road' has none",
        ),
    ],
)
def test_mistakes_in_what_a_toml_file_says_of_labels_are_named(
    old: str, new: str, message: str, tmp_path: Path
) -> None:
    assert old in LABELS_TOML
    (tmp_path / "mine.toml").write_text(LABELS_TOML.replace(old, new, 1))
    with pytest.raises(UserError, match=rf"mine\.toml: .*{message}"):
        open_dataset(_spec(str(tmp_path / "mine.toml")), None, "train")


def test_ids_reach_65535_and_no_further(tmp_path: Path) -> None:
    text = LABELS_TOML.replace('"colors"', '"ids"').replace('colors = ["#804081"]', "ids = [65535]")
    (tmp_path / "mine.toml").write_text(text + "ids = [65536]\n")
    with pytest.raises(UserError, match=r"mine\.toml: .*65536:1; ids are 0 to 65535"):
        open_dataset(_spec(str(tmp_path / "mine.toml")), None, "train")


@pytest.mark.parametrize("form", ["utf-8-sig", "utf-16"])
def test_a_toml_file_of_any_editor_is_read(form: str, tmp_path: Path) -> None:
    text = 'images = "i"\n[[classes]]\nname = "caf\u00e9"\n[[classes]]\nname = "b"\n'
    (tmp_path / "mine.toml").write_bytes(text.encode(form))
    make.save_image(tmp_path / "i" / "x.png", make.SIZE, 0)
    dataset = open_dataset(_spec(str(tmp_path / "mine.toml")), None, "train", labels="optional")
    assert dataset.classes.names == ("caf\u00e9", "b")


def test_a_toml_file_in_another_encoding_says_so_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes('images = "caf\u00e9"\n'.encode("latin-1"))
    with pytest.raises(UserError, match=r"^Data set file .*mine\.toml is no UTF-8 text\. Save it as UTF-8\.$"):
        open_dataset(_spec(str(tmp_path / "mine.toml")), None, "train")


@pytest.mark.parametrize("ignore", ["", "ignore = []"])
def test_an_id_of_255_that_a_class_names_is_that_class(ignore: str, tmp_path: Path) -> None:
    classes = '[[classes]]\nname = "rest"\nids = [0]\n[[classes]]\nname = "car"\nids = [255]\n'
    (tmp_path / "mine.toml").write_text(f'images = "images"\nlabels = "labels"\n{ignore}\n{classes}')
    written = make.write_folder(tmp_path, ["x"], (0, 255))
    dataset = open_dataset(_spec(str(tmp_path / "mine.toml")), None, "train")
    np.testing.assert_array_equal(dataset.load_label(dataset.samples[0]), written["x"] == 255)


def test_a_palette_on_the_command_line_reads_colour_masks(tmp_path: Path) -> None:
    make.save_image(tmp_path / "images" / "x.jpg", (2, 2), 0)
    (tmp_path / "labels").mkdir()
    Image.fromarray(np.array([[[128, 64, 128], [10, 11, 12]]] * 2, np.uint8)).save(tmp_path / "labels" / "x.png")
    config = _spec("folder", images="images", labels="labels", class_names=("road", "rest"))
    with pytest.raises(UserError, match="Give each class its `color"):
        dataset = open_dataset(config, tmp_path, "train")
        dataset.load_label(dataset.samples[0])
    dataset = open_dataset(replace(config, palette=("#804080", "#0a0b0c")), tmp_path, "train")
    np.testing.assert_array_equal(dataset.load_label(dataset.samples[0]), [[0, 1], [0, 1]])


def test_a_path_of_windows_in_a_toml_file_says_what_to_write(tmp_path: Path) -> None:
    (tmp_path / "d.toml").write_text('images = "C:\\Users\\me\\images"\n')
    with pytest.raises(UserError, match=r"d\.toml cannot be read: .* write / for \\"):
        open_dataset(_spec(str(tmp_path / "d.toml")), None, "train")


def test_a_folder_in_place_of_a_description_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="iidm inspect FOLDER --write FILE.toml"):
        open_dataset(_spec(str(tmp_path)), None, "train")
