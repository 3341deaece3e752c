"""python -m iidm.predict: what it writes beside ids, colours and overlays, and several images at once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import small_runs
from numpy.typing import NDArray
from PIL import Image
from small_runs import CLASSES, Finished, predict, refusal

from iidm.data import read_image
from iidm.data.labels.pictures import read_ids
from iidm.data.specs.described import generated_color

PALETTE = np.array([generated_color(i) for i in range(len(CLASSES))], np.uint8)


def read(path: Path) -> NDArray[np.generic]:
    with Image.open(path) as image:
        return np.asarray(image)


def write_images(root: Path, count: int) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.fromarray(small_runs.draw(i, (64 + i % 3, 96))[0]).save(root / f"{i:02}.png")
    return root


@pytest.fixture()
def with_own_ids(finished: Finished, tmp_path: Path) -> Path:
    """The run, whose target's classes have the ids 7, 300 and none."""
    run_dir = tmp_path / "run"
    shutil.copytree(finished.run_dir, run_dir)
    return run_dir


def set_ids(run_dir: Path, *pairs: str) -> None:
    path = run_dir / "config.json"
    table = json.loads(path.read_text())
    table["data"]["target"]["id_map"] = list(pairs)
    path.write_text(json.dumps(table))


def test_only_what_is_named_is_written(finished: Finished, tmp_path: Path) -> None:
    images = write_images(tmp_path / "in", 1)
    predict([finished.run_dir, images, "--out", tmp_path / "out", "--write", "confidence", "probabilities", "ids"])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"00.{kind}" for kind in ("ids.png", "confidence.png", "probabilities.npz")
    }
    with np.load(tmp_path / "out" / "00.probabilities.npz") as table:
        probabilities, names = table["probabilities"].astype(np.float32), table["classes"].tolist()
    assert names == list(CLASSES) and probabilities.shape == (len(CLASSES), 64, 96)
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=2e-3)
    confidence = read(tmp_path / "out" / "00.confidence.png")
    np.testing.assert_allclose(confidence / 255, probabilities.max(0), atol=0.004)
    ids = read(tmp_path / "out" / "00.ids.png")
    first, second = np.sort(probabilities, 0)[[-1, -2]]
    clear = first - second > 2e-3
    assert clear.mean() > 0.9 and (ids == probabilities.argmax(0))[clear].all()


def test_ids_have_the_colours_of_the_classes_and_are_read_as_labels(finished: Finished, tmp_path: Path) -> None:
    images = write_images(tmp_path / "in", 1)
    predict([finished.run_dir, images, "--out", tmp_path / "out"])
    with Image.open(tmp_path / "out" / "00.ids.png") as picture:
        assert picture.mode == "P"
        ids, colors = np.asarray(picture), np.asarray(picture.convert("RGB"))
    np.testing.assert_array_equal(colors, PALETTE[ids])
    np.testing.assert_array_equal(read_ids(tmp_path / "out" / "00.ids.png", "auto"), ids)


def test_ids_of_the_data_set_may_be_of_16_bits(with_own_ids: Path, tmp_path: Path) -> None:
    images = write_images(tmp_path / "in", 2)
    predict([with_own_ids, images, "--out", tmp_path / "train"])
    for top, dtype in ((300, np.uint16), (9, np.uint8)):
        set_ids(with_own_ids, "7:0", f"{top}:1", "8:2", "255:255")
        out = tmp_path / str(top)
        predict([with_own_ids, images, "--out", out, "--ids", "dataset", "--write", "ids"])
        for name in ("00.ids.png", "01.ids.png"):
            own = read_ids(out / name, "auto")
            assert own.dtype == dtype
            np.testing.assert_array_equal(own, np.array([7, top, 8])[read(tmp_path / "train" / name)])


def test_a_class_without_an_id_of_its_own_is_told(with_own_ids: Path, tmp_path: Path) -> None:
    images = write_images(tmp_path / "in", 1)
    words = [with_own_ids, images, "--out", tmp_path / "out", "--ids", "dataset"]
    set_ids(with_own_ids, "7:0", "9:2", "255:255")
    assert "has no id of wall: pixels of these classes are written as 255" in predict(words).err
    assert set(np.unique(read(tmp_path / "out" / "00.ids.png"))) <= {7, 9, 255}
    set_ids(with_own_ids, "7:0", "8:1", "9:1", "10:2")
    message = refusal("predict", words)
    assert "class 'wall' of folder has 2: 8, 9" in message and "--ids train" in message


