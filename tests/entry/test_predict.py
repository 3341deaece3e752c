"""python -m iidm.predict: pictures of what a run's network says, for any image."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import small_runs
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from small_runs import CLASSES, VAL_IMAGES, Finished, evaluate, predict, refusal
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import iidm.predict
import iidm.prediction.plans
from iidm.cli import run_main
from iidm.config import SlidingWindow
from iidm.data.specs.described import generated_color
from iidm.engine.metrics import Scores
from iidm.engine.rows import STRIP_ROWS
from iidm.engine.windows import image_logits
from iidm.evaluation import normalize_image
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


def test_one_bad_file_does_not_stop_the_others(finished: Finished, tmp_path: Path) -> None:
    for name in ("a.png", "c.jpg"):
        Image.fromarray(small_runs.draw(3)[0]).save(tmp_path / name)
    (tmp_path / "b.jpg").write_bytes(b"no image at all")
    Image.fromarray(np.full((8, 8), 4000, np.uint16)).save(tmp_path / "deep.png")
    words = [str(word) for word in (finished.run_dir, tmp_path, "--out", tmp_path / "out")]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as end:
        with mock.patch.object(sys, "argv", ["predict", *words]):
            run_main(iidm.predict.main)
    assert end.value.code == 2
    assert "labeled 2 images" in out.getvalue()
    *bad, last = err.getvalue().splitlines()
    assert len(bad) == 2 and str(tmp_path / "b.jpg") in bad[0] and str(tmp_path / "deep.png") in bad[1]
    assert "16 bits a channel (values 4000 to 4000)" in bad[1]
    assert last == "iidm: 2 of 4 images could not be labeled; each is named above."
    assert sorted(path.name for path in (tmp_path / "out").glob("*.ids.png")) == ["a.ids.png", "c.ids.png"]


def test_results_among_the_images_are_not_labeled_again(finished: Finished, tmp_path: Path) -> None:
    for name in ("q.jpg", "day/r.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(small_runs.draw(3)[0]).save(tmp_path / name)
    found: list[dict[str, bytes]] = []
    for _ in range(3):
        said = predict([finished.run_dir, tmp_path, "--out", tmp_path])
        assert "labeled 2 images" in said.out
        found.append({path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()})
    assert found[0] == found[1] == found[2] and len(found[0]) == 1 + 6
    assert said.err == f"{tmp_path}: 6 results of iidm.predict left aside\n"


def test_images_whose_results_would_share_a_name_are_kept_apart(finished: Finished, tmp_path: Path) -> None:
    for name in ("x.jpg", "x.png", "a/b.jpg", "a_b.jpg", "c/d.jpg"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(small_runs.draw(3)[0]).save(tmp_path / "in" / name)
    said = predict([finished.run_dir, tmp_path / "in", tmp_path / "in" / "x.jpg", "--out", tmp_path / "out"])
    assert "labeled 5 images" in said.out and "2 images share their name" in said.err
    results = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.ids.png")}
    assert results == {f"{name}.ids.png" for name in ("x.jpg", "x.png", "a/b", "a_b", "c_d")}


def test_a_turned_photograph_gets_ids_as_it_is_seen(finished: Finished, tmp_path: Path) -> None:
    upright = Image.fromarray(small_runs.draw(3)[0])
    upright.save(tmp_path / "upright.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    predict([finished.run_dir, tmp_path, "--out", tmp_path / "out"])
    ids = {name: read(tmp_path / "out" / f"{name}.ids.png") for name in ("upright", "turned")}
    np.testing.assert_array_equal(ids["upright"], ids["turned"])


def test_windows_say_what_evaluate_scores_in_windows(finished: Finished, data: Path, tmp_path: Path) -> None:
    val, truth = (data / "target" / kind / "val" for kind in ("images", "labels"))
    words = "--mode slide --window 32 48 --stride 20 30".split()
    predict([finished.run_dir, val, "--out", tmp_path, *words])
    right = pixels = 0
    for i in range(VAL_IMAGES):
        label, ids = read(truth / f"v{i}.png"), read(tmp_path / f"v{i}.ids.png")
        right += int((label == ids).sum())
        pixels += int((label != 255).sum())
    scored = json.loads(evaluate([finished.run_dir, "--json", *words]).out)["teacher"]
    assert right / pixels == pytest.approx(scored["pixel_accuracy"], abs=1e-3)


def test_a_large_image_is_seen_in_windows_unless_the_whole_is_insisted_on(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(iidm.prediction.plans, "MOST_WHOLE_PX", 100 * 120 - 1)
    for name, size in (("large", (100, 120)), ("small", (100, 119))):
        Image.fromarray(small_runs.draw(5, size)[0]).save(tmp_path / f"{name}.png")
    images = [tmp_path / "large.png", tmp_path / "small.png"]
    said = {}
    for out, words in (("auto", []), ("whole", ["--mode", "whole"]), ("slide", ["--mode", "slide"])):
        said[out] = predict([finished.run_dir, *images, "--out", tmp_path / out, *words]).out
    ids = {out: [read(tmp_path / out / f"{path.stem}.ids.png") for path in images] for out in said}
    np.testing.assert_array_equal(ids["auto"][0], ids["slide"][0])
    np.testing.assert_array_equal(ids["auto"][1], ids["whole"][1])
    assert (ids["whole"][0] != ids["slide"][0]).any()
    assert "large.png" in said["auto"] and "windows of 48x64 every 24x32 pixels" in said["auto"]  # the training crop
    assert "small.png" not in said["auto"] and "--mode whole" in said["auto"]
    assert said["whole"].count("\n") == said["slide"].count("\n") == 1


def test_a_window_for_whole_images_is_refused(finished: Finished, tmp_path: Path) -> None:
    words = [finished.run_dir, tmp_path, "--out", tmp_path / "out", "--window", "48", "64"]
    assert "--mode slide" in refusal("predict", words)
    message = refusal("predict", [*words, "--mode", "slide", "--stride", "49", "64"])
    assert "stride" in message and "1 to 48" in message and "(49, 64)" in message


class Cells(nn.Module):
    """Logits of 19 classes at an output stride of 8."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cells = nn.Conv2d(3, 19, 8, stride=8)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.cells(image)
        return logits


