"""What a run tells of its labels before its first step, and the likely mistakes that stop it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import make_datasets as make
import numpy as np
import pytest
from numpy.typing import NDArray

from iidm.config import Config, DataConfig, DatasetConfig
from iidm.data.datasets.domains import open_domains
from iidm.data.datasets.summary import LabelSet, find_mistakes, summarize
from iidm.types import UserError

CLASSES = ("road", "car", "sky")
SIZE = (20, 30)


def label(*ids: int) -> NDArray[np.uint8]:
    """uint8 [20,30] with equal stretches of columns of each id."""
    return np.repeat(np.array(ids, np.uint8), SIZE[1] // len(ids))[None].repeat(SIZE[0], axis=0)


def write(root: Path, split: str, labels: list[NDArray[np.uint8] | None]) -> None:
    for i, ids in enumerate(labels):
        make.save_image(root / "images" / split / f"{split}{i}.png", SIZE, i)
        if ids is not None:
            make.save_gray(root / "labels" / split / f"{split}{i}.png", ids)


def config(root: Path, *, names: tuple[str, ...] = CLASSES, id_map: tuple[str, ...] = (), **data: object) -> Config:
    spec = DatasetConfig(images="images/{split}", labels="labels/{split}", class_names=names, id_map=id_map)
    target = replace(spec, val_images="images/val", val_labels="labels/val")
    fields = {"labeled_count": None, "source": spec, "target": target, **data}
    return Config(source_root=root / "source", target_root=root / "target", data=DataConfig(**fields))  # type: ignore[arg-type]


def say(config: Config) -> list[str]:
    return summarize(open_domains(config), config.data)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IIDM_CACHE", str(tmp_path / "cache"))
    write(tmp_path / "source", "train", [label(0, 1, 2), label(0, 1, 1)])
    write(tmp_path / "target", "train", [label(0, 1, 255), None, None])
    write(tmp_path / "target", "val", [label(0, 1, 2)])
    return tmp_path


def test_images_ignored_pixels_and_the_share_of_each_class_are_told(root: Path) -> None:
    lines = say(config(root))
    assert lines[:4] == [
        "source: 2 images with labels; 0.0% of their pixels are ignored",
        "labeled target: 1 image with labels; 33.3% of their pixels are ignored",
        "unlabeled target: 2 images",
        "validation: 1 image with labels; 0.0% of their pixels are ignored",
    ]
    table = {line.split()[0]: line.split()[1:] for line in lines[5:8]}
    assert table == {"road": ["33.3", "50.0", "33.3"], "car": ["50.0", "50.0", "33.3"], "sky": ["16.7", "-", "33.3"]}
    assert lines[8:] == ["labeled target has no sky"]


def test_a_bad_validation_label_is_found_before_training_however_many_there_are(root: Path) -> None:
    write(root / "target", "val", [label(0, 1, 2)] * 40)
    make.save_gray(root / "target" / "labels" / "val" / "val17.png", label(0, 1, 77))
    with pytest.raises(UserError, match="val17.png.*77"):
        say(config(root))


@pytest.mark.parametrize("where", ["source", "val"])
def test_labels_that_are_nearly_all_ignored_stop_the_run(root: Path, where: str) -> None:
    folder, split = (root / "source", "train") if where == "source" else (root / "target", "val")
    write(folder, split, [label(255)] * 2)
    with pytest.raises(UserError, match="100.0% of the labels' pixels are ignored.*--data.accept ignored"):
        say(config(root))
    assert any("100.0%" in line for line in say(config(root, accept=("ignored", "missing-class"))))


@pytest.mark.parametrize("count", [3, 46])
def test_masks_of_0_and_255_are_told_of_and_stop_a_run_of_two_classes(root: Path, count: int) -> None:
    for folder, split, n in (("source", "train", count), ("target", "train", 3), ("target", "val", 2)):
        write(root / folder, split, [label(0, 0, 255)] * n)
    with pytest.raises(UserError, match=r"one class, ground.*ids = \[255\].*--data.accept one-class"):
        say(config(root, names=("ground", "car"), labeled_count=1))
    lines = say(config(root, names=("ground", "car"), labeled_count=1, accept=("one-class",)))
    assert any(line.startswith("source: the labels hold the ids 0, 255 alone, and 255 is ignored") for line in lines)


def test_masks_of_0_and_255_in_validation_alone_are_told_of(root: Path) -> None:
    write(root / "target", "val", [label(0, 0, 255)])
    assert any(line.startswith("validation: the labels hold the ids 0, 255 alone") for line in say(config(root)))


def test_train_ids_that_are_read_as_ids_stop_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IIDM_CACHE", str(tmp_path / "cache"))
    make.write_gta5(tmp_path / "source")
    make.write_cityscapes(tmp_path / "target", train=3, val=1)
    for path in (tmp_path / "target" / "gtFine").rglob("*_labelIds.png"):
        make.save_gray(path, make.random_ids((0, 1, 2, 5, 8, 10, 11, 13, 255), make.SIZE, 0))
    run = Config(
        source_root=tmp_path / "source",
        target_root=tmp_path / "target",
        data=DataConfig(source=DatasetConfig(spec="gta5"), target=DatasetConfig(spec="cityscapes"), labeled_count=1),
    )
    with pytest.raises(UserError, match="look like train ids.*--data.accept train-ids"):
        say(run)


def test_a_class_of_validation_that_no_training_label_holds_stops_a_run_with_a_source(root: Path) -> None:
    write(root / "source", "train", [label(0, 1)] * 2)
    with pytest.raises(UserError, match="Validation asks for sky.*--data.accept missing-class"):
        say(config(root))
    assert say(config(root, accept=("missing-class",)))[-1].startswith("no training label has sky")


def test_few_outlines_are_told_of_as_outlines_and_not_as_ids(root: Path) -> None:
    """Somebody who drew a few strokes has no ids to check: what is ignored is what has no outline."""
    domains = open_domains(config(root))
    assert domains.labeled is not None
    drawn = replace(domains.labeled, encoding=replace(domains.labeled.encoding, by="names"))
    pixels = np.array([1, 1, 0, 998], np.int64)
    found = find_mistakes({"labeled": LabelSet("labeled target", drawn, pixels, Counter())})
    assert "`unlabeled`" in found["ignored"] and "ids" not in found["ignored"]


def test_255_that_a_class_names_is_a_class(root: Path) -> None:
    write(root / "source", "train", [label(0, 0, 255)] * 2)
    write(root / "target", "train", [label(0, 0, 255)] * 3)
    write(root / "target", "val", [label(0, 0, 255)])
    id_map = ("0:0", "255:1")
    lines = say(config(root, names=("ground", "car"), id_map=id_map, labeled_count=1))
    assert lines[0].endswith("0.0% of their pixels are ignored") and not any("alone" in line for line in lines)


def test_a_class_that_no_label_holds_is_told_once(root: Path) -> None:
    lines = say(config(root, names=(*CLASSES, "bus", *(f"class {i}" for i in range(30)))))
    lacking = [line for line in lines if " has " in line]
    assert lacking[0] == "labeled target has no sky" and len(lacking) == 2
    assert lacking[1].startswith("no label has bus, class 0,") and lacking[1].endswith("the network cannot learn that")
    assert "and 19 more" in lacking[1]
