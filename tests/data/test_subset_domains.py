"""A run on the source images nearest to the labeled target: what it goes together with, and what it says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import make_datasets as make
import numpy as np
import pytest

import iidm.train
from iidm.cli import parse_config
from iidm.config import Config, DataConfig, DatasetConfig, LossConfig
from iidm.data.datasets.dataset import Dataset
from iidm.data.datasets.domains import open_domains, write_splits
from iidm.data.datasets.statistics import class_pixel_counts
from iidm.data.loading.sampling import RareClasses
from iidm.data.preparation.plan import make_plan, prepare
from iidm.types import UserError

ALL_LOSSES = LossConfig()
SOURCE_ONLY = LossConfig(target_weight=0, inter_weight=0, intra_weight=0)
UNSUPERVISED = LossConfig(target_weight=0, intra_weight=0)
TARGET_ONLY = LossConfig(source_weight=0, inter_weight=0, intra_weight=0)
FOLDER = DatasetConfig(
    images="images/train",
    labels="labels/train",
    val_images="images/val",
    val_labels="labels/val",
    class_names=("road", "wall", "sky"),
    resize=(20, 30),
)


def _write(root: Path, split: str, name: str, road: float) -> None:
    """An image whose label is `road` of the width road, the rest of it wall; one row of sky and one ignored."""
    label = np.ones((20, 30), np.uint8)
    label[:, : round(30 * road)] = 0
    label[0], label[1] = 2, 255
    make.save_image(root / "images" / split / f"{name}.png", label.shape, len(name))
    make.save_gray(root / "labels" / split / f"{name}.png", label)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Source images s0 to s9 with 0 to 0.9 of road, and target images with half of it; one has none."""
    for i in range(10):
        _write(tmp_path / "source", "train", f"s{i}", i / 10)
    for name in ("t0", "t1", "t2", "t3"):
        _write(tmp_path / "target", "train", name, 0.5)
    _write(tmp_path / "target", "train", "t4", 0.0)
    _write(tmp_path / "target", "val", "v0", 0.5)
    (tmp_path / "labeled.txt").write_text("t0\nt1\n")
    return tmp_path


def _config(folders: Path, loss: LossConfig = ALL_LOSSES, **data: Any) -> Config:
    chosen = {"labeled_list": folders / "labeled.txt", "source_subset": 0.3, **data}
    return Config(
        source_root=folders / "source",
        target_root=folders / "target",
        data=DataConfig(source=FOLDER, target=FOLDER, rare_class_min_px=20, **chosen),
        loss=loss,
    )


def _names(dataset: Dataset | None) -> list[str]:
    assert dataset is not None
    return [sample.name for sample in dataset.samples]


def test_a_run_opens_the_nearest_share_of_the_source(folders: Path) -> None:
    whole = open_domains(_config(folders, source_subset=None))
    domains = open_domains(_config(folders))
    assert _names(domains.source) == ["s4", "s5", "s6"]
    assert replace(domains, source=whole.source) == whole and not whole.notes
    assert domains.notes == (
        "source: 3 of 10 images, those nearest to 2 labeled target images (--data.source-subset 0.3)",
    )
    assert open_domains(_config(folders)) == domains
    for share, count in ((1.0, 10), (0.25, 3), (0.24, 2), (0.01, 1)):
        assert len(_names(open_domains(_config(folders, source_subset=share)).source)) == count
    (folders / "labeled.txt").write_text("t4\nt1\n")
    assert _names(open_domains(_config(folders)).source) == ["s0", "s4", "s5"]  # t4 has no road, like s0


def test_a_class_that_the_share_has_no_room_for_is_named(folders: Path) -> None:
    label = np.full((20, 30), 2, np.uint8)
    make.save_gray(folders / "source" / "labels" / "train" / "s9.png", label)
    for i in range(9):
        _write(folders / "source", "train", f"s{i}", 1.0)
    domains = open_domains(_config(folders, source_subset=0.1))
    assert _names(domains.source) == ["s0"] and domains.notes[0].endswith("0.1)")
    make.save_gray(folders / "source" / "labels" / "train" / "s9.png", np.ones((20, 30), np.uint8))
    domains = open_domains(_config(folders, source_subset=0.1))
    assert _names(domains.source) == ["s9"] and domains.notes[0].endswith("; too few to keep road, sky")


def test_it_chooses_among_the_images_of_the_source_list(folders: Path) -> None:
    (folders / "source.txt").write_text("s7\ns3\ns6\ns1\n")
    domains = open_domains(_config(folders, source_list=folders / "source.txt", source_subset=0.5))
    assert _names(domains.source) == ["s3", "s6"]  # s7 is as near as s3


def test_the_written_split_brings_the_subset_back(folders: Path) -> None:
    domains = open_domains(_config(folders))
    write_splits(domains, folders / "run")
    written = folders / "run" / "splits" / "source.txt"
    assert written.read_text().split() == ["s4", "s5", "s6"]
    assert open_domains(_config(folders, source_list=written, source_subset=None)) == domains


