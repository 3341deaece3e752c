"""Whole images from their files, by DALI and without torch, which a process that prepares images does not need.

Images are resized with DALI's antialiased bilinear filter; the field's cv2 bilinear aliases when it shrinks. They are
turned as their EXIF orientation says, as cameras mean it and labeling tools show them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from nvidia.dali import fn, pipeline_def, types

from ...types import UserError
from ..files.encoded import decodable_bytes
from ..files.headers import image_header
from ..files.reading import Encoded
from .generated_code import generated_in_memory

MOST_PX = 2**30
"""Pixels of the largest image that DALI decodes (OpenCV's CV_IO_MAX_IMAGE_PIXELS); it does not say so."""
RESIZE = {"interp_type": types.INTERP_LINEAR, "antialias": True}
_SINGLE_LOCK = threading.Lock()


class DaliDecoder:
    """Decodes and resizes whole images, of any sizes side by side.

    Args:
        device_id: number of the GPU where the images lie afterwards; None: they stay with the CPU.
        batch_size: most images of one call.
        threads: decoding threads.
    """

    def __init__(self, *, device_id: int | None, batch_size: int, threads: int) -> None:
        @pipeline_def(
            batch_size=batch_size,
            num_threads=threads,
            device_id=device_id,
            prefetch_queue_depth=1,
            exec_dynamic=True,
            enable_conditionals=True,
        )
        def graph() -> Any:
            encoded = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1)
            is_resized = fn.external_source(name="is_resized", dtype=types.BOOL, ndim=0)
            size = fn.external_source(name="size", dtype=types.FLOAT, ndim=1)
            image = fn.decoders.image(encoded, **decoder_arguments(on_gpu=device_id is not None))
            if is_resized:
                image = fn.resize(image, size=size, **RESIZE)
            return image

        with generated_in_memory():
            self._pipeline = graph()
        self._pipeline.build()

    def __call__(self, encoded: Sequence[Encoded], sizes: Sequence[tuple[int, int] | None]) -> list[Any]:
        """DALI tensors, uint8 [H,W,3] RGB, one a file, resized to its (H, W) or, for None, as large as on disk.

        Raises:
            RuntimeError: DALI cannot decode one of them (it does not say which; see `raise_damaged`).
        """
        self._pipeline.feed_input("encoded", list(encoded))
        self._pipeline.feed_input("is_resized", [np.array(size is not None) for size in sizes])
        self._pipeline.feed_input("size", [np.array(size or (1, 1), np.float32) for size in sizes])
        (images,) = self._pipeline.run()
        return [images[place] for place in range(len(images))]


def decoder_arguments(*, on_gpu: bool) -> dict[str, Any]:
    """Of all decoders: on a GPU nvJPEG decodes JPEGs, all else is decoded on the host.

    There it is told to interpolate colour, as libjpeg does on a CPU. By default it repeats it, which makes test images
    differ by two grey levels on average.
    """
    common = {"output_type": types.RGB, "adjust_orientation": True}
    return {"device": "mixed", "jpeg_fancy_upsampling": True, **common} if on_gpu else {"device": "cpu", **common}


def read_image(path: Path) -> NDArray[np.uint8]:
    """Decode one image as the loaders do: uint8 [H,W,3] RGB at the size on disk, upright.

    Gray and palette images become RGB, alpha is dropped.

    Raises:
        UserError: the file is missing, too large, of a kind that is not read (files/headers.py) or cannot be decoded;
            the message names it.
    """
    image_header(path, most_px=MOST_PX)
    return decode_single(path, decodable_bytes(path))


def read_image_size(path: Path) -> tuple[int, int]:
    """(H, W) of what `read_image` returns, by the file's header.

    Raises:
        UserError: as there, unless the damage lies behind the header.
    """
    return image_header(path, most_px=MOST_PX).size


def decode_single(path: Path, encoded: Encoded, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """uint8 [H,W,3] of the bytes of one image, resized to `size` (H, W). Raises UserError where DALI cannot."""
    with _SINGLE_LOCK:
        try:
            return np.array(_single_decoder()([encoded], [size])[0])
        except RuntimeError:
            # A DALI pipeline is of no use after an error.
            _single_decoder.cache_clear()
            raise UserError(
                f"Image {path} is damaged or is no image. Copy or download it again, or remove it."
            ) from None


def raise_damaged(paths: Sequence[Path]) -> None:
    """Raise the UserError of the first file that cannot be decoded; DALI's own error names none."""
    for path in dict.fromkeys(paths):
        read_image(path)


@cache
def _single_decoder() -> DaliDecoder:
    return DaliDecoder(device_id=None, batch_size=1, threads=1)


def decoding_threads() -> int:
    """Cores that this process may use, 8 at most."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 8)