class LargestTensor(TorchDispatchMode):
    """Notes the elements of the largest floating-point tensor that any operation returns."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, Tensor) and tensor.is_floating_point():
                self.elements = max(self.elements, tensor.numel())
        return out


@pytest.mark.parametrize(
    ("size", "align_corners"), [((1500, 1200), False), ((900, 720), False), ((900, 720), True), ((1650, 1320), True)]
)
def test_an_image_of_any_size_is_labeled_in_strips_as_the_whole_would_be(
    size: tuple[int, int], align_corners: bool
) -> None:
    image = np.asarray(Image.fromarray(small_runs.draw(9, (150, 120))[0]).resize((1200, 1500))).copy()
    network, windows = Cells(), SlidingWindow((96, 128), (48, 64), 4)
    with LargestTensor() as largest:
        label = iidm.predict.predict(network, image, size, None, align_corners=align_corners, windows=windows)  # type: ignore[arg-type]
    # One row of windows, or a strip of the image before or after it was resized; all logits are nine times that.
    strips = (19 * 96 * size[1], 3 * (STRIP_ROWS + 4) * 1200, 19 * (STRIP_ROWS + 4) * size[1])
    assert largest.elements <= max(strips)
    with torch.inference_mode():
        whole = normalize_image(torch.from_numpy(image)[None])
        if size != (1500, 1200):
            whole = F.interpolate(whole, size=size, mode="bilinear", antialias=True)
        logits = image_logits(network, whole, windows, align_corners=align_corners)
        logits = F.interpolate(logits, size=(1500, 1200), mode="bilinear", align_corners=align_corners)
        ties = (logits.topk(2, 1).values.diff(dim=1).abs() < 1e-4)[0, 0].numpy()
        expected = logits.argmax(1)[0].numpy()
    assert len(np.unique(expected)) > 3 and ties.mean() < 0.01
    np.testing.assert_array_equal(label[~ties], expected[~ties])


def test_no_image_at_all_is_a_mistake(finished: Finished, tmp_path: Path) -> None:
    assert "Name images" in refusal("predict", [finished.run_dir, "--out", tmp_path / "out"])
    assert not (tmp_path / "out").exists()
