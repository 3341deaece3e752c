"""docs/predict.md as a user follows it: its commands, as written."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
import small_runs
import tyro
from PIL import Image
from small_runs import Finished, predict
from test_predict_videos import write_video

from iidm.cli.arguments import PredictArguments
from iidm.data.files.listing import VIDEO_ENDINGS
from iidm.prediction.images import GPU_BATCH
from iidm.prediction.plans import IMAGE_PX, MOST_WHOLE_PX

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "predict.md").read_text(encoding="utf-8")


def test_the_commands_of_the_page_do_what_it_says(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = re.findall(r"^    iidm predict (.*)$", PAGE, re.M)
    assert len(commands) == 4
    shutil.copytree(finished.run_dir, tmp_path / "runs" / "first")
    (tmp_path / "photos").mkdir()
    for i in range(2):
        Image.fromarray(small_runs.draw(i)[0]).save(tmp_path / "photos" / f"{i}.jpg")
    write_video(tmp_path / "drive.mp4", 4)
    monkeypatch.chdir(tmp_path)
    for command in commands:
        predict(shlex.split(command))
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("[!rp]*/**/*") if path.is_file()}
    names |= {path.relative_to(tmp_path).as_posix() for path in (tmp_path / "results").rglob("*.png")}
    pictures = [f"{i}.{kind}.png" for i in range(2) for kind in ("ids", "color", "overlay")]
    assert names == {
        *(f"results/{name}" for name in pictures),
        *(f"masks/{i}.{kind}.png" for i in range(2) for kind in ("ids", "confidence")),
        *(f"checked/{name}" for name in pictures),
        *(f"checked/annotations/{name}" for name in ("annotations.json", "annotations.xml", "0.json", "1.json")),
        "videos/drive.overlay.mp4",
        "videos/drive/iidm-frames.json",
        *(f"videos/drive/00000{i}.{kind}.png" for i in (0, 2) for kind in ("ids", "color", "overlay")),
    }


def test_the_numbers_of_the_page_are_those_of_the_code() -> None:
    defaults = tyro.cli(PredictArguments, args=["RUN", "IMAGES", "--out", "OUT"])
    for kind in ("ids", "color", "overlay", "confidence", "probabilities"):
        assert (f"| `{kind}` (default) |" in PAGE) == (kind in defaults.write)
        assert (f"| `{kind}` |" in PAGE) == (kind not in defaults.write)
    assert f"`--tolerance-px` ({defaults.tolerance_px:g})" in PAGE
    assert f"`--least-region-px` ({defaults.least_region_px}) pixels" in PAGE
    assert f"a GPU sees up to {GPU_BATCH}\nimages" in PAGE
    assert f"at most {MOST_WHOLE_PX >> 20} megapixels are in the network, {IMAGE_PX >> 20} megapixels of images" in PAGE
    assert all(f"{ending}" in PAGE for ending in VIDEO_ENDINGS)
