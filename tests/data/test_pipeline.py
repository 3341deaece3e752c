"""Image and label stay a pair through resize, crop, padding and flip; every kind of image becomes RGB."""

from __future__ import annotations

import pickle
import zlib
from pathlib import Path
from typing import Any

import make_coordinates as make
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from iidm.data.datasets.dataset import Dataset
from iidm.data.files.reading import read_bytes
from iidm.data.loading.crops import CropRules
from iidm.data.loading.decoding import raise_damaged, read_image
from iidm.data.loading.pipeline import ImageDecoder, SampleSource, train_pipeline
from iidm.data.loading.sampling import Sampler
from iidm.types import IGNORE_INDEX, UserError

CPU = torch.device("cpu")
CROP = (32, 48)


def _crops(
    dataset: Dataset, *, runs: int = 4, flip: float = 0.5, crop: tuple[int, int] = CROP
) -> list[tuple[Any, NDArray[np.uint8], NDArray[np.uint8]]]:
    """(draw, image, label) of each crop of some batches."""
    sampler = Sampler(dataset, CropRules(crop), seed=0, stream=0, flip_probability=flip)
    source = SampleSource([(sampler, 4)], 0)
    pipeline = train_pipeline(source, device=CPU, threads=1)
    crops = []
    for step in range(runs):
        images, labels = (np.array(output.as_tensor()) for output in pipeline.run())
        assert images.shape == (4, *crop, 3) and labels.shape == (4, *crop)
        assert images.dtype == labels.dtype == np.uint8
        crops += [(source.draw(step, place), images[place], labels[place]) for place in range(4)]
    return crops


def test_every_pixel_meets_its_own_label(tmp_path: Path) -> None:
    """Sizes larger and smaller than the crop ride in one batch."""
    dataset = make.write_dataset(tmp_path)
    crops = _crops(dataset, runs=8)
    assert {draw.flip for draw, _, _ in crops} == {False, True}
    assert len({draw.sample.name for draw, _, _ in crops}) == len(make.SIZES)
    for draw, image, label in crops:
        inside = image[..., 2] > 0
        height, width = (min(a, b) for a, b in zip(CROP, draw.disk_size, strict=True))
        assert inside.sum() == height * width
        np.testing.assert_array_equal(label[inside], make.label_of(image)[inside])
        assert (image[~inside] == 0).all() and (label[~inside] == IGNORE_INDEX).all()


def test_the_crop_lies_where_the_draw_says(tmp_path: Path) -> None:
    for draw, image, _ in _crops(make.write_dataset(tmp_path, sizes=[(40, 60)])):
        assert (image[..., 0] == draw.anchor[0] + np.arange(32)[:, None]).all()
        columns = draw.anchor[1] + np.arange(48)
        assert (image[..., 1] == (columns[::-1] if draw.flip else columns)).all()


@pytest.mark.parametrize(("box", "bound"), [((40, 50), 0), ((60, 75), 1), ((84, 105), 1), ((150, 188), 1)])
@pytest.mark.parametrize(("channel", "name"), [(0, "row"), (1, "column")])
def test_a_resized_image_meets_its_resized_label(
    tmp_path: Path, channel: int, name: str, box: tuple[int, int], bound: int
) -> None:
    """A linear ramp survives the linear filter, so that the image gives its own coordinates at the pixel centres: the
    label's at a third of the size, where the centres of three pixels and of one coincide; else the nearest pixel's,
    half a pixel off at most, plus rounding. In the shrunk images a shift by one pixel would be 3, 2 and 1.4 off.
    """
    dataset = make.write_dataset(tmp_path, sizes=[(120, 150), (60, 150)], resize=box, label=name)
    flips = set()
    for draw, image, label in _crops(dataset):
        inside = label != IGNORE_INDEX
        assert draw.size != draw.disk_size and (image[~inside] == 0).all()
        assert inside.sum() == min(32, draw.size[0]) * min(48, draw.size[1])
        coordinate = image[..., channel].astype(int)
        # At the image's own edge the filter repeats the last pixel, which bends the ramp.
        last = draw.disk_size[channel] - 1
        margin = 2 * draw.disk_size[0] / draw.size[0]
        ramp = inside & (label >= margin) & (label <= last - margin)
        assert ramp.sum() > 200
        assert abs(coordinate - label)[ramp].max() <= bound
        flips.add(draw.flip)
    assert flips == {False, True}


def test_a_resized_crop_is_the_crop_of_the_resized_image(tmp_path: Path) -> None:
    dataset = make.write_dataset(tmp_path, sizes=[(90, 130)], resize=(61, 1000))
    noise = np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8)
    make.save(noise, dataset.samples[0].image)
    decode = ImageDecoder(device=CPU, batch_size=1, threads=1)
    (whole,) = decode([read_bytes(dataset.samples[0].image)], [(61, 88)])
    for draw, image, _ in _crops(dataset):
        assert draw.size == (61, 88)
        y, x = draw.anchor
        expected = whole.numpy()[y : y + 32, x : x + 48].astype(int)
        assert abs((image[:, ::-1] if draw.flip else image) - expected).max() <= 1


