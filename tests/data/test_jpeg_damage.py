"""A JPEG that is broken in its middle is named: decoders only warn of it, without a name."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import make_coordinates as make
import numpy as np
import pytest
from loaders import batches_of, domains_of, evaluated
from numpy.typing import NDArray
from PIL import Image

from iidm.data.datasets.check import check_domains
from iidm.data.datasets.dataset import Dataset
from iidm.data.files import encoded
from iidm.data.files.jpeg import jpeg_damage
from iidm.data.loading import decoder_warnings
from iidm.data.loading.decoder_warnings import damage_warnings
from iidm.data.loading.decoding import read_image
from iidm.data.preparation import worker
from iidm.data.preparation.worker import Task, encode_sample
from iidm.types import UserError

SIZE = (120, 180)
FORMS: list[dict[str, Any]] = [
    {"quality": 92},
    {"quality": 92, "progressive": True},
    {"quality": 92, "restart_marker_rows": 1},
    {"quality": 95, "subsampling": 0, "optimize": True},
    {"format": "MPO", "save_all": True, "append_images": [Image.new("RGB", (8, 8))]},
]


def photo(seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8)
    return Image.fromarray(noise)


def jpeg(**how: Any) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    photo().save(buffer, **{"format": "JPEG", "comment": b"\xff\x00 \xff\xd9 mine", **how})
    return np.frombuffer(buffer.getvalue(), np.uint8)


def spoil(body: NDArray[np.uint8], seed: int = 0) -> NDArray[np.uint8]:
    """2,000 random bytes at a third."""
    body, start = body.copy(), len(body) // 3
    body[start : start + 2000] = np.random.default_rng(seed).integers(0, 256, 2000, np.uint8)
    return body


@pytest.mark.parametrize("how", FORMS)
def test_whole_jpegs_are_whole_and_what_follows_them_does_not_count(how: dict[str, Any]) -> None:
    body = jpeg(**how)
    assert jpeg_damage(body) is None
    assert jpeg_damage(np.concatenate([body, np.full(3000, 0xFF, np.uint8), spoil(body)])) is None


@pytest.mark.parametrize("how", FORMS)
def test_two_thousand_random_bytes_are_found(how: dict[str, Any]) -> None:
    assert all(jpeg_damage(spoil(jpeg(**how), seed)) is not None for seed in range(30))


def test_a_restart_where_none_was_announced_is_damage() -> None:
    body = jpeg(quality=92)
    place = int(np.flatnonzero((body[:-1] == 0xFF) & (body[1:] == 0))[10])
    body = body.copy()
    body[place + 1] = 0xD3
    assert jpeg_damage(body) == f"its pixel data breaks off at byte {place:,}"


def test_a_cut_or_an_odd_file_ends_the_search() -> None:
    body = jpeg(quality=92)
    for length in (*range(0, 700), *range(700, len(body), 997)):
        jpeg_damage(body[:length])
    for value in (0, 0xD8, 0xFF):
        jpeg_damage(np.full(50, value, np.uint8))


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Three JPEGs, the second one broken."""
    made = make.write_dataset(tmp_path, sizes=[SIZE] * 3)
    samples = []
    for number, sample in enumerate(made.samples):
        path = sample.image.with_suffix(".jpg")
        body = jpeg(quality=92)
        path.write_bytes((spoil(body) if number == 1 else body).tobytes())
        samples.append(sample._replace(image=path))
    return made.with_samples(samples)


def test_every_way_to_the_image_names_it(dataset: Dataset) -> None:
    words = r"mage .*002\.jpg is damaged: its .* byte"
    with pytest.raises(UserError, match=words):
        check_domains(domains_of(dataset), (16, 16))
    with pytest.raises(UserError, match=words):
        encode_sample(dataset, Task("train", dataset.samples[1], ()), "raw")
    with pytest.raises(UserError, match=words):
        evaluated(dataset, 1)
    with pytest.raises(UserError, match=words):
        batches_of(domains_of(dataset), 4)
    with pytest.raises(UserError, match=words):
        read_image(dataset.samples[1].image)


def test_the_check_reads_evenly_spaced_images_whole_where_all_are_too_many(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlabeled = dataset.with_samples(sample._replace(label=None) for sample in dataset.samples)
    good = dataset.with_samples(dataset.samples[:1])
    domains = domains_of(good, None, unlabeled)
    monkeypatch.setattr("iidm.data.datasets.check.READ_WHOLE_BYTES", 1)
    check_domains(domains, (16, 16))  # none is read whole but those that validate
    monkeypatch.setattr("iidm.data.datasets.check.READ_WHOLE_BYTES", dataset.samples[0].image.stat().st_size)
    with pytest.raises(UserError, match=r"unlabeled: image .*002\.jpg is damaged"):
        check_domains(domains, (16, 16))  # one, the middle


def test_damage_that_only_the_decoder_sees_is_named_when_prepared(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(encoded.jpeg, "jpeg_damage", lambda body: None)
    assert worker.damage_warnings is decoder_warnings.damage_warnings
    with pytest.raises(UserError, match=r"Image .*002\.jpg is damaged \(the decoder says: "):
        encode_sample(dataset, Task("train", dataset.samples[1], ()), "raw")
    encode_sample(dataset, Task("train", dataset.samples[0], ()), "raw")
    assert capfd.readouterr().err == ""


def test_other_words_on_the_error_stream_are_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    with damage_warnings() as said:
        os.write(2, b"hello\nCorrupt JPEG data: 2 extraneous bytes before marker 0xd9\n")
        os.write(2, b"Corrupt JPEG data: bad Huffman code\n")
    assert said == ["Corrupt JPEG data: bad Huffman code"]
    assert capfd.readouterr().err == "hello\n"
