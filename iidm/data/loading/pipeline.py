"""The DALI graphs: encoded bytes or raw crops in, crops or whole images on the device out.

Training from encoded images: decode -> resize to training resolution -> crop, 0 beyond the image's end -> flip. From
raw ones: flip. With `data.scale_range` each crop is resized by a factor of its own, also from raw images. The sampler
has already cut the label with the same numbers (sampling.py), so the pair needs no second graph;
tests/data/test_pipeline.py and test_scaling.py hold image and label to each other pixel by pixel. Images are resized
and turned as decoding.py says, labels are taken as stored. Every size, anchor and region here is in the turned image
(DALI's decoder turns before it cuts).

All streams of one kind ride in one batch: [source | target | unlabeled]; the loader splits it into views.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.plugin.pytorch import feed_ndarray

from ...processes import started_for_this_process
from ..files.reading import Encoded
from .decoding import RESIZE, DaliDecoder, decoder_arguments
from .generated_code import generated_in_memory
from .source import SampleSource


def train_pipeline(
    source: SampleSource, *, device: torch.device, threads: int, workers: int = 0, prefetch: int = 2
) -> Any:
    """The training graph, built: each run gives uint8 [B,h,w,3] RGB crops and uint8 [B,h,w] labels.

    Args:
        source: what to load.
        device: where the outputs lie. On CUDA nvJPEG decodes JPEGs; PNGs are decoded on the host, as everywhere.
        threads: decoding threads.
        workers: processes that run `source`, started by spawn, as CUDA and threads do not survive a fork; 0: the
            caller's thread.
        prefetch: batches that DALI works on ahead.
    """

    options = {
        "batch_size": source.batch_size,
        "num_threads": threads,
        "device_id": _device_id(device),
        "prefetch_queue_depth": prefetch,
        "exec_dynamic": True,
        "enable_conditionals": True,
        "py_num_workers": max(workers, 1),
        "py_start_method": "spawn",
    }
    feed = {
        "source": source,
        "batch": False,
        "parallel": workers > 0,
        **({"prefetch_queue_depth": prefetch} if workers else {}),
    }
    graph = (_scaled_raw_graph if source.is_scaled else _raw_graph) if source.is_raw else _encoded_graph
    with generated_in_memory():
        pipeline = pipeline_def(graph, **options)(source.crop_size, device, feed)
    with started_for_this_process():
        pipeline.build()
    return pipeline


def _raw_graph(crop_size: tuple[int, int], device: torch.device, feed: dict[str, Any]) -> Any:
    """The source has read the crop already: nothing is left but to mirror it."""
    image, flip, label = fn.external_source(
        num_outputs=3, dtype=[types.UINT8, types.INT32, types.UINT8], ndim=[3, 0, 2], **feed
    )
    if device.type == "cuda":
        image, label = image.gpu(), label.gpu()
    return fn.flip(image, horizontal=flip), label


def _scaled_raw_graph(crop_size: tuple[int, int], device: torch.device, feed: dict[str, Any]) -> Any:
    """The source has read what the crop is made of."""
    image, is_resized, roi_start, roi_end, window_size, flip, label = fn.external_source(
        num_outputs=7,
        dtype=[types.UINT8, types.BOOL, types.FLOAT, types.FLOAT, types.INT32, types.INT32, types.UINT8],
        ndim=[3, 0, 1, 1, 1, 0, 2],
        **feed,
    )
    if device.type == "cuda":
        image, label = image.gpu(), label.gpu()
    image = fn.reshape(image, layout="HWC")  # as `resize` gives it: both ways must agree
    if is_resized:
        size = fn.cast(window_size, dtype=types.FLOAT)
        image = fn.resize(image, size=size, roi_start=roi_start, roi_end=roi_end, **RESIZE)
    return fn.flip(_padded(image, crop_size), horizontal=flip), label


def _padded(image: Any, crop_size: tuple[int, int]) -> Any:
    """A crop that is 0 where the image has ended."""
    return fn.slice(image, start=[0, 0], shape=list(crop_size), axes=[0, 1], out_of_bounds_policy="pad", fill_values=0)


def _encoded_graph(crop_size: tuple[int, int], device: torch.device, feed: dict[str, Any]) -> Any:
    encoded, is_whole, is_resized, is_cut, roi_start, roi_end, window_size, anchor, flip, label = fn.external_source(
        num_outputs=10,
        dtype=[types.UINT8, *[types.BOOL] * 3, types.FLOAT, types.FLOAT, *[types.INT32] * 3, types.UINT8],
        ndim=[1, 0, 0, 0, 1, 1, 1, 1, 0, 2],
        **feed,
    )
    if is_whole:
        image = fn.decoders.image(encoded, **decoder_arguments(on_gpu=device.type == "cuda"))
    else:
        # A JPEG is decoded where the crop lies only: half the time.
        image = fn.decoders.image_slice(
            encoded, start=anchor, shape=window_size, axes=[0, 1], **decoder_arguments(on_gpu=device.type == "cuda")
        )
    # All images are together again before anything else is done: where no image goes a way, what a GPU's decoder gives
    # has no dimensions, and `resize` would end the run.
    if is_resized:
        # Only the crop is resized, not the image around it; the filter still reads beyond the crop's edge.
        size = fn.cast(window_size, dtype=types.FLOAT)
        image = fn.resize(image, size=size, roi_start=roi_start, roi_end=roi_end, **RESIZE)
    if is_cut:
        image = fn.slice(image, start=anchor, shape=window_size, axes=[0, 1])
    return fn.flip(_padded(image, crop_size), horizontal=flip), label.gpu() if device.type == "cuda" else label


class ImageDecoder:
    """Decodes and resizes whole images into tensors of torch.

    Args:
        device: where the images lie afterwards.
        batch_size: most images of one call.
        threads: decoding threads.
    """

    def __init__(self, *, device: torch.device, batch_size: int, threads: int) -> None:
        self.device = device
        self._decoder = DaliDecoder(device_id=_device_id(device), batch_size=batch_size, threads=threads)

    def __call__(self, encoded: Sequence[Encoded], sizes: Sequence[tuple[int, int] | None]) -> list[torch.Tensor]:
        """As `DaliDecoder` gives them."""
        return [own(image, self.device) for image in self._decoder(encoded, sizes)]


def own(output: Any, device: torch.device) -> torch.Tensor:
    """A DALI tensor as one of torch's on `device`, complete on return, that no later run of its pipeline writes to."""
    if device.type != "cuda":
        return torch.from_dlpack(output)  # no copy: the dynamic executor lets go of the buffer
    # Not by DLPack: a thread of DALI's waits for the whole device before it lets go of such a buffer. While a step is
    # being captured that breaks the capture, and before DALI 2.1 it ended the process (NVIDIA/DALI #6259).
    stream = torch.cuda.current_stream(device)
    tensor = torch.empty(output.shape(), dtype=torch.uint8, device=device)
    feed_ndarray(output, tensor, cuda_stream=stream)
    # DALI may write to its buffer again once `output` is gone: the copy must be over by then. Loaders call
    # this in their own thread on their own stream, so the training step does not wait.
    stream.synchronize()
    return tensor


def _device_id(device: torch.device) -> int | None:
    """DALI's number of a device: None is the CPU (-1 would look for a driver)."""
    if device.type != "cuda":
        return None
    return torch.cuda.current_device() if device.index is None else device.index
