"""Training and validation images of one prepared folder stay apart, and the check before the first step knows both."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import make_datasets as make
import pytest

from iidm.config import Config, DataConfig, DatasetConfig
from iidm.data.datasets.check import check_domains
from iidm.data.datasets.domains import open_domains
from iidm.data.preparation.plan import make_plan, prepare
from iidm.types import UserError

IDS = range(3)
CONFIG = DatasetConfig(
    images="images",
    labels="labels",
    val_images="images",
    val_labels="labels",
    class_names=tuple(f"class {k}" for k in IDS),
    resize=(15, 26),
)


def _config(tmp_path: Path) -> Config:
    """A target whose validation images lie in the training folder, downloaded; a list names four of eight."""
    make.write_folder(tmp_path / "raw", [f"{i:03d}" for i in range(8)], IDS)
    (tmp_path / "val.txt").write_text("".join(f"{i:03d}\n" for i in range(4)))
    data = DataConfig(source=CONFIG, target=CONFIG, labeled_count=2, val_list=tmp_path / "val.txt")
    return Config(source_root=tmp_path / "raw", target_root=tmp_path / "raw", data=data)


def _prepared(config: Config, tmp_path: Path) -> Config:
    prepare(make_plan(CONFIG, tmp_path / "raw", tmp_path / "prepared"), jobs=1)
    return replace(config, source_root=tmp_path / "prepared", target_root=tmp_path / "prepared")


def test_validation_images_are_kept_out_of_training_as_they_are_from_the_downloaded_folder(tmp_path: Path) -> None:
    config = _config(tmp_path)
    for one in (config, _prepared(config, tmp_path)):
        domains = open_domains(one)
        assert domains.labeled and domains.unlabeled
        trained = {sample.name for sample in (*domains.labeled.samples, *domains.unlabeled.samples)}
        assert trained == {"004", "005", "006", "007"}
        assert {sample.name for sample in domains.val.samples} == {"000", "001", "002", "003"}
        assert domains.val.load_label(domains.val.samples[0]).shape == make.SIZE


def test_the_check_looks_at_the_lengths_of_prepared_files(tmp_path: Path) -> None:
    config = _prepared(_config(tmp_path), tmp_path)
    domains = open_domains(config)
    assert domains.source
    label = domains.source.samples[1].label
    assert label is not None
    label.write_bytes(label.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"1 bad file.*005\.npy is damaged: it has 517 bytes, its index says 518"):
        check_domains(domains, (15, 26))
    checked = check_domains(domains, (15, 26), skip_damaged=True)
    assert checked.damaged == {label}
    assert any("005.npy" in note for note in checked.notes) and any("1 damaged" in note for note in checked.notes)


def test_damaged_validation_files_are_never_skipped(tmp_path: Path) -> None:
    domains = open_domains(_prepared(_config(tmp_path), tmp_path))
    domains.val.samples[1].image.unlink()
    with pytest.raises(UserError, match=r"val: .*001\.npy cannot be read"):
        check_domains(domains, (15, 26), skip_damaged=True)


def test_validation_images_below_the_training_folder_are_prepared_for_that_alone(tmp_path: Path) -> None:
    raw, below = tmp_path / "raw", replace(CONFIG, val_images="images/val", val_labels="labels/val")
    make.write_folder(raw, [f"t{i}" for i in range(4)], IDS)
    make.write_folder(tmp_path / "other", ["v0", "v1"], IDS)
    for kind in ("images", "labels"):
        (tmp_path / "other" / kind).rename(raw / kind / "val")
    plan = make_plan(below, raw, tmp_path / "prepared")
    assert "2 training images of folder validate, and are prepared for that alone" in plan.datasets["train"].notes
    prepare(plan, jobs=1)
    for root in (raw, tmp_path / "prepared"):
        data = DataConfig(source=below, target=below, labeled_count=2)
        domains = open_domains(Config(source_root=root, target_root=root, data=data))
        assert domains.source and domains.labeled and domains.unlabeled and domains.val
        assert domains.val.names == ["v0", "v1"] and domains.source.names == ["t0", "t1", "t2", "t3"]
        assert sorted(domains.labeled.names + domains.unlabeled.names) == ["t0", "t1", "t2", "t3"]


def test_a_source_in_the_targets_folder_teaches_no_image_that_validates(tmp_path: Path) -> None:
    config = _config(tmp_path)
    for one in (config, _prepared(config, tmp_path)):
        domains = open_domains(one)
        assert domains.source and domains.source.names == ["004", "005", "006", "007"]
        assert "source: left out, as validation reads them: 4 images" in domains.notes
    (tmp_path / "val.txt").write_text("".join(f"{i:03d}\n" for i in range(8)))
    with pytest.raises(UserError, match="All images of the source validate"):
        open_domains(config)
