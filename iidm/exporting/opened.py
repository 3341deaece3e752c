"""Files that were written, run as whoever gets them runs them: by onnxruntime, or by torch alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from .graph import IMAGE, quietly

Labels = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""uint8 [B,H,W,3] RGB -> uint8 [B,H,W]."""


def open_file(path: Path) -> Labels:
    """A .onnx or .pt2 file on the CPU, with as many threads as torch has."""
    return _open_onnx(path) if path.suffix == ".onnx" else _open_torch(path)


def _open_onnx(path: Path) -> Labels:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # an error is raised; some versions also print it
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def labels(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        found: NDArray[np.uint8] = session.run(["label"], {IMAGE: image})[0]
        return found

    return labels


def _open_torch(path: Path) -> Labels:
    with quietly():
        module = torch.export.load(path).module()

    def labels(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        with torch.no_grad():
            found: NDArray[np.uint8] = module(torch.from_numpy(image))[0].numpy()
        return found

    return labels
