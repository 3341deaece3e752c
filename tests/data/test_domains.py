"""The streams of a run: which are opened, how the target is divided, and what is said when one is empty."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import make_datasets as make
import numpy as np
import pytest

from iidm.config import Config, DataConfig, DatasetConfig, EvalConfig, LossConfig
from iidm.data.datasets.dataset import Dataset, open_dataset
from iidm.data.datasets.domains import (
    open_domains,
    open_folder,
    open_plain_target,
    target_classes,
    training_size_for,
    write_splits,
)
from iidm.data.datasets.validation import open_validation
from iidm.data.specs.described import find_spec
from iidm.data.specs.known import SCENES_COUNTS
from iidm.types import UserError

DUSK = [f"0001TP_{i:06d}" for i in range(0, 620, 10)]


def _spec(name: str, **fields: Any) -> DatasetConfig:
    return DatasetConfig(spec=name, **fields)


def _config(source: str, target: str, root: Path, *, loss: LossConfig | None = None, **data: Any) -> Config:
    return Config(
        source_root=root / "source",
        target_root=root / "target",
        data=DataConfig(source=_spec(source), target=_spec(target), **data),
        loss=loss or LossConfig(),
    )


@pytest.fixture
def gta5_cityscapes(tmp_path: Path) -> Path:
    make.write_gta5(tmp_path / "source")
    make.write_cityscapes(tmp_path / "target", train=6, val=2)
    return tmp_path


def _names(dataset: Dataset | None) -> list[str]:
    assert dataset is not None
    return [sample.name for sample in dataset.samples]


def test_three_even_dusk_frames_of_the_real_camvid_are_labeled(camvid_root: Path) -> None:
    config = Config(
        source_root=camvid_root,
        target_root=camvid_root,
        data=DataConfig(
            source=_spec("camvid-day"), target=_spec("camvid-dusk"), labeled_count=3, labeled_choice="even"
        ),
    )
    domains = open_domains(config)
    frames = [int(n.split("_")[1]) for n in _names(domains.labeled)]
    all_frames = sorted([*frames, *(int(n.split("_")[1]) for n in _names(domains.unlabeled))])
    assert [all_frames.index(f) for f in frames] == [7, 23, 38]
    assert len(_names(domains.unlabeled)) == 43 and len(domains.val.samples) == 16
    assert max(all_frames) < min(int(n.split("_")[1]) for n in _names(domains.val))
    labels = [domains.val.load_label(s) for s in domains.val.samples[:2]]
    assert all(set(np.unique(label)) <= {*range(11), 255} for label in labels)


def test_domains_hold_a_labeled_budget_and_the_rest(gta5_cityscapes: Path) -> None:
    domains = open_domains(_config("gta5", "cityscapes", gta5_cityscapes, labeled_count=2))
    assert len(_names(domains.source)) == 3 and len(_names(domains.labeled)) == 2
    assert len(_names(domains.unlabeled)) == 4 and len(domains.val.samples) == 2
    assert not set(_names(domains.labeled)) & set(_names(domains.unlabeled))
    assert domains.unlabeled is not None and all(s.label is None for s in domains.unlabeled.samples)


def test_streams_that_no_loss_needs_are_not_opened(gta5_cityscapes: Path) -> None:
    shutil.rmtree(gta5_cityscapes / "source")
    only_target = LossConfig(source_weight=0, inter_weight=0, intra_weight=0)
    domains = open_domains(_config("gta5", "cityscapes", gta5_cityscapes, loss=only_target, labeled_count=2))
    assert domains.source is None and domains.unlabeled is None and len(_names(domains.labeled)) == 2


def test_a_source_that_is_given_and_not_read_is_told(tmp_path: Path) -> None:
    make.write_folder(tmp_path, [f"{i}" for i in range(4)], range(3))
    target = _spec("folder", images="images", labels="labels", class_names=("a", "b", "c"))
    loss = LossConfig(source_weight=0, inter_weight=0, intra_weight=0)
    data = DataConfig(target=target, labeled_count=3)
    alone = Config(target_root=tmp_path, data=data, loss=loss, method="target_only")
    assert not any("source" in note for note in open_domains(alone).notes)
    given = replace(alone, data=replace(data, source=replace(target, images="missing")))
    told = "source: it is given, and not read: target_only learns from the target alone"
    for config in (given, replace(alone, source_root=tmp_path)):
        assert told in open_domains(config).notes


def test_unsupervised_adaptation_needs_no_target_labels_and_sees_all_images(gta5_cityscapes: Path) -> None:
    shutil.rmtree(gta5_cityscapes / "target" / "gtFine" / "train")
    loss = LossConfig(target_weight=0, intra_weight=0)
    domains = open_domains(_config("gta5", "cityscapes", gta5_cityscapes, loss=loss, labeled_count=0))
    assert domains.labeled is None and len(_names(domains.unlabeled)) == 6


def test_other_losses_do_not_change_which_images_are_unlabeled(gta5_cityscapes: Path) -> None:
    config = _config("gta5", "cityscapes", gta5_cityscapes, labeled_count=3)
    without = replace(config, loss=LossConfig(target_weight=0, intra_weight=0))
    assert _names(open_domains(config).unlabeled) == _names(open_domains(without).unlabeled)


@pytest.mark.parametrize("losses", [(1, 1, 1, 1), (1, 1, 0, 0), (1, 0, 1, 0), (1, 0, 0, 0)])
def test_plain_target_images_are_labeled_and_unlabeled_ones_together_whatever_the_losses(
    gta5_cityscapes: Path, losses: tuple[float, ...]
) -> None:
    config = _config("gta5", "cityscapes", gta5_cityscapes, loss=LossConfig(*losses), labeled_count=2)
    domains = open_domains(config)
    assert domains.plain_target is not None
    assert len(_names(domains.plain_target)) == 6 and _names(domains.plain_target) == sorted(
        _names(domains.plain_target)
    )
    assert all(sample.label is None for sample in domains.plain_target.samples)
    held_out = {domains.val.origin(sample) for sample in domains.val.samples}
    assert not held_out & {domains.plain_target.origin(sample) for sample in domains.plain_target.samples}
    alone = open_plain_target(config)
    assert alone is not None and _names(alone) == _names(domains.plain_target)
    running = replace(config, eval=EvalConfig(statistics="running"))
    assert open_domains(running).plain_target is None


def test_plain_target_images_are_those_of_the_lists_without_the_validation_images(
    gta5_cityscapes: Path, tmp_path: Path
) -> None:
    config = _config("gta5", "cityscapes", gta5_cityscapes, labeled_count=2)
    names = sorted(s.name for s in open_dataset(config.data.target, config.target_root, "train").samples)
    for kind, chosen in (("labeled", names[:1]), ("unlabeled", names[2:4])):
        (tmp_path / f"{kind}.txt").write_text("\n".join(chosen))
    lists = replace(config.data, labeled_list=tmp_path / "labeled.txt", unlabeled_list=tmp_path / "unlabeled.txt")
    assert _names(open_domains(replace(config, data=lists)).plain_target) == [names[0], *names[2:4]]
    folders = replace(config.data.target, val_images="leftImg8bit/train", val_labels="gtFine/train")
    assert open_plain_target(replace(config, data=replace(config.data, target=folders))) is None


def test_a_needed_stream_that_is_empty_says_what_to_do(gta5_cityscapes: Path) -> None:
    with pytest.raises(UserError, match=r"--loss\.target-weight 0 --loss\.intra-weight 0"):
        open_domains(_config("gta5", "cityscapes", gta5_cityscapes, labeled_count=0))
    with pytest.raises(UserError, match=r"No target image is unlabeled.*--data\.unlabeled-list"):
        open_domains(_config("gta5", "cityscapes", gta5_cityscapes, labeled_count=6))
    with pytest.raises(UserError, match="labeled-count is 7, but there are 6"):
        open_domains(_config("gta5", "cityscapes", gta5_cityscapes, labeled_count=7))


def test_classes_that_both_domains_lack_of_each_other_are_refused_with_both_lists(tmp_path: Path) -> None:
    make.write_gta5(tmp_path / "source")
    make.write_camvid(tmp_path / "target", DUSK)
    config = _config("gta5", "camvid-dusk", tmp_path, labeled_count=1)
    with pytest.raises(UserError, match="source alone has sidewalk.*target alone has pavement.*--data.acc") as refused:
        open_domains(config)
    # The first of each list are no pair: an example made of them would have a user learn one class as another.
    assert 'name = "' not in str(refused.value) and "of several classes" in str(refused.value)
    accepted = open_domains(replace(config, data=replace(config.data, accept=("class-names",))))
    assert accepted.source is not None and accepted.source.classes == accepted.classes
    assert "sidewalk" in accepted.notes[0] and "pavement" in accepted.notes[1]


def test_a_presets_source_beside_a_target_of_ones_own_is_named(tmp_path: Path) -> None:
    make.write_gta5(tmp_path / "source")
    (tmp_path / "target").mkdir()
    own = tmp_path / "own.toml"
    for names, said in ((("road", "crack"), "The source is gta5, the preset's unless"), (("a", "b"), "Target: a, b.")):
        own.write_text('images = "i"\n' + "".join(f'[[classes]]\nname = "{name}"\n' for name in names))
        with pytest.raises(UserError, match=f"{said}.*--data.source.spec FILE.toml.*--method target_intra"):
            open_domains(_config("gta5", str(own), tmp_path, labeled_count=1))


def test_lists_choose_the_images_of_each_set(gta5_cityscapes: Path) -> None:
    names = _names(open_dataset(_spec("cityscapes"), gta5_cityscapes / "target", "train"))
    lists = {"source": ["00002"], "labeled": [names[4]], "unlabeled": [names[4], names[0]]}
    lists["val"] = _names(open_dataset(_spec("cityscapes"), gta5_cityscapes / "target", "val"))[1:]
    for stream, chosen in lists.items():
        (gta5_cityscapes / f"{stream}.txt").write_text("\n".join(chosen))
    paths = {f"{stream}_list": gta5_cityscapes / f"{stream}.txt" for stream in lists}
    domains = open_domains(_config("gta5", "cityscapes", gta5_cityscapes, **paths))
    for stream, chosen in lists.items():
        assert _names(getattr(domains, stream)) == sorted(chosen)


def test_written_splits_bring_the_same_domains_back(gta5_cityscapes: Path, tmp_path: Path) -> None:
    config = _config("gta5", "cityscapes", gta5_cityscapes, labeled_count=2, split_seed=5)
    domains = open_domains(config)
    write_splits(domains, tmp_path / "run")
    folder = tmp_path / "run" / "splits"
    assert sorted(p.name for p in folder.iterdir()) == [
        "labeled.txt",
        "source.txt",
        "unlabeled.txt",
        "val.txt",
    ]
    lists = {f"{stream}_list": folder / f"{stream}.txt" for stream in ("source", "labeled", "unlabeled", "val")}
    assert open_domains(replace(config, data=replace(config.data, split_seed=6, **lists))) == domains


def test_validation_images_never_train(tmp_path: Path) -> None:
    names = [f"night/{i}" for i in range(8)]
    make.write_folder(tmp_path / "target", names, range(3))
    (tmp_path / "val.txt").write_text("night/2\nnight/5\n")
    target = _spec(
        "folder",
        images="images",
        labels="labels",
        val_images="images",
        val_labels="labels",
        class_names=("a", "b", "c"),
    )
    config = Config(
        target_root=tmp_path / "target",
        data=DataConfig(target=target, labeled_count=3, val_list=tmp_path / "val.txt"),
        loss=LossConfig(source_weight=0, inter_weight=0),
    )
    domains = open_domains(config)
    assert _names(domains.val) == ["night/2", "night/5"] == _names(open_validation(config))
    assert sorted(_names(domains.labeled) + _names(domains.unlabeled)) == [n for n in names if n[-1] not in "25"]


def _few_scenes(monkeypatch: pytest.MonkeyPatch) -> Config:
    few = {("rendered", "train"): 3, ("camera", "train"): 2, ("camera", "val"): 1}
    monkeypatch.setattr("iidm.data.scenes.builtin.SCENES_COUNTS", few)
    monkeypatch.setattr("iidm.data.scenes.builtin.SCENES_SIZE", (64, 128))
    target = _spec("streetscenes-camera")
    return Config(data=DataConfig(source=_spec("streetscenes-rendered"), target=target, labeled_count=1))


def test_built_in_scenes_are_drawn_once_where_no_root_is_given(
    monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    config = _few_scenes(monkeypatch)
    told: list[tuple[int, int]] = []
    domains = open_domains(config, progress=lambda *done: told.append(done))
    assert (3, 3) in told
    assert len(_names(domains.source)) == 3 and len(_names(domains.unlabeled)) == 1
    assert all(sample.image.is_relative_to(own_cache) for sample in domains.val.samples)
    assert open_domains(config, progress=lambda *_: pytest.fail("drawn twice")) == domains
    assert open_validation(config) == domains.val
    for dataset in (domains.source, domains.labeled, domains.val):
        assert dataset is not None
        for sample in dataset.samples:
            assert dataset.load_label(sample).shape == (64, 128)


def test_a_run_on_the_target_alone_draws_no_rendered_scenes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = replace(_few_scenes(monkeypatch), loss=LossConfig(source_weight=0, inter_weight=0))
    open_domains(config, scenes_cache=tmp_path)
    assert {p.name for p in tmp_path.rglob("*") if p.name in ("rendered", "camera")} == {"camera"}


def test_built_in_scenes_have_the_published_counts() -> None:
    assert SCENES_COUNTS == {("rendered", "train"): 500, ("camera", "train"): 400, ("camera", "val"): 60}


def test_a_folder_data_set_may_be_labeled_in_part(tmp_path: Path) -> None:
    make.write_folder(tmp_path, [f"a/{i}" for i in range(6)], range(3))
    for i in (0, 2, 3, 5):
        (tmp_path / "labels" / "a" / f"{i}.png").unlink()
    make.write_folder(tmp_path / "night", ["0"], range(3))
    folders = {"images": "images", "labels": "labels"}
    val_folders = {"val_images": "night/images", "val_labels": "night/labels"}
    target = _spec("folder", **folders, **val_folders, class_names=("a", "b", "c"))
    loss = LossConfig(source_weight=0, inter_weight=0)
    domains = open_domains(Config(target_root=tmp_path, data=DataConfig(target=target, labeled_count=None), loss=loss))
    assert _names(domains.labeled) == ["a/1", "a/4"] and len(_names(domains.unlabeled)) == 4


def test_a_source_that_is_labeled_in_part_is_refused_with_the_place_for_such_images(tmp_path: Path) -> None:
    make.write_folder(tmp_path, [f"{i}" for i in range(4)], range(3))
    (tmp_path / "labels" / "3.png").unlink()
    both = _spec("folder", images="images", labels="labels", class_names=("a", "b", "c"))
    config = Config(source_root=tmp_path, target_root=tmp_path, data=DataConfig(source=both, target=both))
    with pytest.raises(UserError, match=r"1 of 4 images .* no label.* training images of the target alone may lack"):
        open_domains(config)


def test_classes_that_differ_in_capitals_alone_are_matched_to_their_own(tmp_path: Path) -> None:
    target = find_spec(_spec("folder", images="i", class_names=("sky", "Sky", "road"))).classes
    source = find_spec(_spec("folder", images="i", class_names=("ROAD", "sky"))).matched_to(target)
    assert dict(source.encoding.train_ids) == {0: 2, 1: 0, 255: 255}


def test_adaptation_without_label_folders_uses_every_image(tmp_path: Path) -> None:
    make.write_folder(tmp_path, [f"{i}" for i in range(6)], range(3))
    make.write_folder(tmp_path / "night", ["0"], range(3))
    folders = {"val_images": "night/images", "val_labels": "night/labels"}
    target = _spec("folder", images="images", **folders, class_names=("a", "b", "c"))
    source = _spec("folder", images="images", labels="labels", class_names=("a", "b", "c"))
    loss = LossConfig(target_weight=0, intra_weight=0)
    data = DataConfig(source=source, target=target)  # labeled_count stays 100
    domains = open_domains(Config(source_root=tmp_path, target_root=tmp_path, data=data, loss=loss))
    assert domains.labeled is None and len(_names(domains.unlabeled)) == 6


def test_a_partly_labeled_folder_is_divided_the_same_whatever_the_losses_are(tmp_path: Path) -> None:
    make.write_folder(tmp_path, [f"{i}" for i in range(9)], range(3))
    for i in (0, 4, 5):
        (tmp_path / "labels" / f"{i}.png").unlink()
    for name in ("day", "night"):
        make.write_folder(tmp_path / name, ["0"], range(3))
    folders = {"val_images": "night/images", "val_labels": "night/labels"}
    target = _spec("folder", images="images", labels="labels", **folders, class_names=("a", "b", "c"))
    config = Config(
        source_root=tmp_path / "day",
        target_root=tmp_path,
        data=DataConfig(source=replace(target, images="images"), target=target, labeled_count=3),
    )
    without = replace(config, loss=LossConfig(target_weight=0, intra_weight=0))
    assert _names(open_domains(config).unlabeled) == _names(open_domains(without).unlabeled)
    assert len(_names(open_domains(config).unlabeled)) == 6


def test_any_folder_can_be_scored_in_the_targets_ids(gta5_cityscapes: Path) -> None:
    config = _config("gta5", "cityscapes", gta5_cityscapes)
    city = gta5_cityscapes / "target"
    official = open_folder(config, city / "leftImg8bit" / "val", city / "gtFine" / "val")
    assert _names(official) == _names(open_validation(config))
    make.write_folder(gta5_cityscapes / "mine", ["x/1", "2"], make.CITYSCAPES_IDS)
    mine = open_folder(config, gta5_cityscapes / "mine" / "images", gta5_cityscapes / "mine" / "labels")
    assert _names(mine) == ["2", "x/1"] and 18 in mine.load_label(mine.samples[0])


def test_validation_images_may_have_moved(gta5_cityscapes: Path) -> None:
    config = _config("gta5", "cityscapes", gta5_cityscapes)
    moved = gta5_cityscapes / "moved"
    (gta5_cityscapes / "target").rename(moved)
    with pytest.raises(UserError, match="does not exist"):
        open_validation(config)
    assert len(open_validation(config, target_root=moved).samples) == 2


def test_classes_and_sizes_of_the_target_need_no_folder(tmp_path: Path) -> None:
    config = _config("gta5", "cityscapes", tmp_path / "nowhere")
    assert target_classes(config).names[0] == "road"
    assert training_size_for(config, (1024, 2048)) == (512, 1024)
    own = replace(config, data=replace(config.data, target=_spec("cityscapes", resize=(100, 100))))
    assert training_size_for(own, (1024, 2048)) == (50, 100)
