"""What a DALI graph is fed with: the files or crops of one sample after the other."""

from __future__ import annotations

import copy
import multiprocessing
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..types import IGNORE_INDEX, UserError
from .arrays import read_crop
from .sampling import Draw, Sampler
from .worker_process import follow_the_main_process


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
        assert all(sampler.dataset.is_raw == self.is_raw for sampler, _ in streams)

    def starting_at(self, step: int) -> SampleSource:
        """The same source from another step on; the samplers are shared."""
        source = copy.copy(self)
        source.start_step = step
        return source

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
            # Streams without labels fill their place: every output of a DALI pipeline has the same batch size.
            label = np.full(self.crop_size, IGNORE_INDEX, np.uint8) if draw.label is None else draw.label
            flip = np.array(draw.flip, np.int32)
            try:
                if self.is_raw:
                    return self.read_raw(draw), flip, label
                return sampler.dataset.read_image_file(draw.sample), *self._window(sampler, draw), flip, label
            except UserError as error:
                sampler.give_up(draw.sample.image, error)

    def read_raw(self, draw: Draw) -> NDArray[np.uint8]:
        """uint8 [h,w,3]: the crop of an uncompressed image, not yet mirrored."""
        return read_crop(draw.sample.image, draw.size, draw.anchor, self.crop_size)

    def _window(self, sampler: Sampler, draw: Draw) -> tuple[NDArray[Any], ...]:
        """How the image is decoded (whole and resized, whole, or where the crop lies only) and where the crop lies:
        its corners on disk (y, x), its size (h, w) and its anchor (y, x) at training resolution.

        Only prepared files are known to be whole: of another one that is cut off, some crops could be decoded and some
        not, and which image stands in would depend on what was drawn before.
        """
        anchor = np.array(draw.anchor)
        window_size = np.minimum(self.crop_size, np.array(draw.size) - anchor)
        scale = np.divide(draw.disk_size, draw.size)
        return (
            np.array(draw.size != draw.disk_size),
            np.array(sampler.dataset.prepared is None),
            (anchor * scale).astype(np.float32),
            ((anchor + window_size) * scale).astype(np.float32),
            window_size.astype(np.int32),
            anchor.astype(np.int32),
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Unpickling happens in a worker process."""
        self.__dict__.update(state)
        if multiprocessing.parent_process() is not None and threading.current_thread() is threading.main_thread():
            follow_the_main_process()
