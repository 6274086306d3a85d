"""Explicit int8: quantize/dequantize pairs around the matrix products, scales from real inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Feed = dict[str, NDArray[np.generic]]


def quantize(source: Path, target: Path, calibration: Iterable[Feed]) -> None:
    """Write an int8 version of a float32 ONNX file: weights per channel, activations by their observed range.

    calibration: inputs as the server will see them; about a hundred pictures or clips are enough.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self, feeds: Iterator[Feed]) -> None:
            self._feeds = feeds

        def get_next(self) -> Feed | None:  # pyright: ignore[reportIncompatibleMethodOverride] # None ends it
            return next(self._feeds, None)

    quantize_static(
        source,
        target,
        Reader(iter(calibration)),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["MatMul", "Gemm", "Conv"],
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        # TensorRT wants symmetric scales.
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
    )
