"""What a DALI graph is fed with: the files or crops of one sample after the other."""

from __future__ import annotations

import math
import multiprocessing
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...processes import leave_signals_to_the_main_process
from ...types import UserError
from ..prepared.arrays import map_rows, read_crop
from .sampling import Draw, Sampler
from .shared_arrays import SharedArrays


class SampleSource:
    """Gives DALI one sample after the other; picklable, so that worker processes can hold a copy each.

    Args:
        streams: each stream's sampler and its crops a step, in the order of the batch; all raw, or none.
        start_step: step of the first batch.
        rank, world_size: this process among those that train together: each draws its own part of the stream's samples.
    """

    def __init__(
        self, streams: Sequence[tuple[Sampler, int]], start_step: int, *, rank: int = 0, world_size: int = 1
    ) -> None:
        self.streams = tuple(streams)
        self.start_step = start_step
        self.rank, self.world_size = rank, world_size
        self.batch_size = sum(count for _, count in streams)
        self.crop_size = streams[0][0].rules.size
        self.is_raw = streams[0][0].dataset.is_raw
        self.is_scaled = any(sampler.rules.is_scaled for sampler, _ in streams)
        assert all(sampler.dataset.is_raw == self.is_raw for sampler, _ in streams)
        self._for_workers: SharedArrays | None = None

    def starting_at(self, step: int) -> SampleSource:
        """The same source from another step on; the samplers are shared."""
        return SampleSource(self.streams, step, rank=self.rank, world_size=self.world_size)

    def sampler(self, step: int, place: int) -> tuple[Sampler, int]:
        """Who draws the crop at `place` of the batch of `step`, and its sample number."""
        for sampler, count in self.streams:
            if place < count:
                return sampler, (step * self.world_size + self.rank) * count + place
            place -= count
        raise IndexError("the batch has no such place")

    def draw(self, step: int, place: int) -> Draw:
        """The crop at `place` of the batch of `step`."""
        sampler, number = self.sampler(step, place)
        return sampler.draw(number)

    def __call__(self, info: Any) -> tuple[NDArray[Any], ...]:
        """What the graph of `train_pipeline` needs of the sample that DALI's SampleInfo names."""
        sampler, number = self.sampler(self.start_step + info.iteration, info.idx_in_batch)
        while True:
            draw = sampler.draw(number)
            label = draw.label
            flip = np.array(draw.flip, np.int32)
            try:
                if self.is_raw and self.is_scaled:
                    return *self._read_scaled(draw), flip, label
                if self.is_raw:
                    return self.read_raw(draw), flip, label
                encoded = sampler.dataset.read_image_file(draw.sample)
                is_resized, *window = _window(draw, self.crop_size)
                # Only prepared files are known to be whole: of another one that is cut off, some crops could be decoded
                # and some not, and which image stands in would depend on what was drawn before. Where an image is
                # resized, the filter reads beyond the crop.
                is_cut = np.array(sampler.dataset.prepared is None and not is_resized)
                is_whole = np.array(is_resized or is_cut)
                return encoded, is_whole, is_resized, is_cut, *window, flip, label
            except UserError as error:
                sampler.give_up(draw.sample.image, error)

    def read_raw(self, draw: Draw) -> NDArray[np.uint8]:
        """uint8 [h,w,3]: the crop of an uncompressed image, neither resized nor mirrored yet: with `is_scaled` all that
        the filter reads, else of the crop size."""
        if self.is_scaled and draw.size != draw.disk_size:
            return self._read_scaled(draw)[0]
        return read_crop(draw.sample.image, draw.size, draw.anchor, self.crop_size)

    def _read_scaled(self, draw: Draw) -> tuple[NDArray[Any], ...]:
        """Of an uncompressed image: the region that the crop is made of, whether it is resized, where the crop lies in
        the region (y, x of its corners), and its size (h, w)."""
        is_resized, roi_start, roi_end, window_size, _ = _window(draw, self.crop_size)
        if not is_resized:
            crop = read_crop(draw.sample.image, draw.size, draw.anchor, self.crop_size)
            return crop, is_resized, roi_start, roi_end, np.array(self.crop_size, np.int32)
        shrinks = max(old / new for old, new in zip(draw.disk_size, draw.size, strict=True))
        margin = math.ceil(max(shrinks, 1.0)) + 1  # what a triangular filter reads beyond the edge, and one more
        first = np.maximum(np.floor(roi_start).astype(int) - margin, 0)
        last = np.minimum(np.ceil(roi_end).astype(int) + margin, draw.disk_size)
        region = map_rows(draw.sample.image, (*draw.disk_size, 3), int(first[0]), int(last[0]))[:, first[1] : last[1]]
        start = first.astype(np.float32)
        return np.ascontiguousarray(region), is_resized, roi_start - start, roi_end - start, window_size

    def __reduce__(self) -> tuple[Any, ...]:
        if self._for_workers is None:
            self._for_workers = SharedArrays({**self.__dict__, "_for_workers": None})
        return _in_a_worker, (self._for_workers,)


def _in_a_worker(state: dict[str, Any]) -> SampleSource:
    """The source in a process that it is sent to."""
    source = SampleSource.__new__(SampleSource)
    source.__dict__.update(state)
    if multiprocessing.parent_process() is not None and threading.current_thread() is threading.main_thread():
        leave_signals_to_the_main_process()
    return source


def _window(draw: Draw, crop_size: tuple[int, int]) -> tuple[NDArray[Any], ...]:
    """Whether an image is resized, and where the crop lies: its corners on disk (y, x), its size (h, w) where the image
    does not end before, and its anchor (y, x) in the resized image."""
    anchor = np.array(draw.anchor)
    window_size = np.minimum(crop_size, np.array(draw.size) - anchor)
    scale = np.divide(draw.disk_size, draw.size)
    return (
        np.array(draw.size != draw.disk_size),
        (anchor * scale).astype(np.float32),
        ((anchor + window_size) * scale).astype(np.float32),
        window_size.astype(np.int32),
        anchor.astype(np.int32),
    )
