"""Images, labels, descriptions, lists and prepared folders."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
from PIL import Image

from iidm.config import Config, DataConfig, DatasetConfig
from iidm.data import check_data, check_prepared, class_pixel_counts, make_plan, open_domains, prepare, read_image
from iidm.data.datasets.dataset import open_dataset
from iidm.data.files.whole import check_picture
from iidm.data.inspection.lists import read_lists
from iidm.data.labels.encodings import encoding
from iidm.data.prepared.arrays import read_crop
from iidm.data.specs.described import find_spec
from iidm.inspect import main as inspect
from iidm.studies.grid import find_study
from iidm.types import UserError

from .base import CLASSES, Kind, description, every, ids, photo, read_all, write_pictures


def write_images(folder: Path) -> None:
    """Every format and mode that is read, and some that are not."""
    picture = photo()
    for mode in ("RGB", "L", "RGBA", "P", "1", "CMYK", "I;16", "LA"):
        converted = (
            Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 200)
            if mode == "I;16"
            else picture.convert(mode)
        )
        name = mode.replace(";", "").lower()
        for ending, saved in (("png", "PNG"), ("tif", "TIFF"), ("bmp", "BMP")):
            try:
                converted.save(folder / f"{name}.{ending}", saved)
            except (OSError, KeyError):  # a format that does not have that mode
                (folder / f"{name}.{ending}").unlink(missing_ok=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(folder / "turned.jpg", exif=exif)
    picture.convert("L").save(folder / "gray.jpg")
    picture.convert("CMYK").save(folder / "four.jpg")
    picture.save(folder / "stepwise.jpg", progressive=True, restart_marker_rows=1)
    picture.save(folder / "camera.jpg", "MPO", save_all=True, append_images=[photo(1)])
    picture.save(folder / "web.webp")
    picture.convert("RGBA").save(folder / "lossless.webp", lossless=True, exif=exif)
    for compression in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg"):
        picture.save(folder / f"{compression}.tif", compression=compression)
    picture.save(folder / "pages.tif", save_all=True, append_images=[photo(1)])
    picture.convert("P").save(folder / "moving.gif")


def use_image(folder: Path, path: Path) -> None:
    """As the check before a run, and as prediction."""
    every(
        lambda: check_picture(path, "image", read_all=True),
        lambda: check_picture(path, "image", decode=True),
        lambda: read_image(path),
    )


def write_labels(folder: Path) -> None:
    """Gray of 1, 8 and 16 bits, palettes, colours."""
    label = Image.fromarray(ids())
    palette = label.copy().convert("P")
    palette.putdata(list(ids().ravel()))
    palette.putpalette([*range(256)] * 3)
    colors = np.array([(128, 64, 128), (0, 0, 142), (70, 130, 180)], np.uint8)[np.minimum(ids(), 2)]
    for ending in ("png", "tif", "bmp"):
        label.save(folder / f"gray.{ending}")
        palette.save(folder / f"palette.{ending}")
        Image.fromarray(colors).save(folder / f"colors.{ending}")
        Image.fromarray(ids() > 1).save(folder / f"bits.{ending}")
    Image.fromarray(ids().astype(np.uint16)).save(folder / "deep.png")
    Image.fromarray(ids().astype(np.uint16)).save(folder / "deep.tif")
    label.point(lambda v: min(v, 3)).save(folder / "two.png", bits=2)
    (folder / "camera.toml").write_text(description("labels", with_colors=True))


def use_label(folder: Path, path: Path) -> None:
    """By the encoding of a description, and by every other one that such a picture may have."""
    described = find_spec(DatasetConfig(spec=str(folder / "camera.toml"))).encoding
    for kind in ("gray8", "palette", "red16", "ids"):
        with contextlib.suppress(UserError):
            encoding(kind, {0: 0, 1: 1, 2: 2}, (255,)).read(path)  # type: ignore[arg-type]
    every(lambda: check_picture(path, "label"), lambda: described.read(path))


def write_described(folder: Path) -> None:
    """A data set with all keys of a description, a grid of a study, and lists of classes."""
    write_pictures(folder)
    more = 'resize = [16, 24]\nlabel_kind = "auto"\nignore = [255]\nignore_colors = ["#000000"]\nunlabeled = "ignore"'
    text = description("labels", more, with_colors=True)
    for place, name in enumerate(CLASSES):
        text = text.replace(f'name = "{name}"', f'name = "{name}"\nids = [{place}]\nnames = ["{name}", "the {name}"]')
    (folder / "camera.toml").write_text(text)
    rows = '[[row]]\nname = "L_s"\ntype = "UDA"\nmethod = "source_only"\nlabeled = 0\npaper = { "0" = 37.3 }\n'
    rows += '[[row]]\nname = "IIDM"\nmethod = "iidm"\noptions = ["--loss.inter-weight", "1"]\nskip_budgets = [20]\n'
    (folder / "grid.toml").write_text(
        f'title = "A table"\nnote = "Two."\npreset = "scenes"\nbudgets = [20, 40]\n{rows}'
    )


def use_description(folder: Path, path: Path) -> None:
    """A data set is opened and read; a grid is parsed."""
    if path.name == "grid.toml":
        find_study(str(path))
    else:
        read_all(open_dataset(DatasetConfig(spec=str(path)), None, "train", labels="some"))


def write_lists(folder: Path) -> None:
    """Lists of images of each stream, and of classes."""
    write_pictures(folder, ("a", "b", "c", "d", "day 2"))
    (folder / "camera.toml").write_text(description("labels"))
    (folder / "labeled.txt").write_text('# two\na\nb.png\n\n"day 2"\n')
    (folder / "val.txt").write_bytes("\ufeffc\r\n".encode())
    (folder / "label_colors.txt").write_text("128 64 128\troad\n0 0 142\tcar\n")
    (folder / "class_dict.csv").write_text("name,r,g,b\nroad,128,64,128\ncar,0,0,142\n")
    (folder / "labelmap.txt").write_text("# label:color_rgb:parts:actions\nroad:128,64,128::\ncar:0,0,142::\n")
    (folder / "codes.txt").write_text("road\ncar\nsky\n")


def use_list(folder: Path, path: Path) -> None:
    """The lists of a run, or one of classes as `iidm inspect` reads it."""
    if path.name not in ("labeled.txt", "val.txt"):
        problems = read_lists([path]).problems
        if problems:
            raise UserError(problems[0])
        return
    target = DatasetConfig(spec=str(folder / "camera.toml"))
    data = DataConfig(source=target, target=target, labeled_list=folder / "labeled.txt", val_list=folder / "val.txt")
    open_domains(Config(data=data))


def write_inspected(folder: Path) -> None:
    """What people have in one folder."""
    write_pictures(folder / "data")
    write_lists(folder / "lists")
    (folder / "data" / "codes.txt").write_text("road\ncar\nsky\n")
    table = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 24, "width": 32}],
        "categories": [{"id": 1, "name": "road"}],
    }
    ring = [1, 1, 9, 1, 9, 9, 1, 9]
    table["annotations"] = [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [ring]}]
    (folder / "data" / "coco.json").write_text(json.dumps(table))


def use_inspected(folder: Path, path: Path) -> None:
    """`iidm inspect` on all of it."""
    inspect([str(folder)])


def write_prepared(folder: Path) -> None:
    """A prepared folder of raw images and one of PNG."""
    root = folder.parent / f"{folder.name}-plain"
    for split in ("train", "val"):
        write_pictures(root / split)
    config = _prepared_config()
    for form in ("raw", "png"):
        prepare(make_plan(config, root, folder / form, image_format=form), jobs=1)  # type: ignore[arg-type]


def _prepared_config() -> DatasetConfig:
    return DatasetConfig(images="{split}/images", labels="{split}/labels", class_names=CLASSES)


def use_prepared(folder: Path, path: Path) -> None:
    """A run that reads it, and `iidm prepare --check`."""
    root = folder / path.relative_to(folder).parts[0]

    def reads() -> None:
        data = DataConfig(source=_prepared_config(), target=_prepared_config(), labeled_count=2, crop_size=(16, 16))
        config = Config(data=data, source_root=root, target_root=root)
        domains = open_domains(config)
        check_data(domains, config.data)
        for dataset in (domains.labeled, domains.val):
            assert dataset is not None and dataset.prepared is not None
            class_pixel_counts(dataset)
            for sample in dataset.samples:
                dataset.load_label(sample)
                if dataset.is_raw:
                    read_crop(sample.image, dataset.image_size(sample), (0, 0), (16, 16))
                else:
                    dataset.read_image_file(sample)

    def checks() -> None:
        problems = check_prepared(root, jobs=1)[1]
        if problems:
            raise UserError(problems[0])

    every(reads, checks)


DATA = (
    Kind("image", write_images, ("*",), use_image, is_decoded=True),
    Kind("label", write_labels, ("*.png", "*.tif", "*.bmp"), use_label, is_decoded=True),
    Kind("description", write_described, ("*.toml",), use_description),
    Kind("list", write_lists, ("*.txt", "*.csv"), use_list),
    Kind("inspected", write_inspected, ("**/*.*",), use_inspected, is_decoded=True),
    Kind("prepared", write_prepared, ("**/*.*",), use_prepared, is_written_apart=True),
)
