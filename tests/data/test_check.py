"""The check before the first step finds every kind of bad file and stays quiet on good ones."""

from __future__ import annotations

from pathlib import Path

import make_datasets as make
import numpy as np
import pytest
from PIL import Image, ImageFile

from iidm.config import Config, DataConfig, DatasetConfig
from iidm.data.datasets.check import SAMPLED_LABELS, Checked, check_domains
from iidm.data.datasets.dataset import Domains
from iidm.data.datasets.domains import open_domains
from iidm.types import UserError

CROP = (16, 16)


@pytest.fixture
def domains(tmp_path: Path) -> Domains:
    make.write_folder(tmp_path / "source", [f"s{i}" for i in range(7)], (*range(11), 11))
    make.write_folder(tmp_path / "target", [f"train/t{i}" for i in range(5)], (*range(11), 11))
    make.write_folder(tmp_path / "target", [f"val/v{i}" for i in range(2)], (*range(11), 11))
    source = DatasetConfig(spec="camvid", images="images", labels="labels")
    data = DataConfig(source=source, target=DatasetConfig(spec="camvid"), labeled_count=2, split_seed=0)
    return open_domains(Config(source_root=tmp_path / "source", target_root=tmp_path / "target", data=data))


def _first(dataset: object, what: str = "image") -> Path:
    path = getattr(dataset.samples[0], what)  # type: ignore[attr-defined]
    assert isinstance(path, Path)
    return path


def _cut(path: Path, share: float = 0.6) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def test_good_files_pass_without_a_note(domains: Domains) -> None:
    assert check_domains(domains, CROP) == Checked([])
    assert check_domains(domains, CROP, full=True, jobs=2) == Checked([])


@pytest.mark.parametrize("stream", ["source", "labeled", "unlabeled", "val"])
def test_a_cut_off_jpeg_is_found_in_every_set(domains: Domains, stream: str) -> None:
    path = _first(getattr(domains, stream))
    _cut(path)
    with pytest.raises(UserError, match=rf"1 bad file\. {stream}: image .*{path.name} cannot be read or is cut off"):
        check_domains(domains, CROP)


