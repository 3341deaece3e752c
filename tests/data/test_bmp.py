"""BMP files of few colours are read by their bits a pixel, as labels and as images."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from iidm.data.files.encoded import pillow_pixels
from iidm.data.files.reading import read_bytes
from iidm.data.inspection.roles import look_at
from iidm.data.labels.pictures import read_ids

BLACK_AND_WHITE, BLACK, GRAYS = (0, 255), (0,), tuple(range(16))


def save_bmp(path: Path, ids: NDArray[np.uint8], grays: tuple[int, ...], bits: int, is_old: bool = False) -> None:
    """A BMP of palette indices, uncompressed; Pillow writes none of fewer than 256 entries at 8 bits."""
    height, width = ids.shape
    stride = (width * bits + 31) // 32 * 4
    rows = np.zeros((height, stride * 8), np.uint8)
    rows[:, : width * bits] = (ids[..., None] >> np.arange(bits - 1, -1, -1) & 1).reshape(height, -1)
    body = np.packbits(rows[::-1], axis=1).tobytes()
    if is_old:
        header, palette = struct.pack("<IHHHH", 12, width, height, 1, bits), bytes(g for g in grays for _ in range(3))
    else:
        sizes = (len(body), 2835, 2835, len(grays), 0)
        header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 0, *sizes)
        palette = b"".join(bytes((gray, gray, gray, 0)) for gray in grays)
    start = 14 + len(header) + len(palette)
    path.write_bytes(b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + header + palette + body)


@pytest.mark.parametrize(
    ("grays", "bits"),
    [(BLACK_AND_WHITE, 8), (BLACK_AND_WHITE, 4), (BLACK_AND_WHITE, 1), (BLACK, 8), (GRAYS, 4), (GRAYS, 8)],
)
def test_a_short_gray_palette_does_not_change_what_the_pixels_are(
    grays: tuple[int, ...], bits: int, tmp_path: Path
) -> None:
    ids = np.random.default_rng(0).integers(0, len(grays), (7, 21)).astype(np.uint8)
    save_bmp(tmp_path / "x.bmp", ids, grays, bits)
    np.testing.assert_array_equal(read_ids(tmp_path / "x.bmp", "auto"), ids)
    pixels = pillow_pixels(tmp_path / "x.bmp", read_bytes(tmp_path / "x.bmp"))
    np.testing.assert_array_equal(pixels, np.repeat(np.array(grays, np.uint8)[ids][..., None], 3, 2))
    look = look_at(tmp_path / "x.bmp")
    assert look is not None and look.colors == len(np.unique(ids))


def test_the_oldest_header_says_the_bits_elsewhere(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 256, (5, 9)).astype(np.uint8)
    save_bmp(tmp_path / "x.bmp", ids, tuple(range(256)), 8, is_old=True)
    np.testing.assert_array_equal(read_ids(tmp_path / "x.bmp", "auto"), ids)
