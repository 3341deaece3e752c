"""python -m iidm.predict on videos."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
import small_runs
from PIL import Image
from small_runs import CLASSES, Finished, predict, refusal

from iidm.data.files.walking import FRAMES
from iidm.data.specs.described import generated_color
from iidm.types import UserError

PALETTE = np.array([generated_color(i) for i in range(len(CLASSES))], np.uint8)
SIZE = (64, 96)


def write_video(path: Path, count: int = 9, size: tuple[int, int] = SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        for i in range(count):
            image = np.roll(small_runs.draw(5, size)[0], 4 * i, 1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def read_video(path: Path) -> tuple[list[float], list[np.ndarray]]:
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return [float(frame.time) for frame in frames], [frame.to_ndarray(format="rgb24") for frame in frames]


def test_a_video_gets_an_overlay_with_its_size_and_times(finished: Finished, tmp_path: Path) -> None:
    video = write_video(tmp_path / "clip.mp4")
    said = predict([finished.run_dir, video, "--out", tmp_path / "out", "--frames"])
    out = tmp_path / "out"
    assert said.out == f"labeled 9 frames of {video}: {out / 'clip.overlay.mp4'}, pictures in {out / 'clip'}\n"
    assert {path.name for path in out.iterdir()} == {"clip.overlay.mp4", "clip"}
    (given, images), (times, overlays) = read_video(video), read_video(out / "clip.overlay.mp4")
    assert times == pytest.approx(given, abs=1e-4) and overlays[0].shape == (*SIZE, 3)
    for i, picture in enumerate(overlays):
        with Image.open(out / "clip" / f"{i:06}.ids.png") as stored:
            ids = np.asarray(stored)
        expected = (images[i].astype(float) + PALETTE[ids]) / 2
        assert np.abs(picture - expected).mean() < 8  # coded anew, and colours at half the size
    table = json.loads((out / "clip" / FRAMES).read_text())
    assert table["video"] == "clip.mp4"
    assert [frame["name"] for frame in table["frames"]] == [f"{i:06}" for i in range(9)]
    assert [frame["seconds"] for frame in table["frames"]] == pytest.approx(given, abs=1e-4)


def test_every_third_frame_and_an_odd_size(finished: Finished, tmp_path: Path) -> None:
    video = write_video(tmp_path / "odd.avi", 8, (65, 97))
    said = predict([finished.run_dir, video, "--out", tmp_path / "out", "--every", "3"])
    assert "labeled 3 frames" in said.out and "one pixel larger as H.264 has even sizes only" in said.out
    times, overlays = read_video(tmp_path / "out" / "odd.overlay.mp4")
    assert times == pytest.approx([0, 0.3, 0.6], abs=1e-3) and overlays[0].shape == (66, 98, 3)


def test_frames_of_an_earlier_call_do_not_lie_among_those_of_this_one(finished: Finished, tmp_path: Path) -> None:
    video, folder = write_video(tmp_path / "a.mp4", 5), tmp_path / "out" / "a"
    folder.mkdir(parents=True)
    words = [finished.run_dir, video, "--out", tmp_path / "out", "--frames", "--write", "ids", "confidence"]
    mine = folder / "000001.color.png"
    mine.write_bytes(b"of no call before")
    predict(words)
    assert len(list(folder.glob("*.ids.png"))) == 5 and mine.is_file()
    (folder / "notes.txt").write_text("mine")
    predict([*words[:-1], "--every", "2"])
    named = {frame["name"] for frame in json.loads((folder / FRAMES).read_text())["frames"]}
    assert named == {"000000", "000002", "000004"}
    assert {path.name.partition(".")[0] for path in folder.glob("*.*.*")} == named
    assert (folder / "000002.confidence.png").is_file(), "what was asked for of the same frame before"
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_folder_of_images_and_videos_and_its_own_results(finished: Finished, tmp_path: Path) -> None:
    write_video(tmp_path / "day" / "a.MKV", 3)
    write_video(tmp_path / "b.mov", 3)
    Image.fromarray(small_runs.draw(3)[0]).save(tmp_path / "c.png")
    words = [finished.run_dir, tmp_path, "--out", tmp_path, "--frames", "--write", "ids", "overlay"]
    first = predict(words)
    assert first.err == "" and first.out.count("labeled ") == 3
    results = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert {"day_a.overlay.mp4", "b.overlay.mp4", "c.ids.png", "b/000002.ids.png", "day_a/iidm-frames.json"} <= results
    again = predict(words)
    assert again.out == first.out
    assert "results of iidm.predict" in again.err and "2 folders of frames of iidm.predict" in again.err
    assert results == {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}


def test_a_cut_off_video_and_what_is_none_are_told_at_the_end(finished: Finished, tmp_path: Path) -> None:
    video = write_video(tmp_path / "in" / "cut.avi", 40)
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    (tmp_path / "in" / "none.mp4").write_bytes(b"no video")
    Image.fromarray(small_runs.draw(3)[0]).save(tmp_path / "in" / "c.png")
    with pytest.raises(UserError, match=r"2 of 1 image and 2 videos could not be labeled; each is named above"):
        predict([finished.run_dir, tmp_path / "in", "--out", tmp_path / "out"])
    count = len(read_video(tmp_path / "out" / "cut.overlay.mp4")[0])
    assert 0 < count < 40
    assert not (tmp_path / "out" / "none.overlay.mp4").exists() and (tmp_path / "out" / "c.ids.png").exists()
    message = refusal("predict", [finished.run_dir, tmp_path / "in" / "none.mp4", "--out", tmp_path / "out"])
    assert "none.mp4 cannot be read" in message


def test_a_video_of_which_nothing_would_be_written_is_refused(finished: Finished, tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", 2)
    message = refusal("predict", [finished.run_dir, video, "--out", tmp_path / "out", "--write", "ids"])
    assert "a.mp4" in message and "--frames" in message and not (tmp_path / "out").exists()
    said = predict([finished.run_dir, video, "--out", tmp_path / "out", "--annotations", "cvat"])
    assert said.err == "annotations are written of images only, not of 1 video\n"
