"""Videos are read as they are shown, and what of them cannot be read is told."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from iidm.prediction.video_files import VideoReader, VideoWriter
from iidm.types import UserError

SIZE = (96, 128)


def write(path: Path, count: int, codec: str = "libx264", **options: str) -> Path:
    """Noise whose upper left quarter is bright red, 25 frames a second."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        for _ in range(count):
            image = rng.integers(0, 120, (*SIZE, 3)).astype(np.uint8)
            image[:48, :64] = 250, 20, 20
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def turned(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """The same file, to be shown turned: the four numbers of a rotation in the header of its track."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (number << 16 & 0xFFFFFFFF for number in matrix)
    for place, value in enumerate((a, b, 0, c, d, 0, 0, 0, 1 << 30)):
        data[start + 4 * place : start + 4 * place + 4] = value.to_bytes(4, "big")
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("matrix", "corner"),
    [((1, 0, 0, 1), (0, 0)), ((0, 1, -1, 0), (0, 1)), ((-1, 0, 0, -1), (1, 1)), ((0, -1, 1, 0), (1, 0))],
)
def test_a_turned_video_is_read_upright(
    matrix: tuple[int, int, int, int], corner: tuple[int, int], tmp_path: Path
) -> None:
    with VideoReader(turned(write(tmp_path / "a.mp4", 3), matrix)) as reader:
        frames = list(reader.frames(1))
    for frame in frames:
        height, width = frame.image.shape[:2]
        assert (height, width) == (SIZE if matrix[0] else SIZE[::-1])
        quarters = frame.image.reshape(2, height // 2, 2, width // 2, 3).mean((1, 3))
        assert np.unravel_index(quarters[..., 0].argmax(), (2, 2)) == corner
        assert quarters[(*corner, 1)] < 60


def test_times_that_are_uneven_are_kept(tmp_path: Path) -> None:
    times = [0.0, 0.04, 0.1, 0.1001, 0.5, 1.0, 1.04]
    path = tmp_path / "deep" / "a.mp4"
    with VideoWriter(path, Fraction(25)) as writer:
        for number, time in enumerate(times):
            writer.add(time, np.full((*SIZE, 3), 30 * number, np.uint8))
    assert not writer.is_padded and [one.name for one in path.parent.iterdir()] == ["a.mp4"]
    with VideoReader(path) as reader:
        frames = list(reader.frames(1))
        assert reader.frame_count == len(times) and reader.problem == ""
    assert [frame.seconds for frame in frames] == pytest.approx(times, abs=1e-4)
    assert [frame.image.mean() for frame in frames] == pytest.approx([30 * i for i in range(len(times))], abs=4)
    with VideoReader(path) as reader:
        assert [frame.number for frame in reader.frames(3)] == [0, 3, 6]


def test_odd_sizes_get_a_row_and_a_column(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", Fraction(25)) as writer:
        writer.add(0, np.full((33, 47, 3), 200, np.uint8))
        assert writer.is_padded
    with VideoReader(tmp_path / "a.mp4") as reader:
        (frame,) = reader.frames(1)
    assert frame.image.shape == (34, 48, 3) and abs(frame.image.astype(int) - 200).max() < 12


@pytest.mark.parametrize(
    ("ending", "codec"), [("mkv", "libx264"), ("avi", "mpeg4"), ("mp4", "libx264"), ("mov", "mpeg4")]
)
def test_a_cut_off_video_gives_what_there_is_and_says_so(ending: str, codec: str, tmp_path: Path) -> None:
    options = {"movflags": "faststart"} if ending in ("mp4", "mov") else {}
    path = write(tmp_path / f"a.{ending}", 40, codec, **options)
    with VideoReader(path) as reader:
        assert len(list(reader.frames(1))) == 40 and reader.problem == ""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with VideoReader(path) as reader:
        count = len(list(reader.frames(1)))
        assert 0 < count < 30
        assert str(path) in reader.problem and "cut off" in reader.problem
        assert (f"{count} of 40 frames" if ending != "mkv" else "of 1.6 seconds") in reader.problem


@pytest.mark.parametrize("ends_empty", [False, True])
def test_empty_slots_of_an_avi_are_no_loss_and_a_cut_off_one_is_told(ends_empty: bool, tmp_path: Path) -> None:
    """Recorders leave slots empty in which nothing came; the header counts them as frames."""
    path = tmp_path / "a.avi"
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuvj420p"
        for slot in (*range(20), *range(30, 40), 59):
            frame = av.VideoFrame.from_ndarray(rng.integers(0, 255, (*SIZE, 3)).astype(np.uint8), format="rgb24")
            frame.pts, frame.time_base = slot, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    data = bytearray(path.read_bytes())
    if ends_empty:  # the last frame's bytes become filling after an empty slot; its size stands in the index too
        index = data.rindex(b"idx1")
        last = data.rindex(b"00dc", 0, index)
        size = int.from_bytes(data[last + 4 : last + 8], "little")
        data[last + 4 : last + 16] = bytes(4) + b"JUNK" + (size + size % 2 - 8).to_bytes(4, "little")
        entry = data.rindex(b"00dc") + 12
        data[entry : entry + 4] = bytes(4)
        path.write_bytes(data)
    with VideoReader(path) as reader:
        assert reader.frame_count == 60
        assert len(list(reader.frames(1))) == 31 - ends_empty and reader.problem == ""
    path.write_bytes(data[: len(data) * 2 // 3])
    with VideoReader(path) as reader:
        count = len(list(reader.frames(1)))
        assert 0 < count < 22 and f"{count} of 60 frames" in reader.problem


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", 5)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moov") + 50])  # its table of contents, which stands at the end
    for name, content in (("a.mp4", None), ("empty.mp4", b""), ("text.mkv", b"no video at all" * 50)):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=name):
            VideoReader(tmp_path / name)
    with pytest.raises(UserError, match=r"gone\.mp4 cannot be read \(No such file"):
        VideoReader(tmp_path / "gone.mp4")


def test_an_error_leaves_no_half_video(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="disk"), VideoWriter(tmp_path / "a.mp4", Fraction(25)) as writer:
        writer.add(0, np.zeros((*SIZE, 3), np.uint8))
        raise OSError("disk full")
    assert not list(tmp_path.iterdir())


def test_a_build_without_h264_writes_mpeg4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av, "codecs_available", {"mpeg4"})
    with VideoWriter(tmp_path / "a.mp4", Fraction(30000, 1001)) as writer:
        for i in range(5):
            writer.add(i * 1001 / 30000, np.full((*SIZE, 3), 40 * i, np.uint8))
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"
        times = [float(frame.time) for frame in container.decode(video=0)]
    assert times == pytest.approx([i * 1001 / 30000 for i in range(5)], abs=1e-4)


GREEN, BT709_GREEN = (60, 160, 50), (128, 90, 89)
"""RGB, and Y'CbCr of it by BT.709, 16 to 235."""


@pytest.mark.parametrize("told", [True, False], ids=["as the file says", "as players take it"])
def test_colours_of_a_large_video_are_those_that_players_show(told: bool, tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25, options={"qscale": "1"})
        stream.height, stream.width, stream.pix_fmt = 720, 1280, "yuv420p"
        if told:
            stream.codec_context.colorspace = 1
        frame = av.VideoFrame(1280, 720, "yuv420p")
        for plane, value in zip(frame.planes, BT709_GREEN, strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with VideoReader(tmp_path / "a.mp4") as reader:
        (frame,) = reader.frames(1)
    np.testing.assert_allclose(frame.image[300, 300], GREEN, atol=3)


def test_a_written_video_says_how_its_colours_are_coded(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", Fraction(10)) as writer:
        writer.add(0.0, np.full((*SIZE, 3), GREEN, np.uint8))
    with av.open(str(tmp_path / "a.mp4")) as container:
        frame = next(container.decode(video=0))
    assert frame.colorspace == 1
    middle = [np.frombuffer(plane, np.uint8)[5] for plane in frame.planes]
    np.testing.assert_allclose(middle, BT709_GREEN, atol=2)


@pytest.mark.parametrize("ending", ["ts", "mkv"])
def test_times_count_from_the_begin_of_a_stream_that_was_recorded_later(ending: str, tmp_path: Path) -> None:
    """Where a recorder had run for an hour, the labeled video would begin with an hour of nothing."""
    with av.open(str(tmp_path / f"a.{ending}"), "w") as container:
        stream = container.add_stream("mpeg2video" if ending == "ts" else "libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        for number in range(10):
            frame = av.VideoFrame.from_ndarray(np.full((*SIZE, 3), 20 * number, np.uint8), format="rgb24")
            frame.pts = 3600 * 25 + number
            frame.time_base = Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with VideoReader(tmp_path / f"a.{ending}") as reader:
        times = [frame.seconds for frame in reader.frames(1)]
        assert reader.problem == ""
    assert times == pytest.approx([number / 25 for number in range(10)], abs=1e-3)