def test_labels_keep_their_ids_when_resized(tmp_path: Path) -> None:
    dataset = make.write_dataset(tmp_path, sizes=[(90, 130)], resize=(61, 1000))
    assert dataset.samples[0].label is not None
    ids = np.random.default_rng(0).choice(np.array([3, 77, 250], np.uint8), (90, 130))
    make.save(ids, dataset.samples[0].label)
    for _, _, label in _crops(dataset, runs=2):
        assert set(np.unique(label)) == {3, 77, 250}


def _image_forms() -> dict[str, Image.Image]:
    rng = np.random.default_rng(0)
    rgb, gray = rng.integers(0, 256, (20, 30, 3), np.uint8), rng.integers(0, 256, (20, 30), np.uint8)
    palette = Image.fromarray(rgb).quantize(16)
    return {
        "rgb.png": Image.fromarray(rgb),
        "gray.png": Image.fromarray(gray),
        "palette.png": palette,
        "rgba.png": Image.fromarray(np.dstack([rgb, gray])),
        "one bit.png": Image.fromarray(gray > 128),
        "rgb.jpg": Image.fromarray(rgb),
        "gray.jpg": Image.fromarray(gray),
    }


@pytest.mark.parametrize("name", _image_forms())
def test_every_kind_of_image_is_read_as_rgb(tmp_path: Path, name: str) -> None:
    image = _image_forms()[name]
    image.save(tmp_path / name)
    read = read_image(tmp_path / name)
    assert read.dtype == np.uint8
    if image.mode == "RGBA":  # Pillow's convert drops alpha as well
        np.testing.assert_array_equal(read, np.asarray(image)[..., :3])
    np.testing.assert_array_equal(read, np.asarray(Image.open(tmp_path / name).convert("RGB")))


def test_images_of_many_sizes_are_decoded_side_by_side(tmp_path: Path) -> None:
    dataset = make.write_dataset(tmp_path)
    decode = ImageDecoder(device=CPU, batch_size=4, threads=2)
    encoded = [read_bytes(sample.image) for sample in dataset.samples]
    images = decode(encoded, [None, (11, 12), None, (60, 13)])
    assert [tuple(image.shape[:2]) for image in images] == [make.SIZES[0], (11, 12), make.SIZES[2], (60, 13)]
    np.testing.assert_array_equal(images[2].numpy(), make.coordinates(make.SIZES[2], 3))
    kept = images[0].clone()
    decode(encoded[::-1], [None] * 4)
    assert torch.equal(images[0], kept)


@pytest.mark.parametrize("cut", ["half.png", "half.jpg", "empty.png", "text.jpg"])
def test_a_damaged_image_is_named_and_the_next_one_is_read(tmp_path: Path, cut: str) -> None:
    good = make.save(make.coordinates((40, 60), 1), tmp_path / f"good{Path(cut).suffix}")
    content = {"half": good.read_bytes()[: good.stat().st_size // 2], "empty": b"", "text": b"not an image"}
    (tmp_path / cut).write_bytes(content[Path(cut).stem])
    with pytest.raises(UserError, match=cut):
        read_image(tmp_path / cut)
    assert read_image(good).shape == (40, 60, 3)
    raise_damaged([good, good])
    with pytest.raises(UserError, match=cut):
        raise_damaged([good, tmp_path / cut])


def test_a_png_that_the_decoder_refuses_for_its_size_is_not_called_damaged(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(path)
    assert read_image(path).shape == (20, 30, 3)
    content = bytearray(path.read_bytes())
    content[16:24] = (40_000).to_bytes(4, "big") * 2  # the width and the height of its header
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"large\.png has more than 1,073,741,824 pixels.*Cut it into several"):
        read_image(path)


def test_a_missing_image_or_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.png does not exist"):
        read_image(tmp_path / "gone.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match=r"folder\.png cannot be read"):
        read_image(tmp_path / "folder.png")


def test_places_of_a_batch_belong_to_their_streams(tmp_path: Path) -> None:
    dataset = make.write_dataset(tmp_path)
    streams = [(Sampler(dataset, CropRules(CROP), seed=0, stream=number), count) for number, count in enumerate((2, 3))]
    sent = SampleSource(streams, 0)
    source = pickle.loads(pickle.dumps(sent))
    for step in (0, 5):
        for place in range(5):
            stream, number = divmod(place, 2) if place < 2 else (1, place - 2)
            expected = streams[stream][0].draw(step * (2, 3)[stream] + number)
            assert source.draw(step, place)[:-1] == expected[:-1]
