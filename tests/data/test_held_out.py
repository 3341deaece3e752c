"""Validation images of every kind: a split, labeled images kept out of training, or none; classes matched by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import make_datasets as make
import pytest

from iidm.config import Config, DataConfig, DatasetConfig, LossConfig
from iidm.data.datasets.dataset import Dataset
from iidm.data.datasets.domains import changes_since, open_domains, with_kept_validation, write_splits
from iidm.data.datasets.validation import open_validation
from iidm.data.preparation.plan import make_plan, prepare
from iidm.types import UserError

NAMES = ("a", "b", "c")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """20 target images, 12 of them labeled, and no validation split."""
    make.write_folder(tmp_path, [f"{i:02}" for i in range(20)], range(3))
    for i in range(12, 20):
        (tmp_path / "labels" / f"{i}.png").unlink()
    return tmp_path


def config(root: Path, source: tuple[str, ...] = (), **data: object) -> Config:
    target = DatasetConfig(images="images", labels="labels", class_names=NAMES)
    fields = {"target": target, "labeled_count": None, "source": replace(target, class_names=source), **data}
    loss = LossConfig() if source else LossConfig(source_weight=0, inter_weight=0)
    return Config(target_root=root, source_root=root, data=DataConfig(**fields), loss=loss)  # type: ignore[arg-type]


def names(dataset: Dataset | None) -> list[str]:
    assert dataset is not None
    return [sample.name for sample in dataset.samples]


def test_labeled_images_are_kept_out_of_training_nested_and_by_the_seed(root: Path) -> None:
    kept = {}
    for count in (2, 5):
        domains = open_domains(config(root, val_count=count))
        kept[count] = set(names(domains.val))
        assert len(kept[count]) == count and len(names(domains.labeled)) == 12 - count
        assert not kept[count] & {*names(domains.labeled), *names(domains.unlabeled), *names(domains.plain_target)}
        assert f"{count} labeled images that do not train" in domains.notes[-1]
    assert kept[2] < kept[5]
    assert set(names(open_validation(config(root, val_count=5, split_seed=1)))) != kept[5]


def test_keeping_all_labeled_images_out_is_told_as_such(root: Path) -> None:
    with pytest.raises(UserError, match="--data.val-count keeps all labeled target images out"):
        open_domains(config(root, val_count=12))


def test_a_list_of_labeled_images_keeps_its_images(root: Path) -> None:
    (root / "labeled.txt").write_text("".join(f"{i:02}\n" for i in range(8)))
    domains = open_domains(config(root, val_count=4, labeled_list=root / "labeled.txt"))
    assert names(domains.val) == ["08", "09", "10", "11"] and len(names(domains.labeled)) == 8
    with pytest.raises(UserError, match="12 target images have a label, 8 of which .* at most 4"):
        open_domains(config(root, val_count=5, labeled_list=root / "labeled.txt"))


def test_a_listed_image_without_a_label_is_told_as_such(root: Path) -> None:
    (root / "labeled.txt").write_text("03\n15\n")
    with pytest.raises(UserError, match=r"labeled\.txt names images that have no label: 15\."):
        open_domains(config(root, labeled_list=root / "labeled.txt"))


def test_without_a_split_a_list_may_name_labeled_training_images(root: Path) -> None:
    (root / "val.txt").write_text("03\n07\n")
    domains = open_domains(config(root, val_list=root / "val.txt"))
    assert names(domains.val) == ["03", "07"] and len(names(domains.labeled)) == 10
    assert names(open_domains(config(root, val_list=root / "val.txt", val_count=2)).val) == ["03", "07"]
    with pytest.raises(UserError, match=r"--data.val-count is 3, and .*val.txt names 2 images"):
        open_domains(config(root, val_list=root / "val.txt", val_count=3))


def test_further_labels_displace_few_that_validate_and_a_longer_list_of_labeled_ones_only_those_it_names(
    root: Path,
) -> None:
    before = names(open_validation(config(root, val_count=4)))
    listed = root / "labeled.txt"
    listed.write_text("".join(f"{i:02}\n" for i in range(12) if f"{i:02}" not in before[1:]))
    after = names(open_validation(config(root, val_count=3, labeled_list=listed)))
    assert after == before[1:]
    make.write_folder(root, ["12"], range(3))
    assert len(set(before) & set(names(open_validation(config(root, val_count=4))))) >= 3


def test_a_run_keeps_the_images_that_validate_when_labels_come(root: Path, tmp_path: Path) -> None:
    own = config(root, val_count=4)
    domains = open_domains(own)
    write_splits(domains, tmp_path / "run")
    make.write_folder(root, [f"{i}" for i in range(12, 20)], range(3))
    assert names(open_validation(own)) != names(domains.val), "else this shows nothing"
    kept = with_kept_validation(own, tmp_path / "run")
    assert names(open_validation(kept)) == names(domains.val)
    assert with_kept_validation(kept, tmp_path / "run") == kept
    assert with_kept_validation(own, tmp_path / "a run without splits") == own
    without = config(root)
    assert with_kept_validation(without, tmp_path / "run") == without, "which validates with a split, or not at all"


def test_a_run_without_validation_says_that_nothing_is_scored(root: Path) -> None:
    domains = open_domains(config(root))
    assert domains.val is None and len(names(domains.labeled)) == 12
    assert "nothing is scored" in domains.notes[-1] and "--data.val-count" in domains.notes[-1]


def test_prepared_training_images_may_validate_at_training_resolution(root: Path, tmp_path: Path) -> None:
    for resize, is_noted in ((None, False), ((10, 14), True)):
        own = config(root, val_count=3)
        target = replace(own.data.target, resize=resize)
        out = tmp_path / f"prepared-{resize}"
        prepare(make_plan(target, root, out), jobs=1)
        run = replace(own, target_root=out, data=replace(own.data, target=target))
        domains = open_domains(run)
        assert names(domains.val) == names(open_domains(own).val)
        assert any("training resolution" in note for note in domains.notes) == is_noted


def test_classes_of_the_source_are_matched_by_name_and_others_are_ignored(root: Path) -> None:
    make.write_folder(root, [f"{i}" for i in range(12, 20)], range(3))
    own = open_domains(config(root, NAMES, labeled_count=9)).source
    matched = open_domains(
        config(root, ("C", "d", "a"), labeled_count=9, accept=("class-names",))
    )  # ids 0, 1, 2 of the same files
    assert own is not None and matched.source is not None
    for sample in matched.source.samples[:3]:
        before, after = own.load_label(sample), matched.source.load_label(sample)
        pairs = {(int(b), int(a)) for b, a in zip(before.flat, after.flat, strict=True)}
        assert pairs <= {(0, 2), (1, 255), (2, 0), (255, 255)} and (1, 255) in pairs
    with pytest.raises(UserError, match="has none that the target has.* one name. Name another source"):
        open_domains(config(root, ("x", "y", "z"), labeled_count=9))


def test_changes_since_a_run_began_are_told_by_set_and_name(root: Path, tmp_path: Path) -> None:
    own = config(root, val_count=2)
    write_splits(open_domains(own), tmp_path / "run")
    assert changes_since(open_domains(own), tmp_path / "run") == []
    make.write_folder(root, ["99"], range(3))
    (root / "labels" / "99.png").unlink()
    next((root / "images").glob("15.*")).unlink()
    assert changes_since(open_domains(own), tmp_path / "run") == ["unlabeled lacks 15 and has also 99"]


def test_a_method_that_needs_a_source_says_which_one_does_not(root: Path) -> None:
    with pytest.raises(UserError, match="labeled source domain, and none is given.*--method target_intra"):
        open_domains(Config(target_root=root, data=DataConfig(target=config(root).data.target)))
