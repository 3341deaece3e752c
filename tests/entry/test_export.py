"""iidm export: a run's network as a file that says what iidm predict says, used as docs/export.md shows."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import small_runs
from numpy.typing import NDArray
from PIL import Image
from small_runs import BACKBONE, CLASSES, Finished, Said, call, one_line, predict

import iidm
import iidm.export
from iidm.cli import run_main

PAGE = Path(__file__).resolve().parents[2] / "docs" / "export.md"


def export(words: Sequence[str | Path]) -> Said:
    """iidm.export in this process."""
    return call(iidm.export.main, words)


def refused(words: Sequence[str | Path], capsys: pytest.CaptureFixture[str]) -> str:
    """The line of a call that ends with exit status 2."""
    with pytest.raises(SystemExit) as end:
        run_main(iidm.export.main, [str(word) for word in words])
    assert end.value.code == 2
    return one_line(capsys.readouterr().err)


@pytest.fixture(scope="module")
def exported(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Said]:
    """Files of the shared run in float32 and int8, for images of any size."""
    out = tmp_path_factory.mktemp("exported") / "camera.onnx"
    return out, export([finished.run_dir, "--out", out, "--precision", "int8", "fp32", "--confidence"])


def photographs(folder: Path) -> list[tuple[Path, NDArray[np.uint8]]]:
    """Images of odd sizes, smaller and larger than the training crop."""
    folder.mkdir()
    found = []
    for i, size in enumerate([(61, 83), (33, 41), (130, 97)]):
        image = small_runs.draw(50 + i, size)[0]
        Image.fromarray(image).save(folder / f"p{i}.png")
        found.append((folder / f"p{i}.png", image))
    return found


def test_the_file_labels_images_of_any_size_as_predict_does(
    exported: tuple[Path, Said], finished: Finished, tmp_path: Path
) -> None:
    images = photographs(tmp_path / "in")
    predict([finished.run_dir, tmp_path / "in", "--out", tmp_path / "out", "--precision", "float32"])
    session = onnxruntime.InferenceSession(exported[0], providers=["CPUExecutionProvider"])
    for path, image in images:
        wanted = np.asarray(Image.open(tmp_path / "out" / f"{path.stem}.ids.png"))
        label, confidence = session.run(None, {"image": np.stack([image] * 3)})
        assert label.dtype == np.uint8 and len(np.unique(wanted)) > 1
        for one in label:
            assert (one == wanted).mean() > 0.999
        assert confidence.dtype == np.float32 and 1 / len(CLASSES) < confidence.min() <= confidence.max() <= 1


def test_the_table_tells_what_each_file_loses(exported: tuple[Path, Said], finished: Finished) -> None:
    out, said = exported
    assert said.err == ""
    assert {path.name for path in out.parent.iterdir()} == {"camera.onnx", "camera-int8.onnx"}
    lines = [line.split() for line in said.out.splitlines() if line.startswith("camera")]
    rows = {words[0]: words for words in lines if words[1] != "loses"}
    assert list(rows) == ["camera.onnx", "camera-int8.onnx"]
    size, shares = {}, {}
    for name, (_, megabytes, _, share, miou) in rows.items():
        size[name], shares[name] = float(megabytes), float(share)
        assert size[name] == pytest.approx((out.parent / name).stat().st_size / 1e6, abs=0.06)
        assert 0 <= float(miou) <= 100
    assert shares["camera.onnx"] > 99.9 and shares["camera-int8.onnx"] > 80
    assert size["camera-int8.onnx"] < 0.4 * size["camera.onnx"]
    scored = json.loads(small_runs.evaluate([finished.run_dir, "--json", "--precision", "float32"]).out)
    (own,) = [line for line in said.out.splitlines() if line.startswith("iidm predict")]
    assert float(own.split()[-1]) == pytest.approx(100 * scored["teacher"]["miou"], abs=0.2)
    assert float(rows["camera.onnx"][-1]) == pytest.approx(float(own.split()[-1]), abs=0.1)


def test_the_page_s_program_uses_the_file_without_iidm(exported: tuple[Path, Said], tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    assert "iidm" not in program and "torch" not in program and len(program.splitlines()) <= 32
    (tmp_path / "label.py").write_text(program)
    ((path, image), *_) = photographs(tmp_path / "in")
    words = [sys.executable, "label.py", str(exported[0]), str(path), "label.png"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(CLASSES)
    with Image.open(tmp_path / "label.png") as picture:
        assert picture.size == (image.shape[1], image.shape[0]) and picture.mode == "P"
        assert set(np.unique(np.asarray(picture))) <= set(range(len(CLASSES)))


def test_what_the_file_tells_of_itself(exported: tuple[Path, Said], finished: Finished) -> None:
    for name, precision in (("camera.onnx", "fp32"), ("camera-int8.onnx", "int8")):
        session = onnxruntime.InferenceSession(exported[0].with_name(name), providers=["CPUExecutionProvider"])
        facts = session.get_modelmeta().custom_metadata_map
        assert [one["name"] for one in json.loads(facts["classes"])] == list(CLASSES)
        assert [one["id"] for one in json.loads(facts["classes"])] == [0, 1, 2]
        assert facts["iidm"] == iidm.__version__ and facts["precision"] == precision
        assert str(finished.run_dir) in facts["command"] and "any size" in facts["input"]
        assert f"teacher after 6 steps: {BACKBONE}, segformer head" in facts["network"]
        assert session.get_inputs()[0].shape == ["batch", "height", "width", 3]


def test_torch_loads_its_file_without_iidm_and_one_that_could_not_be_checked_is_told(
    finished: Finished, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir, out = tmp_path / "run", tmp_path / "network.pt2"
    shutil.copytree(finished.run_dir, run_dir)
    config = json.loads((run_dir / "config.json").read_text())
    (run_dir / "config.json").write_text(json.dumps({**config, "target_root": str(tmp_path / "gone")}))
    words = [run_dir, "--format", "torch", "--size", "61", "83", "--out", out, "--ids", "dataset"]
    message = refused(words, capsys)
    assert "not checked" in message and "gone" in message and "--images" in message and out.is_file()
    images = photographs(tmp_path / "in")[:1]
    predict([finished.run_dir, tmp_path / "in", "--out", tmp_path / "out", "--precision", "float32"])
    code = """
