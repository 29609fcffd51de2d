"""onnxruntime's ``quantize_static``, all as it is by default, after the preparation that its documentation asks for."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

#: Rows that show the ranges of the activations.
ROWS = 256


class Rows(CalibrationDataReader):
    """One row a call, as most examples do."""

    def __init__(self, path: str) -> None:
        with np.load(path) as given:
            inputs = {name: given[name][:ROWS] for name in given.files if name != "label"}
        count = len(next(iter(inputs.values())))
        self.rows = iter([{name: rows[i : i + 1] for name, rows in inputs.items()} for i in range(count)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next row of each input."""
        return next(self.rows, None)


if __name__ == "__main__":
    model, data, output = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        prepared = str(Path(folder, "prepared.onnx"))
        quant_pre_process(model, prepared)
        quantize_static(prepared, output, Rows(data))
