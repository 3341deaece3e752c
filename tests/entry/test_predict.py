"""python -m iidm.predict: pictures of what a run's network says, for any image."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import small_runs
import torch
from numpy.typing import NDArray
from PIL import Image
from small_runs import CLASSES, VAL_IMAGES, Finished, evaluate, predict, refusal

from iidm.data.folders import generated_color
from iidm.engine.metrics import Scores
from iidm.types import ClassSet

PALETTE = np.array([generated_color(i) for i in range(len(CLASSES))], np.uint8)


def read(path: Path) -> NDArray[np.uint8]:
    """A PNG's pixels."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image)


@pytest.mark.parametrize(
    ("name", "mode", "size"),
    [
        ("odd.png", "RGB", (61, 83)),
        ("odd.jpg", "RGB", (75, 101)),
        ("gray.png", "L", (64, 97)),
        ("gray.jpeg", "L", (49, 131)),
        ("clear.png", "RGBA", (64, 64)),
        ("palette.png", "P", (70, 33)),
    ],
)
def test_ids_colours_and_overlay_have_the_size_of_the_image(
    name: str, mode: str, size: tuple[int, int], finished: Finished, tmp_path: Path
) -> None:
    picture = Image.fromarray(small_runs.draw(7, size)[0]).convert(mode)
    picture.save(tmp_path / name)
    with Image.open(tmp_path / name) as stored:
        pixels = np.asarray(stored.convert("RGB"), np.float64)
    said = predict([finished.run_dir, tmp_path / name, "--out", tmp_path / "out" / "deep"])
    stem = tmp_path / "out" / "deep" / name.split(".")[0]
    ids, color, over = (read(Path(f"{stem}.{kind}.png")) for kind in ("ids", "color", "overlay"))
    assert ids.shape == size
    assert ids.dtype == np.uint8
    assert ids.max() < len(CLASSES)
    np.testing.assert_array_equal(color, PALETTE[ids])
    assert over.shape == (*size, 3)
    # Half of the image and half of the colours; JPEG decoders differ by a few values.
    assert np.abs(over - (pixels + PALETTE[ids]) / 2).mean() < 2
    assert "labeled 1 image" in said.out
    assert str(tmp_path / "out" / "deep") in said.out


def test_predictions_are_what_evaluate_scores(finished: Finished, data: Path, tmp_path: Path) -> None:
    val = data / "target" / "images" / "val"
    truth = data / "target" / "labels" / "val"
    classes = ClassSet(CLASSES, tuple(generated_color(i) for i in range(len(CLASSES))))
    for network in ("teacher", "student"):
        out = tmp_path / network
        predict([finished.run_dir, val, "--out", out, "--network", network])
        confusion = np.zeros((len(CLASSES), len(CLASSES)), np.int64)
        for i in range(VAL_IMAGES):
            label, ids = read(truth / f"v{i}.png"), read(out / f"v{i}.ids.png")
            np.add.at(confusion, (label[label != 255], ids[label != 255]), 1)
        scored = json.loads(evaluate([finished.run_dir, "--json", "--network", network]).out)[network]
        ours = Scores(torch.from_numpy(confusion), classes).as_json()
        assert ours["iou"] == pytest.approx(scored["iou"], abs=1e-3)
        assert ours["pixel_accuracy"] == pytest.approx(scored["pixel_accuracy"], abs=1e-3)


def test_the_teacher_is_asked_unless_the_student_is_named(finished: Finished, data: Path, tmp_path: Path) -> None:
    image = data / "target" / "images" / "val" / "v0.png"
    for out, words in (("default", []), ("teacher", ["--network", "teacher"]), ("student", ["--network", "student"])):
        predict([finished.run_dir, image, "--out", tmp_path / out, *words])
    default, teacher, student = (read(tmp_path / out / "v0.ids.png") for out in ("default", "teacher", "student"))
    np.testing.assert_array_equal(default, teacher)
    assert (default != student).any()


def test_folders_are_walked_and_names_stay_apart(finished: Finished, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    for name in ("a.png", "day/a.JPG", "night/a.jpeg"):
        path = pictures / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(small_runs.draw(3)[0]).save(path)
    (pictures / "notes.txt").write_text("no image")
    single = tmp_path / "single.png"
    Image.fromarray(small_runs.draw(4)[0]).save(single)
    said = predict([finished.run_dir, pictures, single, "--out", tmp_path / "out"])
    kinds = ("ids", "color", "overlay")
    names = ("a", "day_a", "night_a", "single")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {f"{n}.{kind}.png" for n in names for kind in kinds}
    assert "labeled 4 images" in said.out


def test_two_images_for_one_result_are_refused(finished: Finished, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        Image.fromarray(small_runs.draw(3)[0]).save(tmp_path / folder / "same.png")
    paths = [tmp_path / folder / "same.png" for folder in ("one", "two")]
    message = refusal("predict", [finished.run_dir, *paths, "--out", tmp_path / "out"])
    assert "'same'" in message
    assert not (tmp_path / "out").exists()


def test_a_missing_a_damaged_and_no_image_are_named(finished: Finished, tmp_path: Path) -> None:
    out = ["--out", tmp_path / "out"]
    missing, damaged, empty = tmp_path / "missing.png", tmp_path / "damaged.jpg", tmp_path / "empty"
    empty.mkdir()
    Image.fromarray(small_runs.draw(3)[0]).save(damaged)
    damaged.write_bytes(b"no image at all")
    for path in (missing, damaged, empty):
        assert str(path) in refusal("predict", [finished.run_dir, path, *out])
    text = tmp_path / "notes.txt"
    text.write_text("no image")
    assert str(text) in refusal("predict", [finished.run_dir, text, *out])
