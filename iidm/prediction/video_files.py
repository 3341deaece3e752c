"""Reading the frames of a video, and writing one, with PyAV."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from iidm.types import UserError

CODECS = ("libx264", "libopenh264", "mpeg4")
"""H.264, by whichever encoder the build of FFmpeg has, else MPEG-4."""
_OPTIONS = {"libx264": {"crf": "20", "preset": "veryfast"}, "mpeg4": {"qscale": "3"}}
_TICKS = 60_000
"""A second of a written video; MPEG-4 has no more than 65,535, and the usual frame rates divide it."""
_BT709, _UNSPECIFIED, _LIMITED = 1, 2, 1
"""FFmpeg's numbers of colour spaces, and of the range 16 to 235."""
_HD_ROWS = 720
_MISSING_FRAMES, _MISSING_S = 2, 0.5
"""Of what a file's header promises: up to so much may be missing of one that is whole (edit lists, rounding)."""


class Frame(NamedTuple):
    """A frame, upright."""

    number: int
    """0-based, in the video."""
    seconds: float
    """From the begin of the video on."""
    image: NDArray[np.uint8]
    """uint8 [H,W,3] RGB."""


def pyav() -> ModuleType:
    """The library. Raises UserError where it is missing."""
    try:
        import av
    except ImportError as error:
        raise UserError(f"Videos need PyAV: pip install 'iidm[video]' ({error}).") from None
    av.logging.set_level(av.logging.PANIC)  # what is wrong with a file is told here, with its name
    return av


class VideoReader:
    """The frames of a video file, a context. What cannot be read is left out; `problem` says so afterwards."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.av = pyav()
        try:
            # Titles and the like are not used, and old cameras write them in other encodings. PyAV from 19 on takes
            # them as they are, and has no such option.
            options = {"metadata_errors": "replace"} if int(self.av.__version__.split(".")[0]) < 19 else {}
            self._container = self.av.open(str(path), **options)
        except (self.av.FFmpegError, OSError) as error:
            raise UserError(
                f"Video {path} cannot be read ({_reason(error)}): it is no video, damaged, or cut off (without its end"
                " many an .mp4 tells nothing). Copy or download it again."
            ) from None
        if not self._container.streams.video:
            self._container.close()
            raise UserError(f"Video {path} holds no pictures.")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"
        self.rate: Fraction = self._stream.average_rate or self._stream.guessed_rate or Fraction(25)
        self.frame_count: int | None = self._stream.frames or None
        """As the file says; None: it does not."""
        self._start_s = (self._container.start_time or 0) / 1e6
        """Of recorders' streams (.ts, .mts) the time since the recorder started, often hours; players begin here."""
        self._promised_s = self._container.duration / 1e6 if self._container.duration else None
        self._is_whole_avi = self._container.format.name == "avi" and self._has_all_slots()
        self._read = self._damaged = 0
        self._end_s: float | None = None
        self._broke_off = ""

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self._container.close()

    def frames(self, every: int) -> Iterator[Frame]:
        """Every N-th frame, as large as the first one, turned as the file says that it is to be shown."""
        shape: dict[str, int] = {}
        for number, frame in enumerate(self._decoded()):
            is_timed = frame.time is not None
            seconds, start_s = (float(frame.time), self._start_s) if is_timed else (float(number / self.rate), 0.0)
            self._read, self._end_s = number + 1, seconds + float(1 / self.rate)
            if number % every:
                continue
            shape = shape or {"width": frame.width, "height": frame.height}
            image = frame.reformat(format="rgb24", src_colorspace=self._colorspace(frame), **shape).to_ndarray()
            turns = round(frame.rotation / 90) % 4
            yield Frame(number, max(seconds - start_s, 0.0), np.ascontiguousarray(np.rot90(image, turns)))

    def _has_all_slots(self) -> bool:
        """Whether an AVI is as long as its header says. Its frames are slots, and recorders leave those empty in which
        nothing came, or nothing changed; FFmpeg passes them over. Of one that is cut off it takes as the duration, in
        slots, the share of them that its bytes are."""
        slots = self._stream.duration
        return slots is not None and slots >= self._stream.frames - _MISSING_FRAMES

    def _colorspace(self, frame: Any) -> Any:
        """How its colours are coded; of large frames that do not say so as players take them, BT.709 and not BT.601."""
        is_told = frame.colorspace != _UNSPECIFIED
        return None if is_told or frame.height < _HD_ROWS else self.av.video.reformatter.Colorspace.ITU709

    def _decoded(self) -> Iterator[Any]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except (self.av.FFmpegError, OSError) as error:
                self._broke_off = _reason(error)
                packet = None
            try:
                yield from self._stream.decode(packet)
            except self.av.EOFError:
                return
            except (self.av.FFmpegError, OSError):
                self._damaged += 1
            if packet is None or packet.dts is None and packet.size == 0:
                return

    @property
    def problem(self) -> str:
        """What of the file could not be read, once all was; empty where it is whole."""
        told = []
        expected, promised_s = self.frame_count, self._promised_s
        if expected:
            if self._read < expected - _MISSING_FRAMES and not self._is_whole_avi:
                told.append(f"{self._read} of {expected} frames could be read")
        elif promised_s and self._end_s is not None and self._read and self._end_s < promised_s - _MISSING_S:
            told.append(f"{self._end_s:.1f} of {promised_s:.1f} seconds could be read")
        if not self._read:
            told = ["no frame of it can be read"]
        if self._damaged:
            told.append(f"{self._damaged} damaged pieces were passed over")
        if self._broke_off:
            told.append(f"reading broke off ({self._broke_off})")
        return f"Video {self.path} is cut off or damaged: {', '.join(told)}." if told else ""


class VideoWriter:
    """Writes an .mp4, a context: whole at its end, or not at all."""

    def __init__(self, path: Path, rate: Fraction) -> None:
        self.path, self._rate = path, rate
        self._half = path.with_name(f".{path.name}")
        self._av = pyav()
        self._stream: Any = None
        self._last = -1
        self.is_padded = False
        """Whether a row or a column was added: H.264 has even sizes only."""

    def __enter__(self) -> VideoWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._container = self._av.open(str(self._half), "w", format="mp4")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        is_whole = kind is None and self._stream is not None
        try:
            with closing(self._container):  # which writes the table of contents: the disk may be full for it too
                if is_whole:
                    self._container.mux(self._stream.encode(None))
            if is_whole:
                os.replace(self._half, self.path)
        finally:
            self._half.unlink(missing_ok=True)

    def add(self, seconds: float, image: NDArray[np.uint8]) -> None:
        """Write a frame, uint8 [H,W,3] RGB of one size for all, to be shown at a time later than that before it."""
        height, width = image.shape[:2]
        if height % 2 or width % 2:
            self.is_padded = True
            image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._stream is None:
            self._stream = self._new_stream(image.shape[0], image.shape[1])
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=self._av.video.reformatter.Colorspace.ITU709)
        self._last = frame.pts = max(round(seconds * _TICKS), self._last + 1)
        frame.time_base = Fraction(1, _TICKS)
        self._container.mux(self._stream.encode(frame))

    def _new_stream(self, height: int, width: int) -> Any:
        name = next(name for name in CODECS if name in self._av.codecs_available)
        stream = self._container.add_stream(name, rate=self._rate, options=_OPTIONS.get(name, {}))
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        context = stream.codec_context
        context.time_base = Fraction(1, _TICKS)
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED
        return stream


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)
