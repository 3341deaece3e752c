"""Which files of a folder are images or labels: links, junk, other endings, masks beside images, names."""

from __future__ import annotations

import os
import re
import tempfile
import unicodedata
from pathlib import Path
from typing import Any

import make_datasets as make
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iidm.config import Config, DataConfig, DatasetConfig
from iidm.data.datasets.dataset import Dataset, open_dataset
from iidm.data.datasets.domains import open_domains
from iidm.data.files.inputs import find_images, find_inputs, name_problem
from iidm.data.files.listing import IMAGE_ENDINGS, Beside, list_images, list_labels
from iidm.data.files.walking import walk
from iidm.types import UserError


def _write(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def _images(root: Path, **more: Any) -> list[str]:
    return list(list_images(root, what="test", **more).paths)


def test_every_ending_in_any_case_is_read_and_others_are_counted_in_one_line(tmp_path: Path) -> None:
    names = [f"i{k}{ending}" for k, ending in enumerate(IMAGE_ENDINGS)] + ["big.PNG", "big2.JPeG"]
    others = ["a.heic", "b.HEIC", "c.heic", "d.gif", "notes.txt", "README"]
    listing = list_images(_write(tmp_path, *names, *others), what="test")
    assert set(listing.paths) == {os.path.splitext(name)[0] for name in names}
    (note,) = listing.notes
    assert note == f"{tmp_path}: 3 .heic, 1 .gif, 1 .txt, 1 file without ending left aside"


def test_junk_of_desktops_and_disks_is_skipped(tmp_path: Path) -> None:
    junk = ("._v0.jpg", ".hidden.png", ".ipynb_checkpoints/v0-checkpoint.jpg", "@eaDir/v0.jpg/thumb.jpg")
    _write(tmp_path, "v0.jpg", "sub/v1.jpg", "Thumbs.db", "desktop.ini", "__MACOSX/._v0.jpg", *junk)
    listing = list_images(tmp_path, what="test")
    assert list(listing.paths) == ["sub/v1", "v0"]
    assert dict(listing.aside.counts) == {
        "hidden file": 2,
        "hidden folder": 1,
        "folder @eaDir": 1,
        "folder __MACOSX": 1,
        "Thumbs.db": 1,
        "desktop.ini": 1,
    }


def test_links_are_followed_and_each_real_folder_and_image_is_read_once(tmp_path: Path) -> None:
    root, other = tmp_path / "images", tmp_path / "other"
    _write(root, *(f"t{i}.jpg" for i in range(6)), "deep/z.jpg")
    _write(other, "o.jpg", "p/q.jpg")
    (root / "loop").symlink_to(".")
    (root / "up").symlink_to("..")
    (root / "deep" / "again").symlink_to("../deep")
    (root / "day").symlink_to("../other")
    (root / "night").symlink_to("../other")
    (other / "back").symlink_to("../images")
    (root / "a.jpg").symlink_to("t0.jpg")
    listing = list_images(root, what="test")
    assert list(listing.paths) == ["day/o", "day/p/q", "deep/z", *(f"t{i}" for i in range(6))]
    assert listing.aside.counts["link to what is listed already"] == 6


def test_prediction_and_training_list_the_same_files(tmp_path: Path) -> None:
    _write(tmp_path / "images", "a.webp", "b/c.jpg", "._a.jpg", "@eaDir/a.jpg", "x.jpg", "x.png")
    (tmp_path / "images" / "loop").symlink_to(".")
    (tmp_path / "elsewhere").mkdir()
    _write(tmp_path / "elsewhere", "linked.tif")
    (tmp_path / "images" / "more").symlink_to(tmp_path / "elsewhere")
    listed = list_images(tmp_path / "images", what="test")
    inputs = find_images([tmp_path / "images"])
    assert sorted(path for path, _ in inputs.images) == sorted(listed.paths.values())
    assert inputs.notes == listed.notes


def test_a_broken_link_stays_so_that_it_is_named_and_a_pipe_is_never_opened(tmp_path: Path) -> None:
    _write(tmp_path, "a.jpg")
    (tmp_path / "gone.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "self.jpg").symlink_to("self.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    listing = list_images(tmp_path, what="test")
    assert list(listing.paths) == ["a", "gone", "self"]
    assert listing.aside.words() == "1 file that is none (a pipe, a device)"


def test_own_results_are_left_aside(tmp_path: Path) -> None:
    results = [f"{base}.{kind}.png" for base in ("q", "day_r", "x.jpg") for kind in ("ids", "color", "overlay")]
    _write(tmp_path, "q.jpg", "day/r.jpg", "x.jpg", "x.png", *results, "half.png", "half.ids.png", "a.color.png")
    listing = list_images(tmp_path, what="test")
    assert list(listing.paths) == ["a.color", "day/r", "half", "q", "x.jpg", "x.png"]
    assert listing.aside.words() == "10 results of iidm.predict"


def test_results_in_a_folder_of_their_own_below_the_images_are_left_aside(tmp_path: Path) -> None:
    _write(tmp_path, "q.jpg", "day/r.jpg", "results/q.overlay.png", "results/day_r.overlay.png", "day/out/r.ids.png")
    _write(tmp_path, "results/other.overlay.png")
    listing = list_images(tmp_path, what="test")
    assert list(listing.paths) == ["day/r", "q", "results/other.overlay"]
    assert listing.aside.words() == "3 results of iidm.predict"


def test_an_image_and_a_video_of_one_name_are_both_found(tmp_path: Path) -> None:
    _write(tmp_path, "drive.jpg", "drive.mp4", "a/b.mp4", "a_b.mp4")
    found, _ = find_inputs([tmp_path])
    assert sorted((one.file_name, one.name) for one in found) == [
        ("a/b.mp4", "a/b"), ("a_b.mp4", "a_b"), ("drive.jpg", "drive"), ("drive.mp4", "drive"),
    ]  # fmt: skip
    _write(tmp_path, "sub/drive.jpg")
    both = [tmp_path / "drive.jpg", tmp_path / "sub" / "drive.jpg"]
    with pytest.raises(UserError, match=f"{both[0]} and {both[1]} would write the same result 'drive'.* --out"):
        find_inputs(both)


def test_a_joined_name_that_is_too_long_for_a_file_keeps_its_folders(tmp_path: Path) -> None:
    deep = "/".join(["é" * 50] * 3)
    _write(tmp_path, f"{deep}/x.jpg", "a/x.jpg", f"{'l' * 250}.jpg")
    found, notes = find_inputs([tmp_path])
    assert [one.name for one in found] == ["a_x", "l" * 250, f"{deep}/x"] and not notes
    assert [bool(name_problem(one)) for one in found] == [False, True, False]


def test_notes_on_images_to_be_labeled_are_of_no_labels(tmp_path: Path) -> None:
    _write(tmp_path / "in", "x.jpg", "x.png")
    (tmp_path / "empty").mkdir()
    _, (note,) = find_inputs([tmp_path / "in"])
    assert "2 images share their name" in note and "label of that name" not in note
    with pytest.raises(UserError, match="has no files") as refused:
        find_inputs([tmp_path / "empty"])
    assert str(refused.value).count(str(tmp_path / "empty")) == 1


def test_a_pipe_is_no_image_and_not_said_to_be_missing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "camera.jpg")
    with pytest.raises(UserError, match=r"camera.jpg is no file and no folder \(a pipe, a device\)"):
        find_inputs([tmp_path / "camera.jpg"])


# Masks that lie where the images lie


def test_masks_beside_their_images_are_no_images(tmp_path: Path) -> None:
    _write(tmp_path, "t0.png", "t0_mask.png", "t1.jpg", "t1_mask.png", "t2.png")
    images = list_images(tmp_path, what="test", labels=Beside(tmp_path, "_mask"))
    labels = list_labels(tmp_path, "_mask", what="test", images=Beside(tmp_path, ""))
    assert list(images.paths) == ["t0", "t1", "t2"] and list(labels.paths) == ["t0", "t1"]
    assert images.notes == () and images.aside.counts == {"label": 2}


def test_a_jpeg_with_the_suffix_of_labels_is_no_image_and_is_told(tmp_path: Path) -> None:
    _write(tmp_path, "t0.jpg", "t0_mask.jpg", "t1.jpg", "t1_mask.png")
    images = list_images(tmp_path, what="test", labels=Beside(tmp_path, "_mask"))
    labels = list_labels(tmp_path, "_mask", what="test", images=Beside(tmp_path, ""))
    assert list(images.paths) == ["t0", "t1"] and list(labels.paths) == ["t1"]
    assert labels.notes == (f"{tmp_path}: 1 .jpg left aside",)
    (tmp_path / "t1_mask.png").unlink()
    with pytest.raises(UserError, match=r"are JPEG or WebP \(1 \.jpg\)"):
        list_labels(tmp_path, "_mask", what="test", images=Beside(tmp_path, ""))


def test_the_longer_suffix_decides(tmp_path: Path) -> None:
    _write(tmp_path, "a_rgb.png", "a.png", "b_rgb.jpg", "b.png")
    assert _images(tmp_path, suffix="_rgb", labels=Beside(tmp_path, "")) == ["a", "b"]
    assert list(list_labels(tmp_path, what="test", images=Beside(tmp_path, "_rgb")).paths) == ["a", "b"]


@pytest.mark.parametrize("ending", [".jpg", ".webp"])
def test_without_suffixes_lossless_pictures_beside_photographs_are_labels(tmp_path: Path, ending: str) -> None:
    _write(tmp_path, f"a{ending}", "a.png", f"b{ending}", "b.png", f"c{ending}")
    assert _images(tmp_path, labels=Beside(tmp_path)) == ["a", "b", "c"]
    assert list(list_labels(tmp_path, what="test", images=Beside(tmp_path)).paths) == ["a", "b"]


def test_images_and_labels_that_nothing_tells_apart_are_refused(tmp_path: Path) -> None:
    _write(tmp_path, "a.png", "b.jpg", "a.json")
    assert _images(tmp_path, labels=Beside(tmp_path)) == ["a", "b"]  # annotation files are their labels
    with pytest.raises(UserError, match="no suffix tells them apart: give label_suffix"):
        list_labels(tmp_path, what="test", images=Beside(tmp_path))


def test_a_label_folder_below_the_images_and_the_other_way_round(tmp_path: Path) -> None:
    _write(tmp_path, "a.jpg", "masks/a.png")
    assert _images(tmp_path, labels=Beside(tmp_path / "masks")) == ["a"]
    _write(tmp_path / "two", "a.png", "photos/a.png")
    assert list(list_labels(tmp_path / "two", what="t", images=Beside(tmp_path / "two" / "photos")).paths) == ["a"]


def test_labels_that_are_all_jpegs_have_an_error_of_their_own(tmp_path: Path) -> None:
    _write(tmp_path, "a.jpg", "b.jpeg")
    with pytest.raises(UserError, match=r"labels of test .* are JPEG or WebP .*change ids.*PNG"):
        list_labels(tmp_path, what="test")


# Names


def test_a_name_is_one_in_both_unicode_forms(tmp_path: Path) -> None:
    nfd, nfc = unicodedata.normalize("NFD", "é0"), unicodedata.normalize("NFC", "é0")
    _write(tmp_path / "i", f"{nfd}.jpg")
    _write(tmp_path / "l", f"{nfc}.png")
    assert _images(tmp_path / "i") == list(list_labels(tmp_path / "l", what="test").paths) == [nfc]
    _write(tmp_path / "i", f"{nfc}.jpg")
    assert list_images(tmp_path / "i", what="test").aside.counts["name in two Unicode forms"] == 1


def test_names_that_hold_an_ending_stay_apart_too(tmp_path: Path) -> None:
    _write(tmp_path, "x.jpg", "x.png", "x.png.png", "d/x.png")
    listing = list_images(tmp_path, what="test")
    assert {name: path.name for name, path in listing.paths.items()} == {
        "x.jpg": "x.jpg",
        "x.png": "x.png",
        "x.png.png": "x.png.png",
        "d/x": "x.png",
    }
    assert listing.stems == {"x.jpg": "x", "x.png": "x", "x.png.png": "x.png"}


def _dataset(root: Path, labels: Any = "all", **more: Any) -> Dataset:
    config = DatasetConfig(images="images", labels="labels", class_names=("a", "b"), **more)
    return open_dataset(config, root, "train", labels=labels)


def test_labels_without_an_image_are_counted_and_named_and_near_misses_told(tmp_path: Path) -> None:
    _write(tmp_path / "images", "t0.jpg", "t1.jpg", "t2.jpg")
    _write(tmp_path / "labels", "t0.png", "T1.png", "left.png")
    dataset = _dataset(tmp_path, "optional")
    assert [sample.name for sample in dataset.samples if sample.label] == ["t0"]
    orphans, near = dataset.notes
    assert "2 labels have no image and are not read: T1, left" in orphans
    told = r"1 label has its image's name but for upper and lower case: T1\.png and t1\.jpg\. Rename the labels like"
    assert re.search(told, near)
    for need in ("some", "all"):
        with pytest.raises(UserError, match=told):
            _dataset(tmp_path, need)
    (tmp_path / "labels" / "T1.png").unlink()
    with pytest.raises(UserError, match=r"2 of 3 images .*: t1, t2\. .*1 label has no image and is not read: left"):
        _dataset(tmp_path, "all")


def test_validation_images_that_training_links_to_are_left_out_of_training(tmp_path: Path) -> None:
    make.write_camvid(tmp_path, ["t0", "t1", "t2"])
    make.write_camvid(tmp_path, ["v0"], "val")
    for kind in ("images", "labels"):
        (tmp_path / kind / "train" / "more").symlink_to("../val")
    data = DataConfig(source=DatasetConfig(spec="camvid"), target=DatasetConfig(spec="camvid"), labeled_count=1)
    (tmp_path / "images" / "train" / "odd.heic").write_bytes(b"")
    domains = open_domains(Config(source_root=tmp_path, target_root=tmp_path, data=data))
    assert domains.labeled and domains.unlabeled and domains.source
    names = {sample.name for sample in (*domains.labeled.samples, *domains.unlabeled.samples)}
    assert names == {"t0", "t1", "t2"} == {sample.name for sample in domains.source.samples}
    left = "source: left out, as validation reads them: 1 image"
    assert domains.notes == (left, f"{tmp_path / 'images/train'}: 1 .heic left aside")


def test_labels_of_an_unneeded_kind_are_told_where_none_is_needed(tmp_path: Path) -> None:
    _write(tmp_path / "images", "t0.jpg")
    _write(tmp_path / "labels", "t0.jpg")
    (note,) = _dataset(tmp_path, "optional").notes
    assert "are JPEG" in note and "count as unlabeled" in note


def test_the_error_of_a_missing_label_says_its_name_without_a_hole(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text(
        'images = "i"\nlabels = "i"\nlabel_suffix = "_mask"\n[[classes]]\nname = "a"\n[[classes]]\nname = "b"\n'
    )
    make.save_image(tmp_path / "i" / "t0.png", make.SIZE, 0)
    make.save_image(tmp_path / "i" / "t1.png", make.SIZE, 0)
    make.save_gray(tmp_path / "i" / "t0_mask.png", make.random_ids((0, 1), make.SIZE, 0))
    config = DatasetConfig(spec=str(tmp_path / "m.toml"))
    assert [sample.name for sample in open_dataset(config, None, "train", labels="some").samples] == ["t0", "t1"]
    with pytest.raises(UserError, match=r"its image's name with '_mask' before its ending and ends with \.png;"):
        open_dataset(config, None, "train")


# Any tree


NAMES = st.sampled_from(["a", "b", "é", unicodedata.normalize("NFD", "é"), "a_mask", "#1", ".h", "a.ids", "a.color"])
ENDINGS = st.sampled_from([".png", ".PNG", ".jpg", ".webp", ".heic", ".txt", ""])
FOLDERS = st.sampled_from(["", "d/", "d/e/", ".git/", "@eaDir/"])
FILES = st.lists(st.builds(lambda f, n, e: f + n + e, FOLDERS, NAMES, ENDINGS), min_size=1, max_size=12)
LINKS = st.lists(st.tuples(st.sampled_from(["l", "d/l", "k.png", "d/m.jpg"]), st.integers(0, 7)), max_size=3)


@settings(max_examples=60)
@given(FILES, LINKS, st.sampled_from(["", "_mask"]))
def test_every_file_of_any_tree_is_an_image_a_label_or_counted(
    files: list[str], links: list[tuple[str, int]], suffix: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "root")
        _write(root, "first.jpg", "d/e/last.png")
        for name in files:
            if not (root / name).is_dir():
                _write(root, name)
        for name, where in links:
            if not (root / name).exists() and not (root / name).is_symlink():
                (root / name).symlink_to([".", "..", "d", "first.jpg", "gone.jpg", root, "../elsewhere", name][where])
        _write(root.parent / "elsewhere", "far.jpg", "a.png")
        found, aside = walk(root)
        images = list_images(root, what="test", labels=Beside(root, suffix))
        taken = list(images.paths.values())
        assert len(taken) + images.aside.total == len(found) + sum(aside.values())
        assert len({os.path.realpath(path) for path in taken}) == len(taken)
        assert images.paths.keys() == {unicodedata.normalize("NFC", name) for name in images.paths}
        try:
            labels = list(list_labels(root, suffix, what="test", images=Beside(root, "")).paths.values())
        except UserError:  # two of one name
            labels = []
        assert not set(labels) & set(taken)


def test_pictures_of_runs_prepared_folders_and_contact_sheets_are_no_images(tmp_path: Path) -> None:
    run = ("config.json", "metrics.jsonl", "splits/labeled.txt", "curves.png", "previews/step-2-batch.png")
    _write(tmp_path, "t0.jpg", "camera.toml", "camera.png", "day/map.png", "splits/t1.jpg")
    _write(tmp_path / "run", *run)
    _write(tmp_path / "prepared", "prepared.json", "images/train/t0.jpg")
    listing = list_images(tmp_path, what="test")
    assert list(listing.paths) == ["day/map", "splits/t1", "t0"]
    (note,) = listing.notes
    assert "1 contact sheet of iidm.inspect, 1 folder of a run, 1 prepared folder left aside" in note
    assert _images(tmp_path / "run"), "a folder that is named itself is read"


def test_annotation_files_beside_their_images_are_not_told_as_left_aside(tmp_path: Path) -> None:
    _write(tmp_path, "t0.jpg", "t0.json", "notes.json", "_annotations.coco.json")
    (note,) = list_images(tmp_path, what="test", labels=Beside(tmp_path)).notes
    assert note == f"{tmp_path}: 2 .json left aside"
    (note,) = list_images(tmp_path, what="test", labels=Beside(tmp_path / "_annotations.coco.json")).notes
    assert note == f"{tmp_path}: 2 .json left aside"


def test_the_error_where_no_labels_are_says_what_lies_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no label files \*\.png, .*; left aside: 2 \.txt, 1 \.npy\."):
        list_labels(_write(tmp_path, "t0.txt", "t1.txt", "t2.npy"), what="test")
