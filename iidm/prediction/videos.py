"""Labeling a video: its frames are read, seen by the network and written again, several at once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from iidm.data import FRAMES, Input
from iidm.data.files.common import counted
from iidm.data.files.inputs import name_problem
from iidm.engine.preview import overlay
from iidm.engine.rows import STRIP_ROWS
from iidm.types import UserError

from .flow import in_order
from .images import GPU_BATCH, ImageWork
from .plans import Plan
from .video_files import Frame, VideoReader, VideoWriter


@dataclass(frozen=True)
class VideoWish:
    """What is to be written of a video."""

    every: int = 1
    """Only every N-th frame."""
    frames: bool = False
    """Also the pictures of each frame, in a folder of the video's name."""


class VideoDone(NamedTuple):
    """What labeling a video came to."""

    line: str
    """What was written, for people; empty for nothing."""
    problem: str
    """What of the video could not be read; empty where it is whole."""


def label_video(
    video: Input,
    plan: Callable[[tuple[int, int]], Plan],
    work: ImageWork,
    wish: VideoWish,
    jobs: int,
    start: Callable[[tuple[int, int], int | None], Callable[[], object]],
) -> VideoDone:
    """Write <name>.overlay.mp4, and <name>/000000.ids.png and so on where it is wished, `jobs` frames at once.

    Args:
        plan: how frames of (H, W) will be labeled.
        start: called with the size (H, W) of the frames and how many there will be, None: unknown; what it returns is
            called after each.

    Raises:
        UserError: the file cannot be read as a video, its results have no name, or PyAV is missing.
        OSError: a result cannot be written.
    """
    problem = name_problem(video)
    if problem:
        raise UserError(problem)
    folder = work.out / video.name if wish.frames else None
    times: list[float] = []
    with ExitStack() as stack:
        reader = stack.enter_context(VideoReader(video.path))
        frames = reader.frames(wish.every)
        first = next(frames, None)
        if first is None:
            raise UserError(reader.problem)
        progress = start(_shape(first), None if reader.frame_count is None else -(-reader.frame_count // wish.every))
        was_there = folder is not None and (folder / FRAMES).is_file()
        if folder is not None:
            _note_frames(folder, video, [], wish)  # first: it tells that what lies there are results
        writer = None
        if "overlay" in work.pictures.kinds:
            path = work.out / f"{video.name}.overlay.mp4"
            writer = stack.enter_context(VideoWriter(path, reader.rate / wish.every))
        batch = GPU_BATCH if work.look.device.type == "cuda" else 1
        chunks = in_order(_chunks(chain([first], frames), batch), FrameWork(work, plan, folder), jobs, work.look.stop)
        for seconds, picture in chain.from_iterable(stack.enter_context(closing(chunks))):
            if writer is not None:
                writer.add(seconds, picture)
            times.append(seconds)
            progress()
    written = []
    if writer is not None:
        padded = ", one pixel larger as H.264 has even sizes only" if writer.is_padded else ""
        written.append(f"{writer.path}{padded}")
    if folder is not None:
        _note_frames(folder, video, times, wish)
        if was_there:
            _remove_others(folder, {_frame_name(i * wish.every) for i in range(len(times))})
        written.append(f"pictures in {folder}")
    return VideoDone(f"labeled {counted(len(times), 'frame')} of {video.path}: {', '.join(written)}", reader.problem)


def _note_frames(folder: Path, video: Input, times: list[float], wish: VideoWish) -> None:
    """Write which frame of the video is shown when."""
    folder.mkdir(parents=True, exist_ok=True)
    named = [{"name": _frame_name(i * wish.every), "seconds": round(time, 6)} for i, time in enumerate(times)]
    text = json.dumps({"video": video.file_name, "frames": named}, indent=1)
    (folder / FRAMES).write_text(text + "\n", encoding="utf-8")


_FRAME_FILE = re.compile(r"(\d{6,})\.(ids\.png|color\.png|overlay\.png|confidence\.png|probabilities\.npz)")


def _remove_others(folder: Path, names: set[str]) -> None:
    """Remove the pictures of frames that an earlier call wrote and this one did not, as with a larger --every: they
    would lie among its own, and the table does not name them."""
    for path in folder.iterdir():
        match = _FRAME_FILE.fullmatch(path.name)
        if match is not None and match[1] not in names:
            path.unlink()


@dataclass(frozen=True)
class FrameWork:
    """What is done with frames, in threads."""

    work: ImageWork
    plan: Callable[[tuple[int, int]], Plan]
    folder: Path | None
    """For the pictures of each frame; None: there are none."""

    def __call__(self, frames: list[Frame]) -> list[tuple[float, NDArray[np.uint8]]]:
        """The time and the overlay, uint8 [H,W,3], of each."""
        work, pictures = self.work, self.work.pictures
        images = [frame.image for frame in frames]
        plan = self.plan(_shape(frames[0]))
        groups = [images] if plan.windows is None else [[image] for image in images]
        said = [one for group in groups for one in work.see(group, plan)]
        found = []
        for frame, one in zip(frames, said, strict=True):
            work.look.stop.check()
            if self.folder is not None:
                pictures.save(self.folder / _frame_name(frame.number), frame.image, one)
            if "overlay" in pictures.kinds:
                _paint(frame.image, one.label, work)
            found.append((frame.seconds, frame.image))
        return found


def _paint(image: NDArray[np.uint8], label: NDArray[np.uint8], work: ImageWork) -> None:
    """Lay the label's colours over an image, in place and strip by strip."""
    for top in range(0, len(label), STRIP_ROWS):
        rows = slice(top, top + STRIP_ROWS)
        image[rows] = overlay(image[rows], label[rows], work.pictures.classes)


def _shape(frame: Frame) -> tuple[int, int]:
    return frame.image.shape[0], frame.image.shape[1]


def _frame_name(number: int) -> str:
    return f"{number:06}"


def _chunks(frames: Iterable[Frame], most: int) -> Iterator[list[Frame]]:
    chunk: list[Frame] = []
    for frame in frames:
        chunk.append(frame)
        if len(chunk) == most:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
