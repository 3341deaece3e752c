"""Ids as they come: two classes of 0 and 255, ids with gaps, and one class alone. A TOML file names them."""

from __future__ import annotations

from pathlib import Path

import make_datasets as make
import numpy as np
import pytest
from loaders import CPU, evaluated
from numpy.typing import NDArray

from iidm.config import Config, DataConfig, DatasetConfig
from iidm.data.datasets.dataset import Dataset, open_dataset
from iidm.data.datasets.domains import open_domains
from iidm.data.datasets.statistics import class_pixel_counts
from iidm.data.loading.loader import TrainLoader
from iidm.types import UserError

SIZE = (24, 32)
BACKGROUND, CAR = ("background", 0), ("car", 255)
GAPS = ("road", 3), ("car", 7), ("sky", 200)


def described(root: Path, *classes: tuple[str, int]) -> DatasetConfig:
    tables = (f'[[classes]]\nname = "{name}"\nids = [{i}]\n' for name, i in classes)
    file = root / "own.toml"
    file.write_text('images = "images/{split}"\nlabels = "labels/{split}"\n' + "\n".join(tables))
    return DatasetConfig(spec=str(file))


def write(root: Path, *ids: int) -> dict[str, NDArray[np.uint8]]:
    """Two images of each split with labels of these ids; name -> ids."""
    found = {}
    for number, name in enumerate(("train/a", "train/b", "val/c", "val/d")):
        found[name] = make.random_ids(ids, SIZE, number)
        make.save_image(root / "images" / f"{name}.png", SIZE, number)
        make.save_gray(root / "labels" / f"{name}.png", found[name])
    return found


def positions(ids: NDArray[np.uint8], classes: tuple[tuple[str, int], ...]) -> NDArray[np.uint8]:
    return np.select([ids == i for _, i in classes], range(len(classes)), 255).astype(np.uint8)


@pytest.mark.parametrize("classes", [(BACKGROUND, CAR), (CAR, BACKGROUND), GAPS])
def test_labels_of_any_ids_are_read_counted_and_cropped_as_their_classes(
    classes: tuple[tuple[str, int], ...], tmp_path: Path
) -> None:
    written = write(tmp_path, *(i for _, i in classes))
    spec = described(tmp_path, *classes)
    train: Dataset = open_dataset(spec, None, "train")
    counts = class_pixel_counts(train)
    for row, sample in enumerate(train.samples):
        expected = positions(written[f"train/{sample.name}"], classes)
        np.testing.assert_array_equal(train.load_label(sample), expected)
        assert counts[row].tolist() == np.bincount(expected.ravel(), minlength=len(classes)).tolist()
        assert counts[row].sum() == expected.size, "no pixel is lost to the ignored ones"
    val = open_dataset(spec, None, "val")
    for batch in evaluated(val, 1):
        np.testing.assert_array_equal(batch.label[0].numpy(), positions(written[f"val/{batch.names[0]}"], classes))
    data = DataConfig(spec, spec, crop_size=SIZE, labeled_count=1, flip_probability=0, rare_class_sampling=False)
    domains = open_domains(Config(data=data))
    with TrainLoader(domains, data, seed=0, device=CPU, threads=1) as loader:
        batch = next(iter(loader))
    assert batch.source is not None and batch.target is not None
    possible = [positions(ids, classes) for name, ids in written.items() if name.startswith("train/")]
    for label in (*batch.source.label.numpy(), *batch.target.label.numpy()):
        assert any(np.array_equal(label, one) for one in possible)


def test_255_without_a_class_of_its_own_is_ignored(tmp_path: Path) -> None:
    written = write(tmp_path, 0, 1, 255)
    train = open_dataset(described(tmp_path, ("background", 0), ("car", 1)), None, "train")
    np.testing.assert_array_equal(train.load_label(train.samples[0]), written["train/a"])


@pytest.mark.parametrize("form", ["toml", "fields"])
def test_one_class_alone_is_refused_with_the_class_that_is_missing(form: str, tmp_path: Path) -> None:
    write(tmp_path, 0, 255)
    spec = described(tmp_path, ("crack", 255))
    if form == "fields":
        spec = DatasetConfig(images="images/{split}", labels="labels/{split}", class_names=("crack",))
    with pytest.raises(UserError) as error:
        open_dataset(spec, tmp_path, "train")
    for part in ("crack is the only class", 'name = "background"', "ids = [0]", "class names"):
        assert part in str(error.value)
    assert (spec.spec in str(error.value)) == (form == "toml")
