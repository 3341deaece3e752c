"""Where the disk is full, nothing is left of the file that was written, and what was there before stays."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from full_disk import files_of_at_most

from iidm.data import WRITERS, AnnotatedImage, find_regions
from iidm.data.annotating.writing import AnnotationFormat
from iidm.prediction.looking import Prediction
from iidm.prediction.pictures import Pictures
from iidm.prediction.video_files import VideoWriter
from iidm.types import ClassSet

CLASSES = ClassSet(("road", "car"), ((90, 40, 130), (0, 0, 140)))
SIZE = (96, 128)
BEFORE = b"before"


def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)


@pytest.mark.parametrize("kind", ["ids", "color", "overlay", "confidence", "probabilities"])
def test_of_a_picture(kind: str, tmp_path: Path) -> None:
    ending = "npz" if kind == "probabilities" else "png"
    (tmp_path / f"x.{kind}.{ending}").write_bytes(BEFORE)
    image = noise()
    said = Prediction(image[..., 0] % 2, image[..., 1], np.zeros((2, *SIZE), np.float16))
    with files_of_at_most(500), pytest.raises(OSError, match="too large"):
        Pictures([kind], CLASSES).save(tmp_path / "x", image, said)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {f"x.{kind}.{ending}": BEFORE}


@pytest.mark.parametrize(
    ("form", "name"), [("coco", "annotations.json"), ("cvat", "annotations.xml"), ("labelme", "x.json")]
)
def test_of_annotations(form: AnnotationFormat, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(BEFORE)
    regions = find_regions(noise()[..., 0] % 2, 0, 1)
    with files_of_at_most(500), pytest.raises(OSError, match="too large"), WRITERS[form](tmp_path, CLASSES) as writer:
        writer.add(AnnotatedImage("x.jpg", tmp_path / "x.jpg", regions))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {name: BEFORE}


@pytest.mark.parametrize("frames", [1, 40])
def test_of_a_video(frames: int, tmp_path: Path) -> None:
    """Of one frame nothing is written before the end."""
    (tmp_path / "x.mp4").write_bytes(BEFORE)
    with (
        files_of_at_most(500),
        pytest.raises(OSError, match="too large"),
        VideoWriter(tmp_path / "x.mp4", Fraction(25)) as writer,
    ):
        for number in range(frames):
            writer.add(number / 25, np.roll(noise(), number, 0))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"x.mp4": BEFORE}