@pytest.mark.parametrize("jobs", [1, 3])
def test_several_at_once_write_what_one_by_one_writes(jobs: int, finished: Finished, tmp_path: Path) -> None:
    images = write_images(tmp_path / "in", 7)
    (images / "03b.png").write_bytes(b"no image")
    (images / "05b.jpg").write_bytes(b"nor this")
    words = [finished.run_dir, images, "--jobs", str(jobs), "--annotations", "coco"]
    message = ""
    try:
        predict([*words, "--out", tmp_path / "out"])
    except Exception as error:
        message = str(error)
    assert message == "2 of 9 images could not be labeled; each is named above."
    table = json.loads((tmp_path / "out" / "annotations" / "annotations.json").read_text())
    assert [image["file_name"] for image in table["images"]] == [f"{i:02}.png" for i in range(7)]
    assert not list((tmp_path / "out").glob(".*"))
    for i in range(7):
        path = images / f"{i:02}.png"
        predict([finished.run_dir, path, "--out", tmp_path / "one"])
        for kind in ("ids", "color", "overlay"):
            one, all_of_them = (read(tmp_path / out / f"{i:02}.{kind}.png") for out in ("one", "out"))
            np.testing.assert_array_equal(one, all_of_them)
        assert read_image(path).shape == one.shape


def test_annotations_are_written_of_what_is_predicted(finished: Finished, tmp_path: Path) -> None:
    images = write_images(tmp_path / "in" / "day", 2).parent
    words = ["--annotations", "coco", "labelme", "cvat", "--tolerance-px", "0", "--least-region-px", "5"]
    said = predict([finished.run_dir, images, "--out", tmp_path / "out", *words])
    annotations = tmp_path / "out" / "annotations"
    assert {path.relative_to(annotations).as_posix() for path in annotations.rglob("*.*")} == {
        "annotations.json",
        "annotations.xml",
        "day/00.json",
        "day/01.json",
    }
    assert f"{annotations / 'annotations.xml'}: " in said.out and "polygons of 2 images" in said.out
    assert (annotations / "day" / json.loads((annotations / "day/00.json").read_text())["imagePath"]).is_file()


def test_an_image_with_the_name_of_cocos_file_keeps_its_labelme_file(finished: Finished, tmp_path: Path) -> None:
    images, annotations = tmp_path / "in", tmp_path / "out" / "annotations"
    write_images(images, 1)
    (images / "00.png").rename(images / "annotations.png")
    words = [finished.run_dir, images, "--out", tmp_path / "out", "--annotations"]
    predict([*words, "labelme"])
    assert "shapes" in json.loads((annotations / "annotations.json").read_text())
    for form in ("labelme", "coco"):
        assert str(annotations / "annotations.json") in refusal("predict", [*words, form])
    (annotations / "annotations.json").unlink()
    predict([*words, "coco", "labelme"])
    assert "categories" in json.loads((annotations / "annotations.json").read_text())
    assert json.loads((annotations / "annotations.png.json").read_text())["imagePath"].endswith("annotations.png")


@pytest.mark.parametrize(
    ("form", "name"), [("coco", "annotations.json"), ("cvat", "annotations.xml"), ("labelme", "day/00.json")]
)
def test_annotations_that_may_be_corrected_are_not_replaced(
    form: str, name: str, finished: Finished, tmp_path: Path
) -> None:
    """LabelMe saves into the file that it opened."""
    corrected = tmp_path / "out" / "annotations" / name
    corrected.parent.mkdir(parents=True)
    (tmp_path / "out" / "annotations" / ".annotations.json").write_text("what a kill left")
    words = [finished.run_dir, write_images(tmp_path / "in" / "day", 1).parent, "--out", tmp_path / "out"]
    corrected.write_text("corrected by hand")
    message = refusal("predict", [*words, "--annotations", form])
    assert str(corrected) in message and "Give another --out" in message
    assert corrected.read_text() == "corrected by hand" and not list((tmp_path / "out").glob("*.png"))
    corrected.unlink()
    predict([*words, "--annotations", form])
    assert corrected.is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--every", "0"], "--every must be 1 or more"),
        (["--jobs", "0"], "--jobs must be 1 or more"),
        (["--tolerance-px", "-1"], "--tolerance-px must be 0 to 100"),
        (["--ids", "dataset", "--write", "color"], "--write does not name ids"),
        (["--write"], "Nothing is to be written"),
    ],
)
def test_words_that_do_not_fit_are_refused(words: list[str], message: str, finished: Finished, tmp_path: Path) -> None:
    images = write_images(tmp_path / "in", 1)
    assert message in refusal("predict", [finished.run_dir, images, "--out", tmp_path / "out", *words])
    assert not (tmp_path / "out").exists()


def test_ctrl_c_ends_it_and_leaves_whole_pictures(finished: Finished, tmp_path: Path) -> None:
    images = write_images(tmp_path / "in", 1)
    for i in range(400):
        os.link(images / "00.png", images / f"x{i:03}.png")
    process = small_runs.start(
        "predict", [finished.run_dir, images, "--out", tmp_path / "out", "--annotations", "coco"]
    )
    try:
        end = time.monotonic() + 600
        while len(list((tmp_path / "out").glob("*.ids.png"))) < 5:
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=600)
    finally:
        small_runs.kill_group(process)
    assert process.returncode == 130 and err == "iidm: stopped.\n"
    pictures = list((tmp_path / "out").glob("*.png"))
    assert 5 <= len(pictures) < 3 * 400
    for path in pictures:
        read(path)
    assert not (tmp_path / "out" / "annotations" / "annotations.json").exists()
    assert [path.name for path in (tmp_path / "out").rglob(".*")] == []
