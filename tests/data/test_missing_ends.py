"""A picture whose end is missing or whose parts are cut off is judged alike by all commands, and decoders do not write
to the standard error of it."""

from __future__ import annotations

import io
from pathlib import Path

import make_coordinates as make
import numpy as np
import pytest
from loaders import batches_of, domains_of, evaluated
from PIL import Image

from iidm.data.datasets.check import check_domains
from iidm.data.files.whole import check_picture
from iidm.data.loading.decoding import read_image
from iidm.types import UserError

SIZE = (40, 60)


def _encoded(kind: str) -> bytes:
    body = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    Image.fromarray(noise).save(body, kind, quality=95)
    return body.getvalue()


@pytest.mark.parametrize("missing", [12, 5])
def test_a_png_that_lacks_no_more_than_its_end_is_read_whole_and_quietly(
    missing: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    dataset = make.write_dataset(tmp_path, [SIZE])
    image = dataset.samples[0].image
    whole = tmp_path / "whole.png"
    whole.write_bytes(_encoded("PNG"))
    image.write_bytes(_encoded("PNG")[:-missing])
    domains = domains_of(dataset, dataset, dataset)
    assert not check_domains(domains, (32, 48)).damaged
    np.testing.assert_array_equal(read_image(image), read_image(whole))
    assert len(batches_of(domains, 2)) == 2
    assert evaluated(dataset, 1)[0].image.shape == (1, *SIZE, 3)
    assert capfd.readouterr().err == ""


def _cut(body: bytes) -> bytes:
    return body[: len(body) // 2]


def _without_end_and_more(body: bytes) -> bytes:
    return body[:-40]


def _spoil(body: bytes) -> bytes:
    return body[:200] + bytes(50) + body[250:]


def _lengthen_a_part(body: bytes) -> bytes:
    """The first IDAT says that it reaches beyond the end, which is there."""
    place = body.index(b"IDAT") - 4
    return body[:place] + b"\x7f\xff\xff\xff" + body[place + 4 :]


@pytest.mark.parametrize("damage", [_cut, _without_end_and_more, _spoil, _lengthen_a_part])
def test_a_damaged_png_is_named_by_check_and_prediction_without_a_word_of_the_decoder(
    damage: object, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(damage(_encoded("PNG")))  # type: ignore[operator]
    with pytest.raises(UserError, match=r"image .*a\.png is damaged: .*(cut off|checksum)"):
        check_picture(path, "image", read_all=True)
    with pytest.raises(UserError, match=r"Image .*a\.png is damaged: .*(cut off|checksum)"):
        read_image(path)
    assert capfd.readouterr().err == ""


def test_check_and_prediction_agree_on_jpegs_that_are_cut_off_without_a_word_of_the_decoder(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    agreed = []
    for missing in (*range(1, 12), 100, 1000, 3000):
        path = tmp_path / f"{missing}.jpg"
        path.write_bytes(_encoded("JPEG")[:-missing])
        answers = []
        for read in (lambda path: check_picture(path, "image", read_all=True), read_image):
            try:
                read(path)
                answers.append(True)
            except UserError as error:
                assert str(path) in str(error)
                answers.append(False)
        agreed.append(answers[0] == answers[1])
    assert all(agreed) and not answers[0]
    assert capfd.readouterr().err == ""