def test_a_file_of_too_many_pixels_is_not_called_damaged(domains: Domains, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = domains.val.samples[0]
    assert sample.label is not None
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for call in (
        lambda: check_domains(domains, CROP),
        lambda: domains.val.image_size(sample),
        lambda: domains.val.load_label(sample),
    ):
        with pytest.raises(UserError, match=r"more than 200 pixels.*Cut images and labels") as error:
            call()
        assert "cannot be read" not in str(error.value)


@pytest.mark.parametrize("stream", ["source", "labeled", "val"])
def test_a_cut_off_png_is_found(domains: Domains, stream: str) -> None:
    path = _first(getattr(domains, stream), "label")
    _cut(path)
    with pytest.raises(UserError, match=rf"{stream}: label .*{path.name} cannot be read or is cut off"):
        check_domains(domains, CROP)


def test_bytes_after_the_end_of_a_picture_are_allowed(domains: Domains) -> None:
    for what in ("image", "label"):
        path = _first(domains.source, what)
        path.write_bytes(path.read_bytes() + b"camera notes" * 3)
        path.write_bytes(path.read_bytes() + bytes(9000))  # more than is looked at: decided by decoding
    assert check_domains(domains, CROP) == Checked([])


def test_an_empty_a_missing_and_a_foreign_file_are_named(domains: Domains) -> None:
    assert domains.source is not None
    empty, gone, text, gif = (sample.image for sample in domains.source.samples[:4])
    empty.write_bytes(b"")
    gone.unlink()
    text.write_text("this is not a picture, though it has its name")
    Image.fromarray(np.zeros((30, 52), np.uint8)).save(gif, format="GIF")
    with pytest.raises(UserError) as error:
        check_domains(domains, CROP)
    message = str(error.value)
    assert "4 bad files" in message and f"image {empty} is empty" in message
    assert f"image {gone} does not exist" in message and f"{text} cannot be read" in message
    assert f"{gif} is GIF; needed is PNG, JPEG" in message


def test_a_label_of_another_size_than_its_image_is_named(domains: Domains) -> None:
    path = _first(domains.labeled, "label")
    make.save_gray(path, np.zeros((31, 52), np.uint8))
    with pytest.raises(UserError, match=rf"labeled: label .*{path.name} is 31x52 \(HxW\), but its image .* is 30x52"):
        check_domains(domains, CROP)


def test_unknown_ids_are_found_before_the_first_step(domains: Domains) -> None:
    make.save_gray(_first(domains.source, "label"), np.full(make.SIZE, 77, np.uint8))
    with pytest.raises(UserError, match="does not name: 77"):
        check_domains(domains, CROP)


def test_one_kind_of_fault_is_told_once_with_its_files(domains: Domains) -> None:
    assert domains.source is not None
    for sample in domains.source.samples:
        sample.image.write_bytes(b"")
    with pytest.raises(UserError) as error:
        check_domains(domains, CROP)
    message = str(error.value)
    assert "7 bad files" in message and message.count("is empty") == 1
    assert "s0.jpg is empty (the same fault in 6 more files: s1.jpg, s2.jpg, s3.jpg and 3 more)" in message
    assert "Copy or download them again" in message and "\n" not in message


def test_faults_of_two_kinds_are_both_told_and_no_copy_is_advised_where_it_would_not_help(domains: Domains) -> None:
    assert domains.source is not None
    for i, sample in enumerate(domains.source.samples):
        assert sample.label is not None
        if i < 4:
            make.save_gray(sample.label, np.full(make.SIZE, 70 + i, np.uint8))
        else:
            make.save_image(sample.label, make.SIZE, i)
    with pytest.raises(UserError, match="^The data check found 7 bad files") as error:
        check_domains(domains, CROP)
    message = str(error.value)
    assert message.count("does not name") == 1 and "more files: s1.png, s2.png, s3.png)" in message
    assert message.count("Colours are not ids") == 1 and "2 more files: s5.png, s6.png)" in message
    assert "download" not in message and "Mend them" in message and len(message) < 1000


def test_labels_of_other_lossless_formats_pass(domains: Domains) -> None:
    for stream, ending in (("source", ".bmp"), ("val", ".tif")):
        path = _first(getattr(domains, stream), "label")
        with Image.open(path) as label:
            label.save(path, format={".bmp": "BMP", ".tif": "TIFF"}[ending])
    assert check_domains(domains, CROP) == Checked([])


def test_only_a_full_check_decodes_labels_beyond_the_sample(tmp_path: Path) -> None:
    count = 2 * SAMPLED_LABELS
    make.write_folder(tmp_path, [f"train/{i:03d}" for i in range(count)], range(12), size=(10, 10))
    make.write_folder(tmp_path, ["val/0"], range(12), size=(10, 10))
    bad = [tmp_path / "labels" / "train" / f"{i:03d}.png" for i in range(count)]
    config = Config(
        source_root=tmp_path,
        target_root=tmp_path,
        data=DataConfig(source=DatasetConfig(spec="camvid"), target=DatasetConfig(spec="camvid"), labeled_count=1),
    )
    domains = open_domains(config)
    assert domains.labeled is not None
    decoded = {(2 * i + 1) * count // (2 * SAMPLED_LABELS) for i in range(SAMPLED_LABELS)}
    elsewhere = {int(sample.image.stem) for sample in domains.labeled.samples}
    skipped = next(i for i in range(count) if i not in decoded | elsewhere)
    make.save_gray(bad[skipped], np.full((10, 10), 99, np.uint8))
    check_domains(domains, (8, 8))
    with pytest.raises(UserError, match="does not name: 99"):
        check_domains(domains, (8, 8), full=True)


def test_small_images_are_noted(domains: Domains) -> None:
    notes = check_domains(domains, (32, 40)).notes
    assert len(notes) == 3 and all("\n" not in note for note in notes)
    assert notes[0].startswith("7 of 7 source images are smaller than the crop 32x40 (HxW)")


def test_of_two_thousand_files_few_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make.write_folder(tmp_path, ["train/0", "val/0"], range(12), size=(120, 160))
    for i in range(1, 1000):
        for kind, ending in (("images", ".jpg"), ("labels", ".png")):
            folder = tmp_path / kind / "train"
            (folder / f"{i}{ending}").hardlink_to(folder / f"0{ending}")
    data = DataConfig(source=DatasetConfig(spec="camvid"), target=DatasetConfig(spec="camvid"), labeled_count=1)
    domains = open_domains(Config(source_root=tmp_path, target_root=tmp_path, data=data))
    decoded: list[object] = []
    load = ImageFile.ImageFile.load
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: decoded.append(image) or load(image))
    check_domains(domains, CROP)
    assert 0 < len(decoded) <= 3 * SAMPLED_LABELS  # source, labeled and validation


def test_a_set_of_which_every_image_is_damaged_stops_the_run_before_its_first_step(domains: Domains) -> None:
    assert domains.labeled is not None and len(domains.labeled.samples) == 2
    for sample in domains.labeled.samples:
        sample.image.write_bytes(b"")
    with pytest.raises(UserError, match=r"All labeled target images are damaged, so --data\.skip-damaged .* is empty"):
        check_domains(domains, CROP, skip_damaged=True)
