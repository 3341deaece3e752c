"""Label files of every public form become the train ids of their data set, or an error that says why not."""

from __future__ import annotations

from pathlib import Path

import make_datasets as make
import numpy as np
import pytest
from PIL import Image

from iidm.data.labels.encodings import LabelEncoding, encoding, merged, read_ids
from iidm.data.specs.known import SPECS
from iidm.types import UserError

# id:train_id as published (cityscapesScripts labels.py; DACS's SYNTHIA map), typed apart from the code
CITYSCAPES = "7:0 8:1 11:2 12:3 13:4 17:5 19:6 20:7 21:8 22:9 23:10 24:11 25:12 26:13 27:14 28:15 31:16 32:17 33:18"
SYNTHIA = "3:0 4:1 2:2 21:3 5:4 7:5 15:6 9:7 6:8 1:10 10:11 17:12 8:13 19:15 12:17 11:18"
SIXTEEN = " ".join(p for p in CITYSCAPES.split() if p.split(":")[1] not in ("9", "14", "16"))
CAMVID = " ".join(f"{i}:{i}" for i in range(11))
SCENES = " ".join(f"{i}:{i}" for i in range(19))
# CamVid's table in its README, train ids of Cityscapes -> CamVid
SCENES_CAMVID = "10:0 2:1 3:1 5:2 0:3 1:4 8:5 9:5 6:6 7:6 4:7 13:8 14:8 15:8 16:8 11:9 12:10 17:10 18:10"

PUBLISHED = {
    "gta5": (CITYSCAPES, range(35)),
    "cityscapes": (CITYSCAPES, [*range(34), 255]),
    "cityscapes-16": (SIXTEEN, [*range(34), 255]),
    "synthia": (SYNTHIA, range(23)),
    "camvid": (CAMVID, range(12)),
    "camvid-day": (CAMVID, range(12)),
    "camvid-dusk": (CAMVID, range(12)),
    "streetscenes-rendered": (SCENES, [*range(19), 255]),
    "streetscenes-camera": (SCENES, [*range(19), 255]),
    "streetscenes-rendered-camvid": (SCENES_CAMVID, [*range(19), 255]),
}


def _map(text: str) -> dict[int, int]:
    return {int(a): int(b) for a, b in (pair.split(":") for pair in text.split())}


def _save(path: Path, kind: str, ids: np.ndarray) -> None:
    if kind == "red16":
        other = np.random.default_rng(0).integers(0, 65536, (*ids.shape, 2))
        make.save_png16(path, np.concatenate([ids[..., None], other], axis=-1).astype(np.uint16))
    elif kind == "palette":
        make.save_palette(path, ids.astype(np.uint8))
    else:
        make.save_gray(path, ids.astype(np.uint8))


def test_every_spec_has_a_published_map() -> None:
    assert set(PUBLISHED) == set(SPECS)


@pytest.mark.parametrize("name", PUBLISHED)
def test_each_id_on_disk_becomes_its_published_train_id(name: str, tmp_path: Path) -> None:
    text, on_disk = PUBLISHED[name]
    spec = SPECS[name]
    ids = np.array(list(on_disk)).repeat(3).reshape(-1, 3)
    _save(tmp_path / "label.png", spec.encoding.kind, ids)
    label = spec.encoding.read(tmp_path / "label.png")
    assert label.dtype == np.uint8
    table = _map(text)
    expected = np.array([[table.get(int(i), 255) for i in row] for row in ids])
    np.testing.assert_array_equal(label, expected)
    assert set(expected.ravel()) - {255} <= set(range(len(spec.classes)))


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_id_that_the_data_set_does_not_have_is_an_error(name: str, tmp_path: Path) -> None:
    _, on_disk = PUBLISHED[name]
    unknown = next(i for i in range(256) if i not in on_disk)
    ids = np.full((4, 5), next(iter(on_disk)))
    ids[2, 3] = unknown
    path = tmp_path / "label.png"
    _save(path, SPECS[name].encoding.kind, ids)
    with pytest.raises(UserError, match=rf"label\.png.*does not name: {unknown} \(known"):
        SPECS[name].encoding.read(path)


def test_sixteen_bits_of_the_red_channel_are_read_exactly(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 65536, (37, 53, 3)).astype(np.uint16)
    make.save_png16(tmp_path / "label.png", pixels)
    ids = read_ids(tmp_path / "label.png", "red16")
    assert ids.dtype == np.uint16
    np.testing.assert_array_equal(ids, pixels[..., 0])