import sys, numpy, torch
from PIL import Image
image = torch.from_numpy(numpy.array(Image.open(sys.argv[2])))[None]
(label,) = torch.export.load(sys.argv[1]).module()(image)
numpy.save(sys.argv[3], label.numpy())
assert not any(name.split(".")[0] == "iidm" for name in sys.modules)
"""
    labels = tmp_path / "label.npy"
    subprocess.run([sys.executable, "-c", code, out, images[0][0], labels], check=True, cwd=tmp_path)
    assert (np.load(labels)[0] == np.asarray(Image.open(tmp_path / "out" / "p0.ids.png"))).mean() > 0.999


def test_a_file_that_says_something_else_is_not_written(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "network.onnx"
    out.write_text("of before")
    monkeypatch.setattr(
        iidm.export, "write_files", lambda deployed, network, parts, *_: parts["fp32"].write_text("new")
    )
    monkeypatch.setattr(iidm.export, "open_file", lambda path: lambda image: np.zeros(image.shape[:3], np.uint8))
    message = refused([finished.run_dir, "--out", out], capsys)
    assert str(out) in message and "was not written" in message and "0.001" in message
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("network.onnx", "of before")]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--format", "torch", "--precision", "int8"], "--format onnx"),
        (["--out", "network.pt2"], ".onnx"),
        (["--mode", "slide"], "--size 1080 1920"),
        (["--window", "32", "32"], "--mode slide"),
        (["--size", "0", "64"], "1 or more"),
        (["--labels", "labels"], "--images"),
        (["--images", "nowhere"], "nowhere"),
        (["--target-root", "nowhere"], "nowhere"),
        (["--count", "0"], "--count"),
    ],
)
def test_what_cannot_be_is_one_line_with_what_to_do(
    words: list[str], said: str, finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused([finished.run_dir, *words], capsys)
    assert not (finished.run_dir / "exports").exists()


def test_a_missing_extra_is_named(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(iidm.export, "find_spec", lambda name: None if name == "onnxruntime" else object())
    message = refused([finished.run_dir], capsys)
    assert "onnxruntime" in message and "iidm[export]" in message and "--format torch" in message