@pytest.mark.parametrize("loss", [SOURCE_ONLY, UNSUPERVISED])
def test_the_same_images_are_chosen_where_no_loss_reads_the_labeled_target(folders: Path, loss: LossConfig) -> None:
    domains = open_domains(_config(folders, loss))
    assert domains.labeled is None and _names(domains.source) == ["s4", "s5", "s6"]
    assert replace(domains, source=None) == replace(
        open_domains(_config(folders, loss, source_subset=None)), source=None
    )
    every = open_domains(_config(folders, UNSUPERVISED, labeled_list=None, labeled_count=None))
    assert len(_names(every.unlabeled)) == 5 and "nearest to 5 labeled" in every.notes[0]


def test_a_run_on_the_target_alone_has_no_subset(folders: Path) -> None:
    domains = open_domains(_config(folders, TARGET_ONLY))
    assert domains.source is None
    assert domains.notes == ("source: it is given, and not read: iidm learns from the target alone",)


def test_without_labels_of_the_target_it_says_what_to_do(folders: Path) -> None:
    no_labels = r"no target image is labeled.*--data\.labeled-count or --data\.labeled-list.*--data\.source-list"
    for loss in (SOURCE_ONLY, UNSUPERVISED):
        with pytest.raises(UserError, match=no_labels):
            open_domains(_config(folders, loss, labeled_list=None, labeled_count=0))
    with pytest.raises(UserError, match="labeled-count is 6, but there are 5"):
        open_domains(_config(folders, SOURCE_ONLY, labeled_list=None, labeled_count=6))
    for label in (folders / "target" / "labels" / "train").iterdir():
        label.unlink()
    for count in (2, None):
        with pytest.raises(UserError, match=no_labels):
            open_domains(_config(folders, UNSUPERVISED, labeled_list=None, labeled_count=count))


@pytest.mark.parametrize("share", [0.0, -0.1, 1.01, float("nan")])
def test_a_share_is_more_than_nothing_and_at_most_all(share: float) -> None:
    with pytest.raises(UserError, match="--data.source-subset must be more than 0 and at most 1"):
        DataConfig(source_subset=share)


def test_prepared_folders_give_the_same_subset_without_reading_a_label(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloaded = open_domains(_config(folders))
    for domain in ("source", "target"):
        splits = None if domain == "target" else ("train",)
        plan = make_plan(FOLDER, folders / domain, folders / "prepared" / domain, splits=splits)
        prepare(plan, jobs=1)
    monkeypatch.setattr(Dataset, "load_label", lambda *_: pytest.fail("a label was read"))
    config = _config(folders)
    prepared = folders / "prepared"
    domains = open_domains(replace(config, source_root=prepared / "source", target_root=prepared / "target"))
    assert domains.source is not None and domains.source.prepared is not None
    assert _names(domains.source) == _names(downloaded.source) and domains.notes == downloaded.notes


def test_rare_class_sampling_draws_from_the_subset_and_decodes_no_label_for_it(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    domains = open_domains(_config(folders))
    assert domains.source is not None
    labels = [domains.source.load_label(sample) for sample in domains.source.samples]
    monkeypatch.setattr(Dataset, "load_label", lambda *_: pytest.fail("a label was read"))
    counts = class_pixel_counts(domains.source)
    np.testing.assert_array_equal(counts, [[(label == k).sum() for k in range(3)] for label in labels])
    rare = RareClasses(counts, temperature=0.01, min_px=20, class_names=FOLDER.class_names)
    assert rare.classes.tolist() == [0, 1, 2] and all(images.tolist() == [0, 1, 2] for images in rare.images)


def test_a_damaged_label_is_named_or_is_the_farthest_of_all(folders: Path) -> None:
    (folders / "source" / "labels" / "train" / "s5.png").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"s5\.png"):
        open_domains(_config(folders))
    skipping = open_domains(_config(folders, skip_damaged=True))
    assert _names(skipping.source) == ["s3", "s4", "s6"]
    with pytest.raises(UserError, match=r"s5\.png"):
        open_domains(_config(folders))
    every = open_domains(_config(folders, skip_damaged=True, source_subset=1.0))
    assert every.source is not None and len(every.source.samples) == 10
    assert class_pixel_counts(every.source, skip_damaged=True).any(axis=1).tolist() == [i != 5 for i in range(10)]


def test_a_run_says_how_many_source_images_it_kept_and_trains_on_them(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    words = ["--preset", "folder", "--run-dir", str(run_dir), "--data.labeled-list", str(folders / "labeled.txt")]
    words += ["--source-root", str(folders / "source"), "--target-root", str(folders / "target")]
    for domain in ("source", "target"):
        words += [f"--data.{domain}.images", "images/{split}", f"--data.{domain}.labels", "labels/{split}"]
        words += [f"--data.{domain}.class-names", *FOLDER.class_names]
    words += "--data.source-subset 0.3 --data.crop-size 16 32 --model.backbone resnet18 --model.weights none".split()
    words += "--model.output-stride 32 --max-steps 1 --log.no-tensorboard --log.every 1".split()
    config, _ = parse_config(words)
    assert config.data.source_subset == 0.3
    iidm.train.run(config)
    said = capsys.readouterr().err
    assert said.count("source: 3 of 10 images, those nearest to 2 labeled target images") == 1
    assert "source: 3 images" in said and "labeled target: 2 images" in said
    assert (run_dir / "splits" / "source.txt").read_text().split() == ["s4", "s5", "s6"]
    resumed, folder = parse_config(["--resume", str(run_dir)])
    assert folder == run_dir and _names(open_domains(resumed).source) == ["s4", "s5", "s6"]
