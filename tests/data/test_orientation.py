"""Images are turned as their EXIF orientation says, everywhere; labels are taken as stored."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import make_coordinates as make
import numpy as np
import pytest
from loaders import CPU, domains_of, evaluated
from make_datasets import TURN_BACK
from numpy.typing import NDArray
from PIL import Image

from iidm.data.datasets.check import check_domains
from iidm.data.datasets.dataset import Dataset
from iidm.data.files.headers import exif_orientation, image_header
from iidm.data.loading.decoding import read_image
from iidm.data.loading.pipeline import SampleSource, train_pipeline
from iidm.data.loading.sampling import CropRules, Sampler
from iidm.data.preparation.worker import Task, encode_sample
from iidm.types import IGNORE_INDEX, UserError

LOSSLESS = {"png": {}, "tif": {}, "webp": {"lossless": True, "exact": True}}


def save_turned(upright: NDArray[np.uint8], path: Path, orientation: int, **how: object) -> None:
    """Store a picture turned, with the orientation that shows it upright."""
    picture = Image.fromarray(upright)
    exif = picture.getexif()
    exif[0x0112] = orientation
    stored = picture.transpose(TURN_BACK[orientation]) if orientation > 1 else picture
    stored.save(path, exif=exif, **how)  # type: ignore[arg-type]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", LOSSLESS)
def test_every_orientation_of_every_format_is_read_upright(tmp_path: Path, ending: str, orientation: int) -> None:
    upright = make.coordinates((20, 30), 1)
    path = tmp_path / f"a.{ending}"
    save_turned(upright, path, orientation, **LOSSLESS[ending])
    np.testing.assert_array_equal(read_image(path), upright)
    header = image_header(path)
    assert header.size == (20, 30) and header.orientation == orientation
    assert header.stored == ((20, 30) if orientation < 5 else (30, 20))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "MPO"])
def test_jpegs_of_cameras_are_read_upright(tmp_path: Path, form: str, orientation: int) -> None:
    upright = np.zeros((48, 64, 3), np.uint8)
    upright[:16, :16], upright[:16, -16:] = (255, 0, 0), (0, 255, 0)
    more = {"save_all": True, "append_images": [Image.new("RGB", (8, 8))]} if form == "MPO" else {}
    save_turned(upright, tmp_path / "a.jpg", orientation, format=form, quality=95, subsampling=0, **more)
    assert abs(read_image(tmp_path / "a.jpg").astype(int) - upright).mean() < 3
    assert image_header(tmp_path / "a.jpg").size == (48, 64)


def _exif(order: str, kind: int, value: int) -> bytes:
    mark = {"<": b"II", ">": b"MM"}[order]
    field = struct.pack(f"{order}HHI", 0x112, kind, 1) + struct.pack(f"{order}HH", value, 0)
    return mark + struct.pack(f"{order}HIH", 42, 8, 1) + field + bytes(4)


def _jpeg(exif: bytes, **more: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(make.coordinates((20, 30), 1)).save(buffer, "JPEG", exif=exif, **more)  # type: ignore[arg-type]
    return buffer.getvalue()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [3, 4, 1])
@pytest.mark.parametrize("value", [0, 1, 6, 9])
def test_the_size_that_is_said_is_that_of_the_decoder(tmp_path: Path, order: str, kind: int, value: int) -> None:
    (tmp_path / "a.jpg").write_bytes(_jpeg(b"Exif\0\0" + _exif(order, kind, value)))
    assert image_header(tmp_path / "a.jpg").size == read_image(tmp_path / "a.jpg").shape[:2]


def test_odd_exif_is_read_as_the_decoder_reads_it(tmp_path: Path) -> None:
    """Bytes changed at random, and cut: 2,400 more were tried once, without a difference."""
    rng = np.random.default_rng(0)
    for number in range(40):
        exif = bytearray(_exif("<>"[number % 2], 3, int(rng.integers(1, 9))))
        for _ in range(rng.integers(0, 3)):
            exif[rng.integers(len(exif))] = rng.choice([0, 1, 255])
        (tmp_path / "a.jpg").write_bytes(_jpeg(b"Exif\0\0" + bytes(exif[: rng.integers(20, 40)])))
        assert image_header(tmp_path / "a.jpg").size == read_image(tmp_path / "a.jpg").shape[:2], exif.hex()


@pytest.mark.parametrize("exif", [b"", b"garbage", b"II*\0", _exif("<", 3, 6)[:14], b"MM\0*\xff\xff\xff\xff\0\0"])
def test_damaged_exif_turns_nothing(tmp_path: Path, exif: bytes) -> None:
    assert exif_orientation(exif) == 1
    (tmp_path / "a.jpg").write_bytes(_jpeg(b"Exif\0\0" + exif))
    assert image_header(tmp_path / "a.jpg").size == read_image(tmp_path / "a.jpg").shape[:2] == (20, 30)


def test_xmp_turns_nothing(tmp_path: Path) -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="6"/></x:xmpmeta>'
    (tmp_path / "a.jpg").write_bytes(_jpeg(b"", xmp=xmp))
    assert image_header(tmp_path / "a.jpg").size == read_image(tmp_path / "a.jpg").shape[:2] == (20, 30)


def test_the_exif_behind_a_pngs_pixels_counts_too(tmp_path: Path) -> None:
    path = make.save(make.coordinates((20, 30), 1), tmp_path / "a.png")
    exif = _exif(">", 3, 6)
    chunk = struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif))
    body = path.read_bytes()
    path.write_bytes(body[:-12] + chunk + body[-12:])
    assert image_header(path).size == read_image(path).shape[:2] == (30, 20)


# Image and label stay a pair


def _turned(tmp_path: Path, orientations: tuple[int, ...] = (1, 3, 6, 8), ending: str = "png") -> Dataset:
    """A data set of coordinates whose images are stored turned, their labels upright."""
    dataset = make.write_dataset(tmp_path, sizes=[(40, 60)] * len(orientations))
    samples = []
    for number, (sample, orientation) in enumerate(zip(dataset.samples, orientations, strict=True), start=1):
        sample.image.unlink()
        path = sample.image.with_suffix(f".{ending}")
        save_turned(make.coordinates((40, 60), number), path, orientation, **LOSSLESS[ending])
        samples.append(sample._replace(image=path))
    return dataset.with_samples(samples)


@pytest.mark.parametrize("ending", ["png", "tif", "webp"])
def test_turned_images_meet_their_labels_in_training_crops(tmp_path: Path, ending: str) -> None:
    dataset = _turned(tmp_path, ending=ending)
    sampler = Sampler(dataset, CropRules((32, 48)), seed=0, stream=0)
    pipeline = train_pipeline(SampleSource([(sampler, 4)], 0), device=CPU, threads=1)
    for _ in range(3):
        images, labels = (np.array(output.as_tensor()) for output in pipeline.run())
        assert (labels != IGNORE_INDEX).all()
        np.testing.assert_array_equal(labels, make.label_of(images))


def test_turned_images_meet_their_labels_in_evaluation_and_once_prepared(tmp_path: Path) -> None:
    dataset = _turned(tmp_path)
    for batch in evaluated(dataset, 2):
        np.testing.assert_array_equal(batch.label.numpy(), make.label_of(batch.image.numpy()))
    for sample in dataset.samples:
        entry, image, _ = encode_sample(dataset, Task("train", sample, ()), "png")
        assert entry.disk_size == entry.size == (40, 60)
        pixels = np.asarray(Image.open(io.BytesIO(image)))
        np.testing.assert_array_equal(make.label_of(pixels), dataset.load_label(sample))


def test_a_resized_turned_image_meets_its_label(tmp_path: Path) -> None:
    dataset = replace(_turned(tmp_path), resize=(20, 1000))
    for batch in evaluated(dataset, 1):
        assert batch.image.shape[1:3] == (20, 30)
        row, column = batch.image[0, ..., 0].numpy().astype(int), batch.image[0, ..., 1].numpy().astype(int)
        assert (np.diff(row[2:-2, 5]) > 0).all() and (np.diff(column[5, 2:-2]) > 0).all()


def test_the_error_of_a_label_on_stored_pixels_names_the_orientation(tmp_path: Path) -> None:
    dataset = _turned(tmp_path, (6,))
    label = dataset.samples[0].label
    assert label is not None
    Image.open(label).transpose(Image.Transpose.ROTATE_90).save(label)
    words = r"label .*001\.png is 60x40 \(HxW\), but its image .* is 40x60 \(HxW, turned by its EXIF orientation 6\)"
    with pytest.raises(UserError, match=words):
        check_domains(domains_of(dataset), (16, 16))
    with pytest.raises(UserError, match=words):
        evaluated(dataset, 1)
    with pytest.raises(UserError, match=words):
        encode_sample(dataset, Task("train", dataset.samples[0], ()), "raw")
    with pytest.raises(UserError, match=words):
        Sampler(dataset, CropRules((16, 16)), seed=0, stream=0).draw(0)


def test_a_note_says_how_many_images_are_turned(tmp_path: Path) -> None:
    notes = check_domains(domains_of(_turned(tmp_path)), (16, 16)).notes
    assert "3 of 4 source images are turned as their EXIF orientation says (3, 6, 8)" in notes[0]
