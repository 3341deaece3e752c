"""What images are read and what are refused, alike in every command; pixels are those of Pillow."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loaders import domains_of, evaluated
from make_coordinates import CLASS_SET, ENCODING
from PIL import Image

from iidm.data.datasets.check import check_domains
from iidm.data.datasets.dataset import Dataset
from iidm.data.files.headers import image_header
from iidm.data.loading.decoding import read_image
from iidm.data.loading.sampling import CropRules, Sampler
from iidm.data.preparation.worker import Task, encode_sample
from iidm.types import Sample, UserError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (21, 33, 3), np.uint8)
GRAY, ALPHA = RGB[..., 0].copy(), RGB[..., 1].copy()
PICTURES = {
    "RGB": Image.fromarray(RGB),
    "RGBA": Image.fromarray(np.dstack([RGB, ALPHA])),
    "L": Image.fromarray(GRAY),
    "LA": Image.merge("LA", [Image.fromarray(GRAY), Image.fromarray(ALPHA)]),
    "P": Image.fromarray(RGB).quantize(16),
    "1": Image.fromarray(GRAY > 128),
    "CMYK": Image.fromarray(RGB).convert("CMYK"),
}
READ: list[tuple[str, str, dict[str, Any]]] = [
    *[("png", mode, {}) for mode in ("RGB", "RGBA", "L", "LA", "P", "1")],
    *[("jpg", mode, {"quality": 90}) for mode in ("RGB", "L", "CMYK")],
    ("jpg", "RGB", {"quality": 90, "progressive": True}),
    ("jpg", "RGB", {"format": "MPO", "save_all": True, "append_images": [PICTURES["RGB"].resize((8, 8))]}),
    *[("bmp", mode, {}) for mode in ("RGB", "L", "P", "1")],
    *[("webp", mode, {"lossless": True}) for mode in ("RGB", "RGBA")],
    ("webp", "RGB", {"quality": 80}),
    *[("tif", mode, {}) for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK")],
    *[("tif", "RGB", {"compression": kind}) for kind in ("tiff_lzw", "tiff_adobe_deflate", "jpeg")],
]


@pytest.mark.parametrize(("ending", "mode", "how"), READ)
def test_every_mode_that_is_read_has_the_pixels_of_pillow(
    tmp_path: Path, ending: str, mode: str, how: dict[str, Any]
) -> None:
    path = tmp_path / f"a.{ending}"
    PICTURES[mode].save(path, **how)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(read_image(path), expected)
    assert image_header(path).size == (21, 33)
    (batch,) = evaluated(_dataset(path), 1)
    np.testing.assert_array_equal(batch.image[0].numpy(), expected)


def _png16(path: Path, values: np.ndarray, colour_type: int) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def _bytes(path: Path, body: bytes) -> None:
    path.write_bytes(body)


def _frames(path: Path, **how: Any) -> None:
    PICTURES["RGB"].save(path, save_all=True, append_images=[PICTURES["RGB"].rotate(180)], **how)


DEEP = GRAY.astype(np.uint16) * 16
REFUSED: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "16-bit gray PNG": (
        "png",
        lambda path: _png16(path, DEEP, 0),
        rf"has 16 bits a channel \(values {DEEP.min()} to {DEEP.max()}\); .*8 bits",
    ),
    "16-bit colour PNG": ("png", lambda path: _png16(path, RGB.astype(np.uint16) * 16, 2), r"16 bits a .*0 to 4095"),
    "16-bit TIFF": ("tif", lambda path: Image.fromarray(DEEP).save(path), rf"16 bits .*{DEEP.max()}"),
    "float TIFF": (
        "tif",
        lambda path: Image.fromarray(GRAY / np.float32(255)).save(path),
        r"32 bits .* 0 to 1\)",
    ),
    "Lab TIFF": ("tif", lambda path: Image.fromarray(RGB).convert("LAB").save(path), "has mode LAB; needed"),
    "GIF": ("png", lambda path: Image.fromarray(GRAY).save(path, "GIF"), "is GIF; needed is PNG, JPEG"),
    "JPEG 2000": ("jpg", lambda path: Image.fromarray(RGB).save(path, "JPEG2000"), "is JPEG2000; needed"),
    "animated PNG": ("png", _frames, r"holds 2 pictures \(an animation, or pages\)"),
    "animated WebP": ("webp", _frames, r"holds 2 pictures"),
    "pages": ("tif", _frames, r"holds 2 pictures"),
    "HEIC": ("jpg", lambda path: _bytes(path, b"\0\0\0\x18ftypheic" + bytes(64)), r"is HEIF \(.*Save it as PNG"),
    "JPEG XL": ("jpg", lambda path: _bytes(path, b"\xff\x0a" + bytes(64)), "is JPEG XL, .*Save it as PNG"),
    "camera's raw file": (
        "tif",
        lambda path: Image.fromarray(RGB).save(path, tiffinfo={254: 1}),
        "shows a small copy first, .* Develop it",
    ),
    "text": ("jpg", lambda path: _bytes(path, b"no picture"), "is no picture by its content"),
    "empty": ("jpg", lambda path: _bytes(path, b""), "is empty"),
}


def _dataset(path: Path) -> Dataset:
    label = path.parent / "label.png"
    Image.fromarray(np.zeros((21, 33), np.uint8)).save(label)
    return Dataset("one", CLASS_SET, (Sample("a", path, label),), ENCODING)


@pytest.mark.parametrize("kind", REFUSED)
def test_every_command_refuses_alike(tmp_path: Path, kind: str) -> None:
    ending, write, words = REFUSED[kind]
    path = tmp_path / f"bad.{ending}"
    write(path)
    dataset = _dataset(path)
    calls: list[Callable[[], object]] = [
        lambda: check_domains(domains_of(dataset), (16, 16)),
        lambda: Sampler(dataset, CropRules((16, 16)), seed=0, stream=0).draw(0),
        lambda: encode_sample(dataset, Task("train", dataset.samples[0], ()), "raw"),
        lambda: evaluated(dataset, 1),
        lambda: read_image(path),
    ]
    for call in calls:
        with pytest.raises(UserError, match=words) as error:
            call()
        assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_smaller_copies_in_a_map_are_no_pages(tmp_path: Path) -> None:
    small = PICTURES["RGB"].resize((16, 10))
    small.encoderinfo = {"tiffinfo": {254: 1}}  # reduced resolution
    PICTURES["RGB"].save(tmp_path / "map.tif", save_all=True, append_images=[small])
    np.testing.assert_array_equal(read_image(tmp_path / "map.tif"), RGB)


@pytest.mark.parametrize("ending", ["webp", "bmp", "tif", "png", "jpg"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_a_file_that_is_cut_off_is_named_whatever_its_format(tmp_path: Path, ending: str, share: float) -> None:
    path = tmp_path / f"a.{ending}"
    PICTURES["RGB"].resize((200, 120)).save(path)
    Image.fromarray(np.zeros((120, 200), np.uint8)).save(tmp_path / "label.png")
    dataset = Dataset("one", CLASS_SET, (Sample("a", path, tmp_path / "label.png"),), ENCODING)
    check_domains(domains_of(dataset), (16, 16))
    body = path.read_bytes()
    path.write_bytes(body[: int(len(body) * share)])
    with pytest.raises(UserError, match=rf"image .*a\.{ending}"):
        check_domains(domains_of(dataset), (16, 16))


def test_a_png_that_is_broken_in_its_middle_is_named_before_training(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    PICTURES["RGB"].save(path)
    dataset = _dataset(path)
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 0x5A
    path.write_bytes(body)
    with pytest.raises(UserError, match=r"image .*a\.png is damaged: the checksum of its part at byte"):
        check_domains(domains_of(dataset), (16, 16))
