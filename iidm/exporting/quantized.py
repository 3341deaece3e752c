"""An ONNX file in 8 bits: onnxruntime's static quantization, calibrated on images of the target."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .graph import IMAGE, quietly, save_onnx

OPERATIONS = ("Conv", "MatMul", "Gemm")
"""What is computed in 8 bits: where nearly all of the arithmetic and the weights are. Norms, softmax and resizing stay
in float32."""


def write_int8(source: Path, path: Path, images: Iterable[NDArray[np.uint8]], facts: Mapping[str, str]) -> None:
    """The float32 file `source` with weights and inputs of OPERATIONS in int8 (QDQ form), weights of each channel with
    a scale of its own, inputs with the range that they have on `images` (uint8 [H,W,3] RGB)."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc, unused-ignore]
        """The images one by one."""

        def __init__(self) -> None:
            self.images: Iterator[NDArray[np.uint8]] = iter(images)

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            image = next(self.images, None)
            return None if image is None else {IMAGE: image[None]}

    with quietly():
        quantize_static(
            source,
            path,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=list(OPERATIONS),
        )
    save_onnx(onnx.load(path), path, facts)