def test_a_16_bit_id_above_255_is_never_taken_for_its_low_byte(tmp_path: Path) -> None:
    pixels = np.full((4, 4, 3), 3, np.uint16)
    pixels[1, 1, 0] = 256 + 3
    make.save_png16(tmp_path / "label.png", pixels)
    with pytest.raises(UserError, match="does not name: 259"):
        SPECS["synthia"].encoding.read(tmp_path / "label.png")


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("palette", [False, True])
def test_ids_of_low_bit_depth_are_not_stretched(bits: int, palette: bool, tmp_path: Path) -> None:
    ids = make.random_ids(range(2**bits), (9, 13), seed=bits)
    if palette:
        make.save_palette(tmp_path / "any.png", ids)
        with Image.open(tmp_path / "any.png") as image:
            image.save(tmp_path / "label.png", bits=bits)
    else:
        save_gray_bits(tmp_path / "label.png", ids, bits)
    np.testing.assert_array_equal(read_ids(tmp_path / "label.png", "auto"), ids)


def save_gray_bits(path: Path, ids: np.ndarray, bits: int) -> None:
    """A gray PNG of 1, 2 or 4 bits: the form in which optimisers shrink small label sets."""
    import struct
    import zlib

    height, width = ids.shape
    unpacked = ((ids[..., None] >> np.arange(bits - 1, -1, -1)) & 1).reshape(height, -1)
    lines = b"".join(b"\0" + row.tobytes() for row in np.packbits(unpacked.astype(np.uint8), axis=1))

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def test_palette_labels_are_indices_and_not_colours(tmp_path: Path) -> None:
    ids = make.random_ids(range(35), (20, 30), seed=0)
    for seed in (1, 2):
        make.save_palette(tmp_path / "label.png", ids, seed)
        np.testing.assert_array_equal(read_ids(tmp_path / "label.png", "palette"), ids)


@pytest.mark.parametrize("kind", ["gray8", "palette", "red16", "ids"])
def test_colour_labels_are_refused(kind: str, tmp_path: Path) -> None:
    make.save_image(tmp_path / "label.png", (8, 8), seed=0)
    with pytest.raises(UserError, match=r"label\.png is RGB \(mode RGB\); needed is"):
        LabelEncoding(kind, ((0, 0),)).read(tmp_path / "label.png")  # type: ignore[arg-type]


def test_jpeg_labels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "label.png", format="JPEG")
    with pytest.raises(UserError, match="is a JPEG"):
        read_ids(tmp_path / "label.png", "auto")


def test_gray_labels_do_not_pass_for_palette_labels(tmp_path: Path) -> None:
    make.save_gray(tmp_path / "label.png", np.full((8, 8), 7, np.uint8))
    with pytest.raises(UserError, match="needed is a palette PNG"):
        SPECS["gta5"].encoding.read(tmp_path / "label.png")


def test_a_missing_or_broken_label_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.png does not exist"):
        read_ids(tmp_path / "gone.png", "auto")
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(UserError, match=r"text\.png cannot be read"):
        read_ids(tmp_path / "text.png", "auto")


def test_an_id_map_names_each_id_once_and_within_range() -> None:
    with pytest.raises(UserError, match="names id 3 more than once"):
        LabelEncoding("gray8", ((3, 0), (3, 1)))
    with pytest.raises(UserError, match="256:0; ids are 0 to 255"):
        LabelEncoding("gray8", ((256, 0),))
    with pytest.raises(UserError, match="1:256"):
        LabelEncoding("gray8", ((1, 256),))


def test_merging_classes_follows_both_maps_and_ignores_the_rest() -> None:
    base = encoding("gray8", {7: 0, 8: 1, 9: 2}, ignored=(0,))
    assert dict(merged(base, {0: 5, 1: 5}).train_ids) == {0: 255, 7: 5, 8: 5, 9: 255}


def test_an_encoding_survives_pickling_with_its_table_built(tmp_path: Path) -> None:
    import pickle

    used = encoding("gray8", {7: 0})
    assert used.lookup[7] == 0 and used.lookup[8] == -1
    copy = pickle.loads(pickle.dumps(used))
    assert copy == used and hash(copy) == hash(used) and copy.lookup[7] == 0
